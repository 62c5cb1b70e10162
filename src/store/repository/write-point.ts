/**
 * Writing a point's object, the last step of sealing it, which may be done again. Objects do not change: what
 * has its name already stays where it says the same, and is made anew where it is damaged.
 */
import { dirname } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { type Core, temporaryPath } from '../core.ts';
import { writeObject } from '../format/object-file.ts';
import { isDamage } from '../format/object-header.ts';
import { decodePointObject, encodePointObject, type PointRecord } from '../points/point-format.ts';
import { readPoint } from './repository.ts';

/** Durable once it resolves. */
export async function writePoint(core: Core, record: PointRecord): Promise<void> {
  const { disk, paths } = core;
  const path = paths.point(record.server, record.id);
  if (await disk.exists(path)) {
    if (await isThere(core, record)) {
      await disk.syncDirectory(dirname(path));
      return;
    }
    core.log.warn('a point is damaged and made again from the journal', { path });
    await disk.remove(path);
  }
  await writeObject(disk, temporaryPath(core), path, [encodePointObject(record)]);
}

async function isThere(core: Core, record: PointRecord): Promise<boolean> {
  try {
    const found = await readPoint(core, record.server, record.id);
    return isDeepStrictEqual(found, decodePointObject(encodePointObject(record), ''));
  } catch (error) {
    if (!isDamage(error)) throw error;
    return false;
  }
}
