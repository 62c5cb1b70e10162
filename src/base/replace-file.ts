/** A small file that is rewritten whole: who reads it finds what was there before, or what is there now. */
import { dirname } from 'node:path';
import type { Disk } from './disk.ts';

/** What is being written, by its path: two at a time would write into one file, and name it half done. */
const writing = new WeakMap<Disk, Map<string, Promise<void>>>();

/** Durable once it resolves; of several at a time one after the other. ERR_DISK_*. */
export function replaceFile(
  disk: Disk,
  path: string,
  buffers: readonly Uint8Array[],
): Promise<void> {
  const paths = writing.get(disk) ?? new Map<string, Promise<void>>();
  writing.set(disk, paths);
  const before = paths.get(path) ?? Promise.resolve();
  const done = before.then(() => replace(disk, path, buffers));
  const over = done
    .catch(() => undefined)
    .then(() => {
      if (paths.get(path) === over) paths.delete(path);
    });
  paths.set(path, over);
  return done;
}

async function replace(disk: Disk, path: string, buffers: readonly Uint8Array[]): Promise<void> {
  const file = await disk.open(`${path}.new`, 'write');
  try {
    await file.truncate(0);
    await file.write(buffers, 0);
    await file.sync();
  } finally {
    await file.close();
  }
  await disk.rename(`${path}.new`, path);
  await disk.syncDirectory(dirname(path));
}
