/**
 * Takes epochs out of the journal's way: writes memory to run files where it is large, and says again, in
 * the active segment, what a segment that is to be removed had said of an open epoch. Of an epoch whose
 * commit lies in a later segment it goes into a run: its delta has to wait until that segment's contents
 * are in the repository, for an object names nothing that is not published before it. After
 * `carryOver(n)` and a sync, nothing but the commits up to n needs segment n or an earlier one (P4 across
 * any restart).
 */
import type { IndexedEntry } from '../../model/entry.ts';
import { decodeEntries, encodeEntries } from '../../model/entry-codec.ts';
import { CHUNKS_PER_LEAF } from '../../model/geometry.ts';
import {
  type Core,
  type ServerState,
  type StagedMap,
  temporaryPath,
  type VolumeState,
} from '../core.ts';
import { discard, publish } from '../format/object-file.ts';
import { type OpenEpoch, runInfo } from '../journal/open-epoch.ts';
import { LeafFile, LeafFileWriter } from '../leaves/leaf-file.ts';
import { composedLeaves, type MemoryLeaves } from '../leaves/leaf-source.ts';
import { encodeCursorRecord, encodeEntriesRecord } from '../packs/record.ts';
import { emptyBatch, type OpenEpochName } from '../packs/segment.ts';

/** Open epochs up to this size are said again rather than written to a file of their own. */
const CARRY_BYTES = 256 * 1024;
/** More runs than this are merged into one. */
const MAX_RUNS = 8;

/** Called under the server's mutex. */
export async function spillWhereLarge(core: Core, { open }: VolumeState): Promise<void> {
  if (open === null || open.memoryBytes <= core.settings.openMemoryBytes) return;
  await spill(core, open);
}

/** Memory to a run; what it came from in the journal is not needed any more. */
async function spill(core: Core, open: OpenEpoch): Promise<void> {
  if (open.memoryBytes > 0) {
    const layer = open.freeze();
    try {
      open.replaceFrozen(layer, await writeRun(core, open.name, [layer]));
    } catch (error) {
      open.melt(layer);
      throw error;
    }
  }
  if (open.runFiles.length > MAX_RUNS) await mergeRuns(core, open);
}

async function writeRun(
  core: Core,
  name: OpenEpochName,
  sources: readonly (MemoryLeaves | LeafFile)[],
): Promise<LeafFile> {
  const temporary = temporaryPath(core);
  const info = runInfo(name);
  const writer = await LeafFileWriter.create(core.disk, temporary, 'US-RUN  ', info);
  try {
    for await (const { leaf, bytes } of composedLeaves(sources)) await writer.add(leaf, bytes);
    const digest = await writer.finishLeaves();
    await writer.finish('US-RUN  ', info, digest);
  } catch (error) {
    await writer.abandon();
    await discard(core.disk, temporary);
    throw error;
  }
  core.nextFile += 1;
  const path = core.paths.run(core.nextFile);
  await publish(core.disk, temporary, path);
  return LeafFile.open(core.files, path, 'US-RUN  ');
}

/** The newest runs of about one size become one; the oldest, largest, stay until the rest has grown. */
async function mergeRuns(core: Core, open: OpenEpoch): Promise<void> {
  const runs = open.runFiles;
  let from = runs.length - 1;
  let bytes = runs[from]!.fileBytes;
  while (from > 0 && runs[from - 1]!.fileBytes <= bytes * 2) {
    from -= 1;
    bytes += runs[from]!.fileBytes;
  }
  const merged = runs.slice(Math.min(from, runs.length - 2));
  const run = await writeRun(core, open.name, merged);
  open.replaceRuns(merged, run);
  for (const { path } of merged) await discard(core.disk, path);
}

/** Says an open epoch of memory's size again, in the active segment. */
async function repeat(core: Core, open: OpenEpoch): Promise<number> {
  const entries: IndexedEntry[] = [];
  for await (const { leaf, bytes } of composedLeaves(open.memorySources())) {
    const first = leaf * CHUNKS_PER_LEAF;
    for (const item of decodeEntries(bytes)) entries.push({ ...item, index: item.index + first });
  }
  const encoded = encodeEntries(entries);
  const { sequence } = await core.journal.append({
    ...emptyBatch,
    records: (handleOf) => {
      const handle = handleOf(open.name);
      const cursor = encodeCursorRecord(handle, open.syncedChunks);
      return entries.length === 0 ? [cursor] : [encodeEntriesRecord(handle, encoded), cursor];
    },
  });
  return sequence;
}

async function carryVolume(core: Core, { open }: VolumeState, sequence: number): Promise<void> {
  if (open === null || open.oldestSegment > sequence) return;
  if (open.memoryBytes > CARRY_BYTES) await spill(core, open);
  open.oldestSegment = await repeat(core, open);
}

/** A committed epoch whose commit, and so whose contents, may lie in segments that are not sealed yet. */
async function carryStaged(core: Core, state: VolumeState, map: StagedMap): Promise<void> {
  const { to: epoch, ...info } = map.info;
  const { server, volume, generation, sizeBytes, sectorBytes } = info;
  const name = { server, volume, generation, sizeBytes, sectorBytes, epoch };
  const isEmpty = map.memory.every(({ leaves }) => leaves.size === 0);
  const added = isEmpty ? [] : [await writeRun(core, name, map.memory)];
  const runs = [...map.runs, ...added];
  const carried = { ...map, runs, memory: [], oldestSegment: Number.POSITIVE_INFINITY };
  state.staged = state.staged.map((other) => (other === map ? carried : other));
}

/** Frees segments up to `sequence`. The caller makes the journal durable before removing. */
export async function carryOver(core: Core, sequence: number): Promise<void> {
  for (const server of core.servers.values()) await carryServer(core, server, sequence);
}

function carryServer(core: Core, server: ServerState, sequence: number): Promise<void> {
  return server.mutex.run(async () => {
    const points = [...core.staged.values()];
    const later = points.filter(({ segment }) => segment > sequence);
    const commits = new Set(later.map(({ record }) => record.sequence));
    const isLater = ({ info, oldestSegment }: StagedMap) =>
      oldestSegment <= sequence && commits.has(info.sequence);
    for (const state of server.volumes.values()) {
      for (const map of state.staged.filter(isLater)) await carryStaged(core, state, map);
      await carryVolume(core, state, sequence);
    }
  });
}
