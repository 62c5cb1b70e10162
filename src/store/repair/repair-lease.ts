/**
 * Repairs leases and terms. A damaged lease goes: the repair has a newer one. What a damaged term said nobody has:
 * it is written anew so that all that was written before it counts, which is how it is read as it is.
 */
import {
  encodeTerm,
  parseLeaseName,
  parseTermName,
  SEQUENCES_PER_TERM,
} from '../lease/lease-record.ts';
import type { Finding } from '../types.ts';
import { LOCKED, type RepairWorld, removeDamaged, replaceObject } from './repair-world.ts';

const ANEW = 'written anew: all that the terms before it wrote counts';

export async function mendLeases(world: RepairWorld, findings: readonly Finding[]): Promise<void> {
  const { core, isDryRun, steps } = world;
  const { lease, terms } = core.paths;
  for (const { object } of findings) {
    const name = object.slice(object.lastIndexOf('/') + 1);
    if (object === `${lease}/${name}` && parseLeaseName(name) !== null) {
      steps.push({ object, action: 'it goes: the repair has a newer one', isPossible: true });
      if (!isDryRun) await removeDamaged(world, object, lease);
    }
    const term = object === `${terms}/${name}` ? parseTermName(name) : null;
    if (term === null) continue;
    const isPossible = isDryRun || (await replaceObject(core, object, termBytes(world, term)));
    steps.push({ object, action: isPossible ? ANEW : LOCKED, isPossible });
  }
}

function termBytes({ core }: RepairWorld, term: number): Uint8Array {
  const acceptedUpTo = term * SEQUENCES_PER_TERM - 1;
  return encodeTerm({ term, acceptedUpTo, timeMs: core.clock.wallMs(), holder: '0'.repeat(32) });
}
