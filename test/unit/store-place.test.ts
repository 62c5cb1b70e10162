/** Where a repository lies: directories beside the data directory, what is refused, old packs in cold classes. */
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { UnderstudyError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import { CHUNK_BYTES } from '../../src/model/geometry.ts';
import { openNodeStore } from '../../src/store/node-store.ts';
import { coolPacks } from '../../src/store/objects/cold.ts';
import { sourceOf } from '../../src/store/objects/object-store.ts';
import { parseClasses, parseLock, parseS3Place } from '../../src/store/objects/s3-settings.ts';
import { openRepositoryIn } from '../../src/store/offline.ts';
import { assertCreateOnce, openReaderPlace, openServicePlace } from '../../src/store/place.ts';
import { rebuildCatalog } from '../../src/store/rebuild-catalog.ts';
import type { Store } from '../../src/store/types.ts';
import { Random } from '../simulation/random.ts';
import { MemoryObjects } from './support/memory-objects.ts';
import { readsAs } from './support/store-life.ts';
import { commit, drain, type Expected, SourceVolume, sync } from './support/store-world.ts';

const world = { clock: systemClock, log: silentLog };
let folder = '';
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'understudy-place-'));
});
afterEach(async () => {
  await rm(folder, { recursive: true });
});

/** Two points of a small volume. */
async function fill(store: Store): Promise<Expected[]> {
  const random = new Random(1);
  const volume = new SourceVolume('/dev/a', 5 * CHUNK_BYTES, 'a'.repeat(32));
  volume.write(random, 0, 3 * CHUNK_BYTES);
  const ingest = await store.beginIngest('web', [volume.description]);
  const points: Expected[] = [];
  await sync(ingest, 0, volume);
  for (let i = 1; i <= 2; i += 1) {
    volume.write(random, i * CHUNK_BYTES, 9000);
    await drain(ingest, 0, volume);
    points.push(await commit(ingest, [volume], 1_700_000_000_000 + i * 1000));
  }
  await ingest.close();
  return points;
}

describe('a repository in another directory', () => {
  it('is served, found again, read without a service, and held by one service at a time', async () => {
    const [data, repo] = [join(folder, 'data'), join(folder, 'elsewhere/repo')];
    const place = await openServicePlace(data, repo, {}, world);
    const store = await openNodeStore(data, silentLog, { place });
    const points = await fill(store);
    // Another data directory, the same repository: its holder is alive.
    const other = await openServicePlace(join(folder, 'other'), repo, {}, world);
    const rival = openNodeStore(join(folder, 'other'), silentLog, { place: other, adopt: true });
    const refused = expect(rival).rejects.toMatchObject({ code: 'ERR_REPOSITORY_IN_USE' });
    await store.seal(points[1]!.id);
    await refused;
    await store.close();
    await place.close();
    expect(await readdir(data)).not.toContain('repo');
    const reading = await openReaderPlace(repo, {}, world);
    const offline = await openRepositoryIn(reading, silentLog);
    for (const point of points) expect(await readsAs(offline, point)).toBe(true);
    expect((await offline.check({ readData: true })).findings).toEqual([]);
    await offline.close();
    await reading.close();
    const rebuilding = await openServicePlace(data, repo, {}, world);
    const rebuilt = await rebuildCatalog(data, silentLog, rebuilding);
    expect(rebuilt).toMatchObject({ points: 2, forgotten: [] });
    await rebuilding.close();
    await expect(rebuildCatalog(data, silentLog)).rejects.toMatchObject({
      code: 'ERR_DATA_FORMAT',
    });
    const again = await openServicePlace(data, repo, {}, world);
    const reopened = await openNodeStore(data, silentLog, { place: again });
    for (const point of points) expect(await readsAs(reopened, point)).toBe(true);
    await reopened.close();
    await again.close();
    expect(await readdir(join(repo, '.temporary'))).toEqual([]);
  });

  it('is not mixed up with that of the data directory', async () => {
    const data = join(folder, 'data');
    const store = await openNodeStore(data, silentLog);
    await fill(store);
    await store.close();
    const place = await openServicePlace(data, join(folder, 'elsewhere'), {}, world);
    const mixed = openNodeStore(data, silentLog, { place });
    await expect(mixed).rejects.toMatchObject({ code: 'ERR_DATA_FORMAT' });
    const own = await openServicePlace(data, join(data, 'repo'), {}, world);
    expect(own.objects).toBeNull();
  });
});

