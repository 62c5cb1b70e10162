/**
 * A repository read from its directory alone (P7): no service, no catalog, nothing is changed. Takes a
 * data directory or its `repo`; where the journal is there too, staged points are readable as well. A
 * damaged journal hides only what was not sealed yet.
 *
 * Beside a running service things move: from the journal into the repository, from maps and packs into
 * others. So the order is journal, points, packs, and maps when an image is opened; what is not found in
 * the packs then is looked for once more among those that have come since (copies.ts).
 */
import { randomBytes } from 'node:crypto';
import { resolve } from 'node:path';
import { systemClock } from '../base/clock.ts';
import type { Disk } from '../base/disk.ts';
import { UnderstudyError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { nodeDisk } from '../base/node-disk.ts';
import type { ServerId, VolumeId } from '../model/replication.ts';
import { MemoryCatalog } from './catalog/catalog-memory.ts';
import type { CheckOptions } from './check/check.ts';
import { checkCatalog } from './check/check-catalog.ts';
import { copyPoints } from './copy/copy.ts';
import type { Core } from './core.ts';
import { createCore, loadHeads, loadRuns } from './create-core.ts';
import { readFormatObject } from './format/format.ts';
import { paths as pathsOf } from './format/layout.ts';
import { isNotFound } from './format/object-header.ts';
import { DirectoryReader } from './images/directory-reader.ts';
import { Replay } from './ingest/replay.ts';
import { Watermark } from './journal/watermark.ts';
import { type KeyOptions, openVault } from './keys/open-vault.ts';
import { readTerms } from './lease/terms.ts';
import type { Place } from './place.ts';
import * as repository from './repository/repository.ts';
import { loadHolds } from './retention/holds.ts';
import { loadPolicies } from './retention/policies.ts';
import type {
  CheckReport,
  CopyOptions,
  CopyPlace,
  CopyReport,
  Finding,
  ImageReader,
  ListedPoint,
  PointFilter,
  StoreStatistics,
  Usage,
} from './types.ts';
import { statisticsOf } from './upkeep/statistics.ts';
import { usageOf } from './upkeep/usage.ts';

export interface OfflineRepository {
  points(filter: PointFilter): Promise<ListedPoint[]>;
  /** The whole point that was committed last, whatever the clocks of its machines say; null: none. */
  lastCommitted(server: ServerId): Promise<ListedPoint | null>;
  /** ERR_POINT_NOT_FOUND. */
  point(id: string): Promise<ListedPoint>;
  /** ERR_POINT_NOT_FOUND, ERR_VOLUME_NOT_FOUND. */
  openImage(pointId: string, volume: VolumeId): Promise<ImageReader>;
  check(options: CheckOptions): Promise<CheckReport>;
  /** As `Store.copy`; the note of it is the one thing that is written here. */
  copy(place: CopyPlace, options: CopyOptions): Promise<CopyReport>;
  statistics(): Promise<StoreStatistics>;
  usage(by: 'server' | 'point'): Promise<Usage>;
  close(): Promise<void>;
}

/** So often a directory is read anew that a service has changed meanwhile. */
const MAX_TRIES = 5;

/** A directory that is open for reading, and what kept its journal from being read. */
export interface OpenDirectory {
  readonly core: Core;
  readonly damage: readonly Finding[];
  /** A data directory, with a journal and a catalog beside the repository. */
  readonly isData: boolean;
}

/** `directory`: a data directory or its repo. ERR_DATA_FORMAT where it is neither. */
export async function openRepository(
  directory: string,
  log: Log,
  disk: Disk = nodeDisk,
  keys?: KeyOptions,
): Promise<OfflineRepository> {
  return new Offline(await openDirectory(directory, log, disk, keys));
}

/** The same for parts of the store that look beneath. Whoever calls closes `core.files`. */
export async function openDirectory(
  directory: string,
  log: Log,
  disk: Disk = nodeDisk,
  keys?: KeyOptions,
): Promise<OpenDirectory> {
  return openDirectoryIn({ disk, repo: resolve(directory), objects: null, keys }, log);
}

export type ReadPlace = Pick<Place, 'disk' | 'repo' | 'objects' | 'scratch'> & {
  /** Of an encrypted repository. */
  readonly keys?: KeyOptions | undefined;
  readonly onOpening?: repository.OpeningTold | undefined;
};

/** A repository that may lie in an object store; the caller closes the place afterwards. */
export async function openRepositoryIn(place: ReadPlace, log: Log): Promise<OfflineRepository> {
  return new Offline(await openDirectoryIn(place, log));
}

/** The same for parts of the store that look beneath. */
export async function openDirectoryIn(
  { disk, repo: given, objects, scratch, keys, onOpening }: ReadPlace,
  log: Log,
): Promise<OpenDirectory> {
  const isData = objects === null && (await disk.exists(`${given}/repo/format.json`));
  for (let tries = 1; ; tries += 1) {
    // Beside a repository alone there is no journal; what has no name yet lies below it, or is local.
    const root = isData ? given : (scratch ?? `${given}/repairing`);
    const core = await coreOf(given, isData, root, log, disk, keys);
    core.terms = await readTerms(core.disk, core.paths.terms, log);
    const journal = isData ? await readJournal(core, tries < MAX_TRIES) : [];
    if (journal === 'changed') continue;
    await loadHolds(core);
    await loadPolicies(core);
    await repository.matchPoints(core, true, onOpening);
    await loadHeads(core);
    await repository.loadPacks(core, undefined, undefined, onOpening);
    await core.copyNotes.load(core);
    return { core, damage: journal, isData };
  }
}

async function coreOf(
  given: string,
  isData: boolean,
  root: string,
  log: Log,
  disk: Disk,
  keys: KeyOptions | undefined,
): Promise<Core> {
  const options = {
    ...{ disk, log, root, clock: systemClock },
    catalog: new MemoryCatalog(),
    randomBytes: (count: number) => new Uint8Array(randomBytes(count)),
    settings: { commitMemoryBytes: Number.POSITIVE_INFINITY },
    repo: isData ? `${given}/repo` : given,
    isReadOnly: true,
  };
  const paths = pathsOf(options.root, options.repo);
  const format = await readFormatObject(disk, paths);
  if (format === null) {
    const message = `${given}: neither a data directory nor a repository`;
    throw new UnderstudyError('ERR_DATA_FORMAT', message, { path: given });
  }
  const world = { disk, paths, randomBytes: options.randomBytes, nowMs: systemClock.wallMs() };
  return createCore({ ...options, vault: await openVault(world, format, keys) });
}

/**
 * Staged points; what kept them from being read is returned as findings. 'changed': a service has sealed
 * segments while they were read, so that what seems to be damage may be none.
 */
async function readJournal(core: Core, mayTryAgain: boolean): Promise<Finding[] | 'changed'> {
  const { disk, paths, log } = core;
  const before = await markOf(core);
  let watermark: Watermark | null = null;
  try {
    watermark = await Watermark.open(disk, paths.watermark, 'read');
    if (watermark === null) return [];
    const shelf = await loadRuns(core);
    const { segments } = await new Replay(core, watermark, shelf).run();
    for (const { file } of segments) await file.close();
    return [];
  } catch (error) {
    if (!(error instanceof UnderstudyError)) throw error;
    const isSame = Buffer.compare(before, await markOf(core)) === 0 && !isNotFound(error);
    if (mayTryAgain && !isSame) return 'changed';
    log.warn('the journal cannot be read; staged points are left out', { error: error.message });
    const object = String(error.context.path ?? paths.journal);
    return [{ kind: 'damaged-object', object, detail: error.message, points: [] }];
  } finally {
    await watermark?.close();
  }
}

/** The watermark's bytes: they change with whatever is acknowledged or sealed. */
async function markOf({ disk, paths }: Core): Promise<Uint8Array> {
  const isThere = await disk.exists(paths.watermark);
  return isThere ? disk.readFile(paths.watermark) : new Uint8Array(0);
}

class Offline extends DirectoryReader implements OfflineRepository {
  private readonly directory: OpenDirectory;

  constructor(directory: OpenDirectory) {
    super(directory.core);
    this.directory = directory;
  }

  override async check(options: CheckOptions): Promise<CheckReport> {
    const { damage, isData } = this.directory;
    const report = await super.check(options);
    const catalog = isData ? await checkCatalog(this.core) : [];
    return { ...report, findings: [...damage, ...report.findings, ...catalog] };
  }

  copy(place: CopyPlace, options: CopyOptions): Promise<CopyReport> {
    return copyPoints(this.core, place, options);
  }

  statistics(): Promise<StoreStatistics> {
    return statisticsOf(this.core, this.core.servers.size);
  }

  usage(by: 'server' | 'point'): Promise<Usage> {
    return usageOf(this.core, by);
  }

  async close(): Promise<void> {
    await this.core.files.close();
  }
}
