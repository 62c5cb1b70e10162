/**
 * A small JSON value in a file, durable and checked: written whole beside its name, synced, renamed, the
 * folder synced.
 *
 *   line 1  "<magic> <length of the rest> <SHA-256 of the rest, hex>"
 *   rest    JSON
 */
import { hash } from 'node:crypto';
import type { Disk } from '../../base/disk.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { replaceFile } from '../../base/replace-file.ts';

export async function writeRecord(
  disk: Disk,
  path: string,
  magic: string,
  value: unknown,
): Promise<void> {
  const body = Buffer.from(JSON.stringify(value, null, 1));
  const head = Buffer.from(`${magic} ${body.length} ${hash('sha256', body)}\n`);
  await replaceFile(disk, path, [head, body]);
}

/** ERR_JOB_DAMAGED, ERR_DISK_*. */
export async function readRecord<Value>(disk: Disk, path: string, magic: string): Promise<Value> {
  const all = Buffer.from(await disk.readFile(path));
  const end = all.indexOf(0x0a);
  const body = all.subarray(end + 1);
  const head = all.toString('latin1', 0, Math.max(0, end));
  if (head !== `${magic} ${body.length} ${hash('sha256', body)}`) {
    const message = `${path} is damaged, or of another version`;
    throw new UnderstudyError('ERR_JOB_DAMAGED', message, { path });
  }
  return JSON.parse(body.toString('utf8')) as Value;
}
