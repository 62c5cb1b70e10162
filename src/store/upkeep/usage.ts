/**
 * What servers and points take: how much they stand for, how much of it is distinct, and what that takes as
 * stored. All maps are read once or twice, in memory that does not grow with them: which contents were seen
 * is told by Bloom filters, so about 1 in 100 distinct contents is taken for one seen already, and the
 * figures are estimates, a little low. Nothing is written.
 *
 * By server: distinct contents that its points, its open epoch and its bases name; those that other servers
 * name as well are `shared`. By point: what its epoch says changed, and what of that no older point of any
 * server had; contents that upkeep made (chunks put together for a base) belong to no point.
 */

import type { Core } from '../core.ts';
import { Bloom } from '../packs/bloom.ts';
import type { PointUsage, ServerUsage, Usage, UsageSums } from '../types.ts';
import { MAX_FILTER_BYTES } from './mark.ts';
import { digestsOf, mapsOfServer, type UsedMap } from './used-maps.ts';

/** Called in the lane of upkeep, where there is one. */
export const usageOf = (core: Core, by: 'server' | 'point'): Promise<Usage> =>
  by === 'server' ? usageByServer(core) : usageByPoint(core);

async function usageByServer(core: Core): Promise<Usage> {
  const census = new Census(core);
  const servers: ServerUsage[] = [];
  const walked: { server: string; sums: UsageSums }[] = [];
  const all = census.filter();
  const twice = census.filter();
  const totals = noSums();
  for (const server of [...core.servers.keys()].sort()) {
    const sums = noSums();
    for await (const content of census.distinct(await mapsOfServer(core, server))) {
      if (all.mayHave(content.digest)) twice.add(content.digest);
      else add(totals, content);
      all.add(content.digest);
      add(sums, content);
    }
    walked.push({ server, sums });
  }
  for (const { server, sums } of walked) {
    const shared = noSums();
    for await (const content of census.distinct(await mapsOfServer(core, server))) {
      if (twice.mayHave(content.digest)) add(shared, content);
    }
    const points = await core.catalog.points({ server });
    const logicalBytes = points.reduce((sum, { record }) => sum + sizeOf(record), 0);
    if (points.length === 0 && sums.contents === 0) continue;
    const { storedBytes: sharedStoredBytes } = shared;
    servers.push({ server, points: points.length, logicalBytes, ...sums, sharedStoredBytes });
  }
  const logicalBytes = servers.reduce((sum, row) => sum + row.logicalBytes, 0);
  return { logicalBytes, ...totals, servers, points: [], isEstimate: true };
}

async function usageByPoint(core: Core): Promise<Usage> {
  const census = new Census(core);
  const rows = new Map<string, { -readonly [K in keyof PointUsage]: PointUsage[K] }>();
  const points = await core.catalog.points({ order: 'oldest' });
  for (const { record } of points) {
    const { id, server, time } = record;
    const sums = { changedContents: 0, changedBytes: 0, newContents: 0, newBytes: 0 };
    const none = { ...sums, newStoredBytes: 0, mapBytes: 0 };
    rows.set(id, { point: id, server, time, logicalBytes: sizeOf(record), ...none });
  }
  const seen = census.filter();
  const totals = noSums();
  for (const map of await mapsByCommit(core)) {
    const row = map.point === null ? undefined : rows.get(map.point);
    if (row !== undefined) row.mapBytes += map.bytes;
    for await (const content of census.contents(map)) {
      const isNew = !seen.mayHave(content.digest);
      seen.add(content.digest);
      if (isNew) add(totals, content);
      if (row === undefined) continue;
      row.changedContents += 1;
      row.changedBytes += content.rawBytes;
      if (!isNew) continue;
      row.newContents += 1;
      row.newBytes += content.rawBytes;
      row.newStoredBytes += content.storedBytes;
    }
  }
  const logicalBytes = points.reduce((sum, { record }) => sum + sizeOf(record), 0);
  return { logicalBytes, ...totals, servers: [], points: [...rows.values()], isEstimate: true };
}

/** Of all servers, in the order of their commits; bases last. */
async function mapsByCommit(core: Core): Promise<UsedMap[]> {
  const maps: UsedMap[] = [];
  for (const server of core.servers.keys()) maps.push(...(await mapsOfServer(core, server)));
  return maps.sort((a, b) => Number(a.isBase) - Number(b.isBase) || a.sequence - b.sequence);
}

const sizeOf = ({ volumes }: { volumes: readonly { sizeBytes: number }[] }): number =>
  volumes.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);

interface Content {
  readonly digest: Uint8Array;
  readonly rawBytes: number;
  readonly storedBytes: number;
}

const noSums = () => ({ contents: 0, rawBytes: 0, storedBytes: 0 });

function add(sums: ReturnType<typeof noSums>, { rawBytes, storedBytes }: Content): void {
  sums.contents += 1;
  sums.rawBytes += rawBytes;
  sums.storedBytes += storedBytes;
}

class Census {
  private readonly core: Core;
  private readonly pieces: number;

  constructor(core: Core) {
    this.core = core;
    const packs = [...core.packs.all()];
    // Of segments it is not known yet how many they have.
    const known = packs.reduce((sum, pack) => sum + pack.pieces, 0);
    this.pieces = known + packs.filter(({ isPublished }) => !isPublished).length * 4096;
  }

  filter(): Bloom {
    return Bloom.sized(Math.max(this.pieces, 1024), MAX_FILTER_BYTES);
  }

  /** Contents that a map names, as often as it does. */
  async *contents(map: UsedMap): AsyncGenerator<Content> {
    for await (const digest of digestsOf(this.core, map)) {
      const place = await this.core.index.find(digest);
      if (place === null) continue; // a check tells of it
      yield { digest, rawBytes: place.rawLength, storedBytes: place.storedLength };
    }
  }

  /** Contents that any of the maps names, once. */
  async *distinct(maps: readonly UsedMap[]): AsyncGenerator<Content> {
    const seen = this.filter();
    for (const map of maps) {
      for await (const digest of digestsOf(this.core, map)) {
        if (seen.mayHave(digest)) continue;
        seen.add(digest);
        const place = await this.core.index.find(digest);
        if (place === null) continue;
        yield { digest, rawBytes: place.rawLength, storedBytes: place.storedLength };
      }
    }
  }
}
