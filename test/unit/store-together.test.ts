/**
 * Everything at once: servers that write and commit, seals, retention, collection without a grace, checks
 * and readers, with calls of the disk that end in any order. What was committed and not dropped reads as
 * it was, always; at the end a check is clean, alone and after a restart. FORMAT.md, "What may run beside
 * what", is this test in words.
 */
import { describe, expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { CHUNK_BYTES } from '../../src/model/geometry.ts';
import { MemoryCatalog } from '../../src/store/catalog/catalog-memory.ts';
import { toHex } from '../../src/store/format/checksum.ts';
import { BucketDisk } from '../../src/store/objects/bucket-disk.ts';
import { BundledObjects } from '../../src/store/objects/bundled-objects.ts';
import { openStore } from '../../src/store/open-store.ts';
import type { Store } from '../../src/store/types.ts';
import { Random } from '../simulation/random.ts';
import { VirtualClock } from '../simulation/virtual-clock.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { withKeys } from './support/key-mode.ts';
import { MemoryObjects } from './support/memory-objects.ts';
import { readsAs, tinySettings } from './support/store-life.ts';
import { commit, drain, type Expected, SourceVolume, sync } from './support/store-world.ts';

const FILE = 'test/unit/store-together.test.ts';
const SEEDS = (process.env.STORE_TOGETHER_SEEDS ?? '1,2,3,4').split(',').map(Number);
const START = 1_700_000_000_000;

class Together {
  readonly random: Random;
  readonly disk = new FaultyDisk();
  private readonly objects = new MemoryObjects();
  private readonly isBucket: boolean;
  readonly points: Expected[] = [];
  readonly dropped = new Set<string>();
  store!: Store;
  private working = 0;
  private readonly seed: number;

  constructor(seed: number, isBucket: boolean) {
    this.seed = seed;
    this.isBucket = isBucket;
    this.random = new Random(seed);
    const pace = this.random.fork();
    this.disk.delay = async () => {
      for (let i = pace.below(3); i > 0; i -= 1) await new Promise((go) => setImmediate(go));
    };
    this.objects.delay = this.disk.delay;
  }

  async open(): Promise<void> {
    const chance = this.random.fork();
    const clock = new VirtualClock();
    this.store = await openStore({
      ...withKeys,
      ...(this.isBucket ? this.bucket(clock) : { disk: this.disk.mount() }),
      clock,
      randomBytes: (count) => chance.bytes(count),
      root: '/data',
      catalog: new MemoryCatalog(),
      log: silentLog,
      settings: { ...tinySettings, segmentBytes: 150_000 },
    });
  }

  private bucket(clock: VirtualClock) {
    const failed = (name: string, error: Error) => {
      throw new Error(`${name}: ${error.message}`);
    };
    const bundles = new BundledObjects(this.objects, { onDamage: failed, onLeft: failed });
    const disk = new BucketDisk({
      ...{ local: this.disk.mount(), root: 's3://bucket', objects: bundles, bundles },
      ...{ clock, mirror: '/data/mirror' },
    });
    return { disk, repo: 's3://bucket', onAlone: () => disk.keepListing() };
  }

  async run(): Promise<void> {
    await this.open();
    const servers = ['a', 'b', 'c'].map((name, i) => this.server(name, i, this.random.fork()));
    const beside = [this.upkeep(this.random.fork()), this.read(this.random.fork())];
    await Promise.all([...servers, ...beside]);
    await this.expectAll();
    await this.store.close();
    this.disk.reopen();
    await this.open();
    await this.expectAll();
    await this.store.collect();
    await this.expectAll();
    await this.store.close();
  }

  private async server(name: string, number: number, random: Random): Promise<void> {
    this.working += 1;
    // All servers have the same content at first: dedupe across servers is under test, too.
    const volume = new SourceVolume('/dev/x', 6 * CHUNK_BYTES + 700, `${number}`.repeat(32));
    volume.write(new Random(this.seed), 0, 4 * CHUNK_BYTES);
    let ingest = await this.store.beginIngest(name, [volume.description]);
    await sync(ingest, 0, volume);
    for (let round = 0; round < 14; round += 1) {
      const shared = new Random(this.seed * 100 + random.below(5));
      volume.write(shared, random.below(6) * CHUNK_BYTES, 3000 + random.below(90_000));
      await drain(ingest, 0, volume);
      if (random.chance(0.3)) await sync(ingest, 0, volume);
      const timeMs = START + round * 1000;
      this.points.push(await commit(ingest, [volume], timeMs));
      if (random.chance(0.2)) await this.store.seal(this.points.at(-1)!.id);
      if (random.chance(0.15)) {
        await ingest.close();
        if (random.chance(0.5)) {
          volume.generation = `${number}${toHex(random.bytes(16)).slice(1)}`;
          volume.epoch = 0;
        }
        ingest = await this.store.beginIngest(name, [volume.description]);
        if (volume.epoch === 0) await sync(ingest, 0, volume);
      }
    }
    this.working -= 1;
  }

  private async upkeep(random: Random): Promise<void> {
    while (this.working > 0) {
      const what = random.below(4);
      if (what === 0) {
        const rules = [{ everyMs: 2000 + random.below(4000), forMs: 1e12 }];
        const { drop } = await this.store.planRetention(rules, START + 60_000);
        for (const id of drop) this.dropped.add(id);
        await this.store.applyRetention({ drop });
      } else if (what === 1) {
        await this.store.collect();
      } else if (what === 2) {
        expect((await this.store.check({ readData: random.chance(0.5) })).findings).toEqual([]);
      }
      await new Promise((go) => setImmediate(go));
    }
  }

  private async read(random: Random): Promise<void> {
    while (this.working > 0) {
      await new Promise((go) => setImmediate(go));
      const point = this.points[random.below(Math.max(1, this.points.length))];
      if (point === undefined || this.dropped.has(point.id)) continue;
      const image = await this.store.openImage(point.id, '/dev/x').catch((error: unknown) => {
        if (!this.dropped.has(point.id)) throw error;
        return null;
      });
      if (image === null) continue;
      const content = point.contents.get('/dev/x')!;
      const offset = random.below(content.length);
      const length = random.below(content.length - offset);
      const read = await image.read(offset, length);
      expect(Buffer.compare(read, content.subarray(offset, offset + length))).toBe(0);
      image.close();
    }
  }

  private async expectAll(): Promise<void> {
    const listed = new Set((await this.store.points({})).map(({ id }) => id));
    for (const point of this.points) {
      if (this.dropped.has(point.id) && !listed.has(point.id)) continue;
      expect(await readsAs(this.store, point)).toBe(true);
    }
    expect((await this.store.check({ readData: true })).findings).toEqual([]);
  }
}

describe('everything at once', () => {
  it.each([
    ['in a directory', false],
    ['in a bucket', true],
  ])('keeps every point right, %s', async (_, isBucket) => {
    for (const seed of SEEDS) {
      try {
        await new Together(seed, isBucket).run();
      } catch (error) {
        const replay = `STORE_TOGETHER_SEEDS=${seed} npx vitest run ${FILE}`;
        throw new Error(`seed ${seed}; replay: ${replay}`, { cause: error });
      }
    }
  });
});
