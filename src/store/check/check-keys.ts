/**
 * The files of an encrypted repository's keys. Each key lies in two, so one that is damaged or gone hurts no point:
 * but the other is the last.
 */
import type { KeyFault } from '../keys/key-faults.ts';
import type { Finding } from '../types.ts';
import type { CheckCore } from './check-finding.ts';

/** To be looked at twice: a key that is being made beside has one file for a moment. */
export const keyFaultsOf = async ({ files }: Pick<CheckCore, 'files'>): Promise<KeyFault[]> =>
  (await files.vault.keys?.faults()) ?? [];

/** What is still as it was in an earlier look. */
export async function checkKeys(
  core: Pick<CheckCore, 'files'>,
  earlier: readonly KeyFault[],
): Promise<Finding[]> {
  if (earlier.length === 0) return [];
  const faults = await keyFaultsOf(core);
  return faults
    .filter(({ object }) => earlier.some((fault) => fault.object === object))
    .map((fault) => ({ ...fault, points: [] }));
}
