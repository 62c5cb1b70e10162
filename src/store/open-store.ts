/**
 * Opens a data directory: takes its lock, reads what the repository has, brings the journal back and
 * starts the background work. Refuses what it cannot trust (P4) with one clear error, and then nothing is
 * running. The world (disk, clock, chance, catalog) is injected: node-store.ts gives the real one.
 */
import type { Disk } from '../base/disk.ts';
import { UnderstudyError } from '../base/errors.ts';
import { lastPoints } from '../model/retention.ts';
import { type Core, temporaryPath } from './core.ts';
import { createCore, loadHeads, loadRuns, type StoreOptions } from './create-core.ts';
import { toHex } from './format/checksum.ts';
import { type Format, readFormatObject } from './format/format.ts';
import { type Paths, paths as pathsOf } from './format/layout.ts';
import { writeObject } from './format/object-file.ts';
import * as journalOwner from './ingest/journal-owner.ts';
import { Replay } from './ingest/replay.ts';
import { isCovered, Sealer } from './ingest/sealer.ts';
import { Journal } from './journal/journal.ts';
import { Watermark } from './journal/watermark.ts';
import { createVault, openVault, type VaultWorld } from './keys/open-vault.ts';
import { sealedDisk } from './keys/sealed-disk.ts';
import { plainVault, type Vault } from './keys/vault.ts';
import type { Lease } from './lease/lease.ts';
import { encodeTerm, SEQUENCES_PER_TERM } from './lease/lease-record.ts';
import { leasedDisk } from './lease/leased-disk.ts';
import { takeLease } from './lease/take-lease.ts';
import { readTerms } from './lease/terms.ts';
import { Segment } from './packs/segment.ts';
import type { PointRecord } from './points/point-format.ts';
import * as repository from './repository/repository.ts';
import { loadHolds } from './retention/holds.ts';
import { loadPolicies } from './retention/policies.ts';
import { retained } from './retention/retention.ts';
import { DirectoryStore } from './store.ts';
import type { Store } from './types.ts';

/** Opens or makes the data directory. ERR_DATA_IN_USE, ERR_DATA_FORMAT, ERR_JOURNAL_DAMAGED. */
export async function openStore(options: StoreOptions): Promise<Store> {
  const { catalog } = options;
  const known = await catalog.open();
  try {
    return await openLocked(options, known);
  } catch (error) {
    await catalog.close();
    throw error;
  }
}

async function openLocked(options: StoreOptions, known: string | null): Promise<Store> {
  const paths = pathsOf(options.root, options.repo);
  const format = await readFormatObject(options.disk, paths);
  if (format === null) await assertEmpty(options, paths);
  // Before anything is changed: a wrong key is told as nothing else.
  const vault = format && (await openVault(vaultWorld(options, paths), format, options.keys));
  const watermark = await openWatermark(options, paths, format !== null);
  try {
    const disk = sealedDisk(options.disk, vault ?? plainVault, paths, options.randomBytes);
    const lease = await takeLease({ ...options, disk }, paths);
    try {
      return await openRepository(options, lease, watermark, { known, format, vault });
    } catch (error) {
      await lease?.release();
      throw error;
    }
  } catch (error) {
    await watermark.close();
    throw error;
  }
}

/** Where format.json is lost nothing is made anew: what lies there, and its keys, may be all that is left. */
async function assertEmpty({ disk, leaseBy }: StoreOptions, paths: Paths): Promise<void> {
  const { packs, deltas, bases, points, format: path } = paths;
  for (const folder of [packs, deltas, bases, points]) {
    if ((await disk.list(folder)).length === 0) continue;
    const message = `${path}: it is missing, and there is something in ${folder}: put it back`;
    throw new UnderstudyError('ERR_DATA_FORMAT', message, { path });
  }
  if (leaseBy !== undefined) await assertNoStranger(disk, paths);
}

/** What a repository that was begun and not finished may have, besides its folders; and what disks have. */
const BEGUN: readonly string[] = [
  ...['lease', 'terms', 'keys', 'bundles', 'probe', '.temporary', 'lost+found'],
];

/** A place outside of the data directory was named by hand: the wrong one is full of something else. */
async function assertNoStranger(disk: Disk, paths: Paths): Promise<void> {
  const { repo } = paths;
  const own = [...repository.repositoryFolders(paths), ...BEGUN.map((name) => `${repo}/${name}`)];
  const stranger = (await disk.list(repo)).find(({ name }) => !own.includes(`${repo}/${name}`));
  if (stranger === undefined) return;
  const message = `${repo}: this is no repository, and it has "${stranger.name}": name an empty place`;
  throw new UnderstudyError('ERR_DATA_FORMAT', message, { path: repo });
}

