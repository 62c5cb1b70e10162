/**
 * Text files of a disk, read and rewritten. Latin 1 both ways: every byte that is not meant comes back as it
 * was. The first change of a file leaves the original beside it.
 */
import { MIB } from '../../base/units.ts';
import type { DiskTree } from './disk-tree.ts';
import { Refusal } from './guest.ts';
import type { Note, Notes } from './report.ts';

export const ORIGINAL = '.understudy-original';

/** Of the Boot Loader Specification. */
export const entryFolders: readonly string[] = [
  ...['/boot/loader/entries', '/boot/efi/loader/entries', '/efi/loader/entries'],
];

/** Null where it is not there, is no file, or is too large to be meant. */
export async function readText(
  tree: DiskTree,
  path: string,
  mostBytes = MIB,
): Promise<string | null> {
  try {
    return (await tree.read(path, mostBytes)).toString('latin1');
  } catch (cause) {
    if (cause instanceof Refusal) return null;
    throw cause;
  }
}

/** No folder of configuration holds more; a hostile one might. */
const MAX_FILES = 256;

/** Names in a folder, of files alone, in order. */
export async function filesIn(tree: DiskTree, folder: string): Promise<string[]> {
  const entries = await tree.list(folder);
  return entries
    .filter(({ kind, name }) => kind === 'f' && !name.endsWith(ORIGINAL))
    .map(({ name }) => `${folder}/${name}`)
    .sort()
    .slice(0, MAX_FILES);
}

/** Nothing where `text` is what is there. What the disk refuses is a note that it failed. */
export async function rewrite(
  tree: DiskTree,
  notes: Notes,
  path: string,
  old: string,
  change: { readonly text: string; readonly notes: readonly Note[] },
): Promise<void> {
  if (change.text === old) {
    notes.addAll(change.notes.filter(({ kind }) => kind !== 'changed'));
    return;
  }
  await attempt(notes, change.notes[0]?.about ?? 'file', path, async () => {
    await tree.copy(path, path + ORIGINAL);
    await tree.write(path, Buffer.from(change.text, 'latin1'));
    notes.addAll(change.notes);
  });
}

/** What the disk refuses (no room, read-only) is told and does not end the preparation. */
export async function attempt(
  notes: Notes,
  about: string,
  path: string,
  action: () => Promise<void>,
): Promise<void> {
  try {
    await action();
  } catch (cause) {
    if (!(cause instanceof Refusal)) throw cause;
    notes.add('failed', about, path, cause.message);
  }
}
