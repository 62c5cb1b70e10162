/**
 * Repairs what says how long points are kept, and where else: legal holds, from another repository that has
 * the same hold on the same point. A note of a copy goes: the next copy writes another. What a damaged policy
 * said is not guessed, nor taken from a copy, which may have an older one.
 */
import { temporaryPath } from '../core.ts';
import { writeObject } from '../format/object-file.ts';
import { isDamage, isNotFound } from '../format/object-header.ts';
import { readHold } from '../retention/holds.ts';
import type { Finding } from '../types.ts';
import { type RepairWorld, removeDamaged } from './repair-world.ts';

export async function mendHolds(world: RepairWorld, findings: readonly Finding[]): Promise<void> {
  const { core, donor, isDryRun, steps } = world;
  for (const { object, kind } of findings) {
    const id = /\/([^/]+)\.hold$/.exec(object)?.[1];
    if (id === undefined || kind !== 'damaged-object') continue;
    // The name must never be missing: in a bucket, where nothing is written over, it stays as it is.
    const isFixed = core.disk.together !== undefined;
    const bytes = donor === null || isFixed ? null : await holdBytes(donor, id);
    const isPossible = bytes !== null;
    const action = isPossible
      ? 'taken from the other repository'
      : 'it holds by its name; release it and hold it again to say who holds it and why';
    steps.push({ object, action, isPossible });
    if (isDryRun || bytes === null) continue;
    await writeObject(core.disk, temporaryPath(core), object, [bytes]);
  }
}

export async function mendPolicies(
  world: RepairWorld,
  findings: readonly Finding[],
): Promise<void> {
  const { core, isDryRun, steps } = world;
  for (const { object, kind } of findings) {
    if (kind !== 'damaged-object') continue;
    if (object.endsWith('.policy')) {
      const action = 'nothing of its server is dropped until its rules are given anew: server keep';
      steps.push({ object, action, isPossible: false });
    } else if (object.startsWith(`${core.paths.copies}/`)) {
      steps.push({ object, action: 'it goes: the next copy writes another', isPossible: true });
      if (isDryRun) continue;
      await removeDamaged(world, object, core.paths.copies);
    }
  }
}

async function holdBytes(
  donor: NonNullable<RepairWorld['donor']>,
  id: string,
): Promise<Uint8Array | null> {
  try {
    await readHold(donor, id);
    return await donor.disk.readFile(donor.paths.hold(id));
  } catch (error) {
    if (!isDamage(error) && !isNotFound(error)) throw error;
    return null;
  }
}
