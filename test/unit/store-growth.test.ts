/**
 * What a point costs does not grow with the repository: sealing the same change in a repository ten times
 * as large takes as many calls of the disk, lists as many folders, and moves as many bytes.
 */
import { describe, expect, it } from 'vitest';
import { countingDisk, type DiskCounts, noCounts } from '../../scripts/lib/counting-disk.ts';
import { ManyChunks } from '../../scripts/lib/small-contents.ts';
import { silentLog } from '../../src/base/log.ts';
import { MemoryCatalog } from '../../src/store/catalog/catalog-memory.ts';
import { openStore } from '../../src/store/open-store.ts';
import { Random } from '../simulation/random.ts';
import { VirtualClock } from '../simulation/virtual-clock.ts';
import { FaultyDisk } from './support/faulty-disk.ts';

const CHANGED_CHUNKS = 8;
const POINTS = 12;

interface Cost {
  /** Of each point: to seal it, and with the upkeep that followed. */
  readonly sealed: readonly DiskCounts[];
  readonly withUpkeep: readonly DiskCounts[];
}

const since = (now: DiskCounts, then: DiskCounts): DiskCounts => ({
  calls: now.calls - then.calls,
  syncs: now.syncs - then.syncs,
  lists: now.lists - then.lists,
  readBytes: now.readBytes - then.readBytes,
  writtenBytes: now.writtenBytes - then.writtenBytes,
});

/** A repository of `chunks` chunks and `history` points, and then points with a fixed change. */
async function costOf(chunks: number, history: number): Promise<Cost> {
  const counts = noCounts();
  const random = new Random(1);
  const store = await openStore({
    disk: countingDisk(new FaultyDisk().mount(), counts),
    ...{ clock: new VirtualClock(), root: '/data', catalog: new MemoryCatalog(), log: silentLog },
    randomBytes: (count) => random.bytes(count),
    // No merge or base falls due while it is counted; what was published goes to index objects.
    settings: { smallPackBytes: 0, baseAfterDeltas: 1000, indexMemoryEntries: 256 },
  });
  const volume = new ManyChunks(chunks);
  const ingest = await store.beginIngest('many', [volume.description]);
  await volume.write(ingest, 0, chunks);
  const point = async (i: number) => store.seal(await volume.commit(ingest, i * 1000));
  const rest = async () => {
    for (let i = 0; i < 2; i += 1) await store.check({ readData: false });
  };
  await point(0);
  for (let i = 1; i <= history; i += 1) {
    await volume.write(ingest, i % chunks, 1);
    await point(i);
  }
  await rest();
  const sealed: DiskCounts[] = [];
  const withUpkeep: DiskCounts[] = [];
  for (let i = 1; i <= POINTS; i += 1) {
    const before = { ...counts };
    await volume.write(ingest, (i * 31) % (chunks - CHANGED_CHUNKS), CHANGED_CHUNKS);
    await point(history + i);
    sealed.push(since(counts, before));
    await store.applyRetention({ drop: [] }); // waits for the lane
    withUpkeep.push(since(counts, before));
  }
  await ingest.close();
  await store.close();
  return { sealed, withUpkeep };
}

const sum = (costs: readonly DiskCounts[], name: keyof DiskCounts): number =>
  costs.reduce((total, cost) => total + cost[name], 0);

describe('a repository that grows', () => {
  it('takes as many calls and bytes for a point', async () => {
    const small = await costOf(200, 5);
    const large = await costOf(2000, 50);
    for (const name of ['calls', 'syncs', 'lists', 'writtenBytes', 'readBytes'] as const) {
      const [a, b] = [sum(small.sealed, name), sum(large.sealed, name)];
      expect(b, `${name} of sealing`).toBeLessThanOrEqual(a * 1.05 + 2 * POINTS);
    }
    // Upkeep may read a header of the deltas that lie over the last base; no more than that.
    for (const name of ['calls', 'syncs', 'lists', 'writtenBytes'] as const) {
      const [a, b] = [sum(small.withUpkeep, name), sum(large.withUpkeep, name)];
      expect(b, `${name} with upkeep`).toBeLessThanOrEqual(a * 1.2 + 4 * POINTS);
    }
  });
});
