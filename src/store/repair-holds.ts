/** Repairs legal holds, from another repository that has the same hold on the same point. */
import { temporaryPath } from './core.ts';
import { readHold } from './holds.ts';
import { writeObject } from './object-file.ts';
import { isDamage, isNotFound } from './object-header.ts';
import type { RepairWorld } from './repair-world.ts';
import type { Finding } from './types.ts';

export async function mendHolds(world: RepairWorld, findings: readonly Finding[]): Promise<void> {
  const { core, donor, isDryRun, steps } = world;
  for (const { object, kind } of findings) {
    const id = /\/([^/]+)\.hold$/.exec(object)?.[1];
    if (id === undefined || kind !== 'damaged-object') continue;
    const bytes = donor === null ? null : await holdBytes(donor, id);
    const isPossible = bytes !== null;
    const action = isPossible
      ? 'taken from the other repository'
      : 'it holds by its name; who holds it and why is known nowhere else';
    steps.push({ object, action, isPossible });
    if (isDryRun || bytes === null) continue;
    await writeObject(core.disk, temporaryPath(core), object, [bytes]);
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
