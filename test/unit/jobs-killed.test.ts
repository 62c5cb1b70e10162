/**
 * Staging is killed (kill -9) at moments that a seed chooses, again and again, while drills, failovers, plans with
 * scripts and failbacks run, fail, are ended and cleaned up: no server is brought up twice, no script is run
 * twice, and in the end every job has ended and nothing that any of them made is left.
 *
 * JOBS_SEED=N runs one seed; TEST_FULL=1 runs more of them, and longer.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, expect, it } from 'vitest';
import type { ShownJob } from '../../src/staging/jobs/jobs.ts';
import { Random } from '../simulation/random.ts';
import type { Command } from '../tools/jobs-host.ts';

const isFull = process.env.TEST_FULL === '1';
const LIVES = isFull ? 40 : 6;
const seedWanted = process.env.JOBS_SEED;
const standard = isFull ? [1, 2, 3, 4, 5, 6, 7, 8] : [1, 2];
const seeds = seedWanted === undefined ? standard : [Number(seedWanted)];
const HOST = join(import.meta.dirname, '../tools/jobs-host.ts');
const servers = ['db1', 'web1', 'web2'];

interface Answer {
  readonly ready?: ShownJob[];
  readonly done?: unknown;
  readonly refused?: string;
}

/** One life of the service. */
class Life {
  private readonly child: ChildProcess;
  private readonly answers: AsyncIterator<string>;
  private errors = '';

  constructor(root: string, seed: number) {
    this.child = spawn(process.execPath, [HOST, root, String(seed)], { stdio: 'pipe' });
    this.answers = createInterface({ input: this.child.stdout! })[Symbol.asyncIterator]();
    this.child.stderr!.on('data', (text: Buffer) => {
      this.errors += text.toString();
    });
    this.child.stdin!.on('error', () => undefined); // killed: what is told it goes nowhere
  }

  tell(command: Command): void {
    this.child.stdin!.write(`${JSON.stringify(command)}\n`);
  }

  async answer(): Promise<Answer> {
    const { value, done } = await this.answers.next();
    if (done === true) throw new Error(`the service ended by itself: ${this.errors}`);
    return JSON.parse(value as string) as Answer;
  }

  async kill(): Promise<void> {
    expect([this.child.exitCode, this.errors.replace(/^.*Warning.*$/gm, '').trim()]).toEqual([
      null,
      '',
    ]);
    const exit = once(this.child, 'exit');
    this.child.kill('SIGKILL');
    await exit;
  }
}

function commandOf(random: Random): Command {
  const server = random.pick(servers);
  const pick = random.below(50);
  return random.pick<Command>([
    ...[{ do: 'plan', kind: 'drill' } as const, { do: 'plan', kind: 'failover' } as const],
    ...[{ do: 'drill', server } as const, { do: 'failover', server } as const],
    ...[{ do: 'failback', server } as const, { do: 'remove', pick } as const],
    ...(['stop', 'stop', 'cancel', 'again', 'discard'] as const).map((what) => ({
      do: what,
      pick,
    })),
  ]);
}

/** One of each kind, which do not hinder each other: begun before anything is killed. */
const oneOfEach: readonly Command[] = [
  { do: 'drill', server: 'db1' },
  { do: 'failover', server: 'web1' },
  { do: 'failback', server: 'web2' },
  { do: 'plan', kind: 'drill' },
];

/** By server, how many failovers and failbacks are under way. */
function expectAlone(jobs: readonly ShownJob[]): void {
  for (const kind of ['failover', 'failback'] as const) {
    const open = jobs.filter((job) => job.kind === kind && job.outcome === null);
    const names = open.map(({ server }) => server);
    expect(names).toEqual([...new Set(names)]);
  }
  const plans = jobs.filter(
    ({ kind, options, outcome }) =>
      kind === 'plan' && options.kind === 'failover' && outcome === null,
  );
  expect(plans.length).toBeLessThan(2);
}