const vaultWorld = ({ disk, randomBytes, clock }: StoreOptions, paths: Paths): VaultWorld => ({
  ...{ disk, paths, randomBytes },
  nowMs: clock.wallMs(),
});

interface Found {
  /** The repository that the catalog is of. */
  readonly known: string | null;
  /** Null where there is no repository yet. */
  readonly format: Format | null;
  readonly vault: Vault | null;
}

async function openRepository(
  given: StoreOptions,
  lease: Lease | null,
  watermark: Watermark,
  { known, format, vault }: Found,
): Promise<Store> {
  const paths = pathsOf(given.root, given.repo);
  await given.onAlone?.(lease?.term ?? 0, lease?.asked);
  const disk = lease === null ? given.disk : leasedDisk(given.disk, paths.repo, lease);
  const options = { ...given, disk };
  await repository.makeFolders(disk, paths);
  await repository.clearTemporaries(disk, paths);
  await journalOwner.assertOf({ disk, paths }, format?.id ?? null);
  const core =
    vault === null ? await newCore(options, lease) : createCore({ ...options, vault }, lease);
  const { log } = core;
  core.terms = await readTerms(core.disk, paths.terms, log);
  const id = (await repository.readFormat(core.disk, paths))!;
  await journalOwner.write(core, id);
  const { onOpening } = given;
  const flush = () => core.index.flush(temporaryPath(core));
  await repository.loadPacks(core, core.settings.indexMemoryEntries, flush, onOpening);
  await core.damage.load();
  if (known !== id || (await hasStale(core))) {
    if (format !== null) log.warn('the catalog is rebuilt from the repository');
    await core.catalog.adopt(id);
  }
  await loadHolds(core);
  await loadPolicies(core);
  await matchPoints(core, id, given);
  // Always: a catalog that is behind must not let an epoch be committed that the maps have already.
  onOpening?.('maps', 0, 0);
  await repository.findHeads(core);
  await loadHeads(core);
  await core.copyNotes.load(core);
  return replay(core, watermark);
}

/** What the catalog remembers of a repository that was rolled back is forgotten once that is accepted. */
async function matchPoints(
  core: Core,
  id: string,
  { acceptRollback: isRollbackAccepted = false, onOpening }: StoreOptions,
): Promise<void> {
  try {
    await repository.matchPoints(core, false, onOpening);
  } catch (error) {
    const isBehind = error instanceof UnderstudyError && error.code === 'ERR_REPOSITORY_BEHIND';
    if (!isBehind || !isRollbackAccepted) throw error;
    core.log.error('a rolled back repository was accepted', { error: error.message });
    await core.catalog.adopt(id);
    await repository.matchPoints(core);
  }
}

/** Of a repository that is made now: its keys first, then what says that it needs them. */
async function newCore(options: StoreOptions, lease: Lease | null): Promise<Core> {
  const { randomBytes, keys } = options;
  if (keys === undefined) {
    const plain = createCore(options, lease);
    await repository.createFormat(plain, { id: toHex(randomBytes(16)), encryption: null });
    return plain;
  }
  const world = vaultWorld(options, pathsOf(options.root, options.repo));
  const { vault, format } = await createVault(world, toHex(randomBytes(16)), keys);
  const core = createCore({ ...options, vault }, lease);
  await repository.createFormat(core, format);
  return core;
}

/** True where the catalog has what was committed here after another service had taken the repository. */
async function hasStale(core: Core): Promise<boolean> {
  if (core.terms.isEmpty) return false;
  const heads = await core.catalog.heads();
  const points = await core.catalog.points({});
  const sequences = [...heads, ...points.map(({ record }) => record)].map((of) => of.sequence);
  return sequences.some((sequence) => core.terms.isStale(sequence));
}

/**
 * Begins the term of this life: what is here now is the last that counts of the terms before it. Only now,
 * when the journal has told of its own commits.
 */
async function beginTerm(core: Core): Promise<void> {
  const { lease, clock, paths, disk, terms } = core;
  if (lease === null) return;
  const { term } = lease;
  const { holder } = lease;
  const record = { term, holder, acceptedUpTo: core.nextSequence - 1, timeMs: clock.wallMs() };
  await writeObject(disk, temporaryPath(core), paths.term(term), [encodeTerm(record)]);
  terms.add(record);
  core.nextSequence = Math.max(core.nextSequence, term * SEQUENCES_PER_TERM);
}

