/** Retention and collection by the clock: when, with what, and what their trouble does. */
import { describe, expect, it } from 'vitest';
import type { Clock } from '../../src/base/clock.ts';
import { UnderstudyError } from '../../src/base/errors.ts';
import { createLog } from '../../src/base/log.ts';
import { ClockGuard } from '../../src/staging/clock-guard.ts';
import { Upkeep } from '../../src/staging/upkeep.ts';
import type { Store } from '../../src/store/types.ts';
import { VirtualClock } from '../simulation/virtual-clock.ts';
import { FaultyDisk } from './support/faulty-disk.ts';

const keep = [{ everyMs: 0, forMs: 1000 }];

async function make() {
  const virtual = new VirtualClock();
  const wall = { leapMs: 0 };
  const clock: Clock = {
    wallMs: () => virtual.wallMs() + wall.leapMs,
    monotonicMs: () => virtual.monotonicMs(),
    after: (delayMs, run) => virtual.after(delayMs, run),
  };
  const keys: string[] = [];
  const calls: string[] = [];
  const logged: string[] = [];
  const dropped: [string, number][] = [];
  const broken: UnderstudyError[] = [];
  const plan: { drop: string[]; failure: UnderstudyError | null } = { drop: [], failure: null };
  const log = createLog({ sink: (line) => logged.push(JSON.parse(line).message), level: 'info' });
  const store: Partial<Store> = {
    async planRetention(rules, nowMs) {
      expect(rules).toBe(keep);
      expect(nowMs).toBe(clock.wallMs());
      calls.push('plan');
      const { failure } = plan;
      plan.failure = null;
      if (failure !== null) throw failure;
      return { keep: [], drop: plan.drop, points: [] };
    },
    point: async (id) => ({ server: id.split('-')[0]! }) as Awaited<ReturnType<Store['point']>>,
    async applyRetention({ drop }) {
      calls.push(`drop ${drop.join(' ')}`);
      plan.drop = [];
      return drop.map((id) => ({ id, server: id.split('-')[0]! }));
    },
    async refreshKeys() {
      return keys.shift() ?? null;
    },
    async collect() {
      calls.push('collect');
      return { removedObjects: 1, lockedObjects: 0, freedBytes: 2 };
    },
  };
  const diskWithData = new FaultyDisk();
  await diskWithData.makeDirectory('/data');
  const guard = await ClockGuard.open({
    ...{ disk: diskWithData, folder: '/data', clock, newestMs: null, isTrusted: false },
    log,
  });
  const upkeep = new Upkeep({
    guard,
    clock,
    log,
    store: store as Store,
    keep,
    retentionMs: 60_000,
    collectionMs: 300_000,
    onDropped: (server, points) => dropped.push([server, points]),
    onBroken: (error) => broken.push(error),
  });
  return { keys, virtual, wall, calls, logged, dropped, broken, plan, upkeep, guard };
}

describe('upkeep', () => {
  it('asks for a plan every minute and collects every five', async () => {
    const { virtual, calls } = await make();
    await virtual.runUntil(60_000 * 6 + 10);
    expect(calls).toEqual(['plan', 'plan', 'plan', 'plan', 'plan', 'collect', 'plan']);
  });

  it('takes in a key that was made beside the service, and says so', async () => {
    const { virtual, logged, keys } = await make();
    keys.push('0123456789abcdef');
    await virtual.runUntil(130_000);
    expect(logged.filter((line) => line.includes('new key'))).toHaveLength(1);
  });

  it('drops what the plan says, and tells of which servers', async () => {
    const { virtual, calls, dropped, plan } = await make();
    plan.drop = ['web-1', 'db-1', 'web-2'];
    await virtual.runUntil(130_000);
    expect(calls).toEqual(['plan', 'drop web-1 db-1 web-2', 'plan']);
    expect(dropped).toEqual([
      ['web', 2],
      ['db', 1],
    ]);
  });

  it('tries again after passing trouble', async () => {
    const { virtual, calls, broken, plan, logged } = await make();
    plan.failure = new UnderstudyError('ERR_DISK_FULL', 'no space');
    await virtual.runUntil(130_000);
    expect(calls).toEqual(['plan', 'plan']);
    expect(logged).toEqual(['upkeep failed']);
    expect(broken).toEqual([]);
  });

  it.each(['ERR_OBJECT_DAMAGED', 'ERR_BUG'] as const)('hands %s to the service', async (code) => {
    const { virtual, broken, plan } = await make();
    plan.failure = new UnderstudyError(code, 'damaged');
    await virtual.runUntil(60_001);
    expect(broken.map((error) => error.code)).toEqual([code]);
  });

  it.each([7_200_000, -7_200_000])(
    'drops nothing any more once the clock has leapt by %d ms, and says so once',
    async (leapMs) => {
      const { virtual, wall, calls, logged, plan } = await make();
      await virtual.runUntil(61_000);
      wall.leapMs = leapMs;
      plan.drop = ['web-1'];
      await virtual.runUntil(301_000);
      expect(calls).toEqual(['plan', 'collect']);
      expect(logged).toEqual(['no point is dropped until an operator agrees', 'collected']);
    },
  );

  it('drops again once an operator agrees, and refuses to drop at once before', async () => {
    const { virtual, wall, calls, plan, upkeep, guard } = await make();
    await virtual.runUntil(61_000);
    wall.leapMs = 7_200_000;
    plan.drop = ['web-1'];
    await expect(upkeep.retainNow()).rejects.toMatchObject({ code: 'ERR_CLOCK_DOUBTED' });
    await virtual.runUntil(121_000);
    expect(calls).toEqual(['plan']);
    await guard.resume();
    expect(await upkeep.retainNow()).toEqual([{ id: 'web-1', server: 'web' }]);
    await virtual.runUntil(181_000);
    expect(calls).toEqual(['plan', 'plan', 'drop web-1', 'plan']);
  });

  it('bears a clock that is corrected by a little', async () => {
    const { virtual, wall, calls } = await make();
    await virtual.runUntil(61_000);
    wall.leapMs = 60_000;
    await virtual.runUntil(121_000);
    expect(calls).toEqual(['plan', 'plan']);
  });

  it('waits for the run that is under way when it stops, and runs no more', async () => {
    const { virtual, calls, upkeep } = await make();
    await virtual.runUntil(61_000);
    await upkeep.stop();
    await virtual.runUntil(600_000);
    expect(calls).toEqual(['plan']);
  });
});
