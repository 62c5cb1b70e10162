/**
 * Upkeep of maps: folds where points were dropped, and levels over many deltas (model/fold-plan.ts). A
 * fold merges neighbouring deltas into one with both roots kept; it is read back and compared, leaf by
 * leaf, before its inputs are let go, so that a crash at any instant leaves a chain to every point.
 * Everything here runs in the lane of upkeep, one thing at a time.
 */
import { UnderstudyError } from '../../base/errors.ts';
import { planFold, type Span } from '../../model/fold-plan.ts';
import { type Core, temporaryPath } from '../core.ts';
import { equalBytes } from '../format/checksum.ts';
import type { MapPlace } from '../format/layout.ts';
import { publish, together } from '../format/object-file.ts';
import { damaged, isDamage } from '../format/object-header.ts';
import { leafDigests } from '../leaves/leaf.ts';
import { LeafFile, type LeafFileInfo, LeafFileWriter } from '../leaves/leaf-file.ts';
import { composedLeaves, type LeafSource } from '../leaves/leaf-source.ts';
import { listMaps, unledEpochs } from '../maps/chain.ts';
import { openBase, openDelta } from '../maps/maps.ts';
import { type Listed, mayHide, type NeededEpochs, neededEpochs } from './needed-epochs.ts';

interface Freed {
  removedObjects: number;
  freedBytes: number;
}

/**
 * Folds and removes maps of a server's volumes as its remaining points allow. Returns what went.
 *
 * The maps are listed first, and what is needed is asked afterwards: a map that is sealed meanwhile is
 * not in the list and is left alone, and one that is in the list is known to whoever needs it.
 */
export async function foldServer(core: Core, server: string): Promise<Freed> {
  const freed = { removedObjects: 0, freedBytes: 0 };
  if (mayHide(core)) return freed;
  const volumes = [...(core.servers.get(server)?.volumes.values() ?? [])];
  const listed: Listed[] = [];
  for (const { volume } of volumes) {
    for (const generation of await generationsOf(core, server, volume)) {
      const place = { server, volume, generation };
      listed.push({ place, ...(await listMaps(core, place)) });
    }
  }
  const needed = await neededEpochs(core, server, listed);
  if (needed === null) return freed;
  for (const maps of listed) {
    const { volume, generation } = maps.place;
    const ascending = withLast(core, maps, needed);
    try {
      await assertLed(core, maps, needed.sealedOf(volume, generation));
      await together(core.disk, () => foldGeneration(core, maps, ascending, freed));
    } catch (error) {
      if (!isDamage(error)) throw error;
      // Nothing of it goes: what seems to be not needed may be the only way to a point. Check tells more.
      core.log.error('maps are damaged and left as they are', {
        ...maps.place,
        error: error.message,
      });
    }
  }
  return freed;
}

/** The epochs that are needed; what was sealed since leads on from the last map in the list. */
export function withLast(core: Core, maps: Listed, needed: NeededEpochs): number[] {
  const { server, volume, generation } = maps.place;
  const epochs = needed.of(volume, generation);
  const head = core.servers.get(server)?.volumes.get(volume)?.head;
  if (head?.generation === generation) epochs.add(lastEpoch(maps));
  return [...epochs].sort((a, b) => a - b);
}

/** Every sealed point has a chain; a map that is missing may come back, and then needs its neighbours. */
async function assertLed(core: Core, maps: Listed, sealed: ReadonlySet<number>): Promise<void> {
  if (unledEpochs(maps, sealed).length === 0) return;
  // What was sealed since the listing is there by now.
  const [epoch] = unledEpochs(await listMaps(core, maps.place), sealed);
  if (epoch === undefined) return;
  const context = { volume: maps.place.volume, epoch };
  throw new UnderstudyError('ERR_OBJECT_MISSING', `no maps lead to epoch ${epoch}`, context);
}

const lastEpoch = ({ bases, deltas }: Listed): number =>
  Math.max(0, ...bases, ...deltas.map(({ to }) => to));

export async function generationsOf(core: Core, server: string, volume: string): Promise<string[]> {
  const place = { server, volume, generation: '' };
  const names = new Set<string>();
  for (const folder of [core.paths.deltaFolder(place), core.paths.baseFolder(place)]) {
    for (const { name, isDirectory } of await core.disk.list(folder)) {
      if (isDirectory) names.add(name);
    }
  }
  return [...names].sort();
}

