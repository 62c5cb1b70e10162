/**
 * Retention at work: plans by the rules, removes the points that a plan drops, and folds the maps that
 * only they needed. Whatever a plan says, the newest point and the newest whole one of a server stay, so
 * does a point that is held, and one that somebody reads stays until the reader is closed. While the newest
 * state of a server is damaged nothing of it is dropped: an older point may be the last good one.
 */

import { parseKeepRules } from '../../model/keep-rules.ts';
import {
  type KeepRule,
  lastPoints,
  planRetention,
  type RetainedPoint,
} from '../../model/retention.ts';
import type { CatalogPoint } from '../catalog/catalog.ts';
import type { Core } from '../core.ts';
import { together } from '../format/object-file.ts';
import type { DroppedPoint, PolicyWish, VersionedPlan } from '../types.ts';
import { foldServer } from '../upkeep/map-upkeep.ts';
import { mayHide } from '../upkeep/needed-epochs.ts';
import { rulesOf } from './policies.ts';

/** What rules look at. */
export const retained = ({ record }: CatalogPoint): RetainedPoint => {
  const { id, server, timeMs, sequence, receivedMs, missingVolumes } = record;
  return { id, server, timeMs, sequence, receivedMs, isPartial: missingVolumes.length > 0 };
};

async function allPoints(core: Core): Promise<RetainedPoint[]> {
  const points = await core.catalog.points({ order: 'oldest' });
  const doubted = new Set(core.damage.demanded.map(({ server }) => server));
  const isAllDoubted = mayHide(core);
  return points.map((point) => ({
    ...retained(point),
    isHeld: core.legalHolds.has(point.record.id),
    isDoubted: isAllDoubted || doubted.has(point.record.server),
  }));
}

export async function planByRules(
  core: Core,
  rules: readonly KeepRule[],
  nowMs: number,
  asIf?: PolicyWish,
): Promise<VersionedPlan> {
  const version = core.policyVersion;
  const known = rulesOf(core, rules);
  const wanted = asIf?.keep == null ? rules : parseKeepRules(asIf.keep);
  const byServer: typeof known = (server) => (server === asIf?.server ? wanted : known(server));
  const plan = planRetention(await allPoints(core), byServer, nowMs);
  return { ...plan, version };
}

/**
 * Called in the lane of upkeep. Points that are still staged are left for the next time. Returns those
 * that went; one whose object is locked for a time stays.
 */
export async function dropPoints(
  core: Core,
  { drop, version }: { drop: readonly string[]; version?: number },
): Promise<DroppedPoint[]> {
  // A policy that keeps more has been given meanwhile: the next plan goes by it.
  if (version !== undefined && version !== core.policyVersion) return [];
  const points = await allPoints(core);
  const always = lastPoints(points);
  const wanted = new Set(drop);
  const going = points.filter(
    ({ id, isHeld, isDoubted }) =>
      wanted.has(id) &&
      !always.has(id) &&
      isHeld !== true &&
      isDoubted !== true &&
      !core.staged.has(id) &&
      !core.holds.has(id),
  );
  // From here on nobody opens them: their maps may go.
  for (const { id } of going) core.dropping.add(id);
  try {
    const gone = await removeObjects(core, going);
    if (gone.length === 0) return [];
    // The object first: a catalog that is behind is set right by the repository, never the reverse.
    await core.catalog.removePoints(gone.map(({ id }) => id));
    for (const server of new Set(gone.map((point) => point.server))) await foldServer(core, server);
    return gone;
  } finally {
    core.dropping.clear();
  }
}

/** The names must be gone for good before a map that they need goes. */
async function removeObjects(core: Core, points: readonly RetainedPoint[]) {
  const gone: DroppedPoint[] = [];
  await together(core.disk, async () => {
    for (const { id, server } of points) {
      const isGone = await core.removal.remove(core.disk, core.paths.point(server, id));
      if (isGone) gone.push({ id, server });
    }
  });
  core.removal.tell();
  for (const server of new Set(gone.map((point) => point.server))) {
    await core.disk.syncDirectory(core.paths.pointFolder(server));
  }
  return gone;
}
