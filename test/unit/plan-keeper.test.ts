/** Scripts of plans over stops and deaths of staging: real programs and keepers, each run once, its end known. */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { nodeDisk } from '../../src/base/node-disk.ts';
import type { Job } from '../../src/staging/jobs/job-state.ts';
import { readRecord, writeRecord } from '../../src/staging/jobs/record-file.ts';
import {
  claim,
  isAlive,
  markOf,
  readBegun,
  readScript,
  writeSpec,
} from '../../src/staging/plans/script-folder.ts';
import { Scripts } from '../../src/staging/plans/scripts.ts';
import { isCleaned, isHalted, isUp, PlanWorld } from './support/plan-world.ts';

let world: PlanWorld;
beforeEach(() => {
  world = new PlanWorld(['db1']);
});
afterEach(() => world.close());

const KEEPER = join(import.meta.dirname, '../../src/staging/plans/script-keeper.ts');
const path = (name: string) => join(world.root, name);
const ran = () => (existsSync(path('ran')) ? readFileSync(path('ran'), 'utf8') : '');
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const count = (text: string, word: string) => text.split(word).length - 1;

/** Runs until `go` is there, and ends with the exit code that stands in it. */
const SLOW =
  'echo ran >>../ran; echo begun; while [ ! -e ../go ]; do sleep 0.05; done; echo over; ';

function beginPlan(body: string, script: object = {}): Promise<string> {
  world.script('slow', body);
  const pre = { script: 'slow', ...script };
  const members = [{ server: 'db1' }];
  return world.begin('drill', { groups: [{ name: 'g', pre, members }] });
}

/** Until the script runs. */
async function begin(body: string): Promise<string> {
  const id = await beginPlan(body);
  await expect.poll(ran).toBe('ran\n');
  return id;
}
const folderOf = (id: string, step = '1.1') => path(`data/jobs/${id}/scripts/${step}`);
const errorOf = (id: string) => world.jobs.find(id).steps![0]!.error;

describe('a script that runs while staging is stopped', () => {
  it('goes on, and the next life follows it to its end', async () => {
    const id = await begin(`${SLOW}exit 0`);
    await expect.poll(() => world.jobs.log(id)).toContain('slow: begun');
    await world.jobs.close();
    await pause(300);
    await world.open();
    await pause(300);
    expect(world.jobs.find(id).steps![0]!.state).toBe('running');
    writeFileSync(path('go'), '');
    await world.until(id, isUp);
    expect(ran()).toBe('ran\n');
    const log = await world.jobs.log(id);
    expect([count(log, 'slow: begun'), count(log, 'slow: over')]).toEqual([1, 1]);
  });

  it.each([
    ['exit 0', null],
    ['exit 7', 'exit code 7'],
    ['kill -9 $$', 'ended by SIGKILL'],
  ])('and ends meanwhile (%s): the next life knows how', async (end, message) => {
    const id = await begin(SLOW + end);
    await world.jobs.close();
    writeFileSync(path('go'), '');
    await expect.poll(() => existsSync(`${folderOf(id)}/end`)).toBe(true);
    await world.open();
    await world.until(id, message === null ? isUp : isHalted);
    if (message !== null) expect(errorOf(id)!.message).toContain(message);
    expect(ran()).toBe('ran\n');
    expect(await world.jobs.log(id)).toContain('slow: over');
  });

  it('does not run beyond its time', async () => {
    const id = await beginPlan(`${SLOW}exit 0`, { timeout: '1s' });
    await expect.poll(() => existsSync(`${folderOf(id)}/begun`)).toBe(true);
    await world.jobs.close();
    await expect.poll(() => existsSync(`${folderOf(id)}/end`)).toBe(true);
    await world.open();
    await world.until(id, isHalted);
    expect(errorOf(id)!.message).toContain('did not end within 1.0 s');
  });

  it('is ended by the next life where the plan was being given up', async () => {
    const id = await begin(`${SLOW}exit 0`);
    await expect.poll(() => existsSync(`${folderOf(id)}/script`)).toBe(true);
    const script = (await readScript(folderOf(id)))!;
    await world.jobs.close();
    // Durable that it is to end, and nothing more: as a kill between the two leaves it.
    const record = path(`data/jobs/${id}/job.json`);
    const job = await readRecord<Job>(nodeDisk, record, 'understudy-job 1');
    await writeRecord(nodeDisk, record, 'understudy-job 1', { ...job, ending: 'cancelled' });
    expect(isAlive(script)).toBe(true);
    await world.open();
    await world.until(id, isCleaned);
    expect(world.jobs.find(id).outcome).toBe('cancelled');
    expect(isAlive(script)).toBe(false);
  });
});

describe('a script whose keeper was killed', () => {
  it('has failed: nobody knows whether it was done; what is left is ended, a retry runs it again', async () => {
    const id = await begin(`${SLOW}exit 0`);
    await expect.poll(() => existsSync(`${folderOf(id)}/script`)).toBe(true);
    const script = (await readScript(folderOf(id)))!;
    process.kill((await readBegun(folderOf(id)))!.pid, 'SIGKILL');
    await world.until(id, isHalted);
    expect(errorOf(id)!.message).toContain('whether it was done is not known');
    await expect.poll(() => isAlive(script)).toBe(false);
    expect(ran()).toBe('ran\n');
    writeFileSync(path('go'), '');
    await world.runner.retry(id, 1, null);
    await world.until(id, isUp);
    expect(ran()).toBe('ran\nran\n');
  });
});

