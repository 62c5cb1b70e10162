/**
 * The staging service as a daemon's body: opens the data directory, token, register and threads, serves
 * agents and the REST API, keeps house. The only file of this layer that names real ones. Prints nothing,
 * parses no command line, handles no signal: the CLI does.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import { type Clock, systemClock } from '../base/clock.ts';
import { UnderstudyError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { tuneHeap } from '../base/memory.ts';
import { nodeDisk } from '../base/node-disk.ts';
import { KIB } from '../base/units.ts';
import { VERSION } from '../base/version.ts';
import type { DedupeDomain } from '../model/dedupe-domain.ts';
import { formatKeepRules } from '../model/keep-rules.ts';
import { PutQuota } from '../recovery/ec2/put-quota.ts';
import type { LaunchOptions } from '../recovery/runner.ts';
import { copyDestination } from '../store/copy/copy-place.ts';
import type { KeyOptions } from '../store/keys/open-vault.ts';
import { openNodeStore } from '../store/node-store.ts';
import { coolPacks } from '../store/objects/cold.ts';
import { isS3Place } from '../store/objects/s3-settings.ts';
import { openServicePlace, type Place, type PlaceOptions } from '../store/place.ts';
import type { CopyDestination, KeepRule, Store } from '../store/types.ts';
import { requireTls } from '../transport/loopback.ts';
import { createUpgrades } from '../transport/server.ts';
import { AgentTokens } from './agent-tokens.ts';
import { isAuthorized, presentedToken } from './api/auth.ts';
import type { ApiBackend } from './api/backend.ts';
import { createApiHandler } from './api/handler.ts';
import type { ApiServer, Durability } from './api-types.ts';
import { ClockGuard } from './clock-guard.ts';
import { Copies } from './copies.ts';
import { Failbacks } from './failbacks.ts';
import { type Listening, listen, parseListen, type TlsIdentity } from './listen.ts';
import { withJobs } from './machine-jobs.ts';
import { Machines } from './machines.ts';
import { type OpenJobs, openJobs } from './open-jobs.ts';
import { CheckRecords } from './plans/check-records.ts';
import { Checker } from './plans/checker.ts';
import { PointsInUse } from './points-in-use.ts';
import type { PrestageSettings } from './prestage/ports.ts';
import { Prestage } from './prestage/prestage.ts';
import { Register } from './register.ts';
import { Scrubber } from './scrubber.ts';
import { Servers } from './servers.ts';
import { openToken } from './token.ts';
import { Upkeep } from './upkeep.ts';
import { createWorkerVerifier } from './worker-verifier.ts';

export interface CopySettings {
  /** As the operator names them. */
  readonly places: readonly string[];
  /** Null: only when asked. */
  readonly everyMs: number | null;
  readonly keep?: readonly KeepRule[] | undefined;
  readonly bytesPerSecond: number;
  readonly verify: 'none' | 'new' | 'all';
  /** Of buckets among them. */
  readonly placeOptions?: PlaceOptions;
  /** Of the copies, where they are not those of the repository. */
  readonly keys?: KeyOptions | undefined;
}

export interface StagingOptions {
  readonly dataDir: string;
  /** HOST:PORT; port 0 takes any that is free. Beyond loopback only with `tls`. */
  readonly listen: string;
  /** Paths of PEM files. */
  readonly tls?: { readonly certFile: string; readonly keyFile: string } | undefined;
  readonly keep: readonly KeepRule[];
  /** Where the repository is: a directory or `s3://bucket/prefix`; else in the data directory. */
  readonly repo?: string | undefined;
  readonly placeOptions?: PlaceOptions;
  /** Told what is read while the repository is opened. */
  readonly onOpening?: ((what: string, done: number, total: number) => void) | undefined;
  /** Opens an encrypted repository, and makes a new one encrypted. */
  readonly keys?: KeyOptions;
  /** When a commit is acknowledged to the agent. */
  readonly durability?: Durability;
  /** Goes on with a repository whose journal is lost. */
  readonly adopt?: boolean;
  /** Goes on with a repository that lacks points which were sealed in it. */
  readonly acceptRollback?: boolean;
  /** Packs older than this go to a colder storage class. */
  readonly coldAfterMs?: number | undefined;
  /** For boot preparation; else this machine's own kernel. */
  readonly applianceKernel?: string | undefined;
  /** The operator has looked at the clock: points may be dropped by their age. */
  readonly trustClock?: boolean;
  /** Servers that may be told "have" of each other's contents. */
  readonly dedupeDomains?: readonly DedupeDomain[];
  /** Upkeep reads at most so many bytes a second. */
  readonly upkeepRate?: number;
  /** Other places that points are copied to. */
  readonly copy?: CopySettings;
  /** EBS snapshots that are kept ready. */
  readonly prestage?: PrestageSettings | null;
  readonly log: Log;
  readonly clock?: Clock;
  readonly retentionMs?: number;
  readonly collectionMs?: number;
  /** The repository is read wholly once in this time; 0: never by itself. */
  readonly scrubEveryMs?: number;
  /** Bytes a second; 0: no limit. */
  readonly scrubRate?: number;
  /** The newest point of each server is booted once in this time; 0: never by itself. */
  readonly checkEveryMs?: number;
  /** How, by the options of the target qemu. */
  readonly checkOptions?: LaunchOptions;
  /** The folder with the scripts that plans may run; without it none are run. */
  readonly scriptsDir?: string | undefined;
  /** Threads that verify contents. */
  readonly threads?: number;
}

