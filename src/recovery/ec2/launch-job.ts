/**
 * A launch to EC2 as a job of staging. Its one thing written down beforehand is the launch's record in the
 * job's folder: whatever the record says, and what bears the job's tag, is what a cleanup removes; then the
 * record goes, too. A drill stands until it is stopped; with `check` it ends when EC2's checks have passed.
 */
import { join } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { nodeDisk } from '../../base/node-disk.ts';
import type { ImageReader, ListedPoint } from '../../store/types.ts';
import type { ImageOverlay } from '../image-overlay.ts';
import { checkOptions } from '../launch-options.ts';
import type { Launch, LaunchEnd, LaunchOptions, Made } from '../launcher.ts';
import { removeMade } from '../made.ts';
import { AwsConnection } from './aws-connection.ts';
import type { BorrowedChain, ChainLender } from './borrowed-chain.ts';
import { cleanUp } from './cleanup.ts';
import { Ec2Catalog } from './ec2-catalog.ts';
import { both, findAgain, stand, tellUp } from './instance-life.ts';
import { launchInstance, type VolumeSource } from './launch.ts';
import {
  chooseBootMode,
  chooseType,
  type FittedPlan,
  fitPlan,
  rootFirst,
  type SourceMachine,
} from './launch-choices.ts';
import { parsePlan } from './launch-plan.ts';
import type { LaunchRecord } from './launch-record.ts';
import type { PutQuota } from './put-quota.ts';
import { type RecordFile, recordFile } from './record-file.ts';
import { defaultRetry, type RetryPolicy } from './retry.ts';
import { checkShares } from './snapshot-check.ts';

/** What the service has for launches; each may be left out. */
export interface Ec2Ports {
  readonly quota?: PutQuota;
  readonly chains?: ChainLender;
  /** What the agent of a server told of its machine. */
  readonly machine?: (server: string) => SourceMachine | null;
  /** By volume: what is laid over the point's images. Called before anything is uploaded. */
  readonly prepare?: (launch: Launch) => Promise<ReadonlyMap<string, ImageOverlay>>;
}

const LAUNCH = 'ec2-launch';
/** Staging waits for a cleanup when it stops, and begins it again when it starts. */
const hastyRetry: RetryPolicy = { tries: 6, firstMs: 250, capMs: 5000 };
/** A quarter of an hour: what was uploaded goes when a launch fails, and may have taken hours. */
const patientRetry: RetryPolicy = { ...defaultRetry, tries: 68 };

const rules = {
  plan: { kind: 'text', like: /\S/, shape: 'a launch plan: JSON' },
  verify: { kind: 'choice', of: Object.keys(checkShares), standard: 'sample' },
  check: { kind: 'flag', standard: false },
  keepRunning: { kind: 'flag', standard: false },
} as const;

type OpenImage = (volume: string) => Promise<ImageReader>;

const connect = (clock: Clock, region: string | null, retry: RetryPolicy): AwsConnection =>
  new AwsConnection({ clock, random: Math.random }, { region: region ?? undefined, retry });

const journalAt = (path: string): RecordFile<LaunchRecord> => recordFile(nodeDisk, path, LAUNCH);

/** ERR_LAUNCH_OPTIONS, ERR_EC2_PLAN. */
export function readOptions(given: Readonly<Record<string, unknown>>): LaunchOptions {
  const text = typeof given.plan === 'object' ? JSON.stringify(given.plan) : given.plan;
  const options = checkOptions(rules, { ...given, plan: text });
  if (options.plan === undefined) {
    throw new UnderstudyError('ERR_LAUNCH_OPTIONS', 'the target ec2 needs `plan`');
  }
  parsePlan(String(options.plan), 'plan');
  return options;
}

/**
 * Looks at the plan, the root disk, the subnet and the instance type: AWS is asked, and nothing is made. The
 * plan that it returns has what was chosen filled in, so that it stays so, whatever is told later.
 */
export async function checkLaunch(
  { clock, machine }: Ec2Ports & { readonly clock: Clock },
  given: Readonly<Record<string, unknown>>,
  point: ListedPoint,
  openImage: OpenImage,
): Promise<LaunchOptions> {
  const options = readOptions(given);
  const volumes = point.volumes.map(({ volume }) => volume);
  const asked = parsePlan(String(options.plan), 'plan');
  const plan = fitPlan(asked, machine?.(point.server) ?? null, volumes);
  const [root] = rootFirst(point.volumes, plan.rootVolume);
  const image = await openImage(root!.volume);
  const aws = connect(clock, plan.region, hastyRetry);
  try {
    const bootMode = await chooseBootMode(plan, { volume: root!.volume, image });
    const catalog = new Ec2Catalog(aws, new AbortController().signal);
    const { name, reason } = await chooseType(catalog, plan, bootMode);
    const chosen = [...plan.reasons, `instance type ${name}: ${reason}`].join('; ');
    return { ...options, plan: filledIn(String(options.plan), plan), chosen };
  } finally {
    aws.close();
    image.close();
  }
}

function filledIn(text: string, { source, architecture, rootVolume }: FittedPlan): string {
  const chosen = Object.entries({ source, architecture, rootVolume });
  const known = Object.fromEntries(chosen.filter(([, value]) => value !== null));
  return JSON.stringify({ ...JSON.parse(text), ...known });
}

