/**
 * The store with its repository in an object store: the lives of the other tests, the power going at any
 * call, each request failing before or after its effect, the bucket away for a while, locks; and how many
 * requests a point costs.
 */
import { describe, expect, it } from 'vitest';
import { type ErrorCode, UnderstudyError } from '../../src/base/errors.ts';
import { Random } from '../simulation/random.ts';
import { BucketLife, bucketKinds } from './support/bucket-life.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import type { Request } from './support/memory-objects.ts';
import { outcomeOf, readableOf, readsAs } from './support/store-life.ts';

const STRIDE = Number(process.env.STORE_CRASH_STRIDE ?? 47);
const SEEDS = (process.env.STORE_CRASH_SEEDS ?? '1,2').split(',').map(Number);

const large = { segmentBytes: 64 * 2 ** 20, smallPackBytes: 100_000 };

async function expectAll(life: BucketLife, what = ''): Promise<void> {
  const store = life.store!;
  const listed = new Set((await store.points({})).map(({ id }) => id));
  for (const point of life.acknowledged) {
    if (life.dropping.has(point.id) && !listed.has(point.id)) continue;
    expect(listed, what).toContain(point.id);
    expect(await readsAs(store, point), what).toBe(true);
  }
  expect((await store.check({ readData: true })).findings, what).toEqual([]);
}

/** What is sealed, from the bucket alone. */
async function expectOffline(life: BucketLife, what = ''): Promise<void> {
  const offline = await life.offline();
  expect((await offline.check({ readData: true })).findings, what).toEqual([]);
  expect((await offline.statistics()).journalBytes).toBe(0);
  const ids = new Set((await offline.points({})).map(({ id }) => id));
  for (const point of life.acknowledged) {
    if (ids.has(point.id)) expect(await readsAs(offline, point), what).toBe(true);
  }
  await offline.close();
}

