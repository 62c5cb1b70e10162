/**
 * Failbacks: carries out the steps of `lineage-state.ts` on live servers. Each is a job of the kind
 * `failback`, whose state is the register's: what a crash leaves is gone on with by the job's next life.
 *
 * What makes it safe: the name changes hands while nobody has a session (`Servers.shut`), so the last point
 * of a lineage is known exactly, and it is held before the change is durable. Nothing of either side is
 * dropped by a failback; the holds stay until an operator releases them.
 */
import { type Clock, sleep } from '../base/clock.ts';
import { UnderstudyError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { ServerId } from '../model/replication.ts';
import type { LaunchEnd, LaunchOptions, Made, Runner, Work } from '../recovery/runner.ts';
import type { ListedPoint, Store } from '../store/types.ts';
import type { ApiFailback, ApiFailbackPreview } from './api-types.ts';
import { describeFailback } from './failback-view.ts';
import type { Jobs } from './jobs/jobs.ts';
import {
  admitInstance,
  askToFinish,
  beginFailback,
  cancelFailback,
  type Failback,
  fence,
  type Holder,
  isActive,
  noteWritten,
} from './lineage-state.ts';
import type { Register } from './register.ts';
import type { Servers } from './servers.ts';

export interface FailbacksPorts {
  readonly clock: Clock;
  readonly log: Log;
  readonly store: Pick<Store, 'point' | 'holdPoint'>;
  readonly register: Register;
  readonly servers: Pick<
    Servers,
    'describe' | 'moment' | 'recordOf' | 'requestPoint' | 'shut' | 'durability'
  >;
}

/** What was written home of one volume, as `failback run` tells it. */
export interface WrittenReport {
  readonly volume: string;
  readonly point: string;
  readonly chunks: number;
  readonly different: number;
  readonly writtenBytes: number;
  /** Words of the machine that wrote. */
  readonly words: readonly string[];
}

const STEP_MS = 300;
/** After something went wrong. */
const RETRY_MS = 3000;
const LAST_CUT_MS = 120_000;
const MADE = 'failback';

const isWord = (value: string): boolean =>
  /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$|^i-[0-9a-f]{8,17}$/i.test(value);

const notFound = (job: string): UnderstudyError =>
  new UnderstudyError('ERR_FAILBACK_NOT_FOUND', `no failback "${job}"`);

export class Failbacks {
  private readonly ports: FailbacksPorts;

  constructor(ports: FailbacksPorts) {
    this.ports = ports;
  }

  /** The newest of each server, also those that are over. */
  list(): ApiFailback[] {
    return this.ports.register.all().flatMap((holder) => this.shown(holder));
  }

  /** ERR_FAILBACK_NOT_FOUND. */
  find(job: string): ApiFailback {
    const [shown] = this.shown(this.holderOf(job));
    return shown!;
  }

  /** What a failback would do; what its start refuses is refused. ERR_SERVER_NOT_FOUND, ERR_FAILBACK_STATE. */
  async preview(
    server: ServerId,
    given: Readonly<Record<string, unknown>>,
    jobs: Pick<Jobs, 'find' | 'refuseWork'>,
  ): Promise<ApiFailbackPreview> {
    const options = await this.check(given, server, jobs);
    jobs.refuseWork('failback', server);
    const expected = wordsOf(options);
    const { refused } = this.ports.servers.recordOf(server);
    const seen = refused.find(
      ({ hardwareId, words }) =>
        hardwareId === options.hardwareId || words.some((word) => expected.includes(word)),
    );
    const shown = this.ports.servers.describe().find((each) => each.server === server)!;
    const { newestPoint: newest } = shown;
    const job = options.job === undefined ? null : jobs.find(String(options.job));
    const hardwareId = options.hardwareId === undefined ? null : String(options.hardwareId);
    return {
      ...{ server, original: shown.hardwareId, since: shown.since, connected: shown.connected },
      ...{ state: shown.state, lagMs: shown.lagMs, job: job?.id ?? null },
      newestPoint: newest === null ? null : { id: newest.id, time: newest.time },
      jobPhase: job === null ? null : job.phase,
      ...{ instance: seen?.hardwareId ?? hardwareId, lastSeen: seen?.last ?? null },
    };
  }

  /** The services of the instance are stopped: the last cut is wanted. ERR_FAILBACK_*. */
  async finish(job: string, acceptsNewest: boolean): Promise<ApiFailback> {
    const { server } = this.holderOf(job);
    await this.ports.register.update(server, (known) => askToFinish(known, job, acceptsNewest));
    return this.find(job);
  }

  /** ERR_FAILBACK_*, ERR_POINT_NOT_FOUND, ERR_VOLUME_NOT_FOUND. */
  async written(job: string, { volume, words, ...told }: WrittenReport): Promise<ApiFailback> {
    const { register, store, servers, clock } = this.ports;
    const { server, failback } = this.holderOf(job);
    const point = await store.point(told.point);
    if (point.server !== server || !point.volumes.some((each) => each.volume === volume)) {
      const message = `point ${point.id} holds no ${volume} of ${server}`;
      throw new UnderstudyError('ERR_VOLUME_NOT_FOUND', message);
    }
    const { lastPoint } = failback!;
    const last = lastPoint === null ? [] : (await store.point(lastPoint)).volumes;
    const names = last.map((each) => each.volume);
    const report = { ...told, time: new Date(clock.wallMs()).toISOString() };
    const moment = await servers.moment(server);
    await register.update(server, (known) =>
      noteWritten(known, job, { volume, report, words }, names, moment),
    );
    return this.find(job);
  }

  runner(jobs: () => Pick<Jobs, 'find'>): Runner {
    return {
      kind: 'failback',
      check: (options, server) => this.check(options, server, jobs()),
      run: (work) => this.run(work),
      clean: (made) => this.clean(made),
    };
  }

  private shown(holder: Holder): ApiFailback[] {
    const server = this.ports.servers.describe().find((each) => each.server === holder.server);
    return holder.failback === undefined
      ? []
      : [describeFailback(holder, holder.failback, server ?? null)];
  }

  private holderOf(job: string): Holder {
    const found = this.ports.register.all().find(({ failback }) => failback?.job === job);
    if (found === undefined) throw notFound(job);
    return found;
  }

  private async check(
    { hardwareId = '', job = '' }: Readonly<Record<string, unknown>>,
    server: ServerId,
    jobs: Pick<Jobs, 'find'>,
  ): Promise<LaunchOptions> {
    if (typeof hardwareId !== 'string' || typeof job !== 'string') {
      throw new UnderstudyError('ERR_API_REQUEST', 'job and hardwareId are texts');
    }
    const { refused } = this.ports.servers.recordOf(server);
    const known = this.ports.register.get(server);
    if (known !== undefined) beginFailback(known, '', []);
    if ((hardwareId === '') === (job === '')) {
      const waiting = refused.map((machine) => machine.hardwareId).join(', ') || 'none';
      const message = `which machine is the recovery instance of ${server}? Give its job or its hardware id`;
      throw new UnderstudyError('ERR_API_REQUEST', `${message} (refused so far: ${waiting})`);
    }
    if (hardwareId !== '' && hardwareId === known?.hardwareId) {
      const message = `${hardwareId} is the machine that has the name ${server} already`;
      throw new UnderstudyError('ERR_FAILBACK_STATE', message);
    }
    if (job === '') return { hardwareId: this.seen(server, hardwareId) };
    const { access, server: whose, target, outcome, keeps } = jobs.find(job);
    // An instance of EC2 goes on when its job has ended; a local machine does not.
    if (whose === server && target === 'qemu' && outcome !== null) {
      const again = keeps ? `: failover start --again ${job}` : '';
      const message = `the machine of job ${job} does not run${again}`;
      throw new UnderstudyError('ERR_FAILBACK_STATE', message);
    }
    const words = Object.values(access ?? {}).filter(isWord);
    if (whose !== server || words.length === 0) {
      const why = whose === server ? 'does not tell what its machine is' : `is of ${whose}`;
      throw new UnderstudyError('ERR_FAILBACK_STATE', `job ${job} ${why}: give the hardware id`);
    }
    return { job, expected: words.join(',').toLowerCase() };
  }

  /** A machine that has shown itself, by its hardware id or the beginning of it: a slip must not shut all out. */
  private seen(server: ServerId, given: string): string {
    const { refused } = this.ports.servers.recordOf(server);
    const pending = this.ports.register.get(server)?.pendingHardwareId ?? null;
    const known = new Set([...refused.map(({ hardwareId }) => hardwareId), pending]);
    const found = [...known].filter((id) => id === given || isBeginning(given, id));
    if (found.length === 1) return found[0]!;
    const message = `no machine ${given} has asked to be ${server}: let its agent run first`;
    throw new UnderstudyError('ERR_HARDWARE_NOT_PENDING', message, { server });
  }

  private async run(work: Work): Promise<LaunchEnd> {
    const { server, jobId, options } = work;
    // Before the name is touched: whoever cleans up gives it back.
    await work.making({ kind: MADE, name: `${server}/${jobId}` });
    const expected = wordsOf(options);
    await this.ports.register.update(server, (known) => beginFailback(known, jobId, expected));
    const over = Promise.race([aborted(work.stop), aborted(work.leave)]);
    for (let told = ''; !work.stop.aborted && !work.leave.aborted; ) {
      let waitMs = STEP_MS;
      try {
        const { phase, message } = this.find(jobId);
        if (phase === 'done') return 'done';
        if (phase === 'cancelled') throw new UnderstudyError('ERR_FAILBACK_STATE', 'cancelled');
        if (told !== phase) await work.phase(phase);
        if (told !== phase) work.say(message === '' ? phase : `${phase}: ${message}`);
        told = phase;
        await this.step(work, over);
      } catch (error) {
        // Anything else is waited out: a job that fails gives the name back, and nobody has asked for that.
        if (codeOf(error) === 'ERR_FAILBACK_STATE') throw error;
        work.say(`${(error as Error).message} (${codeOf(error)}); tried again`);
        waitMs = RETRY_MS;
      }
      await Promise.race([sleep(this.ports.clock, waitMs), over]);
    }
    return work.stop.aborted ? 'done' : 'left';
  }

  private async step(work: Work, over: Promise<undefined>): Promise<void> {
    const { syncedBytes, totalBytes } = this.find(work.jobId);
    work.progress(syncedBytes, totalBytes);
    const failback = this.ports.register.get(work.server)!.failback!;
    if (failback.phase === 'admitting') await this.admit(work, failback);
    if (failback.phase === 'finishing') await this.fence(work, failback, over);
  }

  /** Once the instance has shown itself, or at once where its hardware id was given. */
  private async admit(work: Work, { expected }: Failback): Promise<void> {
    const { servers, register, store } = this.ports;
    const { server, jobId, options } = work;
    const seen = servers
      .recordOf(server)
      .refused.find(({ words }) => words.some((word) => expected.includes(word)));
    const given = String(options.hardwareId ?? '');
    const hardwareId = given === '' ? (seen?.hardwareId ?? '') : given;
    if (hardwareId === '') return;
    await this.alone(server, async () => {
      const moment = await servers.moment(server);
      const why = `failback ${jobId}: the last point of the machine before`;
      const { newestPoint } = moment;
      if (newestPoint !== null) await this.hold(newestPoint, why);
      const last = newestPoint === null ? [] : (await store.point(newestPoint)).volumes;
      const instance = { hardwareId, volumes: last.map(({ volume }) => volume) };
      await register.update(server, (known) => admitInstance(known, jobId, instance, moment));
    });
    servers.recordOf(server).forgetRefused(hardwareId);
    work.say(`machine ${hardwareId} is ${server} from now on; the machine before is refused`);
  }

  /** A last cut, after which the instance is shut out. */
  private async fence(
    work: Work,
    { acceptsNewest = false, fromPoint, volumes }: Failback,
    over: Promise<undefined>,
  ): Promise<void> {
    const { servers, register, store } = this.ports;
    const { server, jobId } = work;
    const session = servers.recordOf(server).session;
    const isThere = session?.isOpen === true;
    if (isThere) checkVolumes('the instance', session.volumes, volumes);
    if (isThere || !acceptsNewest) {
      const { committed } = servers.requestPoint(server, LAST_CUT_MS);
      committed.catch(() => undefined);
      const id = await Promise.race([committed, over]);
      if (id === undefined) return;
      this.checkWhole(await store.point(id));
    }
    await this.alone(server, async () => {
      const { newestPoint } = await servers.moment(server);
      if (newestPoint === null || newestPoint === fromPoint) {
        const message = `the recovery instance of ${server} has made no point of its own yet`;
        throw new UnderstudyError('ERR_POINT_NOT_FOUND', message);
      }
      checkVolumes(`point ${newestPoint}`, (await store.point(newestPoint)).volumes, volumes);
      await this.hold(newestPoint, `failback ${jobId}: the last point of the recovery instance`);
      await register.update(server, (known) => fence(known, jobId, newestPoint));
      work.say(`the last point is ${newestPoint}; whatever the instance sends is refused`);
    });
  }

  private checkWhole({ id, missingVolumes }: ListedPoint): void {
    if (missingVolumes.length === 0) return;
    const message = `the last cut, ${id}, lacks ${missingVolumes.join(', ')}`;
    throw new UnderstudyError('ERR_POINT_TIMEOUT', message);
  }

  /** The name goes back, if the failback has not come to its end. */
  private async clean(made: readonly Made[]): Promise<void> {
    const { register, servers, log } = this.ports;
    for (const { kind, name } of made) {
      const at = name.lastIndexOf('/');
      const [server, job] = [name.slice(0, at), name.slice(at + 1)];
      const known = register.get(server);
      const isOurs = known?.failback?.job === job && isActive(known);
      if (kind !== MADE || !isOurs) continue;
      await this.alone(server, async () => {
        const moment = await servers.moment(server);
        const isOfInstance = known.failback!.instance !== '' && moment.newestPoint !== null;
        const why = `failback ${job} was cancelled: the last point of the recovery instance`;
        if (isOfInstance) await this.hold(moment.newestPoint!, why);
        await register.update(server, (holder) => cancelFailback(holder, job, moment));
      });
      log.warn('a failback was cancelled', { server, job });
    }
  }

  private async alone(server: ServerId, change: () => Promise<void>): Promise<void> {
    const open = await this.ports.servers.shut(server);
    try {
      await change();
    } finally {
      open();
    }
  }

  private async hold(point: string, reason: string): Promise<void> {
    try {
      await this.ports.store.holdPoint(point, reason);
    } catch (error) {
      const isHeld = error instanceof UnderstudyError && error.code === 'ERR_POINT_HELD';
      if (!isHeld) throw error;
    }
  }
}

const wordsOf = ({ expected = '' }: LaunchOptions): string[] =>
  String(expected).split(',').filter(Boolean);

/** As `server show` cuts it. */
const isBeginning = (given: string, id: string | null): boolean =>
  given.length >= 8 && id !== null && id.startsWith(given);

/** What the original had must come home, or its disk would stay as it was, unseen. */
function checkVolumes(
  what: string,
  has: readonly { readonly volume: string }[],
  needed: readonly string[],
): void {
  const missing = needed.filter((name) => !has.some(({ volume }) => volume === name));
  if (missing.length === 0) return;
  const message = `${what} lacks ${missing.join(', ')}, which the original had`;
  throw new UnderstudyError('ERR_VOLUME_NOT_FOUND', message);
}

const codeOf = (error: unknown): string =>
  error instanceof UnderstudyError ? error.code : 'ERR_BUG';

const aborted = (signal: AbortSignal): Promise<undefined> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve(undefined);
    else signal.addEventListener('abort', () => resolve(undefined), { once: true });
  });
