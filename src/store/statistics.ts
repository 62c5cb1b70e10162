/** Figures of the store, from what is in memory and in the catalog: nothing is read for them. */
import type { Core } from './core.ts';
import type { StoreStatistics } from './types.ts';

export async function statisticsOf(core: Core, servers: number): Promise<StoreStatistics> {
  const counts = await core.catalog.counts();
  let pieceBytes = 0;
  let storedBytes = 0;
  let packs = 0;
  for (const pack of core.packs.all()) {
    pieceBytes += pack.rawBytes;
    storedBytes += pack.fileBytes;
    if (pack.isPublished) packs += 1;
  }
  return {
    points: counts.points,
    stagedPoints: counts.staged,
    servers,
    logicalBytes: counts.logicalBytes,
    pieceBytes,
    storedBytes,
    packs,
    journalBytes: core.journal.activeBytes,
    dedupeHits: core.dedupeHits,
  };
}