export interface RunningStaging {
  /** Where agents and operators find it. */
  readonly url: string;
  /** Resolves after `close`; rejects when the service cannot go on (disk, corruption, a defect). */
  readonly ended: Promise<void>;
  /** Agents are told, what is committed is sealed. Resolves or rejects as `ended` does. */
  close(): Promise<void>;
}

const RETENTION_MS = 60_000;
const COLLECTION_MS = 600_000;
/** Upkeep works at most so much of the time: folds, collection, bases, figures. */
const UPKEEP_SHARE = 0.3;
/** A week, and less than a disk notices; a bucket bills for what is read, so there it must be asked for. */
const scrubEveryOf = (repo = ''): number => (isS3Place(repo) ? 0 : 7 * 86_400_000);
const SCRUB_RATE = 10_000_000;

async function readIdentity(tls: StagingOptions['tls']): Promise<TlsIdentity | null> {
  if (tls === undefined) return null;
  const read = async (path: string) => {
    try {
      return await readFile(path, 'utf8');
    } catch (cause) {
      throw new UnderstudyError('ERR_TLS_FILES', `cannot read ${path}`, { path }, cause);
    }
  };
  return { cert: await read(tls.certFile), key: await read(tls.keyFile) };
}

/**
 * Throws before anything is changed: ERR_USAGE, ERR_TLS_REQUIRED, ERR_TLS_FILES. Then what refuses the
 * data directory (ERR_DATA_IN_USE, ERR_DATA_FORMAT, ERR_JOURNAL_DAMAGED, ...), and ERR_LISTEN.
 */
export async function runStaging(options: StagingOptions): Promise<RunningStaging> {
  tuneHeap();
  const address = parseListen(options.listen);
  requireTls(address.host, options.tls !== undefined);
  const tls = await readIdentity(options.tls);
  const undo: (() => Promise<void>)[] = [];
  const shutDown = () => undoAll(undo);
  const ended = Promise.withResolvers<void>();
  // Whoever runs the service hears of it; without a listener it is not an unhandled rejection.
  ended.promise.catch(() => undefined);
  const onBroken = (error: UnderstudyError) => {
    options.log.error(error.message, { code: error.code, ...error.context });
    const end = () => ended.reject(error);
    // What cannot be closed any more has this very cause: it is what must be told.
    shutDown().then(end, end);
  };
  try {
    const core = await openCore(options, onBroken, undo);
    const { url } = await serve(options, core, { address, tls }, undo);
    options.log.info('staging runs', { url, version: VERSION, dataDir: options.dataDir });
    return {
      url,
      ended: ended.promise,
      close() {
        shutDown().then(ended.resolve, ended.reject);
        return ended.promise;
      },
    };
  } catch (error) {
    await shutDown();
    throw error;
  }
}

/** The last done first; all of it, also where a part fails: the first failure is thrown. */
async function undoAll(undo: (() => Promise<void>)[]): Promise<void> {
  const failures: unknown[] = [];
  for (const each of undo.splice(0).reverse()) {
    await each().catch((error: unknown) => failures.push(error));
  }
  if (failures.length > 0) throw failures[0];
}

interface Core {
  readonly store: Store;
  readonly servers: Servers;
  readonly token: string;
  readonly agentTokens: AgentTokens;
  readonly upkeep: Upkeep;
  readonly guard: ClockGuard;
  readonly scrubber: Scrubber;
  /** Where the repository is. */
  readonly repo: string;
  readonly copies: Copies;
  readonly jobs: OpenJobs;
  readonly prestage: Prestage;
  readonly checker: Checker;
  readonly failbacks: Failbacks;
}

