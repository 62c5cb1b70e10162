/** Boot checks by themselves: when one is due (a table, and years of a clock), and the shell over real jobs. */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { getPriority } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Clock, systemClock } from '../../src/base/clock.ts';
import { silentLog } from '../../src/base/log.ts';
import { nodeDisk } from '../../src/base/node-disk.ts';
import { checkFields, checkWord } from '../../src/cli/commands/server-check.ts';
import { endProcess, processOf } from '../../src/recovery/made.ts';
import { startProgram } from '../../src/recovery/qemu/programs.ts';
import { CheckRecords } from '../../src/staging/plans/check-records.ts';
import {
  begun,
  type CheckHistory,
  dueMs,
  ended,
  nextServer,
  RETRY_MS,
} from '../../src/staging/plans/check-schedule.ts';
import { Checker, checkedOptions } from '../../src/staging/plans/checker.ts';
import { fakeCheck } from './support/fake-backend.ts';
import { pointOf } from './support/plan-store.ts';
import { PlanWorld } from './support/plan-world.ts';
import fc from './support/properties.ts';

const DAY = 86_400_000;
const START = Date.UTC(2026, 10, 20);
const none: CheckHistory = { last: null, failures: 0 };
const started = begun(none, { point: 'a', pointTime: 't', job: 'j' }, START);
const checkedAs = (outcome: 'passed' | 'failed' | 'cancelled', history = started) =>
  ended(history, { outcome, detail: 'why' }, START + 60_000);
const newest = (id: string, isVerified = false) => ({ id, isVerified });

describe('when a check is due', () => {
  const now = START + 1000;
  it.each([
    ['never checked', none, DAY, newest('a'), now],
    ['never checked, and off', none, 0, newest('a'), null],
    ['no whole point', none, DAY, null, null],
    ['booted already, by whatever drill', none, DAY, newest('a', true), null],
    ['one runs', started, DAY, newest('b'), null],
    ['passed, a newer point', checkedAs('passed'), DAY, newest('b'), START + DAY],
    ['passed, and no newer point', checkedAs('passed'), DAY, newest('a', true), null],
    ['failed, a newer point', checkedAs('failed'), DAY, newest('b'), START + RETRY_MS],
    ['failed, the same point', checkedAs('failed'), DAY, newest('a'), START + DAY],
    [
      'failed twice',
      checkedAs('failed', checkedAs('failed')),
      DAY,
      newest('b'),
      START + 2 * RETRY_MS,
    ],
    ['failed, checked often', checkedAs('failed'), 60_000, newest('b'), START + 60_000],
    ['cancelled', checkedAs('cancelled'), DAY, newest('b'), START + DAY],
    ['failed 99 times', { ...checkedAs('failed'), failures: 99 }, DAY, newest('b'), START + DAY],
  ] as const)('%s', (_what, history, everyMs, point, due) => {
    expect(dueMs(history, everyMs, point, now)).toBe(due);
  });

  it('a clock that was set back does not keep it from coming', () => {
    expect(dueMs(checkedAs('passed'), DAY, newest('b'), START - DAY)).toBe(START - DAY);
  });

  it('what was missed is made up once; whoever waits longest comes first', () => {
    const due = dueMs(checkedAs('passed'), DAY, newest('b'), START + 9 * DAY);
    expect(due).toBe(START + DAY);
    const again = begun(
      checkedAs('passed'),
      { point: 'b', pointTime: 't', job: 'k' },
      START + 9 * DAY,
    );
    expect(dueMs(ended(again, { outcome: 'passed', detail: '' }, 0), DAY, newest('c'), 0)).toBe(0);
    const servers = [
      { server: 'c', dueMs: 7 },
      { server: 'b', dueMs: 5 },
      { server: 'a', dueMs: 5 },
      { server: 'd', dueMs: null },
      { server: 'e', dueMs: 11 },
    ];
    expect(nextServer(servers, 10)).toBe('a');
    expect(nextServer(servers, 4)).toBe(null);
  });

  it('over a year no server is forgotten, and none is booted more often than it may be', () => {
    fc.assert(
      fc.property(fc.array(fc.boolean(), { minLength: 30, maxLength: 60 }), (verdicts) => {
        let history = none;
        let nowMs = START;
        let startedMs = Number.NEGATIVE_INFINITY;
        for (const [at, passed] of verdicts.entries()) {
          const due = dueMs(history, DAY, newest(`p${at}`), nowMs)!;
          expect(due).toBeLessThanOrEqual(Math.max(nowMs, startedMs + DAY));
          const gap = history.failures === 0 ? DAY : RETRY_MS;
          expect(due).toBeGreaterThanOrEqual(startedMs + gap);
          nowMs = Math.max(nowMs, due);
          startedMs = nowMs;
          history = begun(history, { point: `p${at}`, pointTime: 't', job: 'j' }, nowMs);
          nowMs += 60_000;
          const outcome = passed ? 'passed' : 'failed';
          history = ended(history, { outcome, detail: '' }, nowMs);
        }
      }),
      { numRuns: 100 },
    );
  });
});

