/** Jobs over a real folder, with a launcher and a runner that do what they are told and note it. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { type Clock, systemClock } from '../../../src/base/clock.ts';
import type { Disk } from '../../../src/base/disk.ts';
import { UnderstudyError } from '../../../src/base/errors.ts';
import { type Log, silentLog } from '../../../src/base/log.ts';
import { nodeDisk } from '../../../src/base/node-disk.ts';
import type { Launch, LaunchEnd, Launcher, Made } from '../../../src/recovery/launcher.ts';
import type { LaunchOptions, Runner, Work, WorkKind } from '../../../src/recovery/runner.ts';
import { ImageDoor } from '../../../src/staging/jobs/image-door.ts';
import type { Job } from '../../../src/staging/jobs/job-state.ts';
import { Jobs, type LaunchRequest, type ShownJob } from '../../../src/staging/jobs/jobs.ts';
import { readRecord } from '../../../src/staging/jobs/record-file.ts';
import { stepsOf } from '../../../src/staging/plans/plan-steps.ts';
import { type FakeBackend, fakeBackend } from './fake-backend.ts';
import { shortFolder } from './short-folder.ts';

export const POINT = '20261120T103107.123Z-00000002';
export const OVERLAY: Made = { kind: 'file', name: 'overlay' };
export const PRODUCT: Made = { kind: 'file', name: 'product', isProduct: true };

/** Launches by a script; cleaning is noted. */
export class ScriptedLauncher implements Launcher {
  readonly target = 'qemu';
  readonly launches: Launch[] = [];
  readonly cleaned: string[][] = [];
  cleanFails = false;
  script: (launch: Launch) => Promise<LaunchEnd> = untilTold;

  async readOptions(options: Readonly<Record<string, unknown>>) {
    return options as LaunchOptions;
  }
  async check(options: Readonly<Record<string, unknown>>) {
    if (options.bad === true) throw new UnderstudyError('ERR_LAUNCH_PROGRAM', 'qemu is not there');
    return options as { [name: string]: string };
  }
  run(launch: Launch): Promise<LaunchEnd> {
    this.launches.push(launch);
    return this.script(launch);
  }
  async clean(made: readonly Made[]): Promise<void> {
    if (this.cleanFails) throw new UnderstudyError('ERR_DISK_IO', 'it will not go');
    this.cleaned.push(made.map(({ name }) => name));
  }
}

/** Jobs that end when they are told to; what they did is noted. */
export class ScriptedRunner implements Runner {
  readonly kind: WorkKind;
  jobs: Jobs | null = null;
  readonly works: Work[] = [];
  readonly cleaned: string[][] = [];

  constructor(kind: WorkKind) {
    this.kind = kind;
  }
  async check(options: Readonly<Record<string, unknown>>): Promise<LaunchOptions> {
    if (options.bad === true) throw new UnderstudyError('ERR_LAUNCH_OPTIONS', 'no such plan');
    return { ...(options as LaunchOptions), completed: true };
  }
  run(work: Work): Promise<LaunchEnd> {
    this.works.push(work);
    return untilTold(work);
  }
  async clean(made: readonly Made[]): Promise<void> {
    this.cleaned.push(made.map(({ name }) => name));
  }
}

/** Comes up, then runs until it is stopped or left. */
export async function untilTold(launch: Work): Promise<LaunchEnd> {
  await launch.making(OVERLAY);
  await launch.remember({ startedMs: 1 });
  await launch.up({ serial: 'socat' });
  await launch.phase('up');
  return new Promise((resolve) => {
    const look = () => {
      if (launch.stop.aborted) resolve('done');
      else if (launch.leave.aborted) resolve('left');
    };
    for (const signal of [launch.stop, launch.leave]) signal.addEventListener('abort', look);
    look();
  });
}

export class JobsWorld {
  readonly root = shortFolder('ujobs-');
  readonly launcher = new ScriptedLauncher();
  readonly runners: readonly ScriptedRunner[];
  readonly backend: FakeBackend = fakeBackend(new Uint8Array(4096));
  private readonly open: Jobs[] = [];

  constructor(kinds: readonly WorkKind[] = ['plan']) {
    this.runners = kinds.map((kind) => new ScriptedRunner(kind));
  }

  get runner(): ScriptedRunner {
    return this.runners[0]!;
  }

  /** The next life of the service. */
  async start(disk: Disk = nodeDisk, log: Log = silentLog, clock = systemClock): Promise<Jobs> {
    const { root, launcher, runners, backend } = this;
    const door = new ImageDoor({
      ...{ runFolder: join(root, 'run'), clock: systemClock, log, token: 'a-token' },
    });
    const jobs = await Jobs.open({
      stepsOf,
      ...{ disk, dataDir: join(root, 'data'), clock, log, door },
      ...{ store: backend.store, launchers: [launcher] },
      runners: (jobs) => {
        for (const runner of runners) runner.jobs = jobs;
        return runners;
      },
      newId: () => Math.random().toString(16).slice(2, 10).padEnd(8, '0'),
    });
    this.open.push(jobs);
    return jobs;
  }

  async close(): Promise<void> {
    for (const jobs of this.open) await jobs.close();
    rmSync(this.root, { recursive: true });
  }
}

/** The real disk, which takes no records while `isFull()`. */
export const fullDisk = (isFull: () => boolean): Disk => ({
  ...nodeDisk,
  open: (path, mode) =>
    isFull() && path.endsWith('.new')
      ? Promise.reject(new UnderstudyError('ERR_DISK_FULL', 'no room'))
      : nodeDisk.open(path, mode),
});

/** A clock whose timers come so much sooner; what they were set to is noted. */
export function hastyClock(times: number): { clock: Clock; delays: number[] } {
  const delays: number[] = [];
  const after = (delayMs: number, run: () => void) => {
    delays.push(delayMs);
    return systemClock.after(delayMs / times, run);
  };
  return { clock: { ...systemClock, after }, delays };
}

export const drill = (options = {}) => ({ point: POINT, target: 'qemu', options });
export const until = (jobs: Jobs, id: string, isSo: (job: ShownJob) => boolean) =>
  expect.poll(() => isSo(jobs.find(id))).toBe(true);
/** As `until`, and its record says so: a job tells what it knows before that is written down. */
export const untilWritten = (jobs: Jobs, id: string, isSo: (job: Job) => boolean) =>
  expect.poll(async () => isSo(await recordOf(jobs, id))).toBe(true);
const recordOf = (jobs: Jobs, id: string) =>
  readRecord<Job>(nodeDisk, join(jobs.find(id).folder, 'job.json'), 'understudy-job 1');
/** A job that has come up, and has written it down. */
export async function upOf(jobs: Jobs, request: LaunchRequest = drill()): Promise<string> {
  const { id } = await jobs.start(request);
  await untilWritten(jobs, id, isUp);
  return id;
}
export const cleanedUp = (job: Job | ShownJob) => job.state === 'cleaned';
export const isUp = (job: Job | ShownJob) => job.phase === 'up';
