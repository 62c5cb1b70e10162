/**
 * What the parts of the store share: the injected world, the settings, and the state of every server
 * that they work on together. Holds no logic of its own; store.ts puts the parts together.
 */
import type { Clock } from '../base/clock.ts';
import type { Disk } from '../base/disk.ts';
import type { Log } from '../base/log.ts';
import type { DedupeDomain } from '../model/dedupe-domain.ts';
import type { Catalog, VolumeHead } from './catalog/catalog.ts';
import type { Paths } from './format/layout.ts';
import type { Names } from './format/names.ts';
import type { Journal } from './journal/journal.ts';
import type { OpenEpoch } from './journal/open-epoch.ts';
import type { Reservations } from './journal/reservations.ts';
import type { Vault } from './keys/vault.ts';
import type { Lease } from './lease/lease.ts';
import type { Terms } from './lease/terms.ts';
import type { LeafFile, LeafFileInfo } from './leaves/leaf-file.ts';
import type { LeafSource, MemoryLeaves } from './leaves/leaf-source.ts';
import { Mutex } from './mutex.ts';
import type { Removal } from './objects/removal.ts';
import type { Pace, PaceSettings } from './pace.ts';
import type { Copies } from './packs/copies.ts';
import type { DamageNotes } from './packs/damage-notes.ts';
import type { FileCache } from './packs/file-cache.ts';
import type { PackTable } from './packs/pack-table.ts';
import type { PieceIndex } from './packs/piece-index.ts';
import type { PieceReader } from './packs/piece-reader.ts';
import type { AheadUnits } from './packs/read-ahead.ts';
import type { CopyNotes } from './points/copy-notes.ts';
import type { PointRecord } from './points/point-format.ts';
import type { PointHold, SealingTrouble } from './types.ts';

export interface StoreSettings extends PaceSettings {
  /** A journal segment, and so a pack, is ended at this size. */
  readonly segmentBytes: number;
  /** A staged point is sealed at the latest after this time. */
  readonly sealAfterMs: number;
  /** Memory for the open epoch of one volume, beyond which it is written to a run. */
  readonly openMemoryBytes: number;
  /** Memory for the map of one commit, beyond which it is written to a file. */
  readonly commitMemoryBytes: number;
  /** More published pieces than this in memory become an index object. */
  readonly indexMemoryEntries: number;
  /** So many deltas of a size get one that spans them, so that chains stay short. */
  readonly levelFan: number;
  /** A base is thought of when more deltas than this, or more bytes of them, lie over the last one ... */
  readonly baseAfterDeltas: number;
  readonly baseAfterBytes: number;
  /**
   * ... and written when the chunks that it puts together from patches are at most so many times the bytes
   * that have changed since the last one.
   */
  readonly baseMaxGrowth: number;
  /** A condemned pack is deleted at the earliest after this time, and after a second look. */
  readonly graceMs: number;
  /** Packs smaller than this are merged when there are more than a few. */
  readonly smallPackBytes: number;
  /** Servers that may learn of each other what they hold. */
  readonly dedupeDomains: readonly DedupeDomain[];
  /** Wait before what failed for a full disk is tried again. */
  readonly retryMs: number;
}

export const defaultSettings: StoreSettings = {
  segmentBytes: 64 * 1024 * 1024,
  sealAfterMs: 15_000,
  openMemoryBytes: 2 * 1024 * 1024,
  commitMemoryBytes: 1024 * 1024,
  indexMemoryEntries: 32_768,
  levelFan: 32,
  baseAfterDeltas: 64,
  baseAfterBytes: 64 * 1024 * 1024,
  baseMaxGrowth: 1,
  graceMs: 3_600_000,
  smallPackBytes: 16 * 1024 * 1024,
  dedupeDomains: [],
  upkeepBytesPerSecond: Number.POSITIVE_INFINITY,
  upkeepShare: 1,
  retryMs: 5_000,
};

/** A committed epoch whose delta is not yet in the repository. */
export interface StagedMap {
  readonly info: LeafFileInfo;
  readonly source: LeafSource;
  readonly leafDigest: Uint8Array;
  /** Set where the source is a whole delta already, under a temporary name. */
  readonly file: LeafFile | null;
  /** Runs of the epoch: not needed once the delta is in the repository. */
  readonly runs: readonly LeafFile[];
  /** What no run has, oldest first. */
  readonly memory: readonly MemoryLeaves[];
  /** Lowest journal segment with entries of the epoch that no run has: needed until the delta is there. */
  readonly oldestSegment: number;
}

export interface VolumeState {
  readonly server: string;
  readonly volume: string;
  head: VolumeHead | null;
  /** The newest position that this run has sealed. */
  sealed: VolumeHead | null;
  open: OpenEpoch | null;
  /** Oldest first. */
  staged: StagedMap[];
  /** What lies over the newest base of the head's generation; null: not counted yet. */
  overBase: OverBase | null;
}

