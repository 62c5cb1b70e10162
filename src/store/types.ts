/**
 * What the store offers to the staging service: ingest, recovery points, images, upkeep. The repository's
 * bytes are specified in FORMAT.md; nothing here tells how they lie.
 */
import type { Disk } from '../base/disk.ts';
import type { UnderstudyError } from '../base/errors.ts';
import type { Subset } from '../model/check-subset.ts';
import type { IndexedEntry } from '../model/entry.ts';
import type { Extent } from '../model/geometry.ts';
import type {
  CutInfo,
  Generation,
  PointState,
  Position,
  RecoveryPoint,
  ServerId,
  VolumeId,
} from '../model/replication.ts';
import type { KeepRule, PolicyWish, RetentionPlan } from '../model/retention.ts';
import type { KeyOptions } from './keys/open-vault.ts';
import type { LeaseHolder } from './lease/take-lease.ts';
import type { Confirm } from './objects/bundled-objects.ts';

/** A content whose digest has been verified against its (decompressed) bytes by the caller. */
export interface VerifiedPiece {
  readonly digest: Uint8Array;
  /** 0: `stored` is the content; 1: LZ4 block format with a 4-byte little-endian length before it. */
  readonly codec: 0 | 1;
  readonly rawLength: number;
  readonly stored: Uint8Array;
}

export interface VolumeDescription {
  readonly volume: VolumeId;
  readonly sizeBytes: number;
  readonly sectorBytes: number;
  readonly generation: Generation;
  /** Of this generation, as far as the agent knows; nothing: none. */
  readonly committedEpoch?: number;
}

export interface VolumePosition {
  readonly committed: (Position & { contentDigest: string }) | null;
  /** Durable progress of the open epoch if it is of the generation asked for, else 0. */
  readonly syncedChunks: number;
}

/** The open epochs of one server's session. Every call applies in the order of calls. */
export interface Ingest {
  /** What is held of the volumes given to `beginIngest`, in that order. */
  readonly positions: readonly VolumePosition[];
  /**
   * Records entries of volume `volume` (index). Returns, for the whole entries in order, 1 where the
   * content is neither durable nor expected in this session, and how many chunks differ from what the
   * newest committed (else open) epoch held. `synced` > 0 moves the sync cursor.
   */
  offer(
    volume: number,
    entries: readonly IndexedEntry[],
    synced: number,
  ): Promise<{ need: Uint8Array; changed: number }>;
  /** Records entries whose pieces come along. */
  patch(
    volume: number,
    entries: readonly IndexedEntry[],
    pieces: readonly VerifiedPiece[],
  ): Promise<void>;
  pieces(pieces: readonly VerifiedPiece[]): Promise<void>;
  /** Resolves once all that was called before is durable (group fsync). */
  durable(): Promise<void>;
  /**
   * Makes the open epochs of the named volumes visible as one recovery point, durably. Idempotent on
   * (generation, epoch, contentDigest). Returns the chunks that lack a whole, or a content, instead.
   */
  commit(request: CommitRequest): Promise<CommitOutcome>;
  /** Ends the session; open epochs stay, durable and resumable. */
  close(): Promise<void>;
}

export interface CommitRequest {
  readonly timeMs: number;
  readonly cut: CutInfo;
  readonly requestId: string;
  readonly volumes: readonly {
    volume: number;
    generation: Generation;
    epoch: number;
    contentDigest: string;
  }[];
  /** Volumes of the session that are not in this cut. */
  readonly missingVolumes: readonly VolumeId[];
}
export type CommitOutcome =
  | { readonly kind: 'committed'; readonly point: RecoveryPoint }
  | {
      readonly kind: 'missing';
      readonly volumes: readonly { volume: number; chunks: number[]; more: boolean }[];
    };

export interface PointFilter {
  readonly server?: ServerId;
  /** Wall-clock bounds in milliseconds, inclusive. */
  readonly fromMs?: number;
  readonly toMs?: number;
  /** Newest first by default. Page: at most `limit` points after the point `after`. */
  readonly order?: 'newest' | 'oldest';
  readonly limit?: number;
  readonly after?: string;
}
/** Another place that holds a point. */
export interface HeldCopy {
  readonly place: string;
  /** When all its bytes had been read back there, ms since 1970; null: parts of them never were. */
  readonly verifiedMs: number | null;
}
export interface ListedPoint extends RecoveryPoint {
  readonly state: PointState;
  /** Why and since when an operator holds it; null: nobody does. */
  readonly hold: PointHold | null;
  /** Where it is held besides, as far as this repository knows. */
  readonly copies: readonly HeldCopy[];
  /** Set where the last check found that it cannot be restored wholly. */
  readonly isDamaged?: boolean;
}

