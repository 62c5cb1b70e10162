/**
 * Upkeep of maps: bases where many deltas lie over the last one, and folds where points were dropped. A
 * fold merges neighbouring deltas into one with both roots kept; it is read back and compared, leaf by
 * leaf, before its inputs are let go, so that a crash at any instant leaves a chain to every point.
 * Everything here runs in the lane of upkeep, one thing at a time.
 */
import { UnderstudyError } from '../base/errors.ts';
import { planFold, type Span } from '../model/fold-plan.ts';
import { buildBase } from './base-builder.ts';
import type { VolumeHead } from './catalog.ts';
import { listMaps } from './chain.ts';
import { equalBytes } from './checksum.ts';
import { type Core, temporaryPath, type VolumeState } from './core.ts';
import type { MapPlace } from './layout.ts';
import { LeafFile, type LeafFileInfo, LeafFileWriter } from './leaf-file.ts';
import { composedLeaves } from './leaf-source.ts';
import { publish } from './object-file.ts';

/** Builds bases of the volumes whose newest sealed maps have grown beyond the settings. */
export async function buildDueBases(core: Core): Promise<void> {
  for (const server of core.servers.values()) {
    for (const volume of server.volumes.values()) {
      const head = volume.sealed;
      if (head !== null && (await isBaseDue(core, volume, head))) {
        await buildBase(core, head);
        volume.overBase = { generation: head.generation, deltas: 0, bytes: 0 };
      }
    }
  }
}

/** A generation without a base gets one; then limits decide. */
async function isBaseDue(core: Core, volume: VolumeState, head: VolumeHead): Promise<boolean> {
  const { baseAfterDeltas, baseAfterBytes } = core.settings;
  if (volume.overBase?.generation !== head.generation) {
    volume.overBase = await countOverBase(core, head);
    if (volume.overBase === null) return true;
  }
  const { deltas, bytes } = volume.overBase!;
  return deltas > baseAfterDeltas || bytes > baseAfterBytes;
}

/** Null where the generation has no base. */
async function countOverBase(core: Core, head: VolumeHead): Promise<VolumeState['overBase']> {
  const { bases, deltas } = await listMaps(core, head);
  const newest = Math.max(0, ...bases.filter((epoch) => epoch <= head.epoch));
  if (newest === 0) return null;
  const over = deltas.filter(({ from }) => from >= newest);
  let bytes = 0;
  for (const { from, to } of over) {
    const path = core.paths.delta(head, from, to);
    bytes += await core.files.with(path, (file) => file.size());
  }
  return { generation: head.generation, deltas: over.length, bytes };
}

/** Epochs that must stay readable, by generation of one volume. */
type Needed = Map<string, Set<number>>;

interface Freed {
  removedObjects: number;
  freedBytes: number;
}

interface Listed {
  readonly place: MapPlace;
  readonly bases: readonly number[];
  readonly deltas: readonly Span[];
}

/**
 * Folds and removes maps of a server's volumes as its remaining points allow. Returns what went.
 *
 * The maps are listed first, and what is needed is asked afterwards: a map that is sealed meanwhile is
 * not in the list and is left alone, and one that is in the list is known to whoever needs it.
 */
export async function foldServer(core: Core, server: string): Promise<Freed> {
  const freed = { removedObjects: 0, freedBytes: 0 };
  const volumes = [...(core.servers.get(server)?.volumes.values() ?? [])];
  const listed: Listed[] = [];
  for (const { volume } of volumes) {
    for (const generation of await generationsOf(core, server, volume)) {
      const place = { server, volume, generation };
      listed.push({ place, ...(await listMaps(core, place)) });
    }
  }
  const needed = await neededEpochs(core, server);
  for (const maps of listed) {
    const { volume, generation } = maps.place;
    const epochs = new Set(needed.get(volume)?.get(generation));
    const head = core.servers.get(server)?.volumes.get(volume)?.head;
    // What was sealed since leads on from the last map in the list.
    if (head?.generation === generation) epochs.add(lastEpoch(maps));
    await foldGeneration(
      core,
      maps,
      [...epochs].sort((a, b) => a - b),
      freed,
    );
  }
  for (const state of volumes) state.overBase = null;
  return freed;
}

const lastEpoch = ({ bases, deltas }: Listed): number =>
  Math.max(0, ...bases, ...deltas.map(({ to }) => to));

