/**
 * The record of a launch or a chain as a JSON file: written beside, synced and renamed, so that a crash leaves
 * the old one or the new one. Readable by people; understudy alone should change it.
 */
import type { Disk } from '../../base/disk.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { replaceFile } from '../../base/replace-file.ts';

export interface RecordFile<T> {
  load(): Promise<T | null>;
  save(record: T): Promise<void>;
}

/** `kind`: what the file says that it is, so that one is not taken for another. */
export function recordFile<T extends { readonly version: number }>(
  disk: Disk,
  path: string,
  kind: string,
): RecordFile<T> {
  return {
    async load() {
      if (!(await disk.exists(path))) return null;
      return parse<T>(Buffer.from(await disk.readFile(path)).toString(), path, kind);
    },
    save(record) {
      const text = `${JSON.stringify({ understudy: kind, ...record }, null, 2)}\n`;
      return replaceFile(disk, path, [Buffer.from(text)]);
    },
  };
}

function parse<T extends { readonly version: number }>(
  text: string,
  path: string,
  kind: string,
): T {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new UnderstudyError('ERR_EC2_RECORD', `${path} is not JSON`, { path }, cause);
  }
  const { understudy, version, ...rest } = (value ?? {}) as {
    understudy?: unknown;
    version?: unknown;
  };
  if (understudy === kind && version === 1) return { version, ...rest } as unknown as T;
  const what = `${path} is no record of kind ${kind}, version 1`;
  throw new UnderstudyError('ERR_EC2_RECORD', what, { path });
}