describe.each(bucketKinds)('a repository in a bucket, %s', (_, hasBundles, far) => {
  it('lives as one on a disk does', async () => {
    for (const seed of SEEDS) {
      const life = new BucketLife(new FaultyDisk(), seed, hasBundles, far);
      await life.run();
      const left = life.disk.files('/data').filter((path) => !path.startsWith('/data/mirror/'));
      expect(left).toEqual(['/data/journal/repository', '/data/journal/watermark']);
      await life.open();
      await expectAll(life);
      await expectOffline(life);
      expect(await readableOf(life, await life.offline())).toEqual(
        await readableOf(life, life.store!),
      );
      await life.store!.close();
    }
  });

  it('has every acknowledged point after a power cut at any call', async () => {
    for (const seed of SEEDS) {
      const whole = new BucketLife(new FaultyDisk(), seed, hasBundles, far);
      await whole.run();
      for (let call = 1 + (seed % STRIDE); call < whole.disk.calls; call += STRIDE) {
        const disk = new FaultyDisk();
        const life = new BucketLife(disk, seed, hasBundles, far);
        disk.cutPowerAt(call);
        await expect(life.run()).rejects.toThrow();
        const what = `seed ${seed}, call ${call} (${disk.lastCall})`;
        disk.restart(new Random(seed * 100_000 + call));
        await expectOfflineIfThere(life, what);
        await life.open();
        if (life.attempted !== null) await adoptAttempted(life);
        await expectAll(life, what);
        const ingest = await life.connect();
        const point = await life.writeAndCommit(ingest);
        await life.store!.seal(point.id);
        await life.store!.collect();
        await expectAll(life, what);
        await life.store!.close();
      }
    }
  });

  it.each(['before', 'after'] as const)(
    'loses nothing where a request fails %s its effect',
    async (when) => {
      for (const seed of SEEDS) {
        const whole = new BucketLife(new FaultyDisk(), seed, hasBundles, far);
        await whole.run();
        const count = whole.objects.requests.length;
        for (let n = 1 + (seed % STRIDE); n < count; n += STRIDE) {
          const life = new BucketLife(new FaultyDisk(), seed, hasBundles, far);
          let what = '';
          life.objects[when] = (kind: Request, name: string, at: number) => {
            if (at !== n) return;
            what = `seed ${seed}, request ${n}: ${kind} ${name}`;
            throw new UnderstudyError('ERR_OBJECTS_UNAVAILABLE', what);
          };
          const error = await outcomeOf(life);
          // Whoever asked may be told; nobody is told that the store has failed.
          if (error !== undefined) {
            expect((error as UnderstudyError).code, what).toBe('ERR_OBJECTS_UNAVAILABLE');
          }
          life.objects[when] = () => undefined;
          life.disk.reopen();
          await expectOfflineIfThere(life, what);
          await life.open();
          if (life.attempted !== null) await adoptAttempted(life);
          await expectAll(life, what);
          await life.store!.close();
        }
      }
    },
  );

  it.each<ErrorCode>(['ERR_OBJECTS_UNAVAILABLE', 'ERR_OBJECTS_DENIED', 'ERR_OBJECTS_NO_BUCKET'])(
    'goes on receiving while the bucket is away (%s), and seals when it is back',
    async (code) => {
      const life = new BucketLife(new FaultyDisk(), 3, hasBundles, far);
      await life.open(large);
      const ingest = await life.connect();
      await life.writeAndCommit(ingest);
      life.objects.cutOff = code;
      for (let i = 0; i < 3; i += 1) await life.writeAndCommit(ingest);
      const { id } = life.acknowledged.at(-1)!;
      await expect(life.store!.seal(id)).rejects.toMatchObject({ code });
      for (let i = 0; i < 3; i += 1) await life.writeAndCommit(ingest);
      await life.clock.runUntil(life.clock.monotonicMs() + 60_000);
      expect((await life.store!.point(id)).state).toBe('staged');
      expect((await life.store!.statistics()).sealingWaits).toMatchObject({ code });
      expect(life.objects.requests.length).toBeGreaterThan(10);
      life.objects.cutOff = null;
      await life.clock.runUntil(life.clock.monotonicMs() + 60_000);
      expect((await life.store!.point(id)).state).toBe('sealed');
      expect((await life.store!.statistics()).sealingWaits).toBeNull();
      await expectAll(life);
      await expectOffline(life);
      await ingest.close();
      await life.store!.close();
    },
  );

  it('keeps what is locked, goes on around it, and lets go afterwards', async () => {
    const life = new BucketLife(new FaultyDisk(), 4, hasBundles, far);
    await life.open();
    const ingest = await life.connect();
    for (let i = 0; i < 6; i += 1) await life.writeAndCommit(ingest);
    await life.store!.seal(life.acknowledged.at(-1)!.id);
    for (const name of life.objects.held.keys()) life.objects.locked.add(name);
    const all = (await life.store!.points({})).length;
    await life.retain();
    expect((await life.store!.points({})).length).toBe(all);
    for (let i = 0; i < 4; i += 1) await life.writeAndCommit(ingest);
    await life.store!.seal(life.acknowledged.at(-1)!.id);
    const locked = [...life.objects.locked].filter((name) => !life.objects.held.has(name));
    expect(locked).toEqual([]);
    await life.retain();
    const collected = await life.store!.collect();
    expect(collected.lockedObjects).toBeGreaterThan(0);
    await expectAll(life);
    // Nobody is asked again and again.
    const removals = life.objects.count('remove');
    await life.retain();
    await life.store!.collect();
    expect(life.objects.count('remove') - removals).toBeLessThan(collected.lockedObjects);
    life.objects.locked.clear();
    await life.clock.runUntil(life.clock.monotonicMs() + 3_700_000);
    await life.retain();
    for (let i = 0; i < 3; i += 1) await life.store!.collect();
    expect((await life.store!.collect()).lockedObjects).toBe(0);
    expect((await life.store!.points({})).length).toBeLessThan(all);
    await expectAll(life);
    await expectOffline(life);
    await life.store!.close();
  });

  it('is not taken over by a fresh data directory, but where that is asked for', async () => {
    const life = new BucketLife(new FaultyDisk(), 5, hasBundles, far);
    await life.open();
    const ingest = await life.connect();
    await life.writeAndCommit(ingest);
    await ingest.close();
    await life.store!.close();
    life.disk.reopen();
    life.disk.lose('/data');
    await expect(life.open()).rejects.toThrow(/--adopt/);
    await life.open(undefined, { adopt: true });
    await expectAll(life);
    await life.writeAndCommit(await life.connect());
    await expectAll(life);
    await life.store!.close();
  });

  it('is refused where the journal belongs to another one', async () => {
    const life = new BucketLife(new FaultyDisk(), 6, hasBundles, far);
    await life.open();
    await life.store!.close();
    life.objects.held.delete('format.json');
    await expect(life.open()).rejects.toMatchObject({ code: 'ERR_DATA_FORMAT' });
    expect(life.objects.held.has('format.json')).toBe(false);
  });

  it('costs a bounded number of requests for each point, and no listing', async () => {
    const life = new BucketLife(new FaultyDisk(), 7, hasBundles, far);
    await life.open(large);
    const ingest = await life.connect();
    await life.writeAndCommit(ingest);
    await life.store!.seal(life.acknowledged.at(-1)!.id);
    await life.store!.check({ readData: false });
    life.objects.requests.length = 0;
    const POINTS = 10;
    for (let i = 0; i < POINTS; i += 1) {
      const { id } = await life.writeAndCommit(ingest);
      await life.store!.seal(id);
    }
    const { objects } = life;
    expect(objects.count('list')).toBe(0);
    expect(objects.count('bytes')).toBe(0);
    // A pack, a delta for each of two volumes, a point; in bundles a pack and a bundle.
    expect(objects.count('put')).toBe((hasBundles ? 2 : 4) * POINTS);
    expect(objects.count('read')).toBeLessThanOrEqual(2 * POINTS);
    await ingest.close();
    await life.store!.close();
    objects.requests.length = 0;
    const offline = await life.offline();
    expect(await readsAs(offline, life.acknowledged.at(-1)!)).toBe(true);
    expect(objects.count('list')).toBeLessThanOrEqual(hasBundles ? 16 : 12);
    expect(objects.count('read') + objects.count('bytes')).toBeLessThanOrEqual(
      hasBundles ? 75 : 60,
    );
    await offline.close();
  });
});

/** A repository that was not made yet is none. */
async function expectOfflineIfThere(life: BucketLife, what: string): Promise<void> {
  if (life.objects.held.has('format.json')) await expectOffline(life, what);
}

/** The commit that was under way may have become visible. */
async function adoptAttempted(life: BucketLife): Promise<void> {
  const known = new Set(life.acknowledged.map(({ id }) => id));
  const listed = await life.store!.points({});
  for (const { id } of listed.filter((point) => !known.has(point.id))) {
    life.acknowledged.push({ id, ...life.attempted! });
  }
}