let world: PlanWorld;
let errors: string[];
let nowMs: number;
let checker: Checker | null;
beforeEach(() => {
  world = new PlanWorld(['db1', 'web1']);
  errors = [];
  nowMs = START;
  checker = null;
});
afterEach(async () => {
  await checker?.stop();
  await world.close();
});

/** The wall moves when the test says so; timers are real. */
const clock: Clock = { ...systemClock, wallMs: () => nowMs };

async function check(everyMs = DAY, options = {}): Promise<Checker> {
  const { store, jobs, verdicts, root } = world;
  const log = {
    ...silentLog,
    error: (message: string, fields: object = {}) => {
      errors.push(`${message} ${JSON.stringify(fields)}`);
    },
  };
  const records = await CheckRecords.open(nodeDisk, join(root, 'data'), log);
  checker = new Checker({
    ...{ clock, log, store, jobs, verdicts, records, standard: { everyMs, options } },
    onBroken: (error) => errors.push(String(error)),
    tickMs: 10,
  });
  return checker;
}
const launched = () =>
  world.launcher.events.filter((each) => each.startsWith('launch')).map((each) => each.slice(7));
const until = (isSo: () => boolean) => expect.poll(isSo, { interval: 10 }).toBe(true);
const quiet = () => new Promise((resolve) => setTimeout(resolve, 150));

