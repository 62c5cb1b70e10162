/**
 * Repairs what a bundle held that cannot be read. Which points that were is known from a catalog, where there
 * is one; otherwise whatever the other repository has and this one lacks is taken: what rules had dropped here
 * before, they drop again. Then the bundle is set aside, as `damaged/NUMBER.bundle`, where nobody reads it: it
 * may have something that nobody else has, for whoever can make sense of it.
 */
import { type Core, temporaryPath } from '../core.ts';
import { writeObject } from '../format/object-file.ts';
import { listPoints } from '../repository/repository.ts';
import type { MapRepair } from './repair-maps.ts';
import { type RepairWorld, removeDamaged } from './repair-world.ts';

export async function mendBundles(world: RepairWorld, maps: MapRepair): Promise<void> {
  const { core, donor, known, isDryRun, steps } = world;
  const hidden = core.disk.hidden?.() ?? [];
  if (hidden.length === 0) return;
  const told = (action: string, isPossible: boolean) => {
    for (const object of hidden) steps.push({ object, action, isPossible });
  };
  if (donor === null) {
    told('what it holds can be taken from a copy only: give --from', false);
    return;
  }
  const lacking = await lackingPoints(core, donor, known);
  let lost = known === null ? 0 : known.size - (await countOf(core, known)) - lacking.length;
  for (const [ours, theirs] of lacking) if (!(await maps.replacePoint(ours, theirs))) lost += 1;
  if (lost > 0) {
    told(`it stays: ${lost} points that may lie in it are not in the other repository`, false);
    return;
  }
  told('set aside: the other repository has given what was missing', true);
  if (!isDryRun) for (const path of hidden) await setAside(world, path);
}

/** Paths, here and there, of the points that the other repository has and this one lacks. */
async function lackingPoints(
  core: Core,
  donor: Core,
  known: ReadonlySet<string> | null,
): Promise<[string, string][]> {
  const found: [string, string][] = [];
  for (const { record } of await donor.catalog.points({ order: 'oldest' })) {
    if (known !== null && !known.has(record.id)) continue;
    const { server, id } = record;
    const path = core.paths.point(server, id);
    if (!(await core.disk.exists(path))) found.push([path, donor.paths.point(server, id)]);
  }
  return found;
}

/** How many of these points are here. */
async function countOf(core: Core, ids: ReadonlySet<string>): Promise<number> {
  let count = 0;
  for await (const { id } of listPoints(core)) if (ids.has(id)) count += 1;
  return count;
}

async function setAside(world: RepairWorld, path: string): Promise<void> {
  const { core } = world;
  const { disk, paths } = core;
  const aside = `${paths.repo}/damaged/${path.slice(path.lastIndexOf('/') + 1)}`;
  const bytes = await disk.readFile(path);
  // By this name the temporary file is not sealed, as the bundle itself is not.
  await writeObject(disk, `${temporaryPath(core)}.bundle`, aside, [bytes]);
  await removeDamaged(world, path, `${paths.repo}/bundles`);
}