/** Both empty where the object of the hold is damaged. */
export interface PointHold {
  readonly reason: string;
  /** ISO 8601, by the clock of staging. */
  readonly time: string;
}

/** A plan, and by which state of the policies it was made. */
export type VersionedPlan = RetentionPlan & { readonly version?: number };

/** What dropping points would free, about: see freed.ts. */
export interface FreedEstimate {
  /** Contents that nothing would need any more, and their bytes as stored. */
  readonly contents: number;
  readonly storedBytes: number;
  /** Bytes of maps less. */
  readonly mapBytes: number;
  readonly isEstimate: true;
}

export interface DroppedPoint {
  readonly id: string;
  readonly server: ServerId;
}

/** How long points of a server are kept; `keep` is null where the default holds. */
export interface KeepPolicy {
  readonly server: ServerId;
  readonly keep: string | null;
  /** The rules of this server cannot be read: nothing of it is dropped. */
  readonly isDamaged: boolean;
}

/** Which chunks of an image are not what somebody else has there (image-compare.ts). */
export interface ChunkComparison {
  /** A bit for each chunk, the lowest of the first byte first: 1 where the image has something else. */
  readonly different: Uint8Array;
  /** Likewise: 1 where it differs and the image has zeros there. */
  readonly zero: Uint8Array;
  readonly count: number;
}

/** One volume at one point, readable anywhere; every byte returned was checked against its digest. */
export interface ImageReader {
  readonly sizeBytes: number;
  /** Strong validator: equal for equal content history (the chain root). */
  readonly etag: string;
  /** Exactly `length` bytes at `offset`; the range must lie inside. */
  read(offset: number, length: number): Promise<Uint8Array>;
  /** The next range at or after `offset` that is not known to be zero; null when only zeros follow. */
  nextData(offset: number): Promise<{ offset: number; length: number } | null>;
  close(): void;
}

type FindingKind =
  | 'missing-object'
  | 'damaged-object'
  | 'missing-piece'
  | 'damaged-piece'
  | 'broken-chain'
  | 'stale-index'
  | 'stale-catalog';
export interface Finding {
  readonly kind: FindingKind;
  readonly object: string;
  readonly detail: string;
  /** Points that cannot be restored wholly because of it. */
  readonly points: readonly string[];
  /** Name of the content that it is about, where it is about one. */
  readonly digest?: string;
  /** Where no maps lead to an epoch: which. */
  readonly epoch?: VolumeEpoch;
}
/** One epoch of one volume's history. */
export interface VolumeEpoch {
  readonly server: ServerId;
  readonly volume: VolumeId;
  readonly generation: Generation;
  readonly epoch: number;
}
export interface CheckReport {
  readonly points: number;
  readonly objects: number;
  readonly pieces: number;
  readonly bytesRead: number;
  readonly findings: readonly Finding[];
}

/** Where a copy is to be. */
export interface CopyPlace {
  /** As the operator named it: for reports and notes. */
  readonly name: string;
  readonly disk: Disk;
  /** Root of the repository, as `disk` knows it. */
  readonly repo: string;
  /** Folder for what has no name yet: where the repository is a directory, in the same file system. */
  readonly scratch: string;
  /** Given where others could write there meanwhile. */
  readonly leaseBy?: LeaseHolder;
  /** Opens the copy, or makes it encrypted. Of an encrypted repository a copy must be encrypted. */
  readonly keys?: KeyOptions;
  /** Called once this process is the only writer there, with the term of its lease. */
  readonly alone?: (term: number, confirm?: Confirm) => Promise<void>;
}

/** A place that is opened for each copy to it. */
export interface CopyDestination {
  readonly name: string;
  open(): Promise<CopyPlace & { close(): Promise<void> }>;
}

/** A copy of this repository. */
export interface KnownCopy {
  readonly place: string;
  /** Id of the repository there. */
  readonly repository: string;
  /** When the last copy began, ms since 1970. */
  readonly timeMs: number;
  readonly verifiedMs: number | null;
  readonly points: number;
}

