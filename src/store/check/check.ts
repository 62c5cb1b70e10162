/**
 * Checks that every point can be restored: every object is parsed, chains are followed to their roots,
 * every content that a map names is located; with `readData` every byte is read and compared with its
 * digest. Findings are typed and name the points that they hurt: those whose image still shows what is
 * damaged, by whatever maps and copies there are. Changes nothing.
 */

import type { Subset } from '../../model/check-subset.ts';
import type { Core, StagedMap } from '../core.ts';
import { isNotFound } from '../format/object-header.ts';
import { isSameList, listMaps } from '../maps/chain.ts';
import type { PointRecord } from '../points/point-format.ts';
import { listPoints, type NamedPoint, readNamedPoints } from '../repository/repository.ts';
import type { CheckReport, Finding } from '../types.ts';
import { type CheckCore, findingOf, Progress } from './check-finding.ts';
import { checkFormat } from './check-format.ts';
import { checkKept } from './check-kept.ts';
import { checkKeys, keyFaultsOf } from './check-keys.ts';
import { checkLeases } from './check-lease.ts';
import { mapsOf, type VolumeMaps } from './check-maps.ts';
import { checkPacks, harmless, type PackFindings } from './check-packs.ts';
import { CheckVolume } from './check-volume.ts';

const MAX_TRIES = 5;

export interface CheckOptions {
  readonly readData: boolean;
  /** With `readData`: the contents of these packs only. */
  readonly subset?: Subset;
  readonly onProgress?: (done: number, total: number) => void;
}

/** What is not in the repository yet. */
interface StagedState {
  readonly points: readonly PointRecord[];
  readonly maps: readonly StagedMap[];
}

async function readPoints(
  core: CheckCore,
  staged: StagedState,
): Promise<{ points: PointRecord[]; objects: number; findings: Finding[] }> {
  const points = [...staged.points];
  const findings: Finding[] = [];
  let objects = 0;
  const named: NamedPoint[] = [];
  for await (const point of listPoints(core)) named.push(point);
  for await (const { id, path, record, error } of readNamedPoints(core, named)) {
    objects += 1;
    if (record === null) {
      // Dropped since it was listed: nothing to tell.
      if (!isNotFound(error)) findings.push(findingOf(error, path, [id]));
    } else if (!core.terms.isStale(record.sequence)) {
      if (!points.some((point) => point.id === id)) points.push(record);
    }
  }
  return { points, objects, findings };
}

/** Points by the volume's history that they need. */
function byPlace(points: readonly PointRecord[]): Map<string, PointRecord[]> {
  const result = new Map<string, PointRecord[]>();
  for (const point of points) {
    for (const { volume, generation } of point.volumes) {
      const key = JSON.stringify([point.server, volume, generation]);
      result.set(key, [...(result.get(key) ?? []), point]);
    }
  }
  return result;
}

export async function checkRepository(
  core: CheckCore,
  staged: StagedState,
  options: CheckOptions,
): Promise<CheckReport> {
  return (await survey(core, staged, options)).report;
}

/** Points may lie in what cannot be read: which ones is not known. */
const hiddenIn = ({ disk }: CheckCore): Finding[] =>
  (disk.hidden?.() ?? []).map((object) => {
    const detail =
      'the bundle cannot be read: points and maps in it are missed; repo repair takes them from a copy';
    return { kind: 'damaged-object', object, detail, points: [] };
  });

/** What a core has that is not in the repository yet. */
export function stagedOf({ servers, staged }: Pick<Core, 'servers' | 'staged'>): StagedState {
  const volumes = [...servers.values()].flatMap((server) => [...server.volumes.values()]);
  return {
    maps: volumes.flatMap((volume) => volume.staged),
    points: [...staged.values()].map(({ record }) => record),
  };
}

/** A check with what it has found of packs, for whoever repairs them. */
export async function survey(
  core: CheckCore,
  staged: StagedState,
  options: CheckOptions,
): Promise<{ report: CheckReport; packs: PackFindings }> {
  const progress = new Progress(options.onProgress);
  const keyFaults = await keyFaultsOf(core);
  const { points, objects: pointObjects, findings } = await readPoints(core, staged);
  const places = byPlace(points);
  // Beside a running service: what was listed first has what it needs in what is listed later.
  const maps: VolumeMaps[] = await mapsOf(core, places, staged.maps);
  await core.copies.refresh();
  const packs: PackFindings = await checkPacks(core, options, progress);
  const kept = await checkKept(core);
  findings.push(...packs.findings, ...kept.findings, ...hiddenIn(core));
  findings.push(...(await checkKeys(core, keyFaults)), ...(await checkLeases(core)));
  findings.push(...(await checkFormat(core)));
  let objects = pointObjects + packs.objects + kept.objects;
  const told = new Set<string>();
  progress.expect(maps.length);
  for (const volume of maps) {
    const found = await checkVolume(core, volume, staged, packs);
    findings.push(...found.findings);
    for (const name of found.told) told.add(name);
    objects += volume.files;
    progress.advance(1);
  }
  findings.push(...harmless(core, packs.damaged, told));
  const { pieces, bytesRead } = packs;
  return { report: { points: points.length, objects, pieces, bytesRead, findings }, packs };
}

/** Without those that were dropped since they were listed. */
async function stillThere(
  core: CheckCore,
  points: readonly PointRecord[],
  staged: StagedState,
): Promise<PointRecord[]> {
  const there: PointRecord[] = [];
  for (const point of points) {
    const isStaged = staged.points.some(({ id }) => id === point.id);
    const path = core.paths.point(point.server, point.id);
    if (isStaged || (await core.disk.exists(path))) there.push(point);
  }
  return there;
}

/** Again where a fold has replaced maps since they were listed: others say the same. */
async function checkVolume(
  core: CheckCore,
  listed: VolumeMaps,
  staged: StagedState,
  packs: PackFindings,
): Promise<CheckVolume> {
  let volume = listed;
  for (let tries = 0; ; tries += 1) {
    const check = new CheckVolume(core, volume, packs);
    await check.run();
    if (!check.mayBeStale || tries === MAX_TRIES) return check;
    const points = await stillThere(core, volume.points, staged);
    const again = await listMaps(core, volume.place);
    if (isSameList(again, volume) && points.length === volume.points.length) return check;
    volume = { ...volume, points, ...again };
    await core.copies.refresh();
  }
}
