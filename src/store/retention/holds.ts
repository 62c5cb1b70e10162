/**
 * Legal holds: a point that is held stays, whatever the rules say, until an operator releases it. A hold
 * is an object of the repository, `holds/<point id>.hold`, so that a rebuilt catalog, a copy and a reader
 * without a service know it. Written once the point is sealed; the name alone holds: where the object is
 * damaged its reason is not known, and the point stays all the same.
 */
import { UnderstudyError } from '../../base/errors.ts';
import { type Core, temporaryPath } from '../core.ts';
import { decodeJsonObject, encodeJsonObject, textOf } from '../format/json-object.ts';
import { writeObject } from '../format/object-file.ts';
import { damaged, isDamage, isNotFound } from '../format/object-header.ts';
import { removeUnlessKept } from '../objects/removal.ts';
import type { PointHold } from '../types.ts';

export const HOLD_MAGIC = 'US-HOLD ';
export const MAX_REASON_BYTES = 4096;

type Readable = Pick<Core, 'disk' | 'paths'>;

/** Ids of the points that are held. */
export async function heldPoints({ disk, paths }: Readable): Promise<string[]> {
  const names = (await disk.list(paths.holds)).map(({ name }) => name);
  return names.flatMap((name) => /^(.+)\.hold$/.exec(name)?.[1] ?? []);
}

/** ERR_OBJECT_DAMAGED, ERR_DISK_NOT_FOUND. */
export async function readHold({ disk, paths }: Readable, id: string): Promise<PointHold> {
  const path = paths.hold(id);
  const value = decodeJsonObject(await disk.readFile(path), HOLD_MAGIC, path);
  if (textOf(value, 'point', path) !== id) throw damaged(path, 'the hold of another point');
  return { reason: textOf(value, 'reason', path), time: textOf(value, 'time', path) };
}

/** At opening: which points are held. */
export async function loadHolds(core: Readable & Pick<Core, 'log' | 'legalHolds'>): Promise<void> {
  core.legalHolds.clear();
  for (const id of await heldPoints(core)) {
    try {
      core.legalHolds.set(id, await readHold(core, id));
    } catch (error) {
      if (isNotFound(error)) continue; // released beside an offline reader
      if (!isDamage(error)) throw error;
      core.log.error('a hold is damaged; it holds all the same', { point: id });
      core.legalHolds.set(id, { reason: '', time: '' });
    }
  }
}

/** Durable once it resolves. Called in the lane of upkeep, for a point that is sealed. */
export async function holdPoint(core: Core, id: string, reason: string): Promise<void> {
  const point = await core.catalog.point(id);
  if (point === null) {
    const message = `no point ${id}: it never was, or retention has dropped it`;
    throw new UnderstudyError('ERR_POINT_NOT_FOUND', message);
  }
  if (core.legalHolds.has(id)) {
    throw new UnderstudyError('ERR_POINT_HELD', `point ${id} is held already`);
  }
  const bytes = Buffer.byteLength(reason, 'utf8');
  if (reason.trim() === '' || bytes > MAX_REASON_BYTES) {
    const message = `a hold needs a reason of 1 to ${MAX_REASON_BYTES} bytes`;
    throw new UnderstudyError('ERR_USAGE', message);
  }
  const { server } = point.record;
  const time = new Date(core.clock.wallMs()).toISOString();
  const object = encodeJsonObject(HOLD_MAGIC, { point: id, server, reason, time });
  if (await core.disk.exists(core.paths.hold(id))) {
    // A former try was told to have failed, and had its effect.
    await loadHolds(core);
    if (core.legalHolds.has(id)) {
      throw new UnderstudyError('ERR_POINT_HELD', `point ${id} is held already`);
    }
  }
  await writeObject(core.disk, temporaryPath(core), core.paths.hold(id), [object]);
  core.legalHolds.set(id, { reason, time });
}

/** Called in the lane of upkeep. ERR_POINT_NOT_HELD. */
export async function releasePoint(core: Core, id: string): Promise<void> {
  if (!core.legalHolds.has(id)) {
    throw new UnderstudyError('ERR_POINT_NOT_HELD', `point ${id} is not held`);
  }
  if (!(await removeUnlessKept(core.disk, core.paths.hold(id)))) {
    const message = `the hold of point ${id} is locked in the object store`;
    throw new UnderstudyError('ERR_OBJECTS_LOCKED', message, { path: core.paths.hold(id) });
  }
  await core.disk.syncDirectory(core.paths.holds);
  core.legalHolds.delete(id);
}
