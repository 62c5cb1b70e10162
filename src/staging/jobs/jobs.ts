/**
 * Runs jobs: makes each state durable, then carries its effects out (job-state.ts decides them). While a
 * job has not ended its point is held against retention. When staging stops, what runs is left running;
 * when it starts, every job that is not cleaned up is begun again.
 */
import type { Clock } from '../../base/clock.ts';
import type { Disk } from '../../base/disk.ts';
import { UnderstudyError } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import type { CheckResult, Launcher } from '../../recovery/launcher.ts';
import type {
  LaunchEnd,
  LaunchKind,
  LaunchOptions,
  Made,
  Runner,
  StopReason,
  WorkKind,
} from '../../recovery/runner.ts';
import type { ListedPoint, Store } from '../../store/types.ts';
import { errorBody } from '../api-errors.ts';
import { type ShownStep, stepsOf } from '../plans/plan-steps.ts';
import type { ImageDoor } from './image-door.ts';
import { type BootCheck, JobFiles } from './job-files.ts';
import {
  canStartAgain,
  hasEnded,
  type Job,
  type JobEffect,
  type JobEvent,
  needsPoint,
  transition,
} from './job-state.ts';
import {
  holdPoint,
  type Live,
  launchOf,
  liveOf,
  releasePoint,
  type WorkPorts,
  workOf,
} from './live-job.ts';

export interface JobsPorts {
  readonly disk: Disk;
  readonly dataDir: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly store: Store;
  readonly launchers: readonly Launcher[];
  /** Of the jobs that are no launches; a runner may start other jobs. */
  readonly runners: (jobs: Jobs) => readonly Runner[];
  readonly door: ImageDoor;
  /** Hex digits that no other job has. */
  readonly newId: () => string;
}

export interface LaunchRequest {
  /** Else a drill. */
  readonly kind?: LaunchKind;
  readonly point: string;
  readonly target: string;
  readonly options: Readonly<Record<string, unknown>>;
  /** Remembered by whoever asks, so that it finds the job again; else a new one. */
  readonly id?: string;
}

/** A job that is no launch. */
export interface WorkRequest {
  readonly kind: WorkKind;
  /** Empty where it is about several. */
  readonly server: string;
  readonly options: Readonly<Record<string, unknown>>;
}

/** A job as it is told: all but what is the launcher's own. */
export type ShownJob = Omit<Job, 'notes' | 'pointFacts'> & {
  readonly progress: { readonly done: number; readonly total: number } | null;
  /** Where log and evidence lie, on the staging machine. */
  readonly folder: string;
  /** Of a plan, once it has begun. */
  readonly steps: readonly ShownStep[] | null;
};

/** Of jobs that are over so many are remembered; the oldest go first. */
const KEPT_JOBS = 500;
/** Longest part of a piece of evidence that is told. */
const MAX_EVIDENCE_BYTES = 32 * 2 ** 20;
const EVIDENCE = /^(?:prepare(?:-console|-qemu)?|console|qemu|disk\d+|screenshot)\.[jlp][a-z]+$/;

type JobSubject = Pick<
  Job,
  'kind' | 'target' | 'server' | 'point' | 'pointTime' | 'pointFacts' | 'options'
>;

const keepsData = (id: string): UnderstudyError =>
  new UnderstudyError('ERR_JOB_KEEPS', `job ${id} holds data that was written since it came up`);

export class Jobs {
  private readonly ports: JobsPorts;
  private readonly files: JobFiles;
  private readonly jobs = new Map<string, Live>();
  private readonly runners: readonly Runner[];
  private readonly work: WorkPorts;
  private isClosing = false;

  private constructor(ports: JobsPorts) {
    this.ports = ports;
    this.files = new JobFiles(ports.disk, ports.dataDir);
    this.runners = ports.runners(this);
    this.work = {
      ...ports,
      folder: (id) => this.files.folder(id),
      tell: (live, event) => this.apply(live, event),
      say: (live, line) => this.say(live, line),
      saveCheck: (job, check) => this.saveCheck(job, check),
    };
  }

  /** Loads what is on disk and goes on with it. Once it resolves the points of open jobs are held. */
  static async open(ports: JobsPorts): Promise<Jobs> {
    const jobs = new Jobs(ports);
    for (const job of await jobs.files.load(ports.log)) jobs.jobs.set(job.id, liveOf(job));
    // A runner that goes on may start others meanwhile: those have begun.
    for (const live of [...jobs.jobs.values()]) {
      await jobs.holdAgain(live);
      if (live.job.state !== 'cleaned') await jobs.settle(live, { type: 'begin' });
    }
    return jobs;
  }

  /** What waits for another job must not wait any longer. */
  get isStopping(): boolean {
    return this.isClosing;
  }