describe('a keeper that is killed in the instant between its start of the script and its note', () => {
  it('leaves a script that is found all the same, and ended; what that has started by itself is not', async () => {
    const id = await begin(`setsid sh -c 'echo $$ >../own; exec sleep 60' & ${SLOW}exit 0`);
    await expect.poll(() => existsSync(`${folderOf(id)}/script`)).toBe(true);
    const script = (await readScript(folderOf(id)))!;
    // By its own word: then it has left the group of the script.
    await expect.poll(() => readFileSync(path('own'), 'utf8')).toMatch(/^\d+\n$/);
    const own = markOf(Number(readFileSync(path('own'), 'utf8')))!;
    // As the kill leaves it: begun, and not noted.
    process.kill((await readBegun(folderOf(id)))!.pid, 'SIGSTOP');
    rmSync(`${folderOf(id)}/script`);
    expect(isAlive(script)).toBe(true);
    process.kill((await readBegun(folderOf(id)))!.pid, 'SIGKILL');
    await world.until(id, isHalted);
    expect(errorOf(id)!.message).toContain('whether it was done is not known');
    await expect.poll(() => isAlive(script)).toBe(false);
    expect(isAlive(own)).toBe(true);
    process.kill(own.pid, 'SIGKILL');
  });
});

describe('a run of a script', () => {
  const never = new AbortController().signal;
  const said: string[] = [];
  const runOf = (folder: string) => ({
    script: { script: 'slow', arguments: [], timeoutMs: 60_000, isCritical: true },
    ...{ folder, environment: { PATH: process.env.PATH! }, input: '', stop: never, leave: never },
    say: (line: string) => void said.push(line),
  });
  const spec = () => ({
    ...{ path: path('scripts/slow'), arguments: [], environment: {}, input: '', timeoutMs: 60_000 },
  });

  it('that was asked for and never begun is begun once, however many ask', async () => {
    world.script('slow', 'echo ran >>../ran; sleep 0.3');
    const folder = path('run');
    await nodeDisk.makeDirectory(folder);
    await writeSpec(folder, spec());
    // As lives leave them that die at once: keepers that have not come so far yet.
    for (let keeper = 0; keeper < 3; keeper += 1) {
      spawn(process.execPath, [KEEPER, folder], { detached: true, stdio: 'ignore' }).unref();
    }
    const scripts = new Scripts(world.scripts, systemClock);
    expect(await scripts.run(runOf(folder))).toBe('done');
    expect(ran()).toBe('ran\n');
    expect(await scripts.run(runOf(folder))).toBe('done');
    expect(ran()).toBe('ran\n');
  });

  it('that was ended before it was begun never begins', async () => {
    world.script('slow', 'echo ran >>../ran');
    const folder = path('run');
    await nodeDisk.makeDirectory(folder);
    await writeSpec(folder, spec());
    const scripts = new Scripts(world.scripts, systemClock);
    await scripts.end(folder);
    await scripts.end(folder);
    await expect(scripts.run(runOf(folder))).rejects.toMatchObject({ code: 'ERR_PLAN_SCRIPT' });
    expect(ran()).toBe('');
  });

  it('belongs to whoever claims it first', async () => {
    const folder = path('run');
    await nodeDisk.makeDirectory(folder);
    const mark = markOf(process.pid)!;
    expect(await claim(folder, mark)).toBe(true);
    expect(await claim(folder, null)).toBe(false);
    expect(await readBegun(folder)).toEqual(mark);
    expect(isAlive(mark)).toBe(true);
    // Another process has the number since.
    expect(isAlive({ ...mark, start: `${mark.start}0` })).toBe(false);
  });

  it('says at most so much, and is not ended for saying more', async () => {
    world.script('slow', 'i=0; while [ $i -lt 1200 ]; do echo $i; i=$((i+1)); done; printf end');
    said.length = 0;
    const scripts = new Scripts(world.scripts, systemClock);
    expect(await scripts.run(runOf(path('run')))).toBe('done');
    expect(said.slice(0, 2)).toEqual(['slow: 0', 'slow: 1']);
    expect(said.slice(999)).toEqual(['slow: 999', 'slow: it says more, which is left out']);
  });

  it('whose folder takes no more for a while is kept all the same, and ends once', async () => {
    world.script('slow', `${SLOW}exit 7`);
    const folder = path('run');
    // In the way of what is written there, as a full disk is.
    const inTheWay = ['script.new', 'end.new', 'told'].map((name) => `${folder}/${name}`);
    for (const each of inTheWay) mkdirSync(each, { recursive: true });
    const run = new Scripts(world.scripts, systemClock).run(runOf(folder));
    const ended = expect(run).rejects.toMatchObject({ message: /exit code 7/ });
    await expect.poll(ran).toBe('ran\n');
    rmdirSync(inTheWay[0]!);
    await expect.poll(() => readScript(folder)).not.toBeNull();
    writeFileSync(path('go'), '');
    const log = () => readFileSync(`${folder}/keeper.log`, 'utf8');
    await expect.poll(log).toContain('end.new');
    expect(isAlive(await readBegun(folder))).toBe(true);
    rmdirSync(inTheWay[1]!);
    await ended;
    expect(ran()).toBe('ran\n');
  });

  it('that goes on where nothing can be written is ended all the same', async () => {
    world.script('slow', `${SLOW}exit 0`);
    const folder = path('run');
    const scripts = new Scripts(world.scripts, systemClock);
    const ended = expect(scripts.run(runOf(folder))).rejects.toMatchObject({
      code: 'ERR_PLAN_SCRIPT',
    });
    await expect.poll(() => existsSync(`${folder}/script`)).toBe(true);
    const script = await readScript(folder);
    mkdirSync(`${folder}/begun.nobody.new`);
    await scripts.end(folder);
    expect(isAlive(script)).toBe(false);
    await ended;
  });
});