describe('a data directory', () => {
  it('is refused where a file is in its place', async () => {
    const file = join(folder, 'file');
    await writeFile(file, 'x');
    await expect(openNodeStore(file, silentLog)).rejects.toThrow('no directory');
  });
});

describe('what is given', () => {
  it.each([
    ['s3://bucket', { bucket: 'bucket', prefix: '' }],
    ['s3://bucket/', { bucket: 'bucket', prefix: '' }],
    ['s3://bucket/a/b', { bucket: 'bucket', prefix: 'a/b' }],
    ['s3://bucket/a/', { bucket: 'bucket', prefix: 'a' }],
  ])('%s is a place in a bucket', (text, expected) => {
    expect(parseS3Place(text)).toEqual(expected);
  });

  it.each(['s3://', 's3:///a', 's3://bucket//a', 's3:/bucket', 'gs://bucket', 's3://b!/a'])(
    '%s is none',
    async (text) => {
      const opened = openServicePlace(folder, text, {}, world);
      await expect(opened).rejects.toMatchObject({ code: 'ERR_USAGE' });
    },
  );

  it('of classes and locks is checked', () => {
    expect([...parseClasses('packs=STANDARD_IA, points=STANDARD')]).toEqual([
      ['packs', 'STANDARD_IA'],
      ['points', 'STANDARD'],
    ]);
    for (const text of ['', 'packs', 'packs=', 'x=STANDARD', 'packs=GLACIER', 'packs=A=B']) {
      expect(() => parseClasses(text), text).toThrow(UnderstudyError);
    }
    expect(parseLock('30d')).toEqual({ forMs: 30 * 86_400_000, mode: 'GOVERNANCE' });
    expect(parseLock('1h:compliance')).toEqual({ forMs: 3_600_000, mode: 'COMPLIANCE' });
    for (const text of ['', '0d', '30', '30d:x', '30d:compliance:x']) {
      expect(() => parseLock(text), text).toThrow(UnderstudyError);
    }
  });
});

describe('an object store', () => {
  it('that gives a name twice is refused', async () => {
    const objects = new MemoryObjects();
    await assertCreateOnce(objects);
    expect([...objects.held.keys()]).toEqual([]);
    objects.before = (kind, name) => {
      if (kind === 'put') objects.held.delete(name);
    };
    await expect(assertCreateOnce(objects)).rejects.toMatchObject({
      code: 'ERR_OBJECTS_UNSUITABLE',
    });
  });

  it('is told to keep old packs in a cold class, each once, and nothing else', async () => {
    const objects = new MemoryObjects();
    const put = async (name: string, bytes: number, atMs: number) => {
      objects.nowMs = atMs;
      await objects.put(name, sourceOf(new Uint8Array(bytes)));
    };
    await put('packs/3f/old.pack', 200_000, 1000);
    await put('packs/3f/small.pack', 1000, 1000);
    await put('packs/3f/locked.pack', 200_000, 1000);
    await put('packs/3f/young.pack', 200_000, 5000);
    await put('points/web/old.point', 200_000, 1000);
    objects.locked.add('packs/3f/locked.pack');
    expect(await coolPacks(objects, 2000)).toBe(1);
    const cold = [...objects.held].filter(([, { storageClass }]) => storageClass === 'GLACIER_IR');
    expect(cold.map(([name]) => name)).toEqual(['packs/3f/old.pack']);
    expect(await coolPacks(objects, 2000)).toBe(0);
  });
});