  /** Leaves what runs running. */
  async close(): Promise<void> {
    this.isClosing = true;
    const all = [...this.jobs.values()];
    for (const { leave } of all) leave.abort();
    for (const live of all) {
      await live.running;
      await live.writing;
      releasePoint(live);
    }
    await this.ports.door.close();
  }

  /** ERR_LAUNCH_*, ERR_POINT_NOT_FOUND: refused before anything is made. Runs on after it resolves. */
  async start(request: LaunchRequest): Promise<ShownJob> {
    this.refuseWhenClosing();
    const { kind = 'drill', target, id } = request;
    const { point, options } = await this.check(request);
    const { server, time: pointTime } = point;
    const subject = { kind, target, server, point: point.id, pointTime, pointFacts: point };
    return this.add({ ...subject, options }, id);
  }

  /** What `start` would refuse is refused; the point, and the options completed. Makes nothing. */
  async check(request: LaunchRequest): Promise<{ point: ListedPoint; options: LaunchOptions }> {
    const { store } = this.ports;
    const { kind = 'drill', target } = request;
    const launcher = this.launcherOf(target);
    const point = await store.point(request.point);
    const openImage = (volume: string) => store.openImage(point.id, volume);
    return { point, options: await launcher.check(request.options, point, openImage, kind) };
  }

  /** For jobs whose ids are remembered before they are started. */
  newId(): string {
    const { clock, newId } = this.ports;
    const time = new Date(clock.wallMs()).toISOString();
    return `${time.replace(/[-:]|\.\d+/g, '')}-${newId().slice(0, 8)}`;
  }

  /** A job that is no launch: refused as its runner says, before anything is made. */
  async startWork({ kind, server, options: given }: WorkRequest): Promise<ShownJob> {
    this.refuseWhenClosing();
    const options = await this.runnerOf(kind).check(given, server);
    const noPoint = { point: '', pointTime: '', pointFacts: null };
    return this.add({ kind, target: '', server, ...noPoint, options });
  }

  /** Newest first. */
  list(): ShownJob[] {
    return [...this.jobs.values()].map((live) => this.shown(live)).reverse();
  }

  /** ERR_JOB_NOT_FOUND. */
  find(id: string): ShownJob {
    return this.shown(this.live(id));
  }

  /** Ends a job: what it was for is given up. ERR_JOB_STATE where it has ended, ERR_JOB_KEEPS. */
  async cancel(id: string): Promise<ShownJob> {
    const { keeps } = this.live(id).job;
    if (keeps && !hasEnded(this.live(id).job)) throw keepsData(id);
    return this.askToEnd(id, { type: 'cancel' }, null);
  }

  /** Ends what runs: a drill is over, a failover keeps its disks. ERR_JOB_STATE. */
  async stop(id: string, timeoutMs?: number): Promise<ShownJob> {
    return this.askToEnd(id, { type: 'stop' }, { timeoutMs });
  }

  /** Starts what a failover has kept. ERR_JOB_STATE where it runs, or kept nothing. */
  async startAgain(id: string): Promise<ShownJob> {
    this.refuseWhenClosing();
    const live = await this.over(id, 'stop it first');
    if (!canStartAgain(live.job)) {
      const what = live.job.isDiscarded
        ? 'was discarded'
        : 'has kept nothing that could be started';
      throw new UnderstudyError('ERR_JOB_STATE', `job ${id} ${what}`);
    }
    live.stop = new AbortController();
    await this.applyOrNot(live, { type: 'again' });
    return this.shown(live);
  }

  /** Throws away what a job has kept. ERR_JOB_STATE where it has not ended, or kept nothing. */
  async discard(id: string): Promise<ShownJob> {
    const live = this.live(id);
    if (!hasEnded(live.job)) {
      throw new UnderstudyError('ERR_JOB_STATE', `job ${id} has not ended: stop it first`);
    }
    await live.running;
    if (live.job.isDiscarded || !live.job.keeps) {
      throw new UnderstudyError('ERR_JOB_STATE', `job ${id} has kept nothing`);
    }
    await this.applyOrNot(live, { type: 'discard' });
    await live.running;
    return this.shown(live);
  }

  /** Forgets a job that is over, its log and evidence with it; files it was for stay. ERR_JOB_STATE. */
  async remove(id: string): Promise<ShownJob> {
    const live = await this.over(id, 'stop or cancel it first');
    if (canStartAgain(live.job)) throw keepsData(id);
    await live.writing;
    const shown = this.shown(live);
    this.jobs.delete(id);
    await this.files.remove(id);
    return shown;
  }

  async log(id: string): Promise<string> {
    const live = this.live(id);
    await live.writing;
    return this.files.readLog(id);
  }

