/**
 * Copies to a bucket, and from one: the bucket going away at each request, before or after it has had its
 * effect, and how many requests a copy costs that brings nothing new.
 */
import { describe, expect, it } from 'vitest';
import { UnderstudyError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import { BucketDisk } from '../../src/store/objects/bucket-disk.ts';
import { BundledObjects } from '../../src/store/objects/bundled-objects.ts';
import { type OfflineRepository, openRepositoryIn } from '../../src/store/offline.ts';
import { isPassing } from '../../src/store/passing.ts';
import type { CopyPlace } from '../../src/store/types.ts';
import { COPY, CopyWorld, expectAt, expectWhole, placeOn } from './support/copy-world.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { keys, withKeys } from './support/key-mode.ts';
import { MemoryObjects } from './support/memory-objects.ts';

const ROOT = 's3://far/copy';
/** One request in so many is tried: all of them with COPY_CRASH_STRIDE=1. */
const STRIDE = Number(process.env.COPY_CRASH_STRIDE ?? 4);

function bucketOf(objects: MemoryObjects, world: CopyWorld, name = 'bucket') {
  const local = new FaultyDisk();
  const { clock } = world.life;
  const open = () => {
    const common = { local: local.mount(), root: ROOT, clock, mirror: '/scratch/mirror' };
    const failed = (name: string, error: Error) => {
      if (!isPassing(error)) throw new Error(`${name}: ${error.message}`);
    };
    const bundles = new BundledObjects(objects, { onDamage: failed, onLeft: failed });
    return new BucketDisk({ ...common, objects: bundles, bundles });
  };
  const place = (): CopyPlace => {
    const disk = open();
    return {
      ...withKeys,
      name,
      disk,
      repo: ROOT,
      scratch: '/scratch',
      alone: (term) => disk.keepListing(term),
    };
  };
  const offline = (): Promise<OfflineRepository> =>
    openRepositoryIn({ disk: open(), repo: ROOT, objects, scratch: '/local', keys }, silentLog);
  return { place, offline, local };
}

describe('a copy in a bucket', () => {
  it('is whole, costs few requests where nothing is new, and can be copied back', async () => {
    const world = new CopyWorld(41);
    await world.commit(6);
    const { store, acknowledged } = world.life;
    const objects = new MemoryObjects();
    const { place, offline, local } = bucketOf(objects, world);
    expect(await store!.copy(place(), { verify: 'new' })).toMatchObject({
      points: 6,
      isNoted: true,
    });
    expect(await expectAt(offline, acknowledged)).toHaveLength(6);
    const before = objects.requests.length;
    expect(await store!.copy(place(), {})).toMatchObject({ points: 0, bytesWritten: 0 });
    const asked = objects.requests.slice(before);
    expect(asked.filter(({ kind }) => kind === 'put')).toEqual([]);
    expect(asked.filter(({ name }) => name.startsWith('points/'))).toEqual([]);
    expect(asked.length).toBeLessThan(40);
    const keep = [{ everyMs: 3000, forMs: 1e13 }];
    expect((await store!.copy(place(), { keep })).dropped).toBeGreaterThan(0);
    await expectAt(offline, acknowledged);
    // The source is lost: from the bucket to a new disk. The note of it goes to the bucket.
    const from = await offline();
    const back = await from.copy({ ...placeOn(local), name: 'home' }, {});
    expect(back.points).toBe(back.held);
    expect(back.isNoted).toBe(true);
    await from.close();
    expect(await expectWhole(local, acknowledged, COPY)).toHaveLength(back.held);
    await store!.close();
  });

  it('is whole wherever the bucket goes away, and the next copy finishes', async () => {
    const world = new CopyWorld(42);
    await world.commit(5);
    const { store, acknowledged } = world.life;
    const counted = new MemoryObjects();
    await store!.copy(bucketOf(counted, world, 'counted').place(), { verify: 'new' });
    const total = counted.requests.length;
    expect(total).toBeGreaterThan(15);
    for (let at = 1; at <= total; at += STRIDE) {
      for (const when of ['before', 'after'] as const) {
        const objects = new MemoryObjects();
        const { place, offline } = bucketOf(objects, world, `${when} ${at}`);
        objects[when] = () => {
          if (objects.requests.length < at) return;
          throw new UnderstudyError('ERR_OBJECTS_UNAVAILABLE', 'cut off', {});
        };
        const cut = store!.copy(place(), { verify: 'new' });
        await expect(cut, `${when} ${at}`).rejects.toMatchObject({
          code: 'ERR_OBJECTS_UNAVAILABLE',
        });
        objects[when] = () => undefined;
        if (objects.held.has('format.json')) await expectAt(offline, acknowledged);
        await store!.copy(place(), {});
        expect(await expectAt(offline, acknowledged), `${when} ${at}`).toHaveLength(5);
      }
    }
    await store!.close();
  });

  it('keeps what is locked there, and drops it later', async () => {
    const world = new CopyWorld(43);
    await world.commit(6);
    const { store, acknowledged } = world.life;
    const objects = new MemoryObjects();
    const { place, offline } = bucketOf(objects, world);
    await store!.copy(place(), {});
    for (const name of objects.held.keys()) objects.locked.add(name);
    const keep = [{ everyMs: 1e9, forMs: 1e13 }];
    expect(await store!.copy(place(), { keep })).toMatchObject({ dropped: 0, held: 6 });
    expect(await expectAt(offline, acknowledged)).toHaveLength(6);
    objects.locked.clear();
    expect((await store!.copy(place(), { keep })).dropped).toBeGreaterThan(2);
    await expectAt(offline, acknowledged);
    await store!.close();
  });
});
