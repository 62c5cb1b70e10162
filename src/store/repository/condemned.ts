/**
 * Condemned packs: nothing new may refer to them, and they are deleted only after a grace and a second
 * look. The mark is an object of its own, so that the verdict outlives a restart.
 */

import { type Core, temporaryPath } from '../core.ts';
import { fromHex, toHex } from '../format/checksum.ts';
import { writeObject } from '../format/object-file.ts';
import { damaged, encodeHeader, isDamage, openHeader } from '../format/object-header.ts';

const MAGIC = 'US-CONDM';

/** In an encrypted repository a mark says of which pack it is: none can be given to another one. */
const BOUND_VERSION = 2;

const encodeMark = ({ vault }: Pick<Core, 'vault'>, id: string, timeMs: number): Uint8Array =>
  vault.keys === null
    ? encodeHeader(MAGIC, (writer) => writer.u64(timeMs))
    : encodeHeader(MAGIC, (writer) => writer.u64(timeMs).raw(fromHex(id)), BOUND_VERSION);

type Readable = Pick<Core, 'disk' | 'paths' | 'files'>;

/** Ids of the packs that are condemned: the names of the marks say so, whatever is in them. */
export async function condemnedPacks({ disk, paths }: Omit<Readable, 'files'>): Promise<string[]> {
  const names = (await disk.list(paths.condemned)).map(({ name }) => name);
  return names.flatMap((name) => /^([0-9a-f]{32})\.condemned$/.exec(name)?.[1] ?? []);
}

/** Since when the pack is condemned. ERR_OBJECT_DAMAGED. */
export async function condemnedSince(
  { disk, paths, files }: Readable,
  id: string,
): Promise<number> {
  const path = paths.condemnedMark(id);
  const isBound = files.vault.keys !== null;
  const version = isBound ? BOUND_VERSION : undefined;
  const { fields } = openHeader(await disk.readFile(path), MAGIC, path, version);
  const timeMs = fields.u64();
  if (isBound && toHex(fields.raw(16)) !== id) throw damaged(path, 'the mark of another pack');
  return timeMs;
}

/** Since when each pack is condemned, by its id; null where the mark is damaged. */
export async function readCondemned(core: Core): Promise<Map<string, number | null>> {
  const marks = new Map<string, number | null>();
  for (const id of await condemnedPacks(core)) {
    try {
      marks.set(id, await condemnedSince(core, id));
    } catch (error) {
      if (!isDamage(error)) throw error;
      core.log.warn('the mark of a condemned pack is damaged', { error: error.message });
      marks.set(id, null);
    }
  }
  return marks;
}

/** Durable once it resolves. */
export async function condemn(core: Core, id: string): Promise<void> {
  const path = core.paths.condemnedMark(id);
  const info = core.packs.byId(id);
  // At once: nothing may refer to the pack while the mark is being written.
  if (info !== null) core.packs.update(info.number, { isCondemned: true });
  try {
    // Objects do not change: a mark that is there already goes first. One that is kept stays as it is.
    if (await core.disk.exists(path)) {
      if (!(await core.removal.remove(core.disk, path))) return;
    }
    const mark = encodeMark(core, id, core.clock.wallMs());
    await writeObject(core.disk, temporaryPath(core), path, [mark]);
  } catch (error) {
    if (info !== null) core.packs.update(info.number, { isCondemned: false });
    throw error;
  }
}

export async function pardon(core: Core, id: string): Promise<void> {
  await core.removal.remove(core.disk, core.paths.condemnedMark(id));
  await core.disk.syncDirectory(core.paths.condemned);
  const info = core.packs.byId(id);
  if (info !== null) core.packs.update(info.number, { isCondemned: false });
}

/** At opening, before packs are loaded: what was condemned stays so. */
export async function loadCondemned(core: Pick<Core, 'disk' | 'paths' | 'packs'>): Promise<void> {
  for (const id of await condemnedPacks(core)) core.packs.condemned.add(id);
}
