/**
 * Opens the repository's side of a data directory: its identity (format.json), its packs, its points and
 * the newest positions of its volumes. Reads only what the catalog does not know already.
 */
import type { Disk } from '../../base/disk.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { inOrder } from '../../base/in-order.ts';
import type { Catalog, VolumeHead } from '../catalog/catalog.ts';
import { type Core, temporaryPath } from '../core.ts';
import { encodeFormat, type Format, readFormatObject } from '../format/format.ts';
import { type MapPlace, type Paths, parseBaseName, parseDeltaName } from '../format/layout.ts';
import { makeFolder, writeObject } from '../format/object-file.ts';
import { damaged, isDamage, isNotFound } from '../format/object-header.ts';
import { readLeafFileInfo } from '../leaves/leaf-file.ts';
import { decodeBase } from '../maps/base.ts';
import { expectName } from '../maps/maps.ts';
import { findInPack } from '../packs/pack-entries.ts';
import { footerEntries } from '../packs/pack-format.ts';
import { decodePointObject, type PointRecord } from '../points/point-format.ts';
import { loadCondemned } from './condemned.ts';

/** The repository's identity; null where there is none. ERR_DATA_FORMAT for what is not ours. */
export const readFormat = async (disk: Disk, paths: Paths): Promise<string | null> =>
  (await readFormatObject(disk, paths))?.id ?? null;

/** `more`: further fields, which readers that do not know them ignore. */
export async function createFormat(core: Core, format: Format, more: object = {}): Promise<void> {
  const bytes = encodeFormat(format, core.clock.wallMs(), more);
  // By this name the temporary file is not sealed either.
  await writeObject(core.disk, `${temporaryPath(core)}.json`, core.paths.format, [bytes]);
}

export async function makeFolders(disk: Disk, paths: Paths): Promise<void> {
  const { repo, journal, open, temporary } = paths;
  const folders = [journal, open, temporary, repo, ...repositoryFolders(paths)];
  for (const folder of folders) await makeFolder(disk, folder);
}

/** The folders that a repository has from its beginning. */
export const repositoryFolders = (paths: Paths): string[] => {
  const { packs, deltas, bases, index, points, condemned, holds, policies } = paths;
  return [packs, deltas, bases, index, points, condemned, holds, policies];
};

/** Files of a former run that never got their names. */
export async function clearTemporaries(disk: Disk, paths: Paths): Promise<void> {
  for (const { name } of await disk.list(paths.temporary)) {
    await disk.remove(`${paths.temporary}/${name}`);
  }
}

type ReadCore = Pick<Core, 'disk' | 'paths' | 'files' | 'packs' | 'index' | 'log'>;

/** Ids of the packs that have a name in the repository. */
export async function listPacks(core: Pick<Core, 'disk' | 'paths'>): Promise<string[]> {
  const ids: string[] = [];
  for (const folder of await core.disk.list(core.paths.packs)) {
    if (!folder.isDirectory) continue;
    for (const { name } of await core.disk.list(`${core.paths.packs}/${folder.name}`)) {
      const match = /^([0-9a-f]{32})\.pack$/.exec(name);
      if (match !== null) ids.push(match[1]!);
    }
  }
  return ids;
}

/** Told while a repository is opened: what is read, how many of how many of them; 0 of 0: not known yet. */
export type OpeningTold = (what: string, done: number, total: number) => void;

const nobody: OpeningTold = () => undefined;

/** Fills the tables of packs and pieces: by index objects, by footers where no object has a pack. */
export async function loadPacks(
  core: ReadCore,
  maxInMemory = Number.POSITIVE_INFINITY,
  flush: () => Promise<void> = async () => undefined,
  told: OpeningTold = nobody,
): Promise<void> {
  told('packs', 0, 0);
  await loadCondemned(core);
  const held = await listPacks(core);
  told('index', 0, 0);
  const uncovered = await core.index.objects.open(new Set(held));
  let done = 0;
  for await (const enter of inOrder(uncovered, packsAtATime(core), (id) => readPack(core, id))) {
    enter();
    done += 1;
    told('packs', done, uncovered.length);
    if (core.index.publishedCount > maxInMemory) await flush();
  }
}

/** Footers take memory. */
const packsAtATime = ({ disk: { far } }: ReadCore): number =>
  far === undefined ? 1 : Math.min(far.requests, 4);

/** Enters what has got its name since; a pack that was a segment has another path now. */
export async function loadNewPacks(core: ReadCore): Promise<void> {
  for (const id of await listPacks(core)) {
    const known = core.packs.byId(id);
    if (known === null) (await readPack(core, id))();
    else if (!known.isPublished) {
      core.packs.update(known.number, { path: core.paths.pack(id), isPublished: true });
    }
  }
}

/**
 * Reads what a pack has, by its footer; where that is damaged, by its records, as far as they go. Check
 * reports it. The function enters it into the tables.
 */
