/**
 * The shared secret of the service: DATA/token, made at the first start, 64 hex digits, readable by its
 * owner only (0600, as the durable-file module makes all files).
 */
import type { Disk } from '../base/disk.ts';
import { UnderstudyError } from '../base/errors.ts';

const TOKEN_BYTES = 32;

/** Reads the token, or makes it. ERR_TOKEN_DAMAGED, ERR_DISK_*. */
export async function openToken(
  disk: Disk,
  folder: string,
  randomBytes: (count: number) => Uint8Array,
): Promise<string> {
  const path = `${folder}/token`;
  if (!(await disk.exists(path))) await makeToken(disk, folder, path, randomBytes(TOKEN_BYTES));
  const token = Buffer.from(await disk.readFile(path))
    .toString('latin1')
    .trim();
  if (/^[\x21-\x7e]{16,256}$/.test(token)) return token;
  throw new UnderstudyError('ERR_TOKEN_DAMAGED', `${path} does not hold a token`, { path });
}

/** Under its name only when it is whole. */
async function makeToken(disk: Disk, folder: string, path: string, secret: Uint8Array) {
  const file = await disk.open(`${path}.new`, 'write');
  try {
    await file.truncate(0);
    await file.write([Buffer.from(`${Buffer.from(secret).toString('hex')}\n`)], 0);
    await file.sync();
  } finally {
    await file.close();
  }
  await disk.rename(`${path}.new`, path);
  await disk.syncDirectory(folder);
}
