/** Ingest, commit and images over the real disk: what was committed reads back as it was (P3, P4). */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { silentLog } from '../../src/base/log.ts';
import { nodeDisk } from '../../src/base/node-disk.ts';
import { CHUNK_BYTES } from '../../src/model/geometry.ts';
import { MemoryCatalog } from '../../src/store/catalog/catalog-memory.ts';
import { openRepository } from '../../src/store/offline.ts';
import { openStore } from '../../src/store/open-store.ts';
import type { Store } from '../../src/store/types.ts';
import { Random } from '../simulation/random.ts';
import { keys, withKeys } from './support/key-mode.ts';
import { commit, drain, type Expected, SourceVolume, sync } from './support/store-world.ts';

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'understudy-store-'));
});
afterEach(async () => {
  await rm(root, { recursive: true, force: true });
});

/** Of all lives of a store: none may take the names of another one. */
const chance = new Random(11);

const open = (settings = {}): Promise<Store> =>
  openStore({
    ...withKeys,
    disk: nodeDisk,
    clock: systemClock,
    randomBytes: (count) => chance.bytes(count),
    root,
    catalog: new MemoryCatalog(),
    log: silentLog,
    settings,
  });

async function expectImages(store: Store, expected: Expected): Promise<void> {
  for (const [volume, content] of expected.contents) {
    const image = await store.openImage(expected.id, volume);
    expect(image.sizeBytes).toBe(content.length);
    const read = await image.read(0, content.length);
    expect(Buffer.compare(read, content)).toBe(0);
    image.close();
  }
}

const GENERATION = 'a'.repeat(32);
const OTHER = 'b'.repeat(32);

describe('ingest', () => {
  it('gives every committed point back, before and after sealing and restarts', async () => {
    const random = new Random(7);
    const volumes = [
      new SourceVolume('/dev/a', 40 * CHUNK_BYTES + 5000, GENERATION),
      new SourceVolume('/dev/b', 7 * CHUNK_BYTES, OTHER),
    ];
    volumes[0]!.write(random, 3 * CHUNK_BYTES, 20 * CHUNK_BYTES);
    volumes[1]!.write(random, 100, 3 * CHUNK_BYTES);
    const points: Expected[] = [];
    const small = {
      openMemoryBytes: 300,
      baseAfterDeltas: 3,
      baseMaxGrowth: 99,
      indexMemoryEntries: 20,
      graceMs: 0,
      commitMemoryBytes: 500,
    };
    let store = await open(small);
    for (let life = 0; life < 3; life += 1) {
      const ingest = await store.beginIngest(
        'web',
        volumes.map((volume) => volume.description),
      );
      for (const [i, volume] of volumes.entries()) {
        expect(ingest.positions[i]!.committed?.epoch ?? 0).toBe(volume.epoch);
        if (volume.epoch === 0) await sync(ingest, i, volume);
      }
      for (let round = 0; round < 5; round += 1) {
        for (const [i, volume] of volumes.entries()) {
          for (let w = 0; w < 6; w += 1) {
            volume.write(random, random.below(volume.content.length), 1 + random.below(30_000));
          }
          await drain(ingest, i, volume);
        }
        points.push(await commit(ingest, volumes, 1_700_000_000_000 + points.length * 1000));
        if (round === 2) await store.seal(points.at(-1)!.id);
      }
      for (const point of points) await expectImages(store, point);
      await ingest.close();
      await store.close();
      store = await open(small);
      for (const point of points) await expectImages(store, point);
      expect((await store.points({ order: 'oldest' })).map(({ id }) => id)).toEqual(
        points.map(({ id }) => id),
      );
    }
    expect((await store.check({ readData: true })).findings).toEqual([]);
    const { drop } = await store.planRetention([{ everyMs: 4000, forMs: 1e12 }], 1_700_000_100_000);
    expect(drop.length).toBeGreaterThan(5);
    await store.applyRetention({ drop });
    const kept = points.filter(({ id }) => !drop.includes(id));
    for (const point of kept) await expectImages(store, point);
    await store.collect();
    await store.collect();
    for (const point of kept) await expectImages(store, point);
    expect((await store.check({ readData: true })).findings).toEqual([]);
    await store.close();
    const offline = await openRepository(`${root}/repo`, silentLog, undefined, keys);
    expect((await offline.check({ readData: true })).findings).toEqual([]);
    const image = await offline.openImage(kept[0]!.id, '/dev/a');
    const content = kept[0]!.contents.get('/dev/a')!;
    expect(Buffer.compare(await image.read(0, content.length), content)).toBe(0);
    await offline.close();
  });
});
