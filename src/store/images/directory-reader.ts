/**
 * Points and images of a data directory that is open: what the running store and the offline reader have
 * in common. A reader holds its point against retention until it is closed.
 */
import { UnderstudyError } from '../../base/errors.ts';
import type { Extent } from '../../model/geometry.ts';
import type { ServerId, VolumeId } from '../../model/replication.ts';
import type { CatalogPoint } from '../catalog/catalog.ts';
import { type CheckOptions, checkRepository, stagedOf } from '../check/check.ts';
import type { Core } from '../core.ts';
import { type Chain, openChain } from '../maps/chain.ts';
import { ChainImage, ImageMemory } from '../maps/image.ts';
import type { DamageNotes } from '../packs/damage-notes.ts';
import type { CopyNotes } from '../points/copy-notes.ts';
import { shownPoint } from '../points/point-format.ts';
import type {
  CheckReport,
  ChunkComparison,
  ImageReader,
  ListedPoint,
  PointFilter,
  PointHold,
} from '../types.ts';
import { compareImage } from './image-compare.ts';
import { imageDifferences } from './image-differences.ts';

/** What is known of points besides what they say themselves. */
interface PointsKnown {
  readonly legalHolds: ReadonlyMap<string, PointHold>;
  readonly copyNotes: CopyNotes;
  readonly damage: Pick<DamageNotes, 'isHurt'>;
}

export const listed = (
  { record, state }: CatalogPoint,
  { legalHolds, copyNotes, damage }: PointsKnown,
): ListedPoint => ({
  ...shownPoint(record),
  state,
  hold: legalHolds.get(record.id) ?? null,
  copies: copyNotes.holding(record.id),
  ...(damage.isHurt(record.id) ? { isDamaged: true } : {}),
});

/** Of so many images what was learnt is kept, when they are closed as well. */
const KEPT_MEMORIES = 4;

export class DirectoryReader {
  protected readonly core: Core;
  /** By point, volume and root; the one that was asked for last is last. */
  private readonly memories = new Map<string, Promise<ImageMemory>>();

  constructor(core: Core) {
    this.core = core;
  }

  async points(filter: PointFilter): Promise<ListedPoint[]> {
    this.assertOpen();
    const points = await this.core.catalog.points(filter);
    return points.map((point) => listed(point, this.core));
  }

  async lastCommitted(server: ServerId): Promise<ListedPoint | null> {
    this.assertOpen();
    let last: CatalogPoint | null = null;
    for (const point of await this.core.catalog.points({ server })) {
      const { sequence, missingVolumes } = point.record;
      const isLater = last === null || sequence > last.record.sequence;
      const isThere = !this.core.dropping.has(point.record.id);
      if (missingVolumes.length === 0 && isLater && isThere) last = point;
    }
    return last === null ? null : listed(last, this.core);
  }

  async point(id: string): Promise<ListedPoint> {
    return listed(await this.find(id), this.core);
  }

  openImage(pointId: string, volume: VolumeId): Promise<ImageReader> {
    return this.chainImage(pointId, volume);
  }

  /** Both points are held until the iteration has ended. */
  async *differences(
    from: string,
    to: string,
    volume: VolumeId,
    offset = 0,
  ): AsyncGenerator<Extent> {
    const older = await this.chainImage(from, volume);
    try {
      const newer = await this.chainImage(to, volume);
      try {
        yield* imageDifferences(older, newer, offset);
      } finally {
        newer.close();
      }
    } finally {
      older.close();
    }
  }

  async compareChunks(
    pointId: string,
    volume: VolumeId,
    first: number,
    digests: Uint8Array,
  ): Promise<ChunkComparison> {
    const image = await this.chainImage(pointId, volume);
    try {
      return await compareImage(image, this.core.names, first, digests);
    } finally {
      image.close();
    }
  }

  private async chainImage(pointId: string, volume: VolumeId): Promise<ChainImage> {
    const { record } = await this.find(pointId);
    const found = record.volumes.find((candidate) => candidate.volume === volume);
    if (found === undefined) {
      const message = `point ${pointId} has no volume ${volume}`;
      throw new UnderstudyError('ERR_VOLUME_NOT_FOUND', message, { volume });
    }
    const { server } = record;
    const place = { server, volume, generation: found.generation };
    const open = (avoid?: ReadonlySet<string>): Promise<Chain> => {
      const staged = this.core.servers.get(server)?.volumes.get(volume)?.staged ?? [];
      const root = found.chainRoot;
      return openChain(this.core, place, found.epoch, staged, { root, ...(avoid && { avoid }) });
    };
    const release = hold(this.core, pointId);
    try {
      const memory = await this.memoryOf(`${pointId} ${volume} ${found.chainRoot}`, open);
      return new ChainImage(this.core, memory, { point: pointId, volume }, { open, release });
    } catch (error) {
      release();
      throw error;
    }
  }

  /** Where it takes long to open maps: an image may be opened for each request that reads a range of it. */
  private async memoryOf(key: string, open: () => Promise<Chain>): Promise<ImageMemory> {
    if (this.core.disk.far === undefined) return new ImageMemory(this.core, await open());
    const known = this.memories.get(key);
    const memory = known ?? open().then((chain) => new ImageMemory(this.core, chain));
    this.memories.delete(key);
    this.memories.set(key, memory);
    if (this.memories.size > KEPT_MEMORIES) {
      this.memories.delete(this.memories.keys().next().value!);
    }
    try {
      return await memory;
    } catch (error) {
      if (this.memories.get(key) === memory) this.memories.delete(key);
      throw error;
    }
  }

  async check(options: CheckOptions): Promise<CheckReport> {
    return checkRepository(this.core, stagedOf(this.core), options);
  }

  protected async find(id: string): Promise<CatalogPoint> {
    this.assertOpen();
    const found = await this.core.catalog.point(id);
    if (found !== null && !this.core.dropping.has(id)) return found;
    throw new UnderstudyError('ERR_POINT_NOT_FOUND', `no point ${id}`, {});
  }

  /** Throws where the directory has been closed. */
  protected assertOpen(): void {
    return;
  }
}

/** Holds a point against retention until the function is called. */
export function hold(core: Core, id: string): () => void {
  core.holds.set(id, (core.holds.get(id) ?? 0) + 1);
  return () => {
    const left = (core.holds.get(id) ?? 1) - 1;
    if (left > 0) core.holds.set(id, left);
    else core.holds.delete(id);
  };
}