async function neededEpochs(core: Core, server: string): Promise<Map<string, Needed>> {
  const needed = new Map<string, Needed>();
  const add = (volume: string, generation: string, epoch: number) => {
    const byGeneration = needed.get(volume) ?? new Map<string, Set<number>>();
    needed.set(volume, byGeneration);
    byGeneration.set(generation, (byGeneration.get(generation) ?? new Set()).add(epoch));
  };
  for (const { record } of await core.catalog.points({ server })) {
    for (const { volume, generation, epoch } of record.volumes) add(volume, generation, epoch);
  }
  for (const { head, staged } of core.servers.get(server)?.volumes.values() ?? []) {
    if (head !== null) add(head.volume, head.generation, head.epoch);
    for (const { info } of staged) {
      add(info.volume, info.generation, info.from);
      add(info.volume, info.generation, info.to);
    }
  }
  return needed;
}

async function generationsOf(core: Core, server: string, volume: string): Promise<string[]> {
  const place = { server, volume, generation: '' };
  const names = new Set<string>();
  for (const folder of [core.paths.deltaFolder(place), core.paths.baseFolder(place)]) {
    for (const { name, isDirectory } of await core.disk.list(folder)) {
      if (isDirectory) names.add(name);
    }
  }
  return [...names].sort();
}

async function foldGeneration(
  core: Core,
  { place, bases, deltas }: Listed,
  needed: readonly number[],
  freed: Freed,
): Promise<void> {
  const { folds } = planFold(bases, deltas, needed);
  const folded: Span[] = [];
  for (const fold of folds) {
    await foldDeltas(core, place, fold);
    folded.push({ from: fold[0]!.from, to: fold.at(-1)!.to });
  }
  const plan = planFold(bases, [...deltas, ...folded], needed);
  const { unneededBases, unneededDeltas } = plan;
  for (const epoch of unneededBases) await remove(core, core.paths.base(place, epoch), freed);
  for (const { from, to } of unneededDeltas) {
    await remove(core, core.paths.delta(place, from, to), freed);
  }
  // Gone for good before the contents that only they named may go.
  if (unneededBases.length > 0) await core.disk.syncDirectory(core.paths.baseFolder(place));
  if (unneededDeltas.length > 0) await core.disk.syncDirectory(core.paths.deltaFolder(place));
}

async function remove(core: Core, path: string, freed: Freed): Promise<void> {
  freed.freedBytes += await core.files.with(path, (file) => file.size());
  await core.disk.remove(path);
  freed.removedObjects += 1;
}

/** One delta in the place of several; the inputs are removed by the caller. */
async function foldDeltas(core: Core, place: MapPlace, spans: readonly Span[]): Promise<void> {
  const inputs: LeafFile[] = [];
  for (const { from, to } of spans) {
    inputs.push(await LeafFile.open(core.files, core.paths.delta(place, from, to), 'US-DELTA'));
  }
  const oldest = inputs[0]!.info;
  const newest = inputs.at(-1)!.info;
  for (const [i, { info }] of inputs.entries()) {
    const before = inputs[i - 1]?.info.root ?? info.previousRoot;
    if (info.previousRoot === before) continue;
    const context = { path: inputs[i]!.path };
    throw new UnderstudyError('ERR_OBJECT_DAMAGED', 'the chain is broken', context);
  }
  const info = { ...newest, from: oldest.from, previousRoot: oldest.previousRoot };
  const temporary = temporaryPath(core);
  await writeFold(core, temporary, info, inputs);
  await publish(core.disk, temporary, core.paths.delta(place, info.from, info.to));
}

async function writeFold(
  core: Core,
  temporary: string,
  info: LeafFileInfo,
  inputs: readonly LeafFile[],
): Promise<void> {
  const writer = await LeafFileWriter.create(core.disk, temporary, 'US-DELTA', info);
  try {
    for await (const { leaf, bytes } of composedLeaves(inputs)) await writer.add(leaf, bytes);
    await writer.finish('US-DELTA', info, await writer.finishLeaves());
    await compareFold(core, temporary, inputs);
  } catch (error) {
    await writer.abandon();
    await core.disk.remove(temporary);
    throw error;
  }
}

/** What the fold reads as is what its inputs read as. */
async function compareFold(
  core: Core,
  temporary: string,
  inputs: readonly LeafFile[],
): Promise<void> {
  const fold = await LeafFile.open(core.files, temporary, 'US-DELTA');
  let count = 0;
  for await (const { leaf, bytes } of composedLeaves(inputs)) {
    const read = await fold.read(leaf);
    count += 1;
    if (read !== undefined && equalBytes(read, bytes)) continue;
    throw new UnderstudyError('ERR_OBJECT_DAMAGED', `leaf ${leaf} of a fold reads differently`);
  }
  if (fold.leafNumbers().length !== count) {
    throw new UnderstudyError('ERR_OBJECT_DAMAGED', 'a fold has leaves of its own');
  }
}
