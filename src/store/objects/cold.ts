/**
 * Old packs into a colder class: what is seldom read costs less there. Objects keep their names and bytes.
 * The class must be one that is read at once (GLACIER_IR), for restores do not wait.
 */
import type { ObjectStore } from './object-store.ts';

const COLD_CLASS = 'GLACIER_IR';
/** Smaller ones are charged as this, and packs of that size are merged before long. */
const MIN_BYTES = 128 * 1024;
/** So that one turn does not hold up the upkeep for long. */
const MAX_MOVED = 1000;

/**
 * Moves packs that were put before `beforeMs`; returns how many. A move counts as a put: the age of what was
 * moved begins anew, and it is left alone by its class.
 */
export async function coolPacks(objects: ObjectStore, beforeMs: number): Promise<number> {
  let moved = 0;
  for await (const { name, bytes, modifiedMs, storageClass } of objects.list('packs/')) {
    if (moved >= MAX_MOVED) break;
    if (modifiedMs >= beforeMs || bytes < MIN_BYTES) continue;
    if (storageClass === COLD_CLASS || storageClass === '') continue;
    if ((await objects.reclass(name, COLD_CLASS)) === 'moved') moved += 1;
  }
  return moved;
}
