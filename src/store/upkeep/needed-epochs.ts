/**
 * Which epochs of a server's volumes must stay readable: those of its points, of the heads, of what is
 * staged - and those of points whose files are damaged. Such a point may come back (a good copy of the
 * file is put in its place), so its maps stay until an operator removes the file. What it needs is told
 * by its name: the maps of its epochs have the time that the name begins with.
 */

import type { Span } from '../../model/fold-plan.ts';
import type { Core } from '../core.ts';
import type { MapPlace } from '../format/layout.ts';
import { isDamage, isNotFound } from '../format/object-header.ts';
import { readLeafFileInfo } from '../leaves/leaf-file.ts';
import { decodeBase } from '../maps/base.ts';
import { pointsOf, readPoint } from '../repository/repository.ts';

/** Maps of one generation, as they were listed. */
export interface Listed {
  readonly place: MapPlace;
  readonly bases: readonly number[];
  readonly deltas: readonly Span[];
}

export class NeededEpochs {
  private readonly all = new Map<string, Set<number>>();
  private readonly sealed = new Map<string, Set<number>>();

  add(volume: string, generation: string, epoch: number, isSealed = false): void {
    const key = JSON.stringify([volume, generation]);
    for (const map of isSealed ? [this.all, this.sealed] : [this.all]) {
      map.set(key, (map.get(key) ?? new Set()).add(epoch));
    }
  }

  of(volume: string, generation: string): Set<number> {
    return new Set(this.all.get(JSON.stringify([volume, generation])));
  }

  /** Epochs to which the repository's maps must lead by themselves. */
  sealedOf(volume: string, generation: string): Set<number> {
    return new Set(this.sealed.get(JSON.stringify([volume, generation])));
  }
}

/** True where points may lie in what cannot be read: what they need is not known, so nothing may go. */
export function mayHide({ disk, log }: Pick<Core, 'disk' | 'log'>): boolean {
  const paths = disk.hidden?.() ?? [];
  if (paths.length === 0) return false;
  log.error('nothing is removed: these cannot be read, and points may lie in them', { paths });
  return true;
}

/**
 * Null where it cannot be told what a damaged point needs: then nothing may go. Points of `without` do not
 * count.
 */
export async function neededEpochs(
  core: Core,
  server: string,
  listed: readonly Listed[],
  without: ReadonlySet<string> = new Set(),
): Promise<NeededEpochs | null> {
  const damagedPoints = await readUnknown(core, server);
  const needed = new NeededEpochs();
  for (const { record, state } of await core.catalog.points({ server })) {
    if (without.has(record.id)) continue;
    for (const { volume, generation, epoch } of record.volumes) {
      needed.add(volume, generation, epoch, state === 'sealed');
    }
  }
  for (const { head, staged } of core.servers.get(server)?.volumes.values() ?? []) {
    if (head !== null) needed.add(head.volume, head.generation, head.epoch);
    for (const { info } of staged) {
      needed.add(info.volume, info.generation, info.from);
      needed.add(info.volume, info.generation, info.to);
    }
  }
  if (damagedPoints.length === 0) return needed;
  const isTold = await addByTime(core, listed, damagedPoints, needed);
  core.log.error('points are damaged: what they need stays; restore their files, or remove them', {
    server,
    points: damagedPoints,
    isTold,
  });
  return isTold ? needed : null;
}

/** Ids of points that cannot be read and that the catalog does not have. One that can be is taken in. */
async function readUnknown(core: Core, server: string): Promise<string[]> {
  const known = new Set((await core.catalog.points({ server })).map(({ record }) => record.id));
  const damagedPoints: string[] = [];
  for (const id of await pointsOf(core, server)) {
    if (known.has(id)) continue;
    try {
      const record = await readPoint(core, server, id);
      if (core.terms.isStale(record.sequence)) continue;
      await core.catalog.putPoint(record, 'sealed');
      core.log.info('a point is readable again', { server, point: id });
    } catch (error) {
      if (isNotFound(error)) continue;
      if (!isDamage(error)) throw error;
      damagedPoints.push(id);
    }
  }
  return damagedPoints;
}

/** Milliseconds since 1970 that the id of a point begins with; NaN for another name. */
function timeOf(id: string): number {
  const [, year, month, day, hour, minute, rest] =
    /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d\.\d{3}Z)-/.exec(id) ?? [];
  return Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${rest}`);
}

/** Adds the epochs whose maps are of the points' times. False where a point has none. */
async function addByTime(
  core: Core,
  listed: readonly Listed[],
  ids: readonly string[],
  needed: NeededEpochs,
): Promise<boolean> {
  const found = new Map(ids.map((id) => [timeOf(id), false]));
  const note = async (maps: Listed, epoch: number, read: () => Promise<{ timeMs: number }>) => {
    const { volume, generation } = maps.place;
    try {
      const { timeMs } = await read();
      if (!found.has(timeMs)) return;
      found.set(timeMs, true);
    } catch (error) {
      if (!isDamage(error)) throw error; // a map that does not tell its time: it may be this one
    }
    needed.add(volume, generation, epoch);
  };
  for (const maps of listed) {
    for (const { from, to } of maps.deltas) {
      const path = core.paths.delta(maps.place, from, to);
      await note(maps, to, () => readLeafFileInfo(core.files, path, 'US-DELTA'));
    }
    for (const epoch of maps.bases) {
      const path = core.paths.base(maps.place, epoch);
      await note(maps, epoch, async () => decodeBase(await core.disk.readFile(path), path).info);
    }
  }
  return [...found.values()].every((isFound) => isFound);
}
