/**
 * The destination of a copy: a repository of its own, without a journal, that is written to by nobody but
 * copies of one source. Its format.json names that source, so that another one is refused. What has no
 * name yet lies in a scratch folder, and goes when the next copy begins.
 */
import { dirname } from 'node:path';
import type { Disk } from '../../base/disk.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { MemoryCatalog } from '../catalog/catalog-memory.ts';
import { type Core, temporaryPath } from '../core.ts';
import { createCore, loadHeads } from '../create-core.ts';
import { toHex } from '../format/checksum.ts';
import { type Format, readFormatObject } from '../format/format.ts';
import { type Paths, paths as pathsOf } from '../format/layout.ts';
import { isDamage, isNotFound } from '../format/object-header.ts';
import { createVault, openVault, type VaultWorld } from '../keys/open-vault.ts';
import { sealedDisk } from '../keys/sealed-disk.ts';
import { plainVault, type Vault } from '../keys/vault.ts';
import type { Lease } from '../lease/lease.ts';
import { leasedDisk } from '../lease/leased-disk.ts';
import { takeLease } from '../lease/take-lease.ts';
import * as repository from '../repository/repository.ts';
import { settleNames } from '../repository/settle-names.ts';
import { loadHolds } from '../retention/holds.ts';
import type { CopyPlace } from '../types.ts';

/** The usual name of the scratch folder of a directory. */
const SCRATCH = 'copying';

export interface CopyTarget {
  readonly core: Core;
  readonly id: string;
  /** It was made by this call. */
  readonly isNew: boolean;
  /** `isInOrder`: every change has been answered; the next run may go on in this one's term. */
  close(isInOrder: boolean): Promise<void>;
}

/** What else may lie in a directory that is to become a repository. */
const STRANGERS: readonly string[] = [SCRATCH, 'lost+found', 'lease', 'keys', 'bundles'];

const refused = (code: 'ERR_COPY_PLACE' | 'ERR_COPY_FOREIGN', place: CopyPlace, detail: string) =>
  new UnderstudyError(code, `${place.name}: ${detail}`, { path: place.name });

/**
 * Opens the destination, or makes it. ERR_COPY_PLACE where it is the source, or a directory with other
 * things; ERR_COPY_FOREIGN where it is no copy of this source; ERR_DATA_FORMAT.
 */
export async function openCopyTarget(
  source: Core,
  sourceId: string,
  place: CopyPlace,
): Promise<CopyTarget> {
  const { clock, log, randomBytes } = source;
  const paths = pathsOf(place.scratch, place.repo);
  const known = await admit(place, paths, sourceId);
  assertNames(source, place);
  // Sequences are the source's: whoever takes this repository into service must go on after them.
  const { disk, leaseBy } = place;
  const world = { disk, paths, randomBytes, nowMs: clock.wallMs() };
  const vault = known === null ? null : await openVault(world, known, place.keys);
  const sealed = sealedDisk(disk, vault ?? plainVault, paths, randomBytes);
  // Sequences of its own it gives to nothing, so it may go on in the term of the run before.
  const leased = { disk: sealed, clock, log, leaseBy, goesOn: true };
  const lease = await takeLease(leased, paths, source.terms.highest);
  const own = lease === null ? disk : leasedDisk(disk, place.repo, lease);
  let core: Core | null = null;
  try {
    await place.alone?.(lease?.term ?? 0, lease?.asked);
    const at = { ...world, disk: own };
    const made = vault === null ? await newVault(source, at, place) : { vault, format: known! };
    const opened = coreOf(source, { ...place, disk: own }, made.vault, lease);
    core = opened;
    await prepare(core, known === null ? made.format : null, sourceId);
    await loadHolds(core);
    await loadPoints(source, core);
    await loadHeads(core);
    return {
      core,
      id: made.format.id,
      isNew: known === null,
      close: (isInOrder) => close(opened, isInOrder),
    };
  } catch (error) {
    await core?.files.close();
    await lease?.release();
    throw error;
  }
}

function coreOf(source: Core, place: CopyPlace, vault: Vault, lease: Lease | null): Core {
  const { clock, log, randomBytes, settings } = source;
  return createCore(
    {
      ...{ disk: place.disk, clock, log, randomBytes, settings, vault },
      ...{ root: place.scratch, repo: place.repo, catalog: new MemoryCatalog() },
    },
    lease,
  );
}