async function readPack(core: ReadCore, id: string): Promise<() => void> {
  const path = core.paths.pack(id);
  try {
    const { contents, isWhole } = await findInPack(core.files, path, (error) =>
      core.log.error('a pack is damaged; its records are read instead', { path, error }),
    );
    const { footer, ...sums } = contents;
    return () => {
      const { number } = core.packs.enter({ id, path, isPublished: true, ...sums });
      if (isWhole) core.index.addPublished(number, footerEntries(footer));
      else core.index.addSalvaged(number, footerEntries(footer));
    };
  } catch (error) {
    if (isNotFound(error)) return () => undefined; // collected beside an offline reader
    if (!isDamage(error)) throw error;
    core.log.error('a pack cannot be read', { path, error: error.message });
    return () => undefined;
  }
}

/** A point that has a name in the repository. The folder tells its server only in a plain one. */
export interface NamedPoint {
  readonly folder: string;
  readonly id: string;
  readonly path: string;
}

export async function* listPoints(core: Pick<Core, 'disk' | 'paths'>): AsyncGenerator<NamedPoint> {
  const { points } = core.paths;
  for (const { name: folder, isDirectory } of await core.disk.list(points)) {
    if (!isDirectory) continue;
    for (const id of await pointsIn(core.disk, `${points}/${folder}`)) {
      yield { folder, id, path: `${points}/${folder}/${id}.point` };
    }
  }
}

async function pointsIn(disk: Disk, folder: string): Promise<string[]> {
  const names = (await disk.list(folder)).map(({ name }) => name);
  return names.flatMap((name) => /^(.+)\.point$/.exec(name)?.[1] ?? []);
}

/** Ids of a server's points that have a name. */
export const pointsOf = (
  { disk, paths }: Pick<Core, 'disk' | 'paths'>,
  server: string,
): Promise<string[]> => pointsIn(disk, paths.pointFolder(server));

type PointCore = Pick<Core, 'disk' | 'paths'>;

type ReadPoint<Named> = Named &
  (
    | { readonly record: PointRecord; readonly error: null }
    | { readonly record: null; readonly error: unknown }
  );

/** Each with its record, or the error that reading it met, in the order given. */
export function readNamedPoints<Named extends NamedPoint>(
  core: PointCore,
  named: readonly Named[],
): AsyncGenerator<ReadPoint<Named>> {
  return inOrder(named, core.disk.far?.requests ?? 1, async (point): Promise<ReadPoint<Named>> => {
    try {
      return { ...point, record: await readNamedPoint(core, point.path), error: null };
    } catch (error) {
      return { ...point, record: null, error };
    }
  });
}

/** The point of a file that was listed. ERR_OBJECT_DAMAGED, also where it has another one's name. */
export async function readNamedPoint(
  { disk, paths }: PointCore,
  path: string,
): Promise<PointRecord> {
  const record = decodePointObject(await disk.readFile(path), path);
  if (paths.point(record.server, record.id) === path) return record;
  throw damaged(path, 'the point of another name');
}

export const readPoint = (core: PointCore, server: string, id: string): Promise<PointRecord> =>
  readNamedPoint(core, core.paths.point(server, id));

/**
 * Makes the catalog's points those that the repository has. A damaged one stays where the catalog knows
 * it, and is left out otherwise; its maps stay in either case (needed-epochs.ts). So stays one that is
 * missing beside a bundle that cannot be read: that is damage, and no rollback.
 */
export async function matchPoints(
  core: Core,
  isRollbackAccepted = true,
  told: OpeningTold = nobody,
): Promise<void> {
  told('points', 0, 0);
  const known = new Map((await core.catalog.pointNames()).map((point) => [point.id, point]));
  const stale: string[] = [];
  const unread: (NamedPoint & { readonly isKnown: boolean })[] = [];
  for await (const named of listPoints(core)) {
    const { id, folder } = named;
    const point = known.get(id);
    known.delete(id);
    const isKnown = point !== undefined && core.names.serverFolder(point.server) === folder;
    if (!isKnown || point.state !== 'sealed') unread.push({ ...named, isKnown });
  }
  let done = 0;
  for await (const { id, path, isKnown, record, error } of readNamedPoints(core, unread)) {
    done += 1;
    told('points', done, unread.length);
    if (record !== null) {
      if (core.terms.isStale(record.sequence)) stale.push(id);
      else await core.catalog.putPoint(record, 'sealed');
      continue;
    }
    if (isNotFound(error)) continue; // it was dropped beside an offline reader
    if (!isDamage(error)) throw error;
    core.log.error('a point is damaged', { path, point: id, error: error.message });
    // It has its name in the repository: so it was sealed.
    if (isKnown) await core.catalog.setSealed([id]);
  }
  if (stale.length > 0) core.log.error('points do not count: they are stale', { points: stale });
  const gone = [...known.values()].filter(({ state }) => state === 'sealed').map(({ id }) => id);
  const hidden = core.disk.hidden?.() ?? [];
  if (!isRollbackAccepted && gone.length > 0 && hidden.length > 0) {
    core.log.error('points are missing, and may lie in bundles that cannot be read', {
      ...{ points: gone, paths: hidden },
      help: 'stop the service, and take them from a copy: repo repair --from COPY --data DATA',
    });
    return;
  }
  if (!isRollbackAccepted) await assertNotBehind(core, new Set(gone));
  if (gone.length > 0) core.log.error('points are gone from the repository', { points: gone });
  await core.catalog.removePoints(gone);
}

