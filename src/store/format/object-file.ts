/**
 * Putting an object into the repository: written under a temporary name, synced, renamed, and its folder
 * synced. Either the whole object is there or none of it, at every instant (P4). Writing the same object
 * again is harmless: that is how a restart redoes what it may have done already. `verify` may look at
 * what was written before it counts.
 */
import { dirname } from 'node:path';
import type { Disk } from '../../base/disk.ts';
import { UnderstudyError } from '../../base/errors.ts';

/** Folders that were made by this process and whose names are not known to be durable yet. */
const unsettled = new WeakMap<Disk, Set<string>>();

/**
 * Makes a folder and what is missing above it, each name durable. That it is there is not enough: whoever
 * made it may be about to sync its name, or may have failed to. (settle-names.ts has those of former lives.)
 */
export async function makeFolder(disk: Disk, path: string): Promise<void> {
  const made = unsettled.get(disk) ?? new Set();
  unsettled.set(disk, made);
  if (!(await disk.exists(path))) {
    await makeFolder(disk, dirname(path));
    made.add(path);
    await disk.makeDirectory(path);
  }
  if (!made.has(path)) return;
  await disk.syncDirectory(dirname(path));
  made.delete(path);
}

export async function writeObject(
  disk: Disk,
  temporary: string,
  path: string,
  bytes: readonly Uint8Array[],
  verify?: (read: Uint8Array) => Promise<void>,
): Promise<void> {
  try {
    await writeSynced(disk, temporary, bytes);
    if (verify !== undefined) await verify(await disk.readFile(temporary));
  } catch (error) {
    await discard(disk, temporary);
    throw error;
  }
  await publish(disk, temporary, path);
}

async function writeSynced(disk: Disk, path: string, bytes: readonly Uint8Array[]): Promise<void> {
  const file = await disk.open(path, 'create');
  try {
    await file.write(bytes, 0);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Runs `step`; what it publishes, then what it removes, is durable once this resolves (disk.ts). */
export const together = <T>(disk: Disk, step: () => Promise<T>): Promise<T> =>
  disk.together === undefined ? step() : disk.together(step);

/**
 * Gives a synced temporary file its name, durably; where that fails the temporary file is given up. So is
 * the name, if it is new: one that may not last is none, for whoever finds it lets go what it stands for.
 */
export async function publish(disk: Disk, temporary: string, path: string): Promise<void> {
  let isNew = false;
  try {
    await makeFolder(disk, dirname(path));
    isNew = !(await disk.exists(path));
    await disk.rename(temporary, path);
    await disk.syncDirectory(dirname(path));
  } catch (error) {
    // Other bytes under the name are somebody else's, and may be the only ones.
    const isTaken = error instanceof UnderstudyError && error.code === 'ERR_OBJECTS_CONFLICT';
    if (isNew && !isTaken) await discard(disk, path);
    await discard(disk, temporary);
    throw error;
  }
}

/**
 * Removes a file that nobody needs. That it fails is told to nobody: the file goes at the next start, and
 * where something failed before, that is what the caller must hear of.
 */
export async function discard(disk: Disk, path: string): Promise<void> {
  await disk.remove(path).catch(() => undefined);
}
