/**
 * The service's token, for its operators: DATA/token, made at the first start, 64 hex digits, readable by
 * its owner only (0600, as the durable-file module makes all files). It opens everything; an agent gets one
 * that opens nothing but the way for its own server (agent-tokens.ts).
 */
import type { Disk } from '../base/disk.ts';
import { UnderstudyError } from '../base/errors.ts';
import { replaceFile } from '../base/replace-file.ts';

const TOKEN_BYTES = 32;

/** Reads the token, or makes it. ERR_TOKEN_DAMAGED, ERR_DISK_*. */
export async function openToken(
  disk: Disk,
  folder: string,
  randomBytes: (count: number) => Uint8Array,
): Promise<string> {
  const path = `${folder}/token`;
  if (!(await disk.exists(path))) {
    const secret = Buffer.from(randomBytes(TOKEN_BYTES)).toString('hex');
    await replaceFile(disk, path, [Buffer.from(`${secret}\n`)]);
  }
  const token = Buffer.from(await disk.readFile(path))
    .toString('latin1')
    .trim();
  if (/^[\x21-\x7e]{16,256}$/.test(token)) return token;
  throw new UnderstudyError('ERR_TOKEN_DAMAGED', `${path} does not hold a token`, { path });
}
