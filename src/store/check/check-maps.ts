/** Gathers for a check what belongs together: one generation of one volume, its points and its maps. */

import type { Span } from '../../model/fold-plan.ts';
import type { StagedMap } from '../core.ts';
import type { MapPlace } from '../format/layout.ts';
import { listMaps } from '../maps/chain.ts';
import type { PointRecord } from '../points/point-format.ts';
import type { CheckCore } from './check-finding.ts';

export interface VolumeMaps {
  readonly place: MapPlace;
  readonly points: readonly PointRecord[];
  readonly bases: readonly number[];
  readonly deltas: readonly Span[];
  readonly staged: readonly StagedMap[];
  /** Objects of the repository among them. */
  readonly files: number;
}

export async function mapsOf(
  core: CheckCore,
  places: ReadonlyMap<string, readonly PointRecord[]>,
  staged: readonly StagedMap[],
): Promise<VolumeMaps[]> {
  const result: VolumeMaps[] = [];
  for (const [key, points] of places) {
    const [server, volume, generation] = JSON.parse(key) as [string, string, string];
    const place = { server, volume, generation };
    const { bases, deltas } = await listMaps(core, place);
    const ours = staged.filter(
      ({ info }) =>
        info.server === server && info.volume === volume && info.generation === generation,
    );
    result.push({
      place,
      points,
      bases,
      deltas,
      staged: ours,
      files: bases.length + deltas.length,
    });
  }
  return result;
}
