/**
 * Opens a data directory: takes its lock, reads what the repository has, brings the journal back and
 * starts the background work. Refuses what it cannot trust (P4) with one clear error, and then nothing is
 * running. The world (disk, clock, chance, catalog) is injected: node-store.ts gives the real one.
 */
import type { Disk } from '../base/disk.ts';
import { UnderstudyError } from '../base/errors.ts';
import { toHex } from './checksum.ts';
import { type Core, temporaryPath } from './core.ts';
import { createCore, loadHeads, loadRuns, type StoreOptions } from './create-core.ts';
import { Journal } from './journal.ts';
import type { Paths } from './layout.ts';
import { Replay } from './replay.ts';
import * as repository from './repository.ts';
import { Sealer } from './sealer.ts';
import { Segment } from './segment.ts';
import { DirectoryStore } from './store.ts';
import type { Store } from './types.ts';
import { Watermark } from './watermark.ts';

/** Opens or makes the data directory. ERR_DATA_IN_USE, ERR_DATA_FORMAT, ERR_JOURNAL_DAMAGED. */
export async function openStore(options: StoreOptions): Promise<Store> {
  const { catalog } = options;
  const known = await catalog.open();
  try {
    return await openLocked(options, known);
  } catch (error) {
    await catalog.close();
    throw error;
  }
}

async function openLocked(options: StoreOptions, known: string | null): Promise<Store> {
  const { disk, log } = options;
  const core = createCore(options);
  const { paths } = core;
  const format = await repository.readFormat(disk, paths);
  const watermark = await openWatermark(disk, paths, format !== null);
  try {
    await repository.makeFolders(disk, paths);
    await repository.clearTemporaries(disk, paths);
    const id = format ?? (await repository.createFormat(core));
    await repository.loadPacks(core, core.settings.indexMemoryEntries, () =>
      core.index.flush(temporaryPath(core)),
    );
    if (known !== id) {
      if (format !== null) log.warn('the catalog is rebuilt from the repository');
      await core.catalog.adopt(id);
    }
    await repository.matchPoints(core);
    if (known !== id) await repository.findHeads(core);
    await loadHeads(core);
    return await replay(core, watermark);
  } catch (error) {
    await watermark.close();
    throw error;
  }
}

/** A repository without its journal's watermark has lost what was acknowledged: refuse. */
async function openWatermark(disk: Disk, paths: Paths, hasRepository: boolean): Promise<Watermark> {
  const watermark = await Watermark.open(disk, paths.watermark);
  if (watermark !== null) return watermark;
  if (hasRepository) {
    const context = { path: paths.watermark };
    throw new UnderstudyError('ERR_JOURNAL_DAMAGED', `${paths.watermark}: it is missing`, context);
  }
  await repository.makeFolders(disk, paths);
  return Watermark.create(disk, paths.watermark, paths.journal);
}

async function replay(core: Core, watermark: Watermark): Promise<Store> {
  const { disk, clock, randomBytes, paths, packs, index, settings } = core;
  const shelf = await loadRuns(core);
  const { segments, nextSequence } = await new Replay(core, watermark, shelf).run();
  await checkStaged(core);
  for (const run of shelf.rest()) await disk.remove(run.path);
  const sealer = new Sealer(core);
  core.journal = new Journal({
    ...{ disk, paths, watermark, nextSequence, segmentBytes: settings.segmentBytes },
    createSegment: async (sequence) => {
      const id = toHex(randomBytes(16));
      const path = paths.segment(sequence);
      const sums = { fileBytes: 0, pieces: 0, rawBytes: 0, storedBytes: 0 };
      const { number: pack } = packs.add({ id, path, isPublished: false, ...sums });
      const given = { sequence, id, path, createdMs: clock.wallMs() };
      try {
        return await Segment.create(disk, paths.journal, given, index.addSegment(pack), pack);
      } catch (error) {
        index.dropSegment(pack);
        packs.remove(pack);
        throw error;
      }
    },
    onEnded: (segment) => sealer.add(segment),
    onFailed: (error) => {
      core.log.error('the store has failed', { error: error.message });
      sealer.fail(error);
    },
  });
  for (const segment of segments) sealer.add(segment);
  return new DirectoryStore(core, sealer);
}

/** The catalog never knows a staged point before the journal does: one without the other was lost. */
async function checkStaged(core: Core): Promise<void> {
  for (const { id, state } of await core.catalog.pointNames()) {
    if (state === 'sealed' || core.staged.has(id)) continue;
    const message = `point ${id} was acknowledged, and the journal does not have it`;
    throw new UnderstudyError('ERR_JOURNAL_DAMAGED', message, { path: core.paths.journal });
  }
}
