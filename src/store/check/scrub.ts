/**
 * Reads the packs of a repository one after the other, from time to time and slowly, so that damage is
 * found while there is still a copy or a source to make it good. Takes no lane: it changes nothing, and a
 * pack that goes meanwhile needs no look. What is right nowhere is noted (damage-notes.ts); which points
 * that hurts is for a check of the structure to tell.
 */
import type { Core } from '../core.ts';
import { listPacks } from '../repository/repository.ts';
import type { ScrubbedPack, ScrubOptions } from '../types.ts';
import { readWholePack } from './check-packs.ts';

/** The next pack, read wholly; null where there is none after `after`. */
export async function scrubNext(core: Core, options: ScrubOptions): Promise<ScrubbedPack | null> {
  const { after, pace } = options;
  const ids = (await listPacks(core)).filter((id) => after === null || id > after).sort();
  for (const pack of ids) {
    const info = core.packs.byId(pack);
    if (info === null || info.isCondemned) continue; // it goes anyway, or has gone
    const damage = await readWholePack(core, core.paths.pack(pack), pace);
    if (damage === null) continue;
    return { pack, ...damage };
  }
  return null;
}
