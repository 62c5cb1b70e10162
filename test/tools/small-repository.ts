/**
 * A repository of a few KiB with one of everything: packs, deltas, a fold, bases, points, an index object
 * and the mark of a condemned pack. The same bytes for the same code: fixtures are made of it.
 */
import { silentLog } from '../../src/base/log.ts';
import { CHUNK_BYTES } from '../../src/model/geometry.ts';
import { MemoryCatalog } from '../../src/store/catalog/catalog-memory.ts';
import { createCore } from '../../src/store/create-core.ts';
import { plainVault, type Vault } from '../../src/store/keys/vault.ts';
import { openStore } from '../../src/store/open-store.ts';
import { readPack } from '../../src/store/packs/pack-entries.ts';
import { footerEntries } from '../../src/store/packs/pack-format.ts';
import { condemn } from '../../src/store/repository/condemned.ts';
import { PackWriter } from '../../src/store/repository/pack-writer.ts';
import { loadPacks } from '../../src/store/repository/repository.ts';
import type { Ingest, Store } from '../../src/store/types.ts';
import { Random } from '../simulation/random.ts';
import { VirtualClock } from '../simulation/virtual-clock.ts';
import { FaultyDisk } from '../unit/support/faulty-disk.ts';
import { commit, drain, type Expected, SourceVolume, sync } from '../unit/support/store-world.ts';

/** Path below the data directory, and bytes. */
export type Files = Map<string, Uint8Array>;

export interface SmallRepository {
  readonly files: Files;
  /** Oldest first. */
  readonly points: readonly Expected[];
}

const BLOCK = 4096;
const START_MS = Date.UTC(2026, 0, 1);

/** Fills blocks with text that says what they are: it packs well, and differs from block to block. */
function fill(volume: SourceVolume, first: number, count: number, word: string): void {
  for (let block = first; block < first + count; block += 1) {
    const end = Math.min((block + 1) * BLOCK, volume.content.length);
    const text = Buffer.alloc(end - block * BLOCK, `${volume.volume} ${block} ${word}; `);
    volume.content.set(text, block * BLOCK);
    volume.dirty.add(block);
  }
}

class Maker {
  readonly points: Expected[] = [];
  private readonly store: Store;
  private readonly ingest: Ingest;
  private readonly volumes: readonly SourceVolume[];
  private cuts = 0;

  constructor(store: Store, ingest: Ingest, volumes: readonly SourceVolume[]) {
    this.store = store;
    this.ingest = ingest;
    this.volumes = volumes;
  }

  /** A sealed point of what was filled since the last one; resolves when upkeep rests again. */
  async point(): Promise<void> {
    for (const [i, volume] of this.volumes.entries()) await drain(this.ingest, i, volume);
    const timeMs = START_MS + this.cuts * 60_000;
    this.cuts += 1;
    const point = await commit(this.ingest, this.volumes, timeMs);
    this.points.push(point);
    await this.store.seal(point.id);
    await this.rest();
  }

  async drop(at: number): Promise<void> {
    const [point] = this.points.splice(at, 1);
    await this.store.applyRetention({ drop: [point!.id] });
    await this.store.collect();
  }

  /** Checks wait for their turn in the lane of upkeep. */
  private async rest(): Promise<void> {
    for (let i = 0; i < 3; i += 1) await this.store.check({ readData: false });
  }
}

/** A second copy of the smallest pack, condemned: as a collection leaves it for an hour. */
async function condemnCopy(
  disk: FaultyDisk,
  clock: VirtualClock,
  random: Random,
  vault: Vault,
): Promise<void> {
  const core = createCore({
    ...{ disk: disk.mount(), clock, root: '/data', log: silentLog, vault },
    ...{ catalog: new MemoryCatalog(), randomBytes: (count) => random.bytes(count) },
  });
  await loadPacks(core);
  const packs = [...core.packs.all()].sort((x, y) => x.fileBytes - y.fileBytes);
  const writer = new PackWriter(core);
  for (const entry of footerEntries((await readPack(core.files, packs[0]!.path)).footer)) {
    const stored = new Uint8Array(entry.storedLength);
    await core.files.with(packs[0]!.path, (file) => file.read(stored, entry.offset));
    await writer.copy(entry, stored);
  }
  await writer.finish();
  const known = new Set(packs.map(({ id }) => id));
  for (const { id } of [...core.packs.all()]) if (!known.has(id)) await condemn(core, id);
  await core.files.close();
}

/** `vault`: with the keys of an encrypted one. */
export async function smallRepository(vault: Vault = plainVault): Promise<SmallRepository> {
  const disk = new FaultyDisk();
  const random = new Random(20260101);
  const clock = new VirtualClock();
  const store = await openStore({
    ...{ disk: disk.mount(), clock, root: '/data', log: silentLog, vault },
    ...{ catalog: new MemoryCatalog(), randomBytes: (count) => random.bytes(count) },
    settings: { indexMemoryEntries: 12, baseAfterDeltas: 4, baseMaxGrowth: 99, smallPackBytes: 0 },
  });
  const a = new SourceVolume('/dev/a', 5 * CHUNK_BYTES + 5000, 'a'.repeat(32));
  const b = new SourceVolume('/dev/b', 2 * CHUNK_BYTES, 'b'.repeat(32));
  const volumes = [a, b];
  fill(a, 0, 40, 'first');
  fill(a, 80, 2, 'first');
  fill(b, 16, 16, 'first');
  const ingest = await store.beginIngest(
    'web',
    volumes.map(({ description }) => description),
  );
  for (const [i, volume] of volumes.entries()) {
    await sync(ingest, i, volume);
    volume.dirty.clear();
  }
  const maker = new Maker(store, ingest, volumes);
  await maker.point();
  fill(a, 3, 2, 'second');
  fill(b, 0, 1, 'second');
  await maker.point();
  fill(a, 16, 16, 'third');
  await maker.point();
  fill(a, 16, 16, 'fourth');
  fill(b, 17, 3, 'fourth');
  await maker.point();
  await maker.drop(2);
  await clock.runUntil(clock.monotonicMs() + 2 * 3_600_000);
  await store.collect(); // what was condemned goes
  fill(a, 50, 4, 'fifth');
  await maker.point();
  fill(a, 51, 1, 'sixth');
  fill(b, 1, 1, 'sixth');
  fill(b, 30, 2, 'sixth');
  await maker.point();
  await ingest.close();
  await store.close();
  disk.reopen();
  await condemnCopy(disk, clock, random, vault);
  const files: Files = new Map();
  for (const path of disk.files('/data')) files.set(path.slice('/data/'.length), disk.peek(path));
  return { files, points: maker.points };
}
