/** Plans over real jobs on a real folder, with a launcher that does what a server's script says. */
import { chmodSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { sleep, systemClock } from '../../../src/base/clock.ts';
import type { Disk } from '../../../src/base/disk.ts';
import { UnderstudyError } from '../../../src/base/errors.ts';
import { silentLog } from '../../../src/base/log.ts';
import { nodeDisk } from '../../../src/base/node-disk.ts';
import type {
  Launch,
  LaunchEnd,
  Launcher,
  LaunchOptions,
  Made,
} from '../../../src/recovery/launcher.ts';
import { ImageDoor } from '../../../src/staging/jobs/image-door.ts';
import { Jobs, type ShownJob } from '../../../src/staging/jobs/jobs.ts';
import { type OpenPlans, openPlans } from '../../../src/staging/plans/open-plans.ts';
import { stepsOf } from '../../../src/staging/plans/plan-steps.ts';
import type { ListedPoint, Store } from '../../../src/store/types.ts';
import { pointOf, storeOf } from './plan-store.ts';
import { shortFolder } from './short-folder.ts';

export type Act =
  | 'up'
  | 'fail'
  | 'hang'
  | 'pass'
  | 'unfit'
  | 'end'
  | 'bad'
  | 'slow'
  | 'late'
  | 'stuck'
  | 'gone';

/** Waits until the launch is to end. */
const untilTold = (launch: Launch): Promise<LaunchEnd> =>
  new Promise((resolve) => {
    const look = () => {
      if (launch.stop.aborted) resolve('done');
      else if (launch.leave.aborted) resolve('left');
    };
    for (const signal of [launch.stop, launch.leave]) signal.addEventListener('abort', look);
    look();
  });

/** Launches as `acts` says, by server, again after a restart; what is done is noted in order. */
export class ActingLauncher implements Launcher {
  readonly target = 'qemu';
  readonly acts = new Map<string, Act>();
  readonly events: string[] = [];
  running = 0;
  mostRunning = 0;

  async readOptions(options: Readonly<Record<string, unknown>>) {
    if (options.wrong === undefined) return options as LaunchOptions;
    throw new UnderstudyError('ERR_LAUNCH_OPTIONS', 'this target has no option wrong');
  }

  async check(options: Readonly<Record<string, unknown>>, point: ListedPoint) {
    if (this.acts.get(point.server) === 'unfit') {
      throw new UnderstudyError('ERR_LAUNCH_NOT_BOOTABLE', `${point.server} does not boot`);
    }
    if (this.acts.get(point.server) === 'late') await sleep(systemClock, 500);
    return options as { [name: string]: string };
  }

  async run(launch: Launch): Promise<LaunchEnd> {
    const { server } = launch;
    this.events.push(`${launch.notes.isBegun === true ? 'again' : 'launch'} ${server}`);
    this.running += 1;
    this.mostRunning = Math.max(this.mostRunning, this.running);
    try {
      await launch.making({ kind: 'file', name: server });
      await launch.remember({ isBegun: true });
      const act = this.acts.get(server) ?? 'up';
      if (act === 'hang') return await untilTold(launch);
      if (act === 'fail') throw new UnderstudyError('ERR_LAUNCH_FAILED', `${server} broke`);
      if (act === 'pass') {
        await launch.checked({ passed: true, probe: 'console', bootMs: 5, detail: 'login:' });
        return 'done';
      }
      await launch.up({ serial: `to ${server}` });
      if (act === 'gone') throw new UnderstudyError('ERR_LAUNCH_GONE', `${server} is gone`);
      if (act === 'slow') return await untilTold(launch);
      const bad = { passed: false, probe: 'console', bootMs: 5, detail: 'no login' };
      if (act === 'bad') await launch.checked(bad);
      await launch.phase('up');
    } finally {
      this.running -= 1;
    }
    return this.acts.get(server) === 'end' ? 'done' : untilTold(launch);
  }

  async clean(made: readonly Made[]): Promise<void> {
    if (made.some(({ name }) => this.acts.get(name) === 'stuck')) {
      throw new UnderstudyError('ERR_LAUNCH_FAILED', 'it will not go');
    }
    this.events.push(...made.map(({ name }) => `clean ${name}`));
  }
}

export const shop = (changes: Record<string, unknown> = {}) => ({
  name: 'shop',
  groups: [
    { name: 'data', members: [{ server: 'db1' }, { server: 'db2', isCritical: false }] },
    { name: 'web', members: [{ server: 'web1' }] },
  ],
  ...changes,
});
export const isUp = ({ phase }: ShownJob) => phase === 'up';
export const isHalted = ({ phase }: ShownJob) => phase.startsWith('halted');
export const isCleaned = ({ state }: ShownJob) => state === 'cleaned';
export const states = (job: ShownJob) => job.steps!.map(({ state }) => state).join(' ');

export class PlanWorld {
  readonly root = shortFolder('uplan-');
  launcher = new ActingLauncher();
  /** Newest first. */
  readonly points: ListedPoint[] = [];
  readonly scripts = join(this.root, 'scripts');
  openReaders = 0;
  /** By so much the wall clock is wrong. */
  leapMs = 0;
  /** So much time has passed at once. */
  passedMs = 0;
  disk: Disk = nodeDisk;
  jobs!: Jobs;
  plans!: OpenPlans['plans'];
  runner!: OpenPlans['runner'];
  verdicts!: OpenPlans['verdicts'];

  constructor(servers: readonly string[]) {
    for (const minute of [20, 10])
      this.points.push(...servers.map((each) => pointOf(each, minute)));
    mkdirSync(this.scripts, { mode: 0o755 });
  }

  script(name: string, body: string, mode = 0o755): void {
    writeFileSync(join(this.scripts, name), `#!/bin/sh\n${body}\n`);
    chmodSync(join(this.scripts, name), mode);
  }

  get store(): Store {
    return storeOf(this.points, (change) => {
      this.openReaders += change;
    });
  }

  /** Staging starts, over what a former life has left. */
  async open(scriptsDir: string | null = this.scripts): Promise<void> {
    const clock = {
      ...systemClock,
      wallMs: () => systemClock.wallMs() + this.leapMs,
      monotonicMs: () => systemClock.monotonicMs() + this.passedMs,
    };
    const world = { clock, log: silentLog };
    const door = new ImageDoor({ ...world, runFolder: join(this.root, 'run'), token: 't' });
    const data = join(this.root, 'data');
    const { store } = this;
    let plans: OpenPlans | null = null;
    this.jobs = await Jobs.open({
      stepsOf,
      ...{ ...world, disk: this.disk, dataDir: data, store, door, launchers: [this.launcher] },
      runners: (jobs) => {
        plans = openPlans(jobs, { ...world, disk: nodeDisk, folder: data, store, scriptsDir });
        return [plans.runner];
      },
      newId: () => Math.random().toString(16).slice(2, 10).padEnd(8, '0'),
    });
    Object.assign(this, plans);
  }

  /** Staging starts, takes the plan `shop` so changed, and runs it: its job. */
  async begin(kind: 'drill' | 'failover', changes: Record<string, unknown> = {}): Promise<string> {
    await this.open();
    await this.plans.apply(shop(changes));
    return (await this.start(kind)).id;
  }

  start(kind: 'drill' | 'failover', at: string | null = null): Promise<ShownJob> {
    return this.jobs.startWork({ kind: 'plan', server: '', options: { plan: 'shop', kind, at } });
  }

  async until(id: string, isSo: (job: ShownJob) => boolean): Promise<void> {
    const options = { interval: 20 };
    await expect.poll(() => isSo(this.jobs.find(id)), options).toBe(true);
  }

  /** Servers of the events that begin with a word, in order. */
  eventsOf(word: string): string[] {
    const events = this.launcher.events.filter((each) => each.startsWith(`${word} `));
    return events.map((each) => each.slice(word.length + 1));
  }

  async close(): Promise<void> {
    await this.jobs?.close();
    rmSync(this.root, { recursive: true });
  }
}