async function openCore(
  options: StagingOptions,
  onBroken: (error: UnderstudyError) => void,
  undo: (() => Promise<void>)[],
): Promise<Core> {
  const { log, keep, clock = systemClock } = options;
  const folder = resolve(options.dataDir);
  const { store, place } = await openRepository(options, folder, undo);
  const token = await openToken(nodeDisk, folder, (count) => new Uint8Array(randomBytes(count)));
  const agentTokens = await AgentTokens.open(nodeDisk, folder, token);
  const register = await Register.open(nodeDisk, folder);
  const machines = await Machines.open(nodeDisk, folder, log);
  undo.push(() => machines.settled());
  const verifier = createWorkerVerifier(options.threads ?? Math.min(2, availableParallelism()));
  undo.push(() => verifier.close());
  const { durability = 'local' } = options;
  const ports = { clock, log, store, register, machines, verifier, durability, version: VERSION };
  const servers = new Servers({ ...ports, newId: randomUUID, onBroken });
  await servers.load();
  store.watchRescans((server) => servers.rescan(server));
  // Also where no agent is there to find out: a service that cannot write any more does not go on.
  store.watchFailure((error) => servers.broken(error));
  undo.push(() => servers.stop());
  const guard = await ClockGuard.open({
    ...{ disk: nodeDisk, folder, clock, log },
    newestMs: await store.newestReceivedMs(),
    isTrusted: options.trustClock ?? false,
  });
  // Before upkeep begins: open jobs hold their points, and so do chains of snapshots.
  const { prestage, quota } = await openPrestage(options, folder, store);
  undo.push(() => prestage.stop());
  const { scriptsDir = null, applianceKernel } = options;
  const machine = (server: string) => machines.get(server);
  const ec2 = { quota, chains: prestage, machine };
  const failbacks = new Failbacks({ clock, log, store, register, servers });
  const jobs = await openJobs({
    ...{ folder, clock, log, store, token, scriptsDir, ec2, applianceKernel },
    runners: (all) => [failbacks.runner(() => all)],
  });
  undo.push(() => jobs.jobs.close());
  prestage.start();
  const upkeep = new Upkeep({
    ...{ clock, log, store, guard, keep, onBroken },
    retentionMs: options.retentionMs ?? RETENTION_MS,
    collectionMs: options.collectionMs ?? COLLECTION_MS,
    onDropped: (server, points) => servers.dropped(server, points),
    ...coolingOf(place, options),
  });
  undo.push(() => upkeep.stop());
  const copies = await openCopies(options, store, guard);
  undo.push(() => copies.stop());
  const scrubber = await Scrubber.open({
    ...{ clock, log, store, disk: nodeDisk, folder, onBroken },
    everyMs: options.scrubEveryMs ?? scrubEveryOf(options.repo),
    bytesPerSecond: options.scrubRate ?? SCRUB_RATE,
  });
  undo.push(() => scrubber.stop());
  const checker = await openChecker(options, folder, { store, jobs, onBroken });
  undo.push(() => checker.stop());
  const running = { upkeep, guard, scrubber, copies, jobs, prestage, checker, failbacks };
  return { store, servers, token, agentTokens, repo: place.repo, ...running };
}

async function openRepository(
  options: StagingOptions,
  folder: string,
  undo: (() => Promise<void>)[],
): Promise<{ store: Store; place: Place }> {
  const { log, clock = systemClock } = options;
  const { repo, placeOptions = {}, adopt = false, dedupeDomains = [], upkeepRate } = options;
  const place = await openServicePlace(folder, repo, placeOptions, { clock, log });
  undo.push(() => place.close());
  const keys = options.keys && { keys: options.keys };
  const settings = {
    dedupeDomains,
    upkeepBytesPerSecond: upkeepRate ?? Number.POSITIVE_INFINITY,
    upkeepShare: UPKEEP_SHARE,
  };
  const store = await openNodeStore(folder, log, {
    ...{ place, adopt, settings, acceptRollback: options.acceptRollback ?? false },
    onOpening: options.onOpening,
    ...keys,
  });
  undo.push(() => store.close());
  return { store, place };
}

async function openChecker(
  { checkEveryMs = 0, checkOptions = {}, log, clock = systemClock }: StagingOptions,
  folder: string,
  core: Pick<Core, 'store' | 'jobs'> & { onBroken: (error: UnderstudyError) => void },
): Promise<Checker> {
  const { store, onBroken } = core;
  const { jobs, plans } = core.jobs;
  return new Checker({
    ...{ clock, log, store, jobs, verdicts: plans.verdicts, onBroken },
    records: await CheckRecords.open(nodeDisk, folder, log),
    standard: { everyMs: checkEveryMs, options: checkOptions },
  });
}

async function openPrestage(
  { prestage: settings = null, log, clock = systemClock }: StagingOptions,
  folder: string,
  store: Store,
): Promise<{ prestage: Prestage; quota: PutQuota }> {
  const perSecond = settings === null ? {} : { backgroundPerSecond: putsOf(settings) };
  const quota = new PutQuota(clock, perSecond);
  const ports = { clock, log, disk: nodeDisk, folder, store, quota, newId: randomUUID };
  return { prestage: await Prestage.open(ports, settings), quota };
}