describe('checks by themselves', () => {
  it('boot the newest point of each server, one at a time, at low priority, once in their time', async () => {
    for (const server of ['db1', 'web1']) world.launcher.acts.set(server, 'pass');
    await world.open();
    const running = await check(DAY, { memoryBytes: 2 ** 30 });
    await until(() => running.status('web1').last?.outcome === 'passed');
    expect(launched()).toEqual(['db1', 'web1']);
    expect(world.launcher.mostRunning).toBe(1);
    const { job, point } = running.status('db1').last!;
    expect(point).toBe('db1-20');
    expect(world.jobs.find(job!)).toMatchObject({
      ...{ kind: 'drill', target: 'qemu', point: 'db1-20' },
      options: { check: true, priority: 'low', memoryBytes: 2 ** 30 },
    });
    // Booted already, and then not yet a day ago.
    nowMs = START + DAY - 1;
    await quiet();
    world.points.unshift(pointOf('db1', 30));
    await quiet();
    expect(launched()).toHaveLength(2);
    nowMs = START + 3 * DAY;
    await until(() => launched().length > 2);
    await quiet();
    expect(running.status('db1').last?.point).toBe('db1-30');
    expect(launched()).toEqual(['db1', 'web1', 'db1']);
    expect(errors).toEqual([]);
  });

  it('wait while another drill runs, and say for whom', async () => {
    await world.open();
    const { id } = await world.jobs.start({ point: 'web1-10', target: 'qemu', options: {} });
    await until(() => launched().length === 1);
    world.launcher.acts.set('db1', 'pass');
    const running = await check();
    await until(() => running.status('db1').waitsFor === id);
    expect(running.status('db1')).toMatchObject({ state: 'waiting', nextMs: START, last: null });
    expect(launched()).toEqual(['web1']);
    world.launcher.acts.set('web1', 'pass');
    await world.jobs.stop(id);
    await until(() => running.status('web1').last?.outcome === 'passed');
    expect(launched()).toEqual(['web1', 'db1', 'web1']);
  });

  it('that fail are told loudly and counted, and the next point is tried', async () => {
    world.launcher.acts.set('db1', 'fail');
    world.launcher.acts.set('web1', 'pass');
    await world.open();
    const running = await check();
    await until(() => running.status('db1').last?.outcome === 'failed');
    expect(running.status('db1')).toMatchObject({ failures: 1, state: 'waiting' });
    await until(() => errors.length > 0);
    expect(errors).toEqual([
      expect.stringMatching(/^A POINT COULD NOT BE BOOTED .*"db1-20".*db1 broke/),
    ]);
    nowMs += RETRY_MS;
    await quiet();
    expect(launched().filter((server) => server === 'db1')).toHaveLength(1);
    world.launcher.acts.set('db1', 'pass');
    world.points.unshift(pointOf('db1', 30));
    await until(() => running.status('db1').last?.outcome === 'passed');
    expect(running.status('db1')).toMatchObject({ failures: 0, last: { point: 'db1-30' } });
  });

  it('whose verdict is bad say that the point does not boot', async () => {
    world.launcher.acts.set('db1', 'bad');
    await world.open();
    const running = await check();
    await until(() => typeof running.status('db1').last?.job === 'string');
    const { job } = running.status('db1').last!;
    await until(() => world.jobs.list().some(({ id, check: said }) => id === job && said !== null));
    await world.jobs.stop(job!);
    await until(() => running.status('db1').last?.outcome === 'failed');
    await until(() => errors.length > 0);
    expect(errors[0]).toMatch(/^A POINT DOES NOT BOOT .*"detail":"no login"/);
  });

  it('that cannot even be launched have failed, too', async () => {
    world.launcher.acts.set('db1', 'unfit');
    world.launcher.acts.set('web1', 'pass');
    await world.open();
    const running = await check();
    await until(() => running.status('web1').last?.outcome === 'passed');
    expect(running.status('db1').last).toMatchObject({
      ...{ outcome: 'failed', job: null },
      detail: 'db1 does not boot (ERR_LAUNCH_NOT_BOOTABLE)',
    });
    expect(errors).toHaveLength(1);
  });

  it('whose options this service would refuse have failed, and do not keep the others waiting', async () => {
    world.launcher.acts.set('web1', 'pass');
    await world.open();
    const before = await check();
    await before.stop();
    const records = await CheckRecords.open(nodeDisk, join(world.root, 'data'), silentLog);
    const policy = { everyMs: null, options: { noSuchOption: 1 } };
    await records.update('db1', () => ({ policy, last: null }));
    const running = await check();
    await until(() => running.status('web1').last?.outcome === 'passed');
    expect(running.status('db1').last).toMatchObject({ outcome: 'failed', job: null });
    expect(running.status('db1').last!.detail).toContain('ERR_LAUNCH_OPTIONS');
  });

  it('are gone on with after a restart, and not made twice', async () => {
    world.launcher.acts.set('db1', 'hang');
    world.launcher.acts.set('web1', 'pass');
    await world.open();
    const first = await check();
    await until(() => launched().length === 1);
    const { job } = first.status('db1').last!;
    await first.stop();
    await world.jobs.close();
    world.launcher.acts.set('db1', 'pass');
    await world.open();
    const second = await check();
    await until(() => second.status('web1').last?.outcome === 'passed');
    expect(second.status('db1').last).toMatchObject({ job, outcome: 'passed' });
    expect(world.launcher.events.filter((each) => each.endsWith(' db1'))).toEqual([
      ...['launch db1', 'again db1', 'clean db1'],
    ]);
  });

  it('that were written down and never begun are made', async () => {
    world.launcher.acts.set('db1', 'hang');
    await world.open();
    const first = await check();
    await until(() => launched().length === 1);
    const { job } = first.status('db1').last!;
    await first.stop();
    await world.jobs.cancel(job!);
    await until(() => world.jobs.find(job!).state === 'cleaned');
    await world.jobs.remove(job!);
    for (const server of ['db1', 'web1']) world.launcher.acts.set(server, 'pass');
    const second = await check();
    await until(() => second.status('web1').last?.outcome === 'passed');
    expect(second.status('db1').last).toMatchObject({ outcome: 'passed' });
    expect(second.status('db1').last!.job).not.toBe(job);
  });

  it('follow a policy of the server, which a restart does not forget', async () => {
    for (const server of ['db1', 'web1']) world.launcher.acts.set(server, 'pass');
    await world.open();
    const first = await check(0, { memoryBytes: 2 ** 30 });
    expect(first.status('db1')).toMatchObject({ state: 'off', isDefault: true, everyMs: 0 });
    await first.setPolicy('db1', { everyMs: DAY, options: { probe: 'tcp:22' } });
    await until(() => first.status('db1').last?.outcome === 'passed');
    await first.stop();
    const second = await check(DAY, { memoryBytes: 2 ** 30 });
    expect(second.status('db1')).toMatchObject({
      ...{ everyMs: DAY, isDefault: false, last: { outcome: 'passed' } },
      options: { memoryBytes: 2 ** 30, probe: 'tcp:22' },
    });
    await second.setPolicy('web1', { everyMs: 0, options: {} });
    await second.setPolicy('db1', null);
    expect(second.status('db1')).toMatchObject({
      isDefault: true,
      options: { memoryBytes: 2 ** 30 },
    });
    const refused = [
      ['nobody', { everyMs: DAY, options: {} }, 'ERR_SERVER_NOT_FOUND'],
      ['db1', { everyMs: DAY, options: { probe: 'ping' } }, 'ERR_LAUNCH_OPTIONS'],
      ['db1', { everyMs: DAY, options: { keepRunning: true } }, 'ERR_LAUNCH_OPTIONS'],
    ] as const;
    for (const [server, policy, code] of refused) {
      await expect(second.setPolicy(server, policy)).rejects.toMatchObject({ code });
    }
  });

  it('whose record is damaged are made as by default, and that is told', async () => {
    world.launcher.acts.set('db1', 'pass');
    world.launcher.acts.set('web1', 'pass');
    await world.open();
    const first = await check();
    await until(() => first.status('web1').last?.outcome === 'passed');
    await first.stop();
    const path = join(world.root, 'data/checks/db1.json');
    writeFileSync(path, readFileSync(path, 'utf8').replace('passed', 'failed'));
    const second = await check();
    expect(errors).toEqual([expect.stringContaining('damaged')]);
    expect(second.status('db1').last).toBe(null);
  });

  it('forget the verdicts of points that are gone', async () => {
    world.launcher.acts.set('db1', 'pass');
    world.launcher.acts.set('web1', 'pass');
    await world.open();
    const drill = { point: 'db1-10', target: 'qemu', options: {} };
    const { id } = await world.jobs.start(drill);
    await until(() => world.jobs.find(id).state === 'cleaned');
    world.points.splice(0, world.points.length, pointOf('db1', 20), pointOf('web1', 20));
    const running = await check();
    await until(() => running.status('web1').last?.outcome === 'passed');
    expect(await world.jobs.checkedPoints()).toEqual(new Set(['db1-20', 'web1-20']));
  });
});

