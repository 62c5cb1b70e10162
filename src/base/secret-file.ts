/** A file with a secret in it: made once, never written over, for its owner's eyes (0600, as node-disk makes all). */
import { dirname } from 'node:path';
import { nodeDisk } from './node-disk.ts';

/** Durable once it resolves. ERR_DISK_EXISTS, ERR_DISK_*. */
export async function createSecretFile(path: string, text: string): Promise<void> {
  const file = await nodeDisk.open(path, 'create');
  try {
    await file.write([Buffer.from(text)], 0);
    await file.sync();
  } finally {
    await file.close();
  }
  await nodeDisk.syncDirectory(dirname(path));
}