  /** "console.log", "screenshot.png", ...: ERR_JOB_NOT_FOUND where the job has none. */
  async evidence(id: string, name: string): Promise<Uint8Array> {
    this.live(id);
    const path = `${this.files.folder(id)}/${name}`;
    if (!EVIDENCE.test(name) || !(await this.ports.disk.exists(path))) {
      throw new UnderstudyError('ERR_JOB_NOT_FOUND', `job ${id} has no ${name}`);
    }
    return (await this.ports.disk.readFile(path)).subarray(-MAX_EVIDENCE_BYTES);
  }

  /** The newest verdict of a boot check on a point; null where there was none. */
  bootCheck(point: string): Promise<BootCheck | null> {
    return this.files.check(point);
  }

  /** Ids of the points that have a verdict. */
  checkedPoints(): Promise<ReadonlySet<string>> {
    return this.files.checkedPoints();
  }

  /** Removes the verdicts of points that are kept no more. */
  async forgetVerdicts(isKept: (point: string) => Promise<boolean>): Promise<void> {
    for (const point of await this.files.checkedPoints()) {
      if (!(await isKept(point))) await this.files.removeCheck(point);
    }
  }

  private refuseWhenClosing(): void {
    if (!this.isClosing) return;
    throw new UnderstudyError('ERR_STAGING_STOPPING', 'staging is being stopped');
  }

  /** The job, ended and cleaned up. ERR_JOB_STATE. */
  private async over(id: string, advice: string): Promise<Live> {
    const live = this.live(id);
    if (!hasEnded(live.job)) {
      throw new UnderstudyError('ERR_JOB_STATE', `job ${id} has not ended: ${advice}`);
    }
    await live.running;
    if (live.job.state !== 'cleaned') {
      await this.settle(live, { type: 'begin' });
      await live.running;
    }
    if (live.job.state === 'cleaned') return live;
    const message = `job ${id} cannot be cleaned up: ${live.job.cleanError}`;
    throw new UnderstudyError('ERR_JOB_STATE', message);
  }

  private live(id: string): Live {
    const live = this.jobs.get(id);
    if (live !== undefined) return live;
    throw new UnderstudyError('ERR_JOB_NOT_FOUND', `no job "${id}"`);
  }

  /** What runs the job, and cleans up after it. */
  private workerOf(job: Job): { run(live: Live): Promise<LaunchEnd>; clean: Runner['clean'] } {
    const { kind, target } = job;
    if (kind === 'drill' || kind === 'failover') {
      const launcher = this.launcherOf(target);
      return {
        run: async (live) => launcher.run(await launchOf(live, kind, this.work)),
        clean: (made) => launcher.clean(made),
      };
    }
    const runner = this.runnerOf(kind);
    return {
      run: (live) => runner.run(workOf(live, this.work)),
      clean: (made) => runner.clean(made),
    };
  }

  private runnerOf(kind: WorkKind): Runner {
    const found = this.runners.find((runner) => runner.kind === kind);
    if (found !== undefined) return found;
    throw new UnderstudyError('ERR_LAUNCH_OPTIONS', `this service runs no jobs of kind "${kind}"`);
  }

  private async add(what: JobSubject, id = this.newId()): Promise<ShownJob> {
    if (this.jobs.has(id)) throw new UnderstudyError('ERR_JOB_STATE', `there is a job ${id}`);
    const createdAt = new Date(this.ports.clock.wallMs()).toISOString();
    const live = liveOf({
      ...{ id, ...what, state: 'planned', outcome: null, ending: null, phase: 'planned' },
      ...{ access: null, check: null, error: null, cleanError: null, made: [], notes: {} },
      ...{ keeps: false, standsAlone: false, isDiscarded: false, starts: 1 },
      ...{ createdAt, endedAt: null },
    });
    await holdPoint(live, this.ports.store);
    try {
      this.refuseWhenClosing();
      await this.files.save(live.job);
    } catch (error) {
      releasePoint(live);
      throw error;
    }
    this.jobs.set(id, live);
    await this.settle(live, { type: 'begin' });
    await this.forgetOldest();
    return this.shown(live);
  }

  private launcherOf(target: string): Launcher {
    const found = this.ports.launchers.find((launcher) => launcher.target === target);
    if (found !== undefined) return found;
    const known = this.ports.launchers.map((launcher) => launcher.target).join(', ');
    throw new UnderstudyError('ERR_LAUNCH_OPTIONS', `no target "${target}"; there are ${known}`);
  }

  private shown({ job, progress }: Live): ShownJob {
    const { notes: _own, pointFacts: _facts, ...shown } = job;
    return { ...shown, progress, folder: this.files.folder(job.id), steps: stepsOf(job) };
  }

  private async askToEnd(
    id: string,
    event: JobEvent,
    reason: StopReason | null,
  ): Promise<ShownJob> {
    const live = this.live(id);
    if (hasEnded(live.job)) {
      const message = `job ${id} has ended already: ${live.job.outcome}`;
      throw new UnderstudyError('ERR_JOB_STATE', message);
    }
    live.stopReason = reason;
    await this.settle(live, event);
    return this.shown(live);
  }