/** Processes that name the folder, other than by chance. */
const processesIn = (folder: string): string[] =>
  readdirSync('/proc').filter((id) => {
    const path = `/proc/${id}/cmdline`;
    if (!/^\d+$/.test(id) || !existsSync(path)) return false;
    try {
      return readFileSync(path, 'latin1').includes(folder);
    } catch (error) {
      if (['ESRCH', 'ENOENT'].includes((error as NodeJS.ErrnoException).code ?? '')) return false;
      throw error;
    }
  });

function writeScripts(root: string, rest: string): void {
  mkdirSync(join(root, 'scripts'));
  for (const name of ['before', 'after']) {
    const body = `echo "${name} $UNDERSTUDY_JOB" >>../ran; echo said; ${rest}`;
    writeFileSync(join(root, 'scripts', name), `#!/bin/sh\n${body}\n`, { mode: 0o755 });
  }
}

/** Whether any of them is there in the end is a matter of what is told later: those that are over may be removed. */
async function beginOneOfEach(service: Life): Promise<void> {
  for (const command of oneOfEach) {
    service.tell(command);
    expect(await service.answer()).toMatchObject({ done: { kind: command.do } });
  }
}

async function play(seed: number, root: string): Promise<{ jobs: ShownJob[]; ran: string[] }> {
  const random = new Random(seed);
  for (let life = 0; life < LIVES; life += 1) {
    const service = new Life(root, seed * 1000 + life);
    expectAlone((await service.answer()).ready!);
    if (life === 0) await beginOneOfEach(service);
    for (let told = 0; told < 6; told += 1) {
      service.tell(commandOf(random));
      await new Promise((resolve) => setTimeout(resolve, random.below(60)));
    }
    await new Promise((resolve) => setTimeout(resolve, random.below(500)));
    await service.kill();
  }
  const last = new Life(root, seed);
  expectAlone((await last.answer()).ready!);
  last.tell({ do: 'finish' });
  const jobs = (await last.answer()).done as ShownJob[];
  await last.kill();
  const ran = join(root, 'ran');
  return { jobs, ran: existsSync(ran) ? readFileSync(ran, 'utf8').trim().split('\n') : [] };
}

async function withRoot(body: (root: string) => Promise<void>): Promise<void> {
  const root = mkdtempSync(join(tmpdir(), 'ukilled-'));
  try {
    await body(root);
  } finally {
    for (const pid of processesIn(root)) process.kill(Number(pid), 'SIGKILL');
    rmSync(root, { recursive: true });
  }
}

describe('staging that is killed again and again', () => {
  const leavesNothing = (seed: number) =>
    withRoot(async (root) => {
      writeScripts(root, 'sleep 0.2');
      const { jobs, ran } = await play(seed, root);
      const open = jobs.filter(({ state, outcome }) => state !== 'cleaned' || outcome === null);
      expect(open).toEqual([]);
      expect(readdirSync(join(root, 'things'))).toEqual([]);
      expect(ran).toEqual([...new Set(ran)]);
      await expect.poll(() => processesIn(root)).toEqual([]);
    });
  it.each(seeds)('leaves nothing behind in the end (JOBS_SEED=%i)', leavesNothing, 600_000);

  it('learns in its next life how a script has ended that ran on', async () => {
    await withRoot(async (root) => {
      writeScripts(root, 'while [ ! -e ../go ]; do sleep 0.05; done; exit 3');
      const before = new Life(root, 1);
      await before.answer();
      before.tell({ do: 'plan', kind: 'drill' });
      const { id } = (await before.answer()).done as ShownJob;
      await expect.poll(() => existsSync(join(root, 'ran'))).toBe(true);
      await before.kill();
      expect(processesIn(root)).not.toEqual([]);
      writeFileSync(join(root, 'go'), '');
      await expect.poll(() => processesIn(root)).toEqual([]);
      const next = new Life(root, 2);
      await next.answer();
      const first = async () => {
        next.tell({ do: 'list' });
        const jobs = (await next.answer()).done as ShownJob[];
        return jobs.find((job) => job.id === id)!.steps![0]!;
      };
      await expect.poll(async () => (await first()).state).toBe('failed');
      expect((await first()).error).toMatchObject({ message: 'script before: exit code 3' });
      expect(readFileSync(join(root, 'ran'), 'utf8')).toBe(`before ${id}\n`);
      await next.kill();
    });
  });
});