describe('low priority', () => {
  it.each([
    [true, 19, 'idle'],
    [false, getPriority(), null],
  ])('%s: the program runs under nice and ionice, as itself', async (isLow, niceness, ionice) => {
    const pidfile = join(world.root, 'program.pid');
    const words = ['-c', `echo $$ >${pidfile}; while :; do read -t 1 x; done`];
    const logPath = join(world.root, 'log');
    await startProgram({ name: 'bash', words, pidfile, logPath, clock: systemClock, isLow });
    try {
      const pid = processOf(pidfile)!;
      expect(getPriority(pid)).toBe(niceness);
      const said = execFileSync('ionice', ['-p', String(pid)], { encoding: 'utf8' }).trim();
      if (ionice !== null) expect(said).toBe(ionice);
    } finally {
      await endProcess(pidfile, systemClock);
    }
  });
});

describe('a check as text', () => {
  const now = Date.parse('2026-11-21T10:00:00Z');
  const last = { ...fakeCheck().last!, endedAt: '2026-11-21T09:00:00Z' };
  it.each([
    [{ last: null, everyMs: 0 }, '-'],
    [{ last: null }, 'not yet'],
    [{ last, state: 'running' }, 'checking'],
    [{ last }, 'FAILED 1h ago (2 in a row)'],
    [{ last, failures: 1 }, 'FAILED 1h ago'],
    [{ last: { ...last, outcome: 'passed' } }, 'passed 1h ago'],
  ] as const)('%j', (changes, text) => {
    expect(checkWord({ ...fakeCheck(), ...changes } as ReturnType<typeof fakeCheck>, now)).toBe(
      text,
    );
  });

  it('tells how, how it went and what it waits for', () => {
    const shown = checkFields({ ...fakeCheck(), last, waitsFor: 'j1' }, now);
    expect(shown).toEqual([
      ['boot check', 'every 1d, probe tcp:22'],
      ['last check', 'FAILED 1h ago (2 in a row), point p: no answer within 10m'],
      ['next check', 'now, when job j1 has ended, of a point that has not booted yet'],
    ]);
  });

  it('has options of its own alone', () => {
    expect(checkedOptions({ bus: 'nvme' })).toEqual({ bus: 'nvme', check: true, priority: 'low' });
  });
});