/** The sealed points that were committed last, one of each server. */
export async function newestSealed(catalog: Pick<Catalog, 'points'>): Promise<PointRecord[]> {
  const newest = new Map<string, PointRecord>();
  for (const { record, state } of await catalog.points({})) {
    const known = newest.get(record.server);
    const isNewer = known === undefined || known.sequence < record.sequence;
    if (state === 'sealed' && isNewer) newest.set(record.server, record);
  }
  return [...newest.values()];
}

/**
 * The newest point of a server is never dropped. Where the catalog knows it and the repository lacks it,
 * somebody has put an older state of the repository in its place. ERR_REPOSITORY_BEHIND.
 */
async function assertNotBehind(core: Core, gone: ReadonlySet<string>): Promise<void> {
  if (gone.size === 0) return;
  for (const { id, server } of await newestSealed(core.catalog)) {
    if (!gone.has(id)) continue;
    const path = core.paths.repo;
    const message = `${path}: it lacks point ${id} of ${server}, which was sealed in it`;
    throw new UnderstudyError('ERR_REPOSITORY_BEHIND', message, { path, server, point: id });
  }
}

interface FoundMap {
  readonly epoch: number;
  readonly path: string;
}

/**
 * Positions of volumes from their newest maps: the point may have been dropped since. A map of a commit
 * that does not count is passed over.
 */
export async function findHeads(core: Core): Promise<void> {
  const maps = new Map<string, FoundMap[]>();
  const note = (path: string, epoch: number) => {
    const [, generation, volume, server] = path.split('/').reverse();
    const key = `${server}/${volume}/${generation}`;
    const found = { epoch, path };
    const known = maps.get(key) ?? [];
    const isOnly = core.terms.isEmpty && known.length > 0;
    if (!isOnly) maps.set(key, [...known, found]);
    else if (known[0]!.epoch < epoch) maps.set(key, [found]);
  };
  for (const path of await mapFiles(core, core.paths.deltas, parseDeltaName)) {
    note(path, parseDeltaName(nameOf(path))!.to);
  }
  for (const path of await mapFiles(core, core.paths.bases, parseBaseName)) {
    note(path, parseBaseName(nameOf(path))!);
  }
  for (const found of maps.values()) await putNewest(core, found);
}

async function putNewest(core: Core, maps: readonly FoundMap[]): Promise<void> {
  for (const map of [...maps].sort((a, b) => b.epoch - a.epoch)) {
    try {
      const head = await readHead(core, map.path);
      if (core.terms.isStale(head.sequence)) continue;
      await core.catalog.putHead(head);
      return;
    } catch (error) {
      if (!isDamage(error)) throw error;
      core.log.error('a map is damaged', { path: map.path, error: error.message });
      return;
    }
  }
}

/** The position that a map is of. ERR_OBJECT_DAMAGED, ERR_DISK_NOT_FOUND. */
export async function readHead(core: Core, path: string): Promise<VolumeHead> {
  const { paths } = core;
  if (parseBaseName(nameOf(path)) === null) {
    const info = await readLeafFileInfo(core.files, path, 'US-DELTA');
    expectName(path, paths.delta(info, info.from, info.to));
    return headOf(info);
  }
  const { info } = decodeBase(await core.disk.readFile(path), path);
  expectName(path, paths.base(info, info.epoch));
  return headOf({ ...info, to: info.epoch });
}

const nameOf = (path: string): string => path.slice(path.lastIndexOf('/') + 1);

/** Paths of all objects below `folder` (server/volume/generation/name) whose names parse. */
export async function mapFiles(
  core: Pick<Core, 'disk'>,
  folder: string,
  parse: (name: string) => unknown,
): Promise<string[]> {
  const found: string[] = [];
  for (const { name, isDirectory } of await core.disk.list(folder)) {
    const path = `${folder}/${name}`;
    if (isDirectory) found.push(...(await mapFiles(core, path, parse)));
    else if (parse(name) !== null) found.push(path);
  }
  return found;
}

type MapInfo = MapPlace & {
  readonly sizeBytes: number;
  readonly sectorBytes: number;
  readonly to: number;
  readonly root: string;
  readonly contentDigest: string;
  readonly sequence: number;
  readonly timeMs: number;
};

const headOf = (info: MapInfo): VolumeHead => ({
  server: info.server,
  volume: info.volume,
  generation: info.generation,
  sizeBytes: info.sizeBytes,
  sectorBytes: info.sectorBytes,
  epoch: info.to,
  chainRoot: info.root,
  contentDigest: info.contentDigest,
  sequence: info.sequence,
  timeMs: info.timeMs,
  pointId: '',
});
