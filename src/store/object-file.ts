/**
 * Putting an object into the repository: written under a temporary name, synced, renamed, and its folder
 * synced. Either the whole object is there or none of it, at every instant (P4). Writing the same object
 * again is harmless: that is how a restart redoes what it may have done already. `verify` may look at
 * what was written before it counts.
 */
import { dirname } from 'node:path';
import type { Disk } from '../base/disk.ts';

/** Makes a folder and what is missing above it, each name durable. */
export async function makeFolder(disk: Disk, path: string): Promise<void> {
  if (await disk.exists(path)) return;
  await makeFolder(disk, dirname(path));
  await disk.makeDirectory(path);
  await disk.syncDirectory(dirname(path));
}

export async function writeObject(
  disk: Disk,
  temporary: string,
  path: string,
  bytes: readonly Uint8Array[],
  verify?: (read: Uint8Array) => Promise<void>,
): Promise<void> {
  const file = await disk.open(temporary, 'write');
  try {
    await file.truncate(0);
    await file.write(bytes, 0);
    await file.sync();
  } finally {
    await file.close();
  }
  if (verify !== undefined) await verify(await disk.readFile(temporary));
  await publish(disk, temporary, path);
}

/** Gives a synced temporary file its name. */
export async function publish(disk: Disk, temporary: string, path: string): Promise<void> {
  const folder = dirname(path);
  await makeFolder(disk, folder);
  await disk.rename(temporary, path);
  await disk.syncDirectory(folder);
}
