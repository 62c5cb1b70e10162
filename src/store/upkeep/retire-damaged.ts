/**
 * Lets go of packs with damaged contents once nothing needs those any more: all of them have come again,
 * or no map names them. What else is in the pack is copied first, as in any collection, and the pack is
 * condemned like others. Runs in the lane of upkeep.
 */

import type { Core } from '../core.ts';
import { fromHex, toHex } from '../format/checksum.ts';
import type { PackInfo } from '../packs/pack-table.ts';
import { foundHere, Rewrite } from './collect.ts';

/** `alive`: which of the noted contents maps name; without it, all of them. */
export async function retireDamaged(core: Core, alive?: ReadonlySet<string>): Promise<void> {
  if (core.damage.isEmpty) return;
  const rewrite = new Rewrite(core);
  try {
    for (const number of core.damage.packNumbers) {
      const pack = core.packs.byNumber(number);
      if (pack?.isPublished !== true || pack.isCondemned) continue;
      if (await isNeeded(core, pack, alive)) continue;
      const noted = core.damage.of(number);
      const entries = await foundHere(core, pack, async ({ digest }) => !noted.has(toHex(digest)));
      if (entries !== null) await rewrite.add(pack, entries);
    }
    await rewrite.finish();
  } catch (error) {
    await rewrite.abandon();
    throw error;
  }
}

/** True while one of its damaged contents is right nowhere and may be needed. */
async function isNeeded(
  core: Core,
  { number }: PackInfo,
  alive: ReadonlySet<string> | undefined,
): Promise<boolean> {
  for (const name of core.damage.of(number)) {
    if (alive?.has(name) === false) continue;
    const place = await core.index.find(fromHex(name));
    if (place === null || !(await core.reader.isRightAt(place))) return true;
  }
  return false;
}

/** Every content that is noted, by its hex digest. */
export const notedContents = ({ damage }: Core): Set<string> =>
  new Set(damage.packNumbers.flatMap((number) => [...damage.of(number)]));
