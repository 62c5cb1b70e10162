/**
 * Which volumes have a newest state that cannot be read wholly: a content of it is right nowhere, or no
 * maps lead there. Their agents have what is missing, as far as the source still has it, so a rescan is
 * demanded: the agent begins a new generation, offers every chunk, and is asked for what is not held. A
 * demand is about one generation, and over when the volume has left it.
 */

import { leafCount } from '../../model/geometry.ts';
import type { VolumeHead } from '../catalog/catalog.ts';
import type { Core, VolumeState } from '../core.ts';
import { toHex } from '../format/checksum.ts';
import { isDamage, isNotFound } from '../format/object-header.ts';
import { leafDigests } from '../leaves/leaf.ts';
import { listMaps, openChain, unledEpochs } from '../maps/chain.ts';

/** So many contents are looked for at a time. */
const BATCH = 4096;

interface Look {
  isHurt(core: Core, head: VolumeHead, state: VolumeState): Promise<boolean>;
  /** What is hurt so is hurt in every later epoch, too. */
  readonly isForAll: boolean;
}

/** Reads the newest state of every volume; returns the servers of which a rescan is demanded now and was not before. */
export const demandRescans = (core: Core): Promise<string[]> =>
  demandWhere(core, { isHurt, isForAll: false });

/** The same by the names of the maps alone: what a service can afford at each start. */
export const demandUnled = (core: Core): Promise<string[]> =>
  demandWhere(core, { isHurt: isUnled, isForAll: true });

async function demandWhere(core: Core, look: Look): Promise<string[]> {
  const fresh = new Set<string>();
  for (const server of core.servers.values()) {
    for (const state of server.volumes.values()) {
      const { head } = state;
      if (head === null || core.damage.demands(head)) continue;
      if (!(await look.isHurt(core, head, state))) continue;
      if (head.generation !== state.head?.generation) continue;
      if (head !== state.head && !look.isForAll) continue; // it has moved on: the next look tells
      core.damage.demand(head);
      fresh.add(head.server);
      const { volume, generation, epoch } = head;
      const fields = { server: head.server, volume, generation, epoch };
      core.log.error('the newest state of a volume is damaged: a rescan is demanded', fields);
    }
  }
  dropOld(core);
  await core.damage.save();
  return [...fresh];
}

/** Demands of generations that were left. */
function dropOld(core: Core): void {
  for (const place of core.damage.demanded) {
    const head = core.servers.get(place.server)?.volumes.get(place.volume)?.head;
    if (head?.generation !== place.generation) core.damage.withdraw(place);
  }
}

/** No maps lead there: of the repository, and of what is not sealed yet. */
async function isUnled(core: Core, head: VolumeHead, { staged }: VolumeState): Promise<boolean> {
  const { generation, epoch } = head;
  const own = staged.map(({ info }) => info).filter((info) => info.generation === generation);
  const { bases, deltas } = await listMaps(core, head);
  return unledEpochs({ bases, deltas: [...deltas, ...own] }, [epoch]).length > 0;
}

async function isHurt(core: Core, head: VolumeHead, { staged }: VolumeState): Promise<boolean> {
  try {
    const chain = await openChain(core, head, head.epoch, staged, { root: head.chainRoot });
    let wanted = new Map<string, Uint8Array>();
    for (let leaf = 0; leaf < leafCount(head.sizeBytes); leaf += 1) {
      const bytes = await chain.read(leaf);
      if (bytes === undefined) return true;
      for (const digest of leafDigests(bytes)) {
        if ((await core.index.find(digest)) === null) wanted.set(toHex(digest), digest.slice());
      }
      if (wanted.size < BATCH) continue;
      if (await isLost(core, [...wanted.values()])) return true;
      wanted = new Map();
    }
    return wanted.size > 0 && (await isLost(core, [...wanted.values()]));
  } catch (error) {
    if (isNotFound(error)) return false; // a fold has replaced the maps: the next look tells
    if (!isDamage(error)) throw error;
    return true;
  }
}

/** True where one of the contents is in no pack, or noted as damaged in those that have it. */
async function isLost(core: Core, digests: readonly Uint8Array[]): Promise<boolean> {
  const places = await core.copies.search(digests);
  return digests.some((digest) => {
    const found = places.get(toHex(digest)) ?? [];
    return !found.some(({ pack }) => !core.damage.has(pack, digest));
  });
}
