/**
 * A life of the store over a faulty disk, the same for the same seed: sessions, syncs, patches, commits,
 * seals, restarts, retention, collection. Records what was acknowledged, so that after a power cut at any
 * call it is known what must be there.
 */
import { expect } from 'vitest';
import { UnderstudyError } from '../../../src/base/errors.ts';
import { silentLog } from '../../../src/base/log.ts';
import { CHUNK_BYTES } from '../../../src/model/geometry.ts';
import { MemoryCatalog } from '../../../src/store/catalog/catalog-memory.ts';
import type { StoreSettings } from '../../../src/store/core.ts';
import type { StoreOptions } from '../../../src/store/create-core.ts';
import { openStore } from '../../../src/store/open-store.ts';
import type { Ingest, Store } from '../../../src/store/types.ts';
import { Random } from '../../simulation/random.ts';
import { VirtualClock } from '../../simulation/virtual-clock.ts';
import type { FaultyDisk } from './faulty-disk.ts';
import { keysOfOwn } from './key-mode.ts';
import { commit, drain, type Expected, SourceVolume, sync } from './store-world.ts';

/** So small that a short life meets everything: runs, rotations, bases, index objects, merges. */
export const tinySettings: Partial<StoreSettings> = {
  segmentBytes: 400_000,
  openMemoryBytes: 700,
  commitMemoryBytes: 600,
  indexMemoryEntries: 30,
  baseAfterDeltas: 2,
  baseMaxGrowth: Number.POSITIVE_INFINITY,
  levelFan: 3,
  smallPackBytes: 100_000,
  graceMs: 0,
};

export class StoreLife {
  readonly disk: FaultyDisk;
  readonly random: Random;
  readonly clock = new VirtualClock();
  readonly volumes: SourceVolume[];
  protected readonly keys = keysOfOwn();
  /** Acknowledged and not dropped since. */
  readonly acknowledged: Expected[] = [];
  /** A commit that was asked for and not answered yet. */
  attempted: Omit<Expected, 'id'> | null = null;
  /** Points that were told to go: they may be there or not. */
  readonly dropping = new Set<string>();
  store: Store | null = null;
  /** The clock of the source server. */
  timeMs = 1_700_000_000_000;

  constructor(disk: FaultyDisk, seed: number) {
    this.disk = disk;
    this.random = new Random(seed);
    this.volumes = [
      new SourceVolume('/dev/a', 9 * CHUNK_BYTES + 5000, 'a'.repeat(32)),
      new SourceVolume('/dev/b', 3 * CHUNK_BYTES, 'b'.repeat(32)),
    ];
  }

  /** The disk as one life of the store sees it; `BucketLife` has part of it elsewhere. */
  protected mount(): Partial<StoreOptions> & Pick<StoreOptions, 'disk'> {
    return { disk: this.disk.mount() };
  }

  async open(
    settings: Partial<StoreSettings> = tinySettings,
    more: Partial<StoreOptions> = {},
  ): Promise<Store> {
    this.store = await openStore({
      ...this.keys,
      ...this.mount(),
      clock: this.clock,
      randomBytes: (count) => this.random.bytes(count),
      root: '/data',
      catalog: new MemoryCatalog(),
      log: silentLog,
      settings,
      ...more,
    });
    return this.store;
  }

  /** A session in which every volume is brought up to date; from the beginning where it must be. */
  async connect(): Promise<Ingest> {
    const begin = () =>
      this.store!.beginIngest(
        'web',
        this.volumes.map((volume) => volume.description),
      );
    let ingest = await begin();
    if (this.renew(ingest)) {
      await ingest.close();
      ingest = await begin();
    }
    for (const [i, volume] of this.volumes.entries()) {
      const { committed, syncedChunks } = ingest.positions[i]!;
      volume.epoch = committed?.generation === volume.generation ? committed.epoch : 0;
      for (const block of volume.outstanding) volume.dirty.add(block);
      if (volume.epoch === 0) await sync(ingest, i, volume, syncedChunks);
      else if (this.random.chance(0.5)) await sync(ingest, i, volume);
      await drain(ingest, i, volume);
    }
    return ingest;
  }