export interface OverBase {
  readonly generation: string;
  /** Counted up to there. */
  readonly epoch: number;
  readonly deltas: number;
  readonly bytes: number;
  /** It was too dear at this many deltas: thought of again at twice as many. */
  readonly deferredAt: number;
}

export interface ServerState {
  readonly server: string;
  readonly owner: Uint8Array;
  /** Its own tag, and those of the other servers of its dedupe domain. */
  readonly domain: readonly Uint8Array[];
  readonly volumes: Map<string, VolumeState>;
  /** Everything that changes the server's state goes through here, in the order of the calls. */
  readonly mutex: Mutex;
  hasIngest: boolean;
}

export interface StagedPoint {
  readonly record: PointRecord;
  /** Journal segment of its commit record. */
  readonly segment: number;
}

/** What the policy that counts for a server says (policies.ts). */
export interface ServerPolicy {
  /** Null where the object is damaged. */
  readonly server: string | null;
  /** As it was given; null: the default of the service. */
  readonly keep: string | null;
}

export interface Core {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly log: Log;
  readonly randomBytes: (count: number) => Uint8Array;
  readonly paths: Paths;
  readonly settings: StoreSettings;
  readonly catalog: Catalog;
  readonly files: FileCache;
  /** What the keys do; names and seals of a plain repository where there are none. */
  readonly vault: Vault;
  readonly names: Names;
  /** Nothing may be changed: a repository is read from its directory alone. */
  readonly isReadOnly: boolean;
  readonly packs: PackTable;
  readonly index: PieceIndex;
  readonly reader: PieceReader;
  /** Null where the repository is near. */
  readonly aheadUnits: AheadUnits | null;
  readonly copies: Copies;
  readonly removal: Removal;
  /** Contents that are damaged, and volumes that must be scanned again for it. */
  readonly damage: DamageNotes;
  readonly reservations: Reservations;
  /** Which other places hold points. */
  readonly copyNotes: CopyNotes;
  readonly servers: Map<string, ServerState>;
  /** In order of their commits. */
  readonly staged: Map<string, StagedPoint>;
  /** Paths of bases that this run has read wholly: what they stand for may go. */
  readonly provenBases: Set<string>;
  /** How many readers hold a point against retention. */
  readonly holds: Map<string, number>;
  /** Points that operators hold (holds.ts). */
  readonly legalHolds: Map<string, PointHold>;
  /** Policies of single servers, by their folders (policies.ts). */
  readonly policies: Map<string, ServerPolicy>;
  /** Grows with every change of a policy: what was planned before is not done any more. */
  policyVersion: number;
  /** Ids of points that are being committed. */
  readonly claimedIds: Set<string>;
  /** Points that retention is removing: nobody opens them any more. */
  readonly dropping: Set<string>;
  /** Held while the store is open, where the repository lies outside of the data directory. */
  readonly lease: Lease | null;
  /** Which commits count. */
  terms: Terms;
  /** Set once the journal has been replayed. */
  journal: Journal;
  /** Serialises what rewrites the repository: bases, folds, index, collection, check. */
  readonly upkeep: Mutex;
  /** How fast that may go. */
  readonly pace: Pace;
  nextSequence: number;
  /** What keeps segments from being sealed. */
  sealingWaits: SealingTrouble | null;
  /** Called when a point has been committed. */
  onStaged: () => void;
  /** Called when a segment has been sealed. */
  onSealed: () => void;
  /** Number of the next temporary or run file of this run of the program. */
  nextFile: number;
  dedupeHits: number;
}

export function serverState(core: Core, server: string): ServerState {
  const known = core.servers.get(server);
  if (known !== undefined) return known;
  const owner = core.names.ownerTag(server);
  const members = core.settings.dedupeDomains.find((names) => names.includes(server)) ?? [];
  const others = members.filter((name) => name !== server);
  const domain = [owner, ...others.map((name) => core.names.ownerTag(name))];
  const made = { server, owner, domain, volumes: new Map(), mutex: new Mutex(), hasIngest: false };
  core.servers.set(server, made);
  return made;
}

export function volumeState(server: ServerState, volume: string): VolumeState {
  const known = server.volumes.get(volume);
  if (known !== undefined) return known;
  const made: VolumeState = {
    server: server.server,
    volume,
    head: null,
    sealed: null,
    open: null,
    staged: [],
    overBase: null,
  };
  server.volumes.set(volume, made);
  return made;
}

export function temporaryPath(core: Core): string {
  core.nextFile += 1;
  return `${core.paths.temporary}/${core.nextFile}`;
}
