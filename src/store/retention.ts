/**
 * Retention at work: plans by the rules, removes the points that a plan drops, and folds the maps that
 * only they needed. Whatever a plan says, the newest point and the newest whole one of a server stay, and
 * a point that somebody reads stays until the reader is closed.
 */
import {
  type KeepRule,
  lastPoints,
  planRetention,
  type RetainedPoint,
} from '../model/retention.ts';
import type { CatalogPoint } from './catalog.ts';
import type { Core } from './core.ts';
import { foldServer } from './map-upkeep.ts';

/** What rules look at. */
export const retained = ({ record: { id, server, timeMs, missingVolumes } }: CatalogPoint) => ({
  id,
  server,
  timeMs,
  isPartial: missingVolumes.length > 0,
});

async function allPoints(core: Core): Promise<RetainedPoint[]> {
  return (await core.catalog.points({ order: 'oldest' })).map(retained);
}

export async function planByRules(
  core: Core,
  rules: readonly KeepRule[],
  nowMs: number,
): Promise<{ keep: string[]; drop: string[] }> {
  return planRetention(await allPoints(core), rules, nowMs);
}

/** Called in the lane of upkeep. Points that are still staged are left for the next time. */
export async function dropPoints(core: Core, drop: readonly string[]): Promise<void> {
  const points = await allPoints(core);
  const always = lastPoints(points);
  const wanted = new Set(drop);
  const dropped = points.filter(
    ({ id }) => wanted.has(id) && !always.has(id) && !core.staged.has(id) && !core.holds.has(id),
  );
  if (dropped.length === 0) return;
  await core.catalog.removePoints(dropped.map(({ id }) => id));
  const servers = new Set(dropped.map(({ server }) => server));
  for (const { id, server } of dropped) await core.disk.remove(core.paths.point(server, id));
  for (const server of servers) {
    // The names must be gone for good before a map that they need goes.
    await core.disk.syncDirectory(core.paths.pointFolder(server));
    await foldServer(core, server);
  }
}
