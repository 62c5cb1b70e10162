/**
 * Copies beside everything else that the source does: commits, seals, folds, retention, collection and
 * bases go on while points are copied, again and again, and every copy is whole.
 */
import { describe, expect, it } from 'vitest';
import { CopyWorld, expectWhole } from './support/copy-world.ts';

const SEEDS = (process.env.STORE_SEEDS ?? '1,2,3,4').split(',').map(Number);

describe('a source at work', () => {
  it.each(SEEDS)('is copied whole, while it folds, drops and collects (seed %i)', async (seed) => {
    const world = new CopyWorld(seed + 50);
    const { life } = world;
    await world.commit(3);
    // Calls of the disk take turns, so that the copy and the source are interleaved.
    let isOver = false;
    const wait = () =>
      life.random.chance(0.3) ? new Promise<void>((done) => setImmediate(done)) : Promise.resolve();
    life.disk.delay = wait;
    world.far.delay = wait;
    let copies = 0;
    let copied = 0;
    const skipped: string[] = [];
    const copying = (async () => {
      while (!isOver) {
        const report = await world.copy();
        copies += 1;
        copied += report.points;
        skipped.push(...report.skipped.map(({ reason, detail }) => `${reason}: ${detail}`));
        if (report.points === 0) await new Promise((done) => setImmediate(done));
      }
    })();
    const ingest = await life.connect();
    for (let round = 0; round < 12; round += 1) {
      const { id } = await life.writeAndCommit(ingest);
      if (life.random.chance(0.6)) await life.store!.seal(id);
      if (round % 3 === 2) await life.retain();
      if (round % 4 === 3) await life.store!.collect();
    }
    await ingest.close();
    await life.store!.seal(life.acknowledged.at(-1)!.id);
    isOver = true;
    await copying;
    life.disk.delay = null;
    world.far.delay = null;
    await world.copy();
    expect(copies).toBeGreaterThan(2);
    expect(copied).toBeGreaterThan(3);
    // Nothing is damaged: what could not be copied was dropped before its turn.
    for (const reason of skipped) expect(reason).toBe('dropped: it was dropped before its turn');
    const there = await expectWhole(world.far, life.acknowledged);
    const kept = (await life.store!.points({})).map(({ id }) => id);
    for (const id of kept) expect(there).toContain(id);
    expect((await life.store!.check({ readData: true })).findings).toEqual([]);
    await life.store!.close();
  });
});