const putsOf = ({ bytesPerSecond }: PrestageSettings): number => bytesPerSecond / (512 * KIB);

/** Where packs of some age are to go to a colder class. */
function coolingOf(
  { objects }: Place,
  { coldAfterMs, clock = systemClock }: StagingOptions,
): { cool?: () => Promise<number> } {
  if (objects === null || coldAfterMs === undefined) return {};
  return { cool: () => coolPacks(objects, clock.wallMs() - coldAfterMs) };
}

async function openCopies(
  { dataDir, repo, copy, log, clock = systemClock, keys: own }: StagingOptions,
  store: Store,
  guard: ClockGuard,
): Promise<Copies> {
  const sources = repo === undefined ? [dataDir] : [dataDir, repo];
  const places: CopyDestination[] = [];
  const keys = copy?.keys ?? own;
  for (const [i, given] of (copy?.places ?? []).entries()) {
    // A folder for each: what one copy has not named yet another one's start would remove.
    const scratch = join(resolve(dataDir), 'copying', String(i));
    const world = { clock, log };
    const options = copy?.placeOptions ?? {};
    const place = await copyDestination(given, sources, options, world, scratch);
    const open = async () => ({ ...(await place.open()), ...(keys && { keys }) });
    places.push({ ...place, open });
  }
  return new Copies({
    ...{ clock, log, store, places, newId: randomUUID },
    ...{ everyMs: copy?.everyMs ?? null, keep: copy?.keep, verify: copy?.verify ?? 'none' },
    bytesPerSecond: copy?.bytesPerSecond ?? 0,
    isClockTrusted: () => guard.doubt === null,
  });
}

async function serve(
  options: StagingOptions,
  core: Core,
  where: { address: ReturnType<typeof parseListen>; tls: TlsIdentity | null },
  undo: (() => Promise<void>)[],
): Promise<Listening> {
  const { log, keep, clock = systemClock } = options;
  const { store, servers, token, upkeep, guard, scrubber, repo, copies, jobs } = core;
  const { prestage, checker, failbacks, agentTokens } = core;
  const pointsInUse = new PointsInUse(clock, store);
  undo.push(() => pointsInUse.stop());
  const backend: ApiBackend = {
    ...{ store, clock, log, keep, stagingVersion: VERSION },
    ...{ repository: repo, durability: servers.durability },
    scrub: scrubber,
    jobs: jobs.jobs,
    plans: jobs.plans,
    prestage,
    failbacks,
    pointsInUse,
    servers: async () =>
      servers.describe().map(withKept(core, keep)).map(withJobs(jobs.jobs.list())),
    requestPoint: (server, timeoutMs) => servers.requestPoint(server, timeoutMs),
    machine: (server) => servers.machine(server),
    checker,
    admit: (server, hardwareId) => servers.admit(server, hardwareId),
    agentTokens: {
      tokenOf: (server) => agentTokens.tokenOf(server),
      serverOf: (presented) => agentTokens.serverOf(presented),
      revoke: async (server) => {
        await agentTokens.revoke(server);
        servers.revoked(server);
      },
    },
    receivedBytes: () => servers.receivedBytes(),
    retention: retentionOf(upkeep, guard),
    copies,
  };
  const upgrades = createUpgrades({
    passOf: ({ headers }) => {
      if (isAuthorized(headers, token)) return { only: null };
      const only = agentTokens.serverOf(presentedToken(headers) ?? '');
      return only === null ? null : { only };
    },
    onConnection: (connect, words, { only }) => servers.accept(connect, words, only),
  });
  const handler = createApiHandler(backend, token);
  const listening = await listen(where.address, where.tls, handler);
  jobs.door.serve(handler);
  undo.push(() => listening.close());
  listening.server.on('upgrade', upgrades.handle);
  return listening;
}

const retentionOf = (upkeep: Upkeep, guard: ClockGuard): ApiBackend['retention'] => ({
  get doubt() {
    return guard.doubt;
  },
  run: () => upkeep.retainNow(),
  resume: () => guard.resume(),
});

/** What is known of a server beyond its session: its policies, holds, snapshots in EC2, boot checks. */
const withKept =
  (
    { store, prestage, checker }: Pick<Core, 'store' | 'prestage' | 'checker'>,
    fallback: readonly KeepRule[],
  ) =>
  (server: ReturnType<Servers['describe']>[number]): ApiServer => {
    const policy = store.policies().find((each) => each.server === server.server);
    const { newestPoint } = server;
    return {
      ...server,
      keep: policy?.keep ?? formatKeepRules(fallback),
      prestage: prestage.find(server.server),
      check: checker.status(server.server),
      newestPoint: newestPoint && {
        ...newestPoint,
        hold: store.holdOf(newestPoint.id),
        copies: store.copiesOf(newestPoint.id),
      },
    };
  };
