/** The file that an image is written to: looked at before anything is fetched for it. */
import { type Stats, statSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { UnderstudyError } from '../base/errors.ts';
import { diskError } from '../base/node-disk.ts';

/** Linux file systems take so many bytes; ".partial" is one of the names beside it. */
const MAX_NAME_BYTES = 255 - '.partial'.length;

/**
 * ERR_EXPORT_TARGET where `out` is a disk, a folder, a fifo: writing to a file and giving it that name would
 * put the file in its place. ERR_EXPORT_EXISTS, ERR_DISK_NOT_FOUND (its folder).
 */
export function checkOut(out: string, replace: boolean): void {
  const folder = dirname(out);
  if (look(folder)?.isDirectory() !== true) {
    throw new UnderstudyError('ERR_DISK_NOT_FOUND', `there is no folder ${folder}`, {
      path: folder,
    });
  }
  const nameBytes = Buffer.byteLength(basename(out));
  if (nameBytes > MAX_NAME_BYTES) {
    const message = `the name has ${nameBytes} bytes, and ${MAX_NAME_BYTES} fit: ${out}`;
    throw new UnderstudyError('ERR_EXPORT_TARGET', message, { path: out });
  }
  const found = look(out);
  if (found === null) return;
  if (!found.isFile()) {
    const message = `${out} is ${kindOf(found)}, and an image is written to a file`;
    throw new UnderstudyError('ERR_EXPORT_TARGET', message, { path: out });
  }
  if (!replace) throw new UnderstudyError('ERR_EXPORT_EXISTS', `${out} exists`, { path: out });
}

function kindOf(stats: Stats): string {
  if (stats.isDirectory()) return 'a folder';
  if (stats.isBlockDevice()) return 'a disk';
  return 'no plain file';
}

/** Null: there is nothing. */
function look(path: string): Stats | null {
  try {
    return statSync(path, { throwIfNoEntry: false }) ?? null;
  } catch (cause) {
    throw diskError(cause, path);
  }
}