async function close({ files, lease }: Core, isInOrder: boolean): Promise<void> {
  await files.close();
  await lease?.release(isInOrder);
}

/** A copy has the names of its source: of an encrypted one it is encrypted, with the same name key. */
function assertNames({ vault }: Core, { name, keys }: CopyPlace): void {
  if (vault.keys === null || keys !== undefined) return;
  const message = `${name}: a copy of an encrypted repository is encrypted, and no key was given for it`;
  throw new UnderstudyError('ERR_KEY_REQUIRED', message, { path: name });
}

/** The keys of a copy that is made now. */
async function newVault(source: Core, world: VaultWorld, { keys }: CopyPlace) {
  const id = toHex(world.randomBytes(16));
  if (keys === undefined) return { vault: plainVault, format: { id, encryption: null } };
  const nameKey = source.vault.keys?.nameKey;
  const names = source.vault.names.mode;
  return createVault(world, id, { ...keys, names, ...(nameKey && { nameKey }) });
}

/** Makes what is missing, and durable what a former run has left. `made`: of a repository that is new. */
async function prepare(core: Core, made: Format | null, sourceId: string): Promise<void> {
  const { disk, paths, settings } = core;
  await repository.makeFolders(disk, paths);
  const above = dirname(paths.repo);
  if (await disk.exists(above)) await disk.syncDirectory(above);
  await settleNames(core);
  await repository.clearTemporaries(disk, paths);
  if (made !== null) {
    await repository.createFormat(core, made, { copyOf: { repository: sourceId } });
  }
  await repository.loadPacks(core, settings.indexMemoryEntries, () =>
    core.index.flush(temporaryPath(core)),
  );
}

/** The repository there; null where there is none yet, and may be one. */
async function admit(place: CopyPlace, paths: Paths, sourceId: string): Promise<Format | null> {
  const { disk } = place;
  const format = await readFormatObject(disk, paths);
  if (format === null) {
    await assertEmpty(place, paths);
    return null;
  }
  const { id } = format;
  if (id === sourceId) throw refused('ERR_COPY_PLACE', place, 'this is the source itself');
  const of = await copyOf(disk, paths);
  if (of === sourceId) return format;
  const what = of === null ? 'a repository of its own' : `a copy of the repository ${of}`;
  throw refused('ERR_COPY_FOREIGN', place, `this is ${what}, not a copy of ${sourceId}`);
}

/** Empty, or with the folders that a copy makes before anything else. */
async function assertEmpty(place: CopyPlace, paths: Paths): Promise<void> {
  const { disk } = place;
  const folders = repository.repositoryFolders(paths);
  for (const { name } of await disk.list(place.repo)) {
    if (STRANGERS.includes(name)) continue;
    const path = `${place.repo}/${name}`;
    if (folders.includes(path) && (await disk.list(path)).length === 0) continue;
    throw refused('ERR_COPY_PLACE', place, `this is no repository, and it has "${name}"`);
  }
}

/** The repository that this one is a copy of; null where it is none. */
export async function copyOf(disk: Disk, paths: Paths): Promise<string | null> {
  const text = Buffer.from(await disk.readFile(paths.format)).toString('utf8');
  const { copyOf: of } = JSON.parse(text) as { copyOf?: { repository?: unknown } };
  return typeof of?.repository === 'string' ? of.repository : null;
}

/** The points of the destination. One that the source has too is the same: it need not be read. */
async function loadPoints(source: Core, core: Core): Promise<void> {
  for await (const { id, path } of repository.listPoints(core)) {
    const same = await source.catalog.point(id);
    if (same?.state === 'sealed' && core.paths.point(same.record.server, id) === path) {
      await core.catalog.putPoint(same.record, 'sealed');
      continue;
    }
    try {
      await core.catalog.putPoint(await repository.readNamedPoint(core, path), 'sealed');
    } catch (error) {
      if (isNotFound(error)) continue;
      if (!isDamage(error)) throw error;
      core.log.error('a point of the destination is damaged', { point: id, path });
    }
  }
}

/** Where a directory is the place: the folder itself is the repository. */
export const directoryPlace = (disk: Disk, name: string, folder: string): CopyPlace => ({
  ...{ name, disk, repo: folder, scratch: `${folder}/${SCRATCH}` },
});
