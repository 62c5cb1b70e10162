/**
 * P4 at every durable step: the power goes at each call of a whole life of the store, unsynced contents
 * and names are forgotten or kept at random, and then every acknowledged point is there and right,
 * nothing else is visible but at most the commit that was under way, and a check finds nothing.
 */
import { describe, expect, it } from 'vitest';
import { Random } from '../simulation/random.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { readsAs, StoreLife } from './support/store-life.ts';

/** One call in so many is tried: all of them with STORE_CRASH_STRIDE=1. */
const STRIDE = Number(process.env.STORE_CRASH_STRIDE ?? 31);
const FILE = 'test/unit/store-crash.test.ts';
const SEEDS = (process.env.STORE_CRASH_SEEDS ?? '1,2,3').split(',').map(Number);

async function callsOfLife(seed: number): Promise<number> {
  const life = new StoreLife(new FaultyDisk(), seed);
  await life.run();
  return life.disk.calls;
}

async function expectAll(life: StoreLife): Promise<void> {
  const store = life.store!;
  const listed = new Set((await store.points({})).map(({ id }) => id));
  for (const point of life.acknowledged) {
    if (life.dropping.has(point.id) && !listed.has(point.id)) continue;
    expect(listed).toContain(point.id);
    expect(await readsAs(store, point), `point ${point.id}`).toBe(true);
    listed.delete(point.id);
  }
  expect(listed.size).toBeLessThanOrEqual(1);
  for (const id of listed) {
    expect(life.attempted, `point ${id} was never committed`).not.toBeNull();
    const point = { id, ...life.attempted! };
    expect(await readsAs(store, point)).toBe(true);
    life.acknowledged.push(point);
  }
  expect((await store.check({ readData: true })).findings).toEqual([]);
}

async function crashAt(seed: number, call: number): Promise<void> {
  const disk = new FaultyDisk();
  const life = new StoreLife(disk, seed);
  disk.cutPowerAt(call);
  await expect(life.run()).rejects.toThrow();
  const cutIn = disk.lastCall;
  const random = new Random(seed * 100_000 + call);
  disk.restart(random);
  try {
    // The power may go again while the journal is brought back.
    for (let again = 0; again < 2 && random.chance(0.4); again += 1) {
      disk.cutPowerAt(disk.calls + 1 + random.below(25));
      await life.open().catch(() => null);
      disk.restart(random);
    }
    await life.open();
    await expectAll(life);
    // Life goes on.
    const ingest = await life.connect();
    const point = await life.writeAndCommit(ingest);
    await life.store!.seal(point.id);
    await life.store!.collect();
    await expectAll(life);
    await life.store!.close();
  } catch (error) {
    const replay = `STORE_CRASH_SEEDS=${seed} STORE_CRASH_STRIDE=1 npx vitest run ${FILE}`;
    throw new Error(`power cut at call ${call} (${cutIn}); replay: ${replay}`, { cause: error });
  }
}

describe('power cut', () => {
  it('at any call leaves every acknowledged point whole and nothing else visible', async () => {
    for (const seed of SEEDS) {
      const calls = await callsOfLife(seed);
      expect(calls).toBeGreaterThan(200);
      for (let call = 1 + (seed % STRIDE); call < calls; call += STRIDE) await crashAt(seed, call);
    }
  });
});
