/**
 * When a volume gets a base, and levels over its deltas. A base puts chunks together from patches: that may
 * be sixteen times what was patched. What is stored for a point must stay near to what changed, so a base
 * waits until its chunks are worth it - as many bytes have changed since the last one - and levels keep
 * chains short until then (model/fold-plan.ts). Runs in the lane of upkeep.
 */
import { planChain, planLevel, type Span } from '../../model/fold-plan.ts';
import { BLOCK_BYTES, CHUNK_BYTES } from '../../model/geometry.ts';
import type { VolumeHead } from '../catalog/catalog.ts';
import type { Core, OverBase, VolumeState } from '../core.ts';
import { isDamage } from '../format/object-header.ts';
import { openLeaf } from '../leaves/leaf.ts';
import { mergedLeafNumbers } from '../leaves/leaf-source.ts';
import { listMaps, openChain } from '../maps/chain.ts';
import { buildBase } from './base-builder.ts';
import { foldDeltas } from './map-upkeep.ts';

/** About what a delta takes for a block: its digest, and a part of head and masks. */
const DELTA_BYTES_A_BLOCK = 36;
/** Levels that a turn may write for a volume. */
const MAX_LEVELS = 8;

/** Levels and bases of the volumes of which something was sealed. */
export async function shortenChains(core: Core): Promise<void> {
  for (const server of core.servers.values()) {
    for (const volume of server.volumes.values()) {
      const head = volume.sealed;
      if (head === null) continue;
      try {
        await shorten(core, volume, head);
      } catch (error) {
        if (!isDamage(error)) throw error;
        // The others are not concerned; this one is tried again when more has come.
        const { server: name, volume: of, generation, epoch } = head;
        core.log.error('no base can be made', { server: name, volume: of, error: error.message });
        volume.overBase = { generation, epoch, deltas: 0, bytes: 0, deferredAt: 0 };
      }
    }
  }
}

async function shorten(core: Core, volume: VolumeState, head: VolumeHead): Promise<void> {
  const { generation, epoch } = head;
  const { bases, deltas } = await listMaps(core, head);
  let over = volume.overBase;
  if (over?.generation !== generation) {
    const newest = Math.max(0, ...bases.filter((base) => base <= epoch));
    over = { generation, epoch: newest, deltas: 0, bytes: 0, deferredAt: 0 };
    if (newest === 0) return makeBase(core, volume, head);
  }
  over = await counted(core, head, over, deltas);
  volume.overBase = over;
  if (await isBaseDue(core, volume, head, over)) return makeBase(core, volume, head);
  await foldLevels(core, head, bases, deltas);
}

async function makeBase(core: Core, volume: VolumeState, head: VolumeHead): Promise<void> {
  await buildBase(core, head);
  const { generation, epoch } = head;
  volume.overBase = { generation, epoch, deltas: 0, bytes: 0, deferredAt: 0 };
}

async function isBaseDue(
  core: Core,
  volume: VolumeState,
  head: VolumeHead,
  over: OverBase,
): Promise<boolean> {
  const { baseAfterDeltas, baseAfterBytes, baseMaxGrowth } = core.settings;
  const isMany = over.deltas > baseAfterDeltas || over.bytes > baseAfterBytes;
  if (!isMany || over.deltas < 2 * over.deferredAt) return false;
  const changedBytes = (over.bytes / DELTA_BYTES_A_BLOCK) * BLOCK_BYTES;
  if ((await patchedBytes(core, head)) <= changedBytes * baseMaxGrowth) return true;
  volume.overBase = { ...over, deferredAt: over.deltas };
  return false;
}

/** Bytes of the chunks that a base would have to put together. */
async function patchedBytes(core: Core, head: VolumeHead): Promise<number> {
  const chain = await openChain(core, head, head.epoch, [], { root: head.chainRoot });
  let chunks = 0;
  for (const leaf of mergedLeafNumbers(chain.sources.slice(1))) {
    const bytes = await chain.read(leaf);
    if (bytes === undefined) continue;
    for (const entry of openLeaf(bytes)) if (entry !== undefined && entry.mask !== 0) chunks += 1;
  }
  return chunks * CHUNK_BYTES;
}

/** With the deltas that have come since; of those that end at one epoch the shortest. */
async function counted(
  core: Core,
  head: VolumeHead,
  over: OverBase,
  all: readonly Span[],
): Promise<OverBase> {
  let { bytes, deltas, epoch } = over;
  const fresh = all.filter(({ to }) => to > over.epoch && to <= head.epoch);
  for (const { from, to } of fresh.sort((a, b) => a.to - b.to || b.from - a.from)) {
    if (to <= epoch) continue;
    bytes += await core.files.with(core.paths.delta(head, from, to), (file) => file.size());
    deltas += 1;
    epoch = to;
  }
  return { ...over, bytes, deltas, epoch };
}

/** Writes deltas that span others, which stay as long as a point needs them. */
async function foldLevels(
  core: Core,
  head: VolumeHead,
  bases: readonly number[],
  deltas: readonly Span[],
): Promise<void> {
  const known = [...deltas];
  for (let count = 0; count < MAX_LEVELS; count += 1) {
    const chain = planChain(bases, known, head.epoch);
    const level = chain === null ? null : planLevel(chain.deltas, core.settings.levelFan);
    if (level === null) return;
    await foldDeltas(core, head, level);
    known.push({ from: level[0]!.from, to: level.at(-1)!.to });
  }
}
