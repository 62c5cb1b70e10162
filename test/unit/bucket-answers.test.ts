/**
 * A repository in a bucket whose answers are lost: what was done all the same, and is not known to be done,
 * must do no harm afterwards and must not stand in the way of a second try.
 */
import { describe, expect, it } from 'vitest';
import { UnderstudyError } from '../../src/base/errors.ts';
import { CHUNK_BYTES } from '../../src/model/geometry.ts';
import { Random } from '../simulation/random.ts';
import { BucketLife } from './support/bucket-life.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { readsAs, tinySettings } from './support/store-life.ts';
import { commit, drain, type Expected } from './support/store-world.ts';

const quiet = { ...tinySettings, baseAfterDeltas: 1000, segmentBytes: 8_000_000 };

/** The request whose name matches has its effect, and from then on nothing answers. */
function loseAnswer(life: BucketLife, wanted: 'put' | 'remove', pattern: RegExp): void {
  life.objects.after = (kind, name) => {
    if (kind !== wanted || !pattern.test(name)) return;
    life.objects.cutOff = 'ERR_OBJECTS_UNAVAILABLE';
    throw new UnderstudyError('ERR_OBJECTS_UNAVAILABLE', `${name}: the answer is lost`);
  };
}

function answerAgain(life: BucketLife): void {
  life.objects.cutOff = null;
  life.objects.after = () => undefined;
}

const unavailable = { code: 'ERR_OBJECTS_UNAVAILABLE' };

describe.each([false, true])('answers that are lost (bundles: %s)', (hasBundles) => {
  it('condemn no pack that is in use again by the time it would go', async () => {
    const life = new BucketLife(new FaultyDisk(), 3, hasBundles);
    const [volume] = life.volumes;
    await life.open({ ...quiet, graceMs: 3_600_000 });
    const ingest = await life.connect();
    let timeMs = 1_700_000_000_000;
    const points: Expected[] = [];
    const next = async (seed: number) => {
      volume!.content.set(new Random(seed).bytes(CHUNK_BYTES), 0);
      for (let block = 0; block < 16; block += 1) volume!.dirty.add(block);
      await drain(ingest, 0, volume!);
      timeMs += 1000;
      points.push(await commit(ingest, life.volumes, timeMs));
      await life.store!.seal(points.at(-1)!.id);
    };
    const packs = () => [...life.objects.held.keys()].filter((name) => name.startsWith('packs/'));
    await next(0);
    const before = packs();
    await next(1);
    const large = ([, { bytes }]: [string, { bytes: Uint8Array }]) => bytes.length > CHUNK_BYTES;
    const own = [...life.objects.held].filter(large).find(([name]) => {
      return name.startsWith('packs/') && !before.includes(name);
    });
    const id = own![0].slice('packs/3f/'.length, -'.pack'.length);
    for (const seed of [2, 3]) await next(seed);
    await life.store!.applyRetention({ drop: [points[1]!.id, points[2]!.id] });
    loseAnswer(life, 'put', new RegExp(`^condemned/${id}`));
    await expect(life.store!.collect()).rejects.toMatchObject(unavailable);
    answerAgain(life);
    expect(life.objects.held.has(`condemned/${id}.condemned`)).toBe(true);
    await next(1); // what was dead is written again, and found in its pack
    for (let hours = 0; hours < 3; hours += 1) {
      await life.store!.collect();
      await life.clock.runUntil(life.clock.monotonicMs() + 3_700_000);
    }
    expect(await readsAs(life.store!, points.at(-1)!)).toBe(true);
    expect((await life.store!.check({ readData: true })).findings).toEqual([]);
    await ingest.close();
    await life.store!.close();
  });

  it('leave a hold that counts, and can be given and released again', async () => {
    const life = new BucketLife(new FaultyDisk(), 3, hasBundles);
    await life.open(quiet);
    const ingest = await life.connect();
    for (let i = 0; i < 3; i += 1) await life.writeAndCommit(ingest);
    const [{ id }] = life.acknowledged as [Expected];
    const store = life.store!;
    await store.seal(life.acknowledged.at(-1)!.id);
    loseAnswer(life, 'put', /^holds\//);
    await expect(store.holdPoint(id, 'first')).rejects.toMatchObject(unavailable);
    answerAgain(life);
    await life.clock.runUntil(life.clock.monotonicMs() + 60_000);
    await store.holdPoint(id, 'second').catch((error: unknown) => {
      expect(error).toMatchObject({ code: 'ERR_POINT_HELD' });
    });
    expect(store.holdOf(id)).not.toBeNull();
    expect(await store.applyRetention({ drop: [id] })).toEqual([]);
    loseAnswer(life, 'remove', /^holds\//);
    await expect(store.releasePoint(id)).rejects.toMatchObject(unavailable);
    answerAgain(life);
    await store.releasePoint(id);
    expect(store.holdOf(id)).toBeNull();
    await ingest.close();
    await store.close();
  });
});