/** Everything that was open is filled in by now. */
const planOf = (options: LaunchOptions): FittedPlan =>
  fitPlan(parsePlan(String(options.plan), 'plan'), null, []);

/** The contract of launchers: src/recovery/launcher.ts. */
export async function runLaunch(
  ports: Ec2Ports & { readonly quota: PutQuota },
  given: Launch,
): Promise<LaunchEnd> {
  let isToldUp = given.notes.starts !== undefined;
  const up: Launch['up'] = async (access) => {
    await given.up(access);
    isToldUp = true;
  };
  const launch: Launch = { ...given, up };
  const path = join(launch.folder, 'ec2-launch.json');
  const isFailover = launch.kind === 'failover';
  await launch.making({ kind: LAUNCH, name: path, ...(isFailover && { isProduct: true }) });
  const plan = planOf(launch.options);
  const aws = connect(launch.clock, plan.region, patientRetry);
  try {
    const held = await journalAt(path).load();
    const isThere = held !== null && held.instanceId !== null;
    const instanceId = isThere
      ? await findAgain(launch, aws, held)
      : await bringUp(ports, launch, { aws, plan, path });
    if (instanceId === null || isOver(launch)) return 'done';
    await launch.phase('up');
    return await stand(launch, aws, instanceId);
  } catch (error) {
    if (launch.leave.aborted && !launch.stop.aborted) return 'left';
    if (launch.stop.aborted) return 'done';
    if (isFailover && !isToldUp) await keepUnseen(launch, path, error);
    throw error;
  } finally {
    aws.close();
  }
}

/**
 * An instance that EC2 was asked for runs, though what went wrong since kept us from seeing it: it may hold
 * new data by now, so a failover's goes by a discard alone.
 */
async function keepUnseen(launch: Launch, path: string, error: unknown): Promise<void> {
  const isSeen = error instanceof UnderstudyError && error.code === 'ERR_EC2_INSTANCE_FAILED';
  // One that was stopped has run.
  if (isSeen && !/^stopp/.test(String(error.context.state))) return;
  const held = await journalAt(path).load();
  if (held === null || held.instanceId === null) return;
  const { instanceId: instance, instanceType: type, imageId: image } = held;
  await launch.up({ instance, type: type!, image: image! });
  launch.say(`${instance} was asked for, and may have run: it is kept`);
}

/** A check that has passed ends the drill, unless it is to stay. */
const isOver = ({ options }: Launch): boolean =>
  options.check === true && options.keepRunning !== true;

interface Means {
  readonly aws: AwsConnection;
  readonly plan: FittedPlan;
  readonly path: string;
}

/** Uploads, registers and runs; the id of the instance. */
async function bringUp(
  ports: Ec2Ports & { readonly quota: PutQuota },
  launch: Launch,
  means: Means,
): Promise<string> {
  if (launch.options.chosen !== undefined) launch.say(String(launch.options.chosen));
  const images: ImageReader[] = [];
  let chain: BorrowedChain | null = null;
  try {
    const overlays = await ports.prepare?.(launch);
    chain = (await ports.chains?.borrow(launch.point.server, means.plan.region)) ?? null;
    const sources: VolumeSource[] = [];
    for (const { volume } of launch.point.volumes) {
      const image = await launch.openImage(volume);
      images.push(image);
      const overlay = overlays?.get(volume);
      const changed = (await chain?.changed(volume, launch.point.id)) ?? null;
      sources.push({
        ...{ volume, image, head: chain?.headOf(volume) ?? null },
        ...(changed !== null && { changed }),
        ...(overlay !== undefined && { overlay }),
      });
    }
    return await launchOver(launch, means, sources, ports.quota);
  } finally {
    // The image, where there is one by now, holds the snapshots that it uses.
    chain?.release();
    for (const image of images) image.close();
  }
}

async function launchOver(
  launch: Launch,
  { aws, plan, path }: Means,
  sources: readonly VolumeSource[],
  quota: PutQuota,
): Promise<string> {
  const { jobId, kind, point, options } = launch;
  await launch.phase('uploading');
  const done = await launchInstance(aws, {
    ...{ job: jobId, kind, server: point.server, point: point.id, plan, sources, quota },
    journal: journalAt(path),
    stop: both(launch),
    checkShare: checkShares[String(options.verify)]!,
    // A failover is up once it runs: what its checks say does not undo it.
    waitsForChecks: false,
    onProgress: (doneBytes, total) => launch.progress(doneBytes, total),
    onNote: (text) => launch.say(text),
  });
  await tellUp(launch, aws, done);
  return done.instanceId;
}

/** What the records say and what bears the jobs' tags, then the records; as often as it is called. */
export async function cleanLaunch(clock: Clock, made: readonly Made[]): Promise<void> {
  for (const { kind, name } of made) if (kind === LAUNCH) await cleanRecord(clock, name);
  await removeMade(made, clock);
}

async function cleanRecord(clock: Clock, path: string): Promise<void> {
  const record = await journalAt(path).load();
  // Nothing was asked of AWS before the record was there.
  if (record === null) return;
  const aws = connect(clock, record.region, hastyRetry);
  try {
    const stop = new AbortController().signal;
    await cleanUp(aws, {
      record,
      keepsInstance: false,
      removesVolumes: record.kind === 'failover',
      waitsForEnd: false,
      stop,
      onNote: () => undefined,
    });
  } finally {
    aws.close();
  }
}
