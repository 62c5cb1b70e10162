/**
 * The maps of a server, wherever they lie - in the repository, staged, open - with the point that each
 * belongs to, and the contents that they name: what usage.ts counts. A map that is gone since it was
 * listed, beside a service that folds, is left out.
 */

import type { Core } from '../core.ts';
import { isDamage, isNotFound } from '../format/object-header.ts';
import { type Leaf, leafDigests } from '../leaves/leaf.ts';
import type { LeafSource } from '../leaves/leaf-source.ts';
import { Base } from '../maps/base.ts';
import { listMaps } from '../maps/chain.ts';
import { openBase, openDelta } from '../maps/maps.ts';
import type { PointRecord } from '../points/point-format.ts';
import { generationsOf } from './map-upkeep.ts';

export interface UsedMap {
  /** The oldest point whose epoch the map leads to or past; null: none, or a base's. */
  readonly point: string | null;
  /** Number of the commit of that point. */
  readonly sequence: number;
  readonly isBase: boolean;
  /** Length of the file; 0 where it is not in the repository yet. */
  readonly bytes: number;
  open(): Promise<LeafSource>;
}

/** Points by volume and generation, with the epoch of each, ascending. */
type Epochs = Map<string, { epoch: number; record: PointRecord }[]>;

const keyOf = (volume: string, generation: string): string => JSON.stringify([volume, generation]);

async function epochsOf(core: Core, server: string): Promise<Epochs> {
  const epochs: Epochs = new Map();
  for (const { record } of await core.catalog.points({ server, order: 'oldest' })) {
    for (const { volume, generation, epoch } of record.volumes) {
      const key = keyOf(volume, generation);
      epochs.set(key, [...(epochs.get(key) ?? []), { epoch, record }]);
    }
  }
  for (const list of epochs.values()) list.sort((a, b) => a.epoch - b.epoch);
  return epochs;
}

export async function mapsOfServer(core: Core, server: string): Promise<UsedMap[]> {
  const epochs = await epochsOf(core, server);
  const found: UsedMap[] = [];
  for (const state of core.servers.get(server)?.volumes.values() ?? []) {
    const { volume } = state;
    for (const generation of await generationsOf(core, server, volume)) {
      const place = { server, volume, generation };
      const { bases, deltas } = await listMaps(core, place);
      for (const { from, to } of deltas) {
        const path = core.paths.delta(place, from, to);
        const open = () => openDelta(core, path);
        found.push({
          ...owner(epochs, place, to),
          isBase: false,
          bytes: await size(core, path),
          open,
        });
      }
      for (const epoch of bases) {
        const path = core.paths.base(place, epoch);
        const bytes = await size(core, path);
        const { sequence } = owner(epochs, place, epoch);
        found.push({
          point: null,
          sequence,
          isBase: true,
          bytes,
          open: () => openBase(core, path),
        });
      }
    }
    for (const { info, source } of state.staged) {
      const whose = owner(epochs, info, info.to);
      found.push({ ...whose, isBase: false, bytes: 0, open: async () => source });
    }
    const last = { point: null, sequence: Number.MAX_SAFE_INTEGER, isBase: false, bytes: 0 };
    for (const source of state.open?.sources() ?? []) {
      found.push({ ...last, open: async () => source });
    }
  }
  return found;
}

function owner(
  epochs: Epochs,
  { volume, generation }: { volume: string; generation: string },
  to: number,
): { point: string | null; sequence: number } {
  const first = epochs.get(keyOf(volume, generation))?.find(({ epoch }) => epoch >= to);
  return first === undefined
    ? { point: null, sequence: Number.MAX_SAFE_INTEGER }
    : { point: first.record.id, sequence: first.record.sequence };
}

async function size(core: Core, path: string): Promise<number> {
  try {
    return await core.files.with(path, (file) => file.size());
  } catch (error) {
    if (isNotFound(error)) return 0;
    throw error;
  }
}

/** Digests that the map names, with those of a base's tables; a digest may come often. */
export async function* digestsOf(core: Core, map: UsedMap): AsyncGenerator<Uint8Array> {
  try {
    const source = await map.open();
    if (source instanceof Base) {
      for (const digest of source.table) if (digest !== null) yield digest;
    }
    const numbers = source.leafNumbers();
    for (let i = 0; i < numbers.length; i += 1) {
      const bytes: Leaf | undefined = await source.read(numbers[i]!);
      if (bytes === undefined) continue;
      yield* leafDigests(bytes);
      await core.pace.spend(bytes.length);
    }
  } catch (error) {
    if (isNotFound(error)) return; // replaced since it was listed
    if (!isDamage(error)) throw error;
    core.log.warn('a damaged map is not counted', { error: error.message });
  }
}