/** A level that spans fewer needed epochs is not worth its place. */
export const minSpanned = ({ settings }: Core): number =>
  Math.max(2, Math.floor(settings.levelFan / 4));

async function foldGeneration(
  core: Core,
  { place, bases, deltas }: Listed,
  needed: readonly number[],
  freed: Freed,
): Promise<void> {
  const { folds } = planFold(bases, deltas, needed, minSpanned(core));
  const folded: Span[] = [];
  for (const fold of folds) {
    await foldDeltas(core, place, fold);
    folded.push({ from: fold[0]!.from, to: fold.at(-1)!.to });
  }
  const plan = planFold(bases, [...deltas, ...folded], needed, minSpanned(core));
  const { unneededBases, unneededDeltas } = plan;
  if (unneededBases.length + unneededDeltas.length === 0) return;
  for (const epoch of bases.filter((base) => !unneededBases.includes(base))) {
    await proveBase(core, place, epoch);
  }
  for (const epoch of unneededBases) await remove(core, core.paths.base(place, epoch), freed);
  for (const { from, to } of unneededDeltas) {
    await remove(core, core.paths.delta(place, from, to), freed);
  }
  // Gone for good before the contents that only they named may go.
  if (unneededBases.length > 0) await core.disk.syncDirectory(core.paths.baseFolder(place));
  if (unneededDeltas.length > 0) await core.disk.syncDirectory(core.paths.deltaFolder(place));
}

/**
 * What a base stands for may go only while the base can be read, with all the tables that it names, and all
 * that those name is held. It has contents of its own: they may have been collected where the base is the
 * late write of a process that had lost the repository, or be lost with a pack.
 */
async function proveBase(core: Core, place: MapPlace, epoch: number): Promise<void> {
  const path = core.paths.base(place, epoch);
  if (core.provenBases.has(path)) return;
  const base = await openBase(core, path);
  for (const leaf of base.table.keys()) {
    const bytes = await base.read(leaf);
    if (bytes === undefined) continue;
    const places = await core.reader.locate([...leafDigests(bytes)]);
    const lacking = places.filter((found) => found === null).length;
    if (lacking > 0) throw damaged(path, `${lacking} contents of leaf ${leaf} are in no pack`);
    await core.pace.spend(bytes.length);
  }
  core.provenBases.add(path);
}

async function remove(core: Core, path: string, freed: Freed): Promise<void> {
  const bytes = await core.files.with(path, (file) => file.size());
  if (!(await core.removal.remove(core.disk, path))) return;
  freed.freedBytes += bytes;
  freed.removedObjects += 1;
}

/** One delta over several, or in their place: then the caller removes them. */
export async function foldDeltas(
  core: Core,
  place: MapPlace,
  spans: readonly Span[],
): Promise<void> {
  const inputs: LeafFile[] = [];
  for (const { from, to } of spans) {
    inputs.push(await openDelta(core, core.paths.delta(place, from, to)));
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

/** Writes what the inputs are together, under a temporary name, reads it back and compares. */
export async function writeFold(
  core: Pick<Core, 'disk' | 'files'> & Partial<Pick<Core, 'pace'>>,
  temporary: string,
  info: LeafFileInfo,
  inputs: readonly LeafSource[],
): Promise<void> {
  const writer = await LeafFileWriter.create(core.disk, temporary, 'US-DELTA', info);
  try {
    for await (const { leaf, bytes } of composedLeaves(inputs)) {
      await writer.add(leaf, bytes);
      await core.pace?.spend(bytes.length);
    }
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
  core: Pick<Core, 'files'> & Partial<Pick<Core, 'pace'>>,
  temporary: string,
  inputs: readonly LeafSource[],
): Promise<void> {
  const fold = await LeafFile.open(core.files, temporary, 'US-DELTA');
  let count = 0;
  for await (const { leaf, bytes } of composedLeaves(inputs)) {
    const read = await fold.read(leaf);
    count += 1;
    await core.pace?.spend(bytes.length);
    if (read !== undefined && equalBytes(read, bytes)) continue;
    throw new UnderstudyError('ERR_OBJECT_DAMAGED', `leaf ${leaf} of a fold reads differently`);
  }
  if (fold.leafNumbers().length !== count) {
    throw new UnderstudyError('ERR_OBJECT_DAMAGED', 'a fold has leaves of its own');
  }
}