  /** As an agent does: a history of which nothing is held any more is left for another one. */
  private renew(ingest: Ingest): boolean {
    let isRenewed = false;
    for (const [i, volume] of this.volumes.entries()) {
      if (volume.epoch === 0 || ingest.positions[i]!.committed !== null) continue;
      volume.generation = Buffer.from(this.random.bytes(16)).toString('hex');
      volume.epoch = 0;
      isRenewed = true;
    }
    return isRenewed;
  }

  async writeAndCommit(ingest: Ingest, writes = 5): Promise<Expected> {
    for (const [i, volume] of this.volumes.entries()) {
      for (let w = 0; w < writes; w += 1) {
        const offset = this.random.below(volume.content.length);
        volume.write(this.random, offset, 1 + this.random.below(20_000));
      }
      await drain(ingest, i, volume);
      if (this.random.chance(0.5)) await ingest.durable();
    }
    this.timeMs += 1000;
    const contents = new Map(this.volumes.map(({ volume, content }) => [volume, content.slice()]));
    this.attempted = { timeMs: this.timeMs, contents };
    const point = await commit(ingest, this.volumes, this.timeMs);
    this.acknowledged.push(point);
    this.attempted = null;
    return point;
  }

  async retain(): Promise<void> {
    const rules = [{ everyMs: 3000, forMs: 1e12 }];
    const { drop } = await this.store!.planRetention(rules, this.timeMs);
    for (const id of drop) this.dropping.add(id);
    await this.store!.applyRetention({ drop });
  }

  /** The whole life. Throws where the power goes. */
  async run(): Promise<void> {
    this.volumes[0]!.write(this.random, CHUNK_BYTES, 5 * CHUNK_BYTES);
    await this.open();
    const ingest = await this.connect();
    await this.writeAndCommit(ingest);
    await this.writeAndCommit(ingest);
    await this.store!.seal(this.acknowledged.at(-1)!.id);
    for (let i = 0; i < 3; i += 1) await this.writeAndCommit(ingest);
    await ingest.close();
    await this.store!.close();
    await this.open();
    const again = await this.connect();
    for (let i = 0; i < 3; i += 1) {
      const { id } = await this.writeAndCommit(again);
      await this.store!.seal(id);
    }
    await this.retain();
    await this.store!.collect();
    await this.writeAndCommit(again);
    await this.store!.seal(this.acknowledged.at(-1)!.id);
    await this.store!.collect();
    await this.store!.close();
  }
}

/** Every image of a point equals what was sent. */
export async function readsAs(
  store: Pick<Store, 'openImage'>,
  { id, contents }: Expected,
): Promise<boolean> {
  for (const [volume, content] of contents) {
    const image = await store.openImage(id, volume);
    const read = await image.read(0, content.length);
    image.close();
    if (Buffer.compare(read, content) !== 0) return false;
  }
  return true;
}

/** Ids of the points that read right; an error must be an honest one, wrong bytes are never accepted. */
export async function readableOf(
  life: StoreLife,
  from: Parameters<typeof readsAs>[0],
): Promise<string[]> {
  const ids: string[] = [];
  for (const point of life.acknowledged) {
    try {
      expect(await readsAs(from, point)).toBe(true);
      ids.push(point.id);
    } catch (error) {
      if (!(error instanceof UnderstudyError)) throw error;
    }
  }
  return ids;
}

/** Runs a life to its end, and returns why it ended early, if it did; what waits, waits on the clock. */
export async function outcomeOf(
  life: StoreLife,
  run: Promise<void> = life.run(),
): Promise<unknown> {
  let isOver = false;
  const ended = run
    .catch((reason: unknown) => reason)
    .finally(() => {
      isOver = true;
    });
  while (!isOver) {
    await new Promise((resolve) => setImmediate(resolve));
    await life.clock.runUntil(life.clock.monotonicMs() + 100);
  }
  return ended;
}

/** Every point that was acknowledged, and not dropped since, reads right, and a check finds nothing. */
export async function expectAcknowledged(life: StoreLife, what: string): Promise<void> {
  const store = life.store!;
  const listed = new Set((await store.points({})).map(({ id }) => id));
  for (const point of life.acknowledged) {
    if (life.dropping.has(point.id) && !listed.has(point.id)) continue;
    expect(await readsAs(store, point), what).toBe(true);
  }
  expect((await store.check({ readData: true })).findings, what).toEqual([]);
}
