/**
 * The jobs of staging: what is asked of them (job-state.ts decides, job-shell.ts carries out). While a job
 * has not ended its point is held against retention. When staging stops, what runs is left running;
 * when it starts, every job that is not cleaned up is begun again.
 */
import type { Clock } from '../../base/clock.ts';
import type { Disk } from '../../base/disk.ts';
import { UnderstudyError } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import type { DamagedPlace } from '../../recovery/damage.ts';
import type { Launcher } from '../../recovery/launcher.ts';
import type {
  LaunchKind,
  LaunchOptions,
  Runner,
  StopReason,
  WorkKind,
} from '../../recovery/runner.ts';
import type { ListedPoint, Store } from '../../store/types.ts';
import type { ImageDoor } from './image-door.ts';
import { type Clash, clashOf, clashOfMember } from './job-claims.ts';
import { type BootCheck, JobFiles } from './job-files.ts';
import { JobShell } from './job-shell.ts';
import {
  canStartAgain,
  hasEnded,
  type Job,
  type JobEvent,
  type JobSubject,
  newJob,
} from './job-state.ts';
import type { ShownStep, StepsOf } from './job-steps.ts';
import { holdPoint, type Live, liveOf, releasePoint, untilStill } from './live-job.ts';
import { Workers } from './workers.ts';

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
  readonly stepsOf: StepsOf;
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
  /** Of a failover: also where another one of the server runs, and both will. */
  readonly isBeside?: boolean;
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
  /** Why its newest state could not be written down: staging's next life would not know it. Null: it is. */
  readonly unwritten: string | null;
  /** Where log and evidence lie, on the staging machine. */
  readonly folder: string;
  /** Of a plan, once it has begun. */
  readonly steps: readonly ShownStep[] | null;
};

/** Of jobs that are over so many are remembered; the oldest go first. */
const KEPT_JOBS = 500;

const keepsData = (id: string): UnderstudyError =>
  new UnderstudyError('ERR_JOB_KEEPS', `job ${id} holds data that was written since it came up`);

export class Jobs {
  private readonly ports: JobsPorts;
  private readonly files: JobFiles;
  private readonly jobs = new Map<string, Live>();
  /** Not written down yet; what they claim counts. */
  private readonly coming = new Set<Job>();
  private readonly workers: Workers;
  private readonly shell: JobShell;
  private forgetting: Promise<void> = Promise.resolve();
  private isClosing = false;

  private constructor(ports: JobsPorts) {
    this.ports = ports;
    this.files = new JobFiles(ports.disk, ports.dataDir);
    this.workers = new Workers(ports.launchers, ports.runners(this));
    this.shell = new JobShell(ports, this.files, this.workers);
  }

