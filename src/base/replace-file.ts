/** A small file that is rewritten whole: who reads it finds what was there before, or what is there now. */
import { dirname } from 'node:path';
import type { Disk } from './disk.ts';

/** Durable once it resolves. ERR_DISK_*. */
export async function replaceFile(
  disk: Disk,
  path: string,
  buffers: readonly Uint8Array[],
): Promise<void> {
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
