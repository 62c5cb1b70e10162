/** Folders for unix sockets, whose paths have at most 107 bytes, wherever temporary files are to go. */
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const MOST_BYTES = 30;

/** Made anew; whoever asks removes it. In /tmp where the folder of temporary files has a long name. */
export function shortFolder(prefix: string): string {
  const base = Buffer.byteLength(tmpdir()) > MOST_BYTES ? '/tmp' : tmpdir();
  return mkdtempSync(join(base, prefix));
}
