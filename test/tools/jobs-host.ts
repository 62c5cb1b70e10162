/**
 * The jobs of a staging service as a process of their own, to be killed: drills, failovers, plans with scripts,
 * failbacks. What they make are empty files below ROOT/things, which go when they are cleaned up; some cleanups
 * and launches fail.
 *
 *   node jobs-host.ts ROOT SEED
 *
 * Tells "ready", then takes commands, a line of JSON each, and answers each with a line; "finish" ends all
 * jobs, throws away what failovers keep, and answers how they stand.
 */
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { holdProcess, sleep, systemClock } from '../../src/base/clock.ts';
import { UnderstudyError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import { nodeDisk } from '../../src/base/node-disk.ts';
import type { Launch, Launcher } from '../../src/recovery/launcher.ts';
import type { LaunchEnd, LaunchOptions, Made, Runner, Work } from '../../src/recovery/runner.ts';
import { ImageDoor } from '../../src/staging/jobs/image-door.ts';
import { Jobs, type ShownJob } from '../../src/staging/jobs/jobs.ts';
import { type OpenPlans, openPlans } from '../../src/staging/plans/open-plans.ts';
import { stepsOf } from '../../src/staging/plans/plan-steps.ts';
import { Random } from '../simulation/random.ts';
import { pointOf, storeOf } from '../unit/support/plan-store.ts';

export type Command =
  | { readonly do: 'drill' | 'failover' | 'failback'; readonly server: string }
  | { readonly do: 'plan'; readonly kind: 'drill' | 'failover' }
  | { readonly do: 'stop' | 'cancel' | 'again' | 'discard' | 'remove'; readonly pick: number }
  | { readonly do: 'list' }
  | { readonly do: 'finish' };

const servers = ['db1', 'web1', 'web2'];
const plan = {
  ...{ name: 'shop', parallel: 2 },
  groups: [
    {
      name: 'data',
      pre: 'before',
      members: [{ server: 'db1' }, { server: 'web1', isCritical: false }],
    },
    { name: 'web', members: [{ server: 'web2', isCritical: false }], post: 'after' },
  ],
};
/** Pauses of cleanups would be minutes. */
const HASTE = 40;
const clock = {
  ...systemClock,
  after: (delayMs: number, run: () => void) => systemClock.after(delayMs / HASTE, run),
};

const [root, seed] = [process.argv[2]!, Number(process.argv[3])];
const random = new Random(seed);
const thing = (name: string): Made => ({ kind: 'thing', name: `${root}/things/${name}` });

async function untilTold({ stop, leave }: Work): Promise<LaunchEnd> {
  while (!stop.aborted && !leave.aborted) await sleep(systemClock, 5);
  return stop.aborted ? 'done' : 'left';
}

/** Written down, then made; found again by the next life. */
async function make(work: Work, made: Made): Promise<void> {
  await work.making(made);
  if (work.notes[made.name] === true && !existsSync(made.name)) {
    throw new UnderstudyError('ERR_LAUNCH_GONE', `${made.name} is gone`);
  }
  await sleep(systemClock, random.below(20));
  writeFileSync(made.name, '');
  await work.remember({ [made.name]: true });
}

async function work(given: Work, kept: Made | null): Promise<LaunchEnd> {
  await make(given, thing(`${given.jobId}.${given.starts}`));
  if (kept !== null) await make(given, kept);
  if (random.chance(0.1)) throw new UnderstudyError('ERR_LAUNCH_FAILED', 'by chance');
  await given.up({ serial: given.jobId });
  await given.phase('up');
  return untilTold(given);
}

async function clean(made: readonly Made[]): Promise<void> {
  for (const { name } of made) {
    await sleep(systemClock, random.below(10));
    if (random.chance(0.2)) throw new UnderstudyError('ERR_DISK_IO', `${name} will not go`);
    rmSync(name, { force: true });
  }
}

const launcher: Launcher = {
  target: 'qemu',
  readOptions: async (options) => options as LaunchOptions,
  check: async (options) => options as LaunchOptions,
  run: (launch: Launch) => {
    const kept = { ...thing(`${launch.jobId}.disk`), isProduct: true };
    return work(launch, launch.kind === 'failover' ? kept : null);
  },
  clean,
};
const failbacks: Runner = {
  kind: 'failback',
  check: async (options) => options as LaunchOptions,
  run: (given) => work(given, null),
  clean,
};

async function open(): Promise<{ jobs: Jobs; plans: OpenPlans }> {
  const store = storeOf(servers.map((server) => pointOf(server, 20)));
  const world = { clock, log: silentLog, store, disk: nodeDisk };
  const door = new ImageDoor({ ...world, runFolder: `${root}/run`, token: 't' });
  let plans: OpenPlans | null = null;
  const jobs = await Jobs.open({
    stepsOf,
    ...{ ...world, dataDir: `${root}/data`, door, launchers: [launcher] },
    runners: (opened) => {
      plans = openPlans(opened, {
        ...world,
        folder: `${root}/data`,
        scriptsDir: `${root}/scripts`,
      });
      return [plans.runner, failbacks];
    },
    newId: () =>
      Math.floor(Math.random() * 2 ** 32)
        .toString(16)
        .padStart(8, '0'),
  });
  return { jobs, plans: plans! };
}

mkdirSync(`${root}/things`, { recursive: true });
const release = holdProcess();
const { jobs, plans } = await open();
await plans.plans.apply(plan);

async function carryOut(command: Command): Promise<unknown> {
  if (command.do === 'list') return jobs.list();
  if (command.do === 'finish') return finish();
  if (command.do === 'plan') {
    return jobs.startWork({
      kind: 'plan',
      server: '',
      options: { plan: 'shop', kind: command.kind },
    });
  }
  if ('server' in command) {
    const { server } = command;
    if (command.do === 'failback') {
      return jobs.startWork({ kind: 'failback', server, options: {} });
    }
    const point = `${server}-20`;
    return jobs.start({ kind: command.do, point, target: 'qemu', options: {} });
  }
  const all = jobs.list();
  const { id } = all[command.pick % all.length] ?? { id: 'none' };
  if (command.do === 'again') return jobs.startAgain(id);
  return jobs[command.do](id);
}

/** Plans first: they would begin others. */
async function finish(): Promise<ShownJob[]> {
  const isOver = ({ outcome, state, keeps, isDiscarded }: ShownJob) =>
    outcome !== null && state === 'cleaned' && (!keeps || isDiscarded);
  for (let open = jobs.list(); open.some((job) => !isOver(job)); open = jobs.list()) {
    for (const { id, outcome, keeps, isDiscarded } of open) {
      // Those that end meanwhile refuse: they are looked at again.
      if (outcome === null) await jobs.stop(id).catch(unlessRefused);
      else if (keeps && !isDiscarded) await jobs.discard(id).catch(unlessRefused);
    }
    await sleep(systemClock, 20);
  }
  return jobs.list();
}

function unlessRefused(error: unknown): void {
  if (!(error instanceof UnderstudyError) || error.spec.kind === 'bug') throw error;
}

const say = (value: unknown) => process.stdout.write(`${JSON.stringify(value)}\n`);
say({ ready: jobs.list() });
for await (const line of createInterface({ input: process.stdin })) {
  try {
    say({ done: await carryOut(JSON.parse(line) as Command) });
  } catch (error) {
    unlessRefused(error);
    say({ refused: (error as UnderstudyError).code });
  }
}
release();
await jobs.close();