/** A repository without its journal's watermark has lost what was acknowledged: refuse. */
async function openWatermark(
  { disk, log, adopt = false }: StoreOptions,
  paths: Paths,
  hasRepository: boolean,
): Promise<Watermark> {
  const watermark = await Watermark.open(disk, paths.watermark);
  if (watermark !== null) return watermark;
  if (hasRepository) {
    const segments = (await disk.list(paths.journal)).filter(({ name }) => /\.segment$/.test(name));
    if (!adopt || segments.length > 0) throw withoutJournal(paths, segments.length);
    log.warn('a new journal is made: what the lost one held is gone', { repo: paths.repo });
  }
  await repository.makeFolders(disk, paths);
  return Watermark.create(disk, paths.watermark, paths.journal);
}

function withoutJournal({ watermark, repo }: Paths, segments: number): UnderstudyError {
  const detail =
    segments > 0
      ? 'it is missing beside the segments of the journal'
      : `it is missing, and there is a repository in ${repo}: the journal that belongs to it is lost. ` +
        '--adopt goes on with the sealed points, and without what that journal held';
  return new UnderstudyError('ERR_JOURNAL_DAMAGED', `${watermark}: ${detail}`, { path: watermark });
}

async function replay(core: Core, watermark: Watermark): Promise<Store> {
  const { disk, clock, randomBytes, paths, packs, index, settings } = core;
  const shelf = await loadRuns(core);
  const { segments, nextSequence } = await new Replay(core, watermark, shelf).run();
  await checkStaged(core);
  await beginTerm(core);
  for (const run of shelf.rest()) await disk.remove(run.path);
  const sealer = new Sealer(core);
  core.journal = new Journal({
    ...{ disk, paths, watermark, nextSequence, segmentBytes: settings.segmentBytes },
    createSegment: async (sequence) => {
      const id = toHex(randomBytes(16));
      const path = paths.segment(sequence);
      const sums = { fileBytes: 0, pieces: 0, rawBytes: 0, storedBytes: 0 };
      const { number: pack } = packs.add({ id, path, isPublished: false, ...sums });
      const given = { sequence, id, path, createdMs: clock.wallMs() };
      try {
        return await Segment.create(
          ...([disk, paths.journal, core.vault, given, index.addSegment(pack), pack] as const),
        );
      } catch (error) {
        index.dropSegment(pack);
        packs.remove(pack);
        throw error;
      }
    },
    onEnded: (segment) => sealer.add(segment),
    onFailed: (error) => {
      core.log.error('the store has failed', { error: error.message });
      sealer.fail(error);
    },
  });
  if (core.lease !== null) core.lease.whenLost = (error) => core.journal.fail(error);
  for (const segment of segments) sealer.add(segment);
  return new DirectoryStore(core, sealer);
}

/**
 * Staged points that only the catalog knows. Either they were sealed and dropped since, and a power cut
 * took that from the catalog, which is not synced each time; or the journal that had them is lost, and
 * that must be told. Only what is not the last of its server is ever dropped; what was sealed has left a
 * later commit behind it, for they are sealed in their order, or its maps.
 */
async function checkStaged(core: Core): Promise<void> {
  const points = await core.catalog.points({});
  const unknown = points.filter(
    ({ record, state }) => state === 'staged' && !core.staged.has(record.id),
  );
  if (unknown.length === 0) return;
  const rest = points.filter((point) => !unknown.includes(point));
  const newest = Math.max(0, ...rest.map(({ record }) => record.sequence));
  const last = lastPoints(points.map(retained));
  for (const { record } of unknown) {
    const { id, sequence } = record;
    const mayBeDropped = !last.has(id);
    if (mayBeDropped && (sequence < newest || (await hasMaps(core, record)))) continue;
    const message = `point ${id} was acknowledged, and the journal does not have it`;
    throw new UnderstudyError('ERR_JOURNAL_DAMAGED', message, { path: core.paths.journal });
  }
  const ids = unknown.map(({ record }) => record.id);
  core.log.warn('the catalog was behind: points have been dropped since', { points: ids });
  await core.catalog.removePoints(ids);
}

/** True where the repository's maps reach all that the point is of. */
async function hasMaps(core: Core, { server, volumes }: PointRecord): Promise<boolean> {
  for (const { volume, generation, epoch } of volumes) {
    if (!(await isCovered(core, { server, volume, generation }, epoch))) return false;
  }
  return true;
}
