/**
 * Repairs the files of an encrypted repository's keys: what is gone is made again from the other file of the
 * same key, and then what is damaged goes (key-faults.ts).
 */
import type { Finding } from '../types.ts';
import { type RepairWorld, removeDamaged } from './repair-world.ts';

export async function mendKeys(world: RepairWorld, findings: readonly Finding[]): Promise<void> {
  const { core, isDryRun, steps } = world;
  const { keys } = core.files.vault;
  const folder = core.paths.keys;
  if (keys === null || !findings.some(({ object }) => object.startsWith(`${folder}/`))) return;
  for (const { make, ...step } of await keys.mends()) {
    steps.push(step);
    if (isDryRun || !step.isPossible) continue;
    if (make === null) await removeDamaged(world, step.object, folder);
    else await make();
  }
}