export interface CopyProgress {
  readonly points: number;
  readonly ofPoints: number;
  readonly bytesRead: number;
  readonly bytesWritten: number;
}
export interface CopyOptions {
  /** Only points of this server; not older than this; of each server the newest so many. */
  readonly server?: ServerId | undefined;
  readonly sinceMs?: number | undefined;
  readonly newest?: number | undefined;
  /** Retention at the destination; without it nothing is dropped there. */
  readonly keep?: readonly KeepRule[] | undefined;
  /** What is read back at the destination: nothing more, what this copy has written, everything. */
  readonly verify?: 'none' | 'new' | 'all' | undefined;
  /** Read at the source, or written at the destination; 0: as fast as it goes. */
  readonly bytesPerSecond?: number | undefined;
  /** Begins again where a copy is known to have been and is gone. */
  readonly anew?: boolean | undefined;
  /** False: the rules of `keep` select, and nothing is dropped (the clock is in doubt). */
  readonly isDropping?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: CopyProgress) => void) | undefined;
}
/** A point that was not copied: the source cannot give all of it, or it was dropped meanwhile. */
export interface SkippedPoint {
  readonly point: string;
  readonly server: ServerId;
  readonly reason: 'damaged' | 'dropped';
  readonly detail: string;
}
export interface CopyReport {
  readonly place: string;
  /** Id of the repository there. */
  readonly repository: string;
  /** Copied by this run; all that are there; not sealed yet, so left for the next run. */
  readonly points: number;
  readonly held: number;
  readonly unsealed: number;
  readonly skipped: readonly SkippedPoint[];
  readonly maps: number;
  readonly pieces: number;
  readonly bytesRead: number;
  readonly bytesWritten: number;
  /** By the destination's retention and collection. */
  readonly dropped: number;
  readonly freedBytes: number;
  /** Null where nothing was read back. */
  readonly verified: {
    readonly objects: number;
    readonly pieces: number;
    readonly bytesRead: number;
    readonly findings: readonly Finding[];
  } | null;
  /** False where the source could not be told, so that its points do not show this copy. */
  readonly isNoted: boolean;
  readonly tookMs: number;
}

/** What reading one pack has brought to light. */
export interface PackDamage {
  readonly bytesRead: number;
  /** About the pack itself. */
  readonly findings: readonly Finding[];
  /** How many of its contents are damaged, and of these right nowhere else: they are noted. */
  readonly damaged: number;
  readonly lost: number;
}

export interface ScrubbedPack extends PackDamage {
  /** Id of the pack: where to go on. */
  readonly pack: string;
}
export interface ScrubOptions {
  /** Packs after this id; null: from the first. */
  readonly after: string | null;
  /** Waited for before so many bytes are read; throws to stop. */
  readonly pace: (bytes: number) => Promise<void>;
}

export interface StoreStatistics {
  readonly points: number;
  readonly stagedPoints: number;
  readonly servers: number;
  /** Sum of the images' sizes that points stand for; distinct contents, uncompressed; on disk. */
  readonly logicalBytes: number;
  readonly pieceBytes: number;
  readonly storedBytes: number;
  readonly packs: number;
  readonly journalBytes: number;
  readonly dedupeHits: number;
  /** Why points wait in the journal and are not sealed; null where nothing is in the way. */
  readonly sealingWaits: SealingTrouble | null;
}

export interface SealingTrouble {
  readonly code: string;
  readonly message: string;
  /** By staging's clock. */
  readonly sinceMs: number;
}

/** Distinct contents: how many, their bytes uncompressed, and as stored. */
export interface UsageSums {
  readonly contents: number;
  readonly rawBytes: number;
  readonly storedBytes: number;
}

export interface ServerUsage extends UsageSums {
  readonly server: ServerId;
  readonly points: number;
  /** Sum of the sizes of the images of its points. */
  readonly logicalBytes: number;
  /** Of `storedBytes`: contents that other servers have as well. */
  readonly sharedStoredBytes: number;
}

export interface PointUsage {
  readonly point: string;
  readonly server: ServerId;
  readonly time: string;
  readonly logicalBytes: number;
  /** Contents that the maps since the point before name: what changed. */
  readonly changedContents: number;
  readonly changedBytes: number;
  /** Of them, those that no older point of any server has: what the point added. */
  readonly newContents: number;
  readonly newBytes: number;
  readonly newStoredBytes: number;
  /** Length of the maps since the point before. */
  readonly mapBytes: number;
}

/** What servers or points take: estimates, about 1 in 100 low (usage.ts). */
export interface Usage extends UsageSums {
  readonly logicalBytes: number;
  readonly servers: readonly ServerUsage[];
  readonly points: readonly PointUsage[];
  readonly isEstimate: true;
}

export type { KeepRule, PolicyWish, RetentionPlan };

