/**
 * What dropping points would free: contents that only they need, and maps. Everything that would still be
 * needed is marked as collection marks it, over the maps as they would be folded; what the maps of today
 * name beyond that would go. Nothing is written.
 *
 * An estimate: the marks are Bloom filters, so about 1 in 100 contents that would go is taken for one that
 * stays. And the space comes back later: collection rewrites a pack once less than half of it is alive,
 * and deletes it after a grace.
 */
import { planFold } from '../../model/fold-plan.ts';
import type { Core } from '../core.ts';
import type { LeafFile } from '../leaves/leaf-file.ts';
import { composedLeaves } from '../leaves/leaf-source.ts';
import { listMaps } from '../maps/chain.ts';
import { openBase, openDelta } from '../maps/maps.ts';
import { Bloom } from '../packs/bloom.ts';
import { PIECE_HEADER_BYTES } from '../packs/record.ts';
import type { FreedEstimate } from '../types.ts';
import { generationsOf, minSpanned, withLast } from '../upkeep/map-upkeep.ts';
import { MAX_FILTER_BYTES, Walk } from '../upkeep/mark.ts';
import { type Listed, neededEpochs } from '../upkeep/needed-epochs.ts';

/** Called in the lane of upkeep. */
export async function estimateFreed(core: Core, drop: readonly string[]): Promise<FreedEstimate> {
  const without = new Set(drop);
  const pieces = [...core.packs.all()].reduce((sum, pack) => sum + pack.pieces, 0);
  const live = Bloom.sized(Math.max(pieces, 1024), MAX_FILTER_BYTES);
  const seen = Bloom.sized(Math.max(pieces, 1024), MAX_FILTER_BYTES);
  const staying = new Walk(core, (digest) => live.add(digest));
  await staying.servers();
  const going: Going[] = [];
  let mapBytes = 0;
  for (const server of core.servers.keys()) {
    const after = await mapsAfter(core, server, without, staying);
    going.push(...after.going);
    mapBytes += after.freedBytes;
  }
  const digests: Uint8Array[] = [];
  const leaving = new Walk(core, (digest) => {
    if (live.mayHave(digest) || seen.mayHave(digest)) return;
    seen.add(digest);
    digests.push(digest.slice());
  });
  let contents = 0;
  let storedBytes = 0;
  for (const each of going) {
    if ('epoch' in each) await leaving.base(await openBase(core, each.path));
    else await leaving.source(await openDelta(core, each.path));
    for (const digest of digests.splice(0)) {
      const place = await core.index.find(digest);
      if (place === null) continue;
      contents += 1;
      storedBytes += place.storedLength + PIECE_HEADER_BYTES;
    }
  }
  return { contents, storedBytes, mapBytes, isEstimate: true };
}

/** A map that would be gone, or be another one. */
type Going = { readonly path: string } | { readonly path: string; readonly epoch: number };

/** Marks what the maps of a server would name without the points; returns the maps that would go. */
async function mapsAfter(
  core: Core,
  server: string,
  without: ReadonlySet<string>,
  staying: Walk,
): Promise<{ going: Going[]; freedBytes: number }> {
  const listed: Listed[] = [];
  for (const volume of core.servers.get(server)?.volumes.keys() ?? []) {
    for (const generation of await generationsOf(core, server, volume)) {
      const place = { server, volume, generation };
      listed.push({ place, ...(await listMaps(core, place)) });
    }
  }
  const needed = await neededEpochs(core, server, listed, without);
  const result = { going: [] as Going[], freedBytes: 0 };
  for (const maps of listed) {
    const { place, bases, deltas } = maps;
    const pathOf = ({ from, to }: { from: number; to: number }) =>
      core.paths.delta(place, from, to);
    // Where it cannot be told what is needed everything stays.
    const plan =
      needed === null
        ? { folds: [], unneededBases: [], unneededDeltas: [] }
        : planFold(bases, deltas, withLast(core, maps, needed), minSpanned(core));
    const leaving = new Set([...plan.unneededDeltas, ...plan.folds.flat()]);
    for (const fold of plan.folds) {
      const inputs: LeafFile[] = [];
      for (const span of fold) {
        inputs.push(await openDelta(core, pathOf(span)));
      }
      for await (const { bytes } of composedLeaves(inputs)) {
        staying.leaf(bytes);
        result.freedBytes -= bytes.length;
      }
    }
    for (const span of deltas) {
      if (leaving.has(span)) result.going.push({ path: pathOf(span) });
      else await staying.source(await openDelta(core, pathOf(span)));
    }
    for (const epoch of bases) {
      const path = core.paths.base(place, epoch);
      if (plan.unneededBases.includes(epoch)) result.going.push({ path, epoch });
      else await staying.base(await openBase(core, path));
    }
  }
  for (const { path } of result.going) {
    result.freedBytes += await core.files.with(path, (file) => file.size());
  }
  return { ...result, freedBytes: Math.max(0, result.freedBytes) };
}
