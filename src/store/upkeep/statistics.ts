/** Figures of the store, from what is in memory and in the catalog: no object is read for them. */
import type { Core } from '../core.ts';
import { isNotFound } from '../format/object-header.ts';
import type { StoreStatistics } from '../types.ts';

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
    journalBytes: core.isReadOnly ? await segmentBytes(core) : core.journal.activeBytes,
    dedupeHits: core.dedupeHits,
    sealingWaits: core.sealingWaits,
  };
}

/** A reader without a service appends to no journal; it may find one. */
async function segmentBytes({ disk, files, paths }: Core): Promise<number> {
  const names = (await disk.list(paths.journal)).map(({ name }) => name);
  let bytes = 0;
  for (const name of names.filter((each) => each.endsWith('.segment'))) {
    try {
      bytes += await files.with(`${paths.journal}/${name}`, (file) => file.size());
    } catch (error) {
      if (!isNotFound(error)) throw error; // sealed since it was listed
    }
  }
  return bytes;
}