export interface Store {
  /**
   * ERR_INGEST_BUSY where the server has an ingest already. A changed size or generation drops the
   * former open epoch.
   */
  beginIngest(server: ServerId, volumes: readonly VolumeDescription[]): Promise<Ingest>;
  servers(): Promise<
    {
      server: ServerId;
      volumes: (VolumeDescription & { epoch: number })[];
      newestPoint: ListedPoint | null;
    }[]
  >;
  points(filter: PointFilter): Promise<ListedPoint[]>;
  /**
   * The whole point of a server that was committed last, whatever its T says: two machines may have had the
   * server's name, and their clocks differ. Reads all its points; null where there is none.
   */
  lastCommitted(server: ServerId): Promise<ListedPoint | null>;
  /** ERR_POINT_NOT_FOUND. */
  point(id: string): Promise<ListedPoint>;
  /** Resolves once the point is sealed; seals now rather than at the next turn. */
  seal(id: string): Promise<void>;
  /**
   * Holds the point against retention until the reader is closed. ERR_POINT_NOT_FOUND,
   * ERR_VOLUME_NOT_FOUND.
   */
  openImage(pointId: string, volume: VolumeId): Promise<ImageReader>;
  /**
   * Where a volume differs between two points: stretches, ascending, from the chunk that holds `offset` on.
   * Told by the maps: costs about what has changed. ERR_POINT_NOT_FOUND, ERR_VOLUME_NOT_FOUND.
   */
  differences(from: string, to: string, volume: VolumeId, offset?: number): AsyncGenerator<Extent>;
  /**
   * Which chunks of a volume at a point, from chunk `first` on, have other SHA-256s than `digests` says
   * (32 bytes each, at most 1024). ERR_POINT_NOT_FOUND, ERR_VOLUME_NOT_FOUND, ERR_IMAGE_RANGE.
   */
  compareChunks(
    point: string,
    volume: VolumeId,
    first: number,
    digests: Uint8Array,
  ): Promise<ChunkComparison>;
  /**
   * Which points the rules (of servers without a policy of their own) would drop, which stay and why. The
   * newest whole point of a server always stays. ERR_USAGE where `asIf` has no rules.
   */
  planRetention(
    rules: readonly KeepRule[],
    nowMs: number,
    asIf?: PolicyWish,
  ): Promise<VersionedPlan>;
  /** Reads all maps. Nothing is changed. */
  estimateFreed(drop: readonly string[]): Promise<FreedEstimate>;
  /**
   * Returns the points that went: not those that are held, read, locked, or the last of their server; none
   * where a policy was changed since the plan was made.
   */
  applyRetention(plan: { drop: readonly string[]; version?: number }): Promise<DroppedPoint[]>;
  /** Holds a point (sealing it first). ERR_POINT_NOT_FOUND, ERR_POINT_HELD, ERR_USAGE. */
  holdPoint(id: string, reason: string): Promise<ListedPoint>;
  /** ERR_POINT_NOT_HELD. Null where the point itself is gone. */
  releasePoint(id: string): Promise<ListedPoint | null>;
  /** Null where nobody holds it. */
  holdOf(id: string): PointHold | null;
  /** Of all servers that have one. */
  policies(): KeepPolicy[];
  /**
   * Takes in a data key that was made beside the service: what is written from now on is sealed with it. Its
   * id; null where there is none.
   */
  refreshKeys(): Promise<string | null>;
  /** Null: the default from now on. ERR_RETENTION_RULES, ERR_SERVER_NOT_FOUND. */
  setPolicy(server: ServerId, keep: string | null): Promise<void>;
  /** When the newest point was committed, by the clock of staging; null where that was never noted. */
  newestReceivedMs(): Promise<number | null>;
  /** Frees what no point, open epoch or reader needs. Safe while agents replicate. */
  collect(): Promise<{ removedObjects: number; freedBytes: number; lockedObjects: number }>;
  check(options: {
    readData: boolean;
    /** With `readData`: of these packs only. */
    subset?: Subset;
    onProgress?: (done: number, total: number) => void;
  }): Promise<CheckReport>;
  /**
   * Copies points to another repository. ERR_COPY_PLACE, ERR_COPY_FOREIGN, ERR_COPY_LOST, and what the
   * destination's disk says.
   */
  copy(place: CopyPlace, options: CopyOptions): Promise<CopyReport>;
  /** The copies that this repository knows of, and which of them hold a point. */
  copies(): KnownCopy[];
  copiesOf(point: string): readonly HeldCopy[];
  statistics(): Promise<StoreStatistics>;
  /** Reads all maps. */
  usage(by: 'server' | 'point'): Promise<Usage>;
  /** Reads the next pack wholly, beside all else; null after the last one. */
  scrub(options: ScrubOptions): Promise<ScrubbedPack | null>;
  /**
   * Called when the newest state of a volume of a server turned out to be damaged: its next session is
   * told that nothing is held, so that it is scanned again.
   */
  watchRescans(listener: (server: ServerId) => void): void;
  /**
   * Called once when the store has stopped for good, at once where it has already: ERR_STORE_FAILED, or
   * ERR_LEASE_LOST where another service has taken the repository.
   */
  watchFailure(listener: (error: UnderstudyError) => void): void;
  close(): Promise<void>;
}