  private saveCheck({ point, server, id }: Job, check: CheckResult): Promise<void> {
    const time = new Date(this.ports.clock.wallMs()).toISOString();
    return this.files.saveCheck({ ...check, point, server, job: id, time });
  }

  private async forgetOldest(): Promise<void> {
    const over = [...this.jobs.values()].filter(
      ({ job }) => job.state === 'cleaned' && !canStartAgain(job),
    );
    for (const { job } of over.slice(0, Math.max(0, over.length - KEPT_JOBS))) {
      await this.remove(job.id);
    }
  }

  /** After a restart. Where it cannot be, the launch tries again, and tells. */
  private async holdAgain(live: Live): Promise<void> {
    if (!needsPoint(live.job)) return;
    await holdPoint(live, this.ports.store).catch((error: Error) => {
      const { id, point } = live.job;
      this.ports.log.error('a point cannot be held', { job: id, point, reason: error.message });
    });
  }

  /** Durable, then carried out. A state that cannot be made durable is thrown, its effects left. */
  private async apply(live: Live, event: JobEvent): Promise<void> {
    const { job, effects } = transition(live.job, event, this.ports.clock.wallMs());
    const isChanged = job !== live.job;
    live.job = job;
    if (isChanged) await this.queued(live, () => this.files.save(job));
    for (const effect of effects) this.perform(live, effect);
  }

  /** For what is asked for: where it cannot be made durable it was not asked. */
  private async applyOrNot(live: Live, event: JobEvent): Promise<void> {
    const before = live.job;
    try {
      await this.apply(live, event);
    } catch (error) {
      live.job = before;
      throw error;
    }
  }

  /** For events whose effects must follow even where the disk takes no more: ends and cleanups. */
  private async settle(live: Live, event: JobEvent): Promise<void> {
    const before = live.job;
    try {
      await this.apply(live, event);
    } catch (error) {
      this.ports.log.error('a job could not be written down', {
        ...{ job: before.id, event: event.type, reason: String(error) },
      });
      const { effects } = transition(before, event, this.ports.clock.wallMs());
      for (const effect of effects) this.perform(live, effect);
    }
  }

  private queued(live: Live, write: () => Promise<void>): Promise<void> {
    const written = live.writing.then(write);
    live.writing = written.catch(() => undefined);
    return written;
  }

  private perform(live: Live, effect: JobEffect): void {
    if (effect.type === 'say') this.say(live, effect.line);
    if (effect.type === 'endLaunch') live.stop.abort(live.stopReason);
    if (effect.type === 'launch') live.running = this.launch(live);
    if (effect.type === 'clean') live.running = this.clean(live, effect.made);
  }

  private say(live: Live, line: string): void {
    const { clock, log } = this.ports;
    const time = new Date(clock.wallMs()).toISOString();
    const { id } = live.job;
    log.info(line, { job: id });
    this.queued(live, () => this.files.append(id, `${time} ${line}`)).catch((error: unknown) => {
      log.warn('a line of a job log was lost', { job: id, reason: String(error) });
    });
  }

  private async launch(live: Live): Promise<void> {
    let event: JobEvent | null;
    try {
      // What serves does not end for want of its point.
      if (live.job.keeps) await this.holdAgain(live);
      else await holdPoint(live, this.ports.store);
      const end = await this.workerOf(live.job).run(live);
      event = end === 'done' ? { type: 'ended' } : null;
    } catch (error) {
      // What stopping staging has interrupted is gone on with when it starts.
      event = live.leave.signal.aborted ? null : { type: 'failed', error: errorBody(error).error };
      if (event !== null && live.job.ending === null) this.report(live, error);
    }
    // Not awaited as a part of itself: the end begins the cleaning, which is then what runs.
    if (event !== null) await this.settleAndFollow(live, event);
  }

  private async settleAndFollow(live: Live, event: JobEvent): Promise<void> {
    const before = live.running;
    await this.settle(live, event);
    if (live.running !== before) await live.running;
  }

  private report(live: Live, error: unknown): void {
    const cause = error instanceof Error ? (error.stack ?? error.message) : String(error);
    this.ports.log.warn('a launch failed', { job: live.job.id, cause });
  }

  private async clean(live: Live, made: readonly Made[]): Promise<void> {
    try {
      await this.workerOf(live.job).clean(made);
      this.ports.door.forget(`${this.ports.door.folder}/${live.job.id}`);
      if (!needsPoint(live.job)) releasePoint(live);
      await this.settle(live, { type: 'cleaned' });
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      await this.settle(live, { type: 'cleanFailed', message });
    }
  }
}
