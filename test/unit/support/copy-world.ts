/**
 * A store with points and places that hold copies of it, each on a faulty disk of its own: what is there
 * is read by the offline reader, as whoever has lost the source would.
 */
import { expect } from 'vitest';
import { silentLog } from '../../../src/base/log.ts';
import { directoryPlace } from '../../../src/store/copy/copy-target.ts';
import { type OfflineRepository, openRepository } from '../../../src/store/offline.ts';
import type { CopyOptions, CopyPlace, CopyReport } from '../../../src/store/types.ts';
import { FaultyDisk } from './faulty-disk.ts';
import { keys, withKeys } from './key-mode.ts';
import { readsAs, StoreLife } from './store-life.ts';
import type { Expected } from './store-world.ts';

/** Where the copy on a disk is. */
export const COPY = '/far/copy';

export const placeOn = (disk: FaultyDisk, name = 'far'): CopyPlace => ({
  ...directoryPlace(disk.mount(), name, COPY),
  ...withKeys,
});

/** A life that is copied: its store stays open, and goes on. */
export class CopyWorld {
  readonly life: StoreLife;
  readonly far = new FaultyDisk();

  constructor(seed: number) {
    this.life = new StoreLife(new FaultyDisk(), seed);
  }

  /** So many points of a connected server, all sealed. */
  async commit(points: number, writes = 5): Promise<void> {
    const { life } = this;
    if (life.store === null) await life.open();
    const ingest = await life.connect();
    for (let i = 0; i < points; i += 1) {
      const { id } = await life.writeAndCommit(ingest, writes);
      if (i % 2 === 1) await life.store!.seal(id);
    }
    await ingest.close();
    await life.store!.seal(life.acknowledged.at(-1)!.id);
  }

  copy(options: CopyOptions = {}, disk = this.far, name = 'far'): Promise<CopyReport> {
    return this.life.store!.copy(placeOn(disk, name), options);
  }
}

export async function openCopy(disk: FaultyDisk, folder = COPY): Promise<OfflineRepository> {
  return openRepository(folder, silentLog, disk.mount(), keys);
}

/** All points at a place read as they must, and a check of every byte finds nothing. Returns their ids. */
export const expectWhole = (
  disk: FaultyDisk,
  points: readonly Expected[],
  folder = COPY,
): Promise<string[]> => expectAt(() => openCopy(disk, folder), points);

/** The same for whatever place. */
export async function expectAt(
  open: () => Promise<OfflineRepository>,
  points: readonly Expected[],
): Promise<string[]> {
  const copy = await open();
  try {
    const listed = (await copy.points({ order: 'oldest' })).map(({ id }) => id);
    for (const id of listed) {
      const point = points.find((candidate) => candidate.id === id);
      expect(point, `point ${id} was never committed`).toBeDefined();
      expect(await readsAs(copy, point!), `point ${id} at the copy`).toBe(true);
    }
    expect((await copy.check({ readData: true })).findings).toEqual([]);
    return listed;
  } finally {
    await copy.close();
  }
}