  /** Loads what is on disk and goes on with it. Once it resolves the points of open jobs are held. */
  static async open(ports: JobsPorts): Promise<Jobs> {
    const jobs = new Jobs(ports);
    for (const job of await jobs.files.load(ports.log)) jobs.jobs.set(job.id, liveOf(job));
    // A runner that goes on may start others meanwhile: those have begun.
    for (const live of [...jobs.jobs.values()]) {
      await jobs.shell.holdAgain(live);
      if (live.job.state !== 'cleaned') await jobs.shell.settle(live, { type: 'begin' });
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
    for (const live of this.jobs.values()) this.shell.leave(live);
    // What a plan was just starting has come to the end of them meanwhile.
    for (const live of this.jobs.values()) {
      this.shell.leave(live);
      await untilStill(live);
      releasePoint(live);
    }
    await this.forgetting;
    await this.ports.door.close();
  }

  /**
   * ERR_LAUNCH_*, ERR_POINT_NOT_FOUND, and where another job brings the server up ERR_FAILOVER_SOURCE,
   * ERR_FAILBACK_STATE: refused before anything is made. Runs on after it resolves.
   */
  async start(request: LaunchRequest): Promise<ShownJob> {
    this.refuseWhenClosing();
    const { kind = 'drill', target, id, isBeside = false } = request;
    const { point, options } = await this.check(request);
    const { server, time: pointTime } = point;
    const subject = { kind, target, server, point: point.id, pointTime, pointFacts: point };
    return this.add({ ...subject, options }, { id, isBeside });
  }

  /** As far as it can be said without a point. ERR_LAUNCH_OPTIONS, ERR_EC2_PLAN. */
  readOptions({ kind = 'drill', target, options }: LaunchRequest): Promise<LaunchOptions> {
    return this.workers.launcher(target).readOptions(options, kind);
  }

  /** What `start` would refuse is refused; the point, and the options completed. Makes nothing. */
  async check(request: LaunchRequest): Promise<{ point: ListedPoint; options: LaunchOptions }> {
    const { store } = this.ports;
    const { kind = 'drill', target } = request;
    const launcher = this.workers.launcher(target);
    const point = await store.point(request.point);
    const openImage = (volume: string) => store.openImage(point.id, volume);
    return { point, options: await launcher.check(request.options, point, openImage, kind) };
  }

  /** What a new failover of the server, by a plan, would be refused for: ERR_JOB_RUNNING, ERR_FAILBACK_STATE. */
  refuseTwice(server: string): void {
    this.refuseClash(clashOfMember(server, this.records()), false);
  }

  /** What `startWork` would be refused for by another job: ERR_FAILBACK_STATE. */
  refuseWork(kind: WorkKind, server: string): void {
    const wanted = { id: '', kind, server, options: {}, state: 'planned', outcome: null } as const;
    this.refuseClash(clashOf(wanted, this.records()), false);
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
    const options = await this.workers.runner(kind).check(given, server);
    const noPoint = { point: '', pointTime: '', pointFacts: null };
    return this.add({ kind, target: '', server, ...noPoint, options });
  }

  /** Newest first. */
  list(): ShownJob[] {
    return [...this.jobs.values()].map((live) => this.shown(live)).reverse();
  }

  /** Jobs that are over and have left something that cannot be taken away; newest first. */
  uncleaned(): ShownJob[] {
    return this.list().filter(({ cleanError }) => cleanError !== null);
  }

  /** ERR_JOB_NOT_FOUND. */
  find(id: string): ShownJob {
    return this.shown(this.live(id));
  }

  /** A place of a point that cannot be given back: told to all jobs that need the point. */
  async damaged(point: string, place: DamagedPlace): Promise<void> {
    const readers = [...this.jobs.values()].filter(({ job }) => job.point === point);
    for (const live of readers) await this.shell.settle(live, { type: 'damaged', place });
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

  /**
   * Starts what a failover has kept. ERR_JOB_STATE where it runs, or kept nothing; as `start` where another
   * job brings the server up.
   */
  async startAgain(id: string, isBeside = false): Promise<ShownJob> {
    this.refuseWhenClosing();
    const live = await this.over(id, 'stop it first');
    if (!canStartAgain(live.job)) {
      const what = live.job.isDiscarded
        ? 'was discarded'
        : 'has kept nothing that could be started';
      throw new UnderstudyError('ERR_JOB_STATE', `job ${id} ${what}`);
    }
    this.refuseClash(clashOf(live.job, this.records(), true), isBeside);
    live.stop = new AbortController();
    await this.shell.applyOrNot(live, { type: 'again' });
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
    await this.shell.applyOrNot(live, { type: 'discard' });
    await live.running;
    return this.shown(live);
  }

  /** Forgets a job that is over, its log and evidence with it; files it was for stay. ERR_JOB_STATE. */
  async remove(id: string): Promise<ShownJob> {
    const live = await this.over(id, 'stop or cancel it first');
    if (canStartAgain(live.job)) throw keepsData(id);
    await live.writing;
    const shown = this.shown(live);
    await this.forget(this.live(id));
    return shown;
  }

  async log(id: string): Promise<string> {
    const live = this.live(id);
    await live.writing;
    return this.files.readLog(id);
  }

  /** The end of "console.log", "screenshot.png", ...: ERR_JOB_NOT_FOUND where the job has none. */
  async evidence(id: string, name: string, mostBytes?: number): Promise<Uint8Array> {
    this.live(id);
    const bytes = await this.files.readEvidence(id, name, mostBytes);
    if (bytes !== null) return bytes;
    throw new UnderstudyError('ERR_JOB_NOT_FOUND', `job ${id} has no ${name}`);
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
      await this.shell.settle(live, { type: 'cleanDue' });
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

  /** Nothing is waited for between the question and the answer: of two at the same instant one is refused. */
  private async add(
    what: JobSubject,
    { id = this.newId(), isBeside = false }: { id?: string | undefined; isBeside?: boolean } = {},
  ): Promise<ShownJob> {
    if (this.records().some((job) => job.id === id)) {
      throw new UnderstudyError('ERR_JOB_STATE', `there is a job ${id}`);
    }
    const live = liveOf(newJob(id, what, this.ports.clock.wallMs()));
    this.refuseClash(clashOf(live.job, this.records()), isBeside);
    await this.writeDown(live);
    // Where staging stops meanwhile its next life begins with it.
    if (this.isClosing) releasePoint(live);
    else await this.shell.settle(live, { type: 'begin' });
    this.forgetOldest();
    return this.shown(live);
  }

  private async writeDown(live: Live): Promise<void> {
    const { job } = live;
    this.coming.add(job);
    try {
      await holdPoint(live, this.ports.store);
      this.refuseWhenClosing();
      await this.files.save(job);
      this.jobs.set(job.id, live);
    } catch (error) {
      releasePoint(live);
      throw error;
    } finally {
      this.coming.delete(job);
    }
  }

  /** Of all jobs, also those that are just being written down. */
  private records(): Job[] {
    return [...[...this.jobs.values()].map(({ job }) => job), ...this.coming];
  }

  private refuseClash(clash: Clash | null, isBeside: boolean): void {
    if (clash === null || (clash.isAsked && isBeside)) return;
    throw new UnderstudyError(clash.code, clash.message);
  }

  private shown({ job, progress, unwritten }: Live): ShownJob {
    const { notes: _own, pointFacts: _facts, ...shown } = job;
    const folder = this.files.folder(job.id);
    return { ...shown, progress, unwritten, folder, steps: this.ports.stepsOf(job) };
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
    await this.shell.settle(live, event);
    return this.shown(live);
  }

  /** Of two that want it at the same instant one does. */
  private async forget(live: Live): Promise<void> {
    live.unwritten = null;
    const { id } = live.job;
    if (this.jobs.delete(id)) await this.files.remove(id);
  }

  /** One round after another; the job that was just begun does not wait, and does not fail by what is old. */
  private forgetOldest(): void {
    this.forgetting = this.forgetting.then(async () => {
      const over = [...this.jobs.values()].filter(
        ({ job }) => job.state === 'cleaned' && !canStartAgain(job),
      );
      for (const live of over.slice(0, Math.max(0, over.length - KEPT_JOBS))) {
        await live.writing;
        await this.forget(live).catch((error: unknown) => {
          const reason = String(error);
          // Its record is read again by the next life, which forgets it.
          this.ports.log.warn('a job that is over could not be forgotten', { reason });
        });
      }
    });
  }
}
