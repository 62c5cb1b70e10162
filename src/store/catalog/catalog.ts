/**
 * The catalog: servers, positions and points, for quick answers. An index and nothing more: all of it is
 * rebuilt from repository and journal whenever it is missing, damaged or does not match. Two
 * implementations with one conformance suite: in memory (simulator, offline) and SQLite (catalog-sqlite.ts).
 */
import type { PointState } from '../../model/replication.ts';
import type { PointRecord } from '../points/point-format.ts';
import type { PointFilter } from '../types.ts';

export interface CatalogPoint {
  readonly record: PointRecord;
  readonly state: PointState;
}

/** The newest committed position of a volume. */
export interface VolumeHead {
  readonly server: string;
  readonly volume: string;
  readonly sizeBytes: number;
  readonly sectorBytes: number;
  readonly generation: string;
  readonly epoch: number;
  readonly chainRoot: string;
  readonly contentDigest: string;
  readonly sequence: number;
  readonly timeMs: number;
  /** The point that this position was committed with; it may have been dropped since. */
  readonly pointId: string;
}

export interface CatalogCounts {
  readonly points: number;
  readonly staged: number;
  readonly logicalBytes: number;
}

export interface Catalog {
  /**
   * Takes the lock of the data directory (ERR_DATA_IN_USE); a damaged catalog is emptied. Returns the
   * repository that it is of; null: none, it is empty.
   */
  open(): Promise<string | null>;
  /** Empties it, and says of which repository it is from now on. */
  adopt(repository: string): Promise<void>;
  /** Points by name: to be compared with what the repository has. */
  pointNames(): Promise<{ server: string; id: string; state: PointState }[]>;
  /** Adds or replaces a point, and moves the heads of its volumes where its sequence is higher. */
  putPoint(record: PointRecord, state: PointState): Promise<void>;
  setSealed(ids: readonly string[]): Promise<void>;
  removePoints(ids: readonly string[]): Promise<void>;
  point(id: string): Promise<CatalogPoint | null>;
  points(filter: PointFilter): Promise<CatalogPoint[]>;
  heads(): Promise<VolumeHead[]>;
  /** Keeps the head with the higher sequence. */
  putHead(head: VolumeHead): Promise<void>;
  counts(): Promise<CatalogCounts>;
  close(): Promise<void>;
}

export const headsOf = (record: PointRecord): VolumeHead[] =>
  record.volumes.map((volume) => ({
    server: record.server,
    volume: volume.volume,
    sizeBytes: volume.sizeBytes,
    sectorBytes: volume.sectorBytes,
    generation: volume.generation,
    epoch: volume.epoch,
    chainRoot: volume.chainRoot,
    contentDigest: volume.contentDigest,
    sequence: record.sequence,
    timeMs: record.timeMs,
    pointId: record.id,
  }));
