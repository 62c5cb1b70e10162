/** Makes the state that the parts of the store share, from the world that was injected. */
import type { Clock } from '../base/clock.ts';
import type { Disk } from '../base/disk.ts';
import type { Log } from '../base/log.ts';
import type { Catalog } from './catalog/catalog.ts';
import {
  type Core,
  defaultSettings,
  type StoreSettings,
  serverState,
  volumeState,
} from './core.ts';
import { paths as pathsOf } from './format/layout.ts';
import { RunShelf } from './ingest/replay.ts';
import type { Journal } from './journal/journal.ts';
import { Reservations } from './journal/reservations.ts';
import type { KeyOptions } from './keys/open-vault.ts';
import { sealedDisk } from './keys/sealed-disk.ts';
import { plainVault, type Vault } from './keys/vault.ts';
import type { Lease } from './lease/lease.ts';
import type { LeaseHolder } from './lease/take-lease.ts';
import { Terms } from './lease/terms.ts';
import { LeafFile } from './leaves/leaf-file.ts';
import { Mutex } from './mutex.ts';
import type { Confirm } from './objects/bundled-objects.ts';
import { Removal } from './objects/removal.ts';
import { Pace } from './pace.ts';
import { Copies } from './packs/copies.ts';
import { DamageNotes } from './packs/damage-notes.ts';
import { FileCache } from './packs/file-cache.ts';
import { PackTable } from './packs/pack-table.ts';
import { PieceIndex } from './packs/piece-index.ts';
import { PieceReader } from './packs/piece-reader.ts';
import { AheadUnits } from './packs/read-ahead.ts';
import { CopyNotes } from './points/copy-notes.ts';
import { loadNewPacks, type OpeningTold } from './repository/repository.ts';

export interface StoreOptions {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly randomBytes: (count: number) => Uint8Array;
  /** The data directory. */
  readonly root: string;
  readonly catalog: Catalog;
  readonly log: Log;
  readonly settings?: Partial<StoreSettings>;
  /** The repository, where it does not lie in the data directory under its usual name. */
  readonly repo?: string;
  /** Nothing is changed, not even what a crash has left behind. */
  readonly isReadOnly?: boolean;
  /** Makes a new journal for a repository whose journal is lost. */
  readonly adopt?: boolean;
  /** Goes on with a repository that lacks points which the catalog knows to have been sealed in it. */
  readonly acceptRollback?: boolean;
  /** Called once nobody else changes the repository. */
  readonly onAlone?: (term: number, confirm?: Confirm) => Promise<void>;
  /** Given where others could reach the repository: then it is changed under a lease only. */
  readonly leaseBy?: LeaseHolder;
  /** Told what is read while the repository is opened. */
  readonly onOpening?: OpeningTold | undefined;
  /** Opens an encrypted repository, and makes a new one encrypted. */
  readonly keys?: KeyOptions;
  /** What its keys do, for who makes a core; openStore finds that out by itself. */
  readonly vault?: Vault;
}

const saltOf = (randomBytes: StoreOptions['randomBytes']): number =>
  new DataView(randomBytes(4).slice().buffer).getInt32(0);

/** `journal` is set once it has been replayed; nothing is appended before. */
export function createCore(options: StoreOptions, lease: Lease | null = null): Core {
  const { vault = plainVault } = options;
  const settings = { ...defaultSettings, ...options.settings };
  const { names } = vault;
  const paths = pathsOf(options.root, options.repo, names);
  const { clock, log, randomBytes, catalog, isReadOnly = false } = options;
  const disk = sealedDisk(options.disk, vault, paths, randomBytes);
  const files = new FileCache(disk, undefined, vault);
  const packs = new PackTable();
  const removal = new Removal(clock, log);
  let notes = 0;
  const temporary = () => {
    notes += 1;
    return `${paths.temporary}/${notes}.notes`;
  };
  const damage = new DamageNotes({ disk, log, packs, path: paths.damage, temporary, isReadOnly });
  const index = new PieceIndex(
    { disk, log, paths, files, packs, isReadOnly, damage },
    saltOf(randomBytes),
  );
  // Only a reader can be behind: the service knows of every pack before anything names it.
  const refresh = async () => {
    if (isReadOnly) await loadNewPacks({ disk, log, paths, files, packs, index });
  };
  const copies = new Copies({ files, packs, log, refresh });
  const far = disk.far ?? null;
  return {
    ...{ disk, clock, log, randomBytes, paths, catalog, files, packs, isReadOnly, vault, names },
    settings,
    pace: new Pace(clock, settings),
    aheadUnits: far === null ? null : new AheadUnits(clock),
    ...{
      index,
      copies,
      reader: new PieceReader({ files, packs, index, copies, log, damage, far }),
    },
    damage,
    removal,
    reservations: new Reservations(),
    copyNotes: new CopyNotes(),
    servers: new Map(),
    upkeep: new Mutex(),
    staged: new Map(),
    claimedIds: new Set(),
    provenBases: new Set(),
    holds: new Map(),
    ...{ legalHolds: new Map(), policies: new Map(), dropping: new Set(), policyVersion: 0 },
    lease,
    terms: new Terms(),
    journal: undefined as unknown as Journal,
    nextSequence: 1,
    sealingWaits: null,
    onStaged: () => undefined,
    onSealed: () => undefined,
    nextFile: 0,
    dedupeHits: 0,
  };
}

/** Servers and volumes as the catalog has them. */
export async function loadHeads(core: Core): Promise<void> {
  for (const head of await core.catalog.heads()) {
    const server = serverState(core, head.server);
    volumeState(server, head.volume).head = head;
    core.nextSequence = Math.max(core.nextSequence, head.sequence + 1);
  }
}

/** Runs of open epochs, oldest first. */
export async function loadRuns(core: Core): Promise<RunShelf> {
  const shelf = new RunShelf();
  for (const { name } of await core.disk.list(core.paths.open)) {
    const run = await LeafFile.open(core.files, `${core.paths.open}/${name}`, 'US-RUN  ');
    shelf.add(run);
    core.nextFile = Math.max(core.nextFile, Number.parseInt(name, 10));
  }
  return shelf;
}
