/**
 * Ids of points are a time and 32 bits of chance: on a large service two servers cut in the same millisecond
 * often enough that the chance runs out some day. Neither of the two points may be lost by it.
 */
import { describe, expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { CHUNK_BYTES } from '../../src/model/geometry.ts';
import { MemoryCatalog } from '../../src/store/catalog/catalog-memory.ts';
import { openStore } from '../../src/store/open-store.ts';
import type { Store } from '../../src/store/types.ts';
import { Random } from '../simulation/random.ts';
import { VirtualClock } from '../simulation/virtual-clock.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { withKeys } from './support/key-mode.ts';
import { readsAs } from './support/store-life.ts';
import { commit, SourceVolume, sync } from './support/store-world.ts';

const TIME = 1_700_000_000_000;
const SUFFIX_BYTES = 4;

class World {
  readonly disk = new FaultyDisk();
  readonly random = new Random(3);
  /** So many draws of the random part of an id give the same. */
  same = 0;
  store!: Store;

  async open(): Promise<void> {
    this.store = await openStore({
      ...withKeys,
      disk: this.disk.mount(),
      clock: new VirtualClock(),
      randomBytes: (count) => (count === SUFFIX_BYTES ? this.suffix() : this.random.bytes(count)),
      root: '/data',
      catalog: new MemoryCatalog(),
      log: silentLog,
    });
  }

  private suffix(): Uint8Array {
    this.same -= 1;
    return this.same >= 0 ? new Uint8Array(SUFFIX_BYTES) : this.random.bytes(SUFFIX_BYTES);
  }

  async server(name: string) {
    const volume = new SourceVolume(`/dev/${name}`, 2 * CHUNK_BYTES, name.padStart(32, '0'));
    volume.content.set(this.random.bytes(CHUNK_BYTES));
    const ingest = await this.store.beginIngest(name, [volume.description]);
    await sync(ingest, 0, volume);
    return { commit: () => commit(ingest, [volume], TIME), close: () => ingest.close() };
  }
}

describe('two points of one millisecond whose random parts are the same', () => {
  async function expectBoth(take: (a: World) => Promise<Awaited<ReturnType<typeof commit>>[]>) {
    const world = new World();
    await world.open();
    const points = await take(world);
    expect(new Set(points.map(({ id }) => id)).size).toBe(points.length);
    await world.store.close();
    await world.open();
    for (const point of points) expect(await readsAs(world.store, point)).toBe(true);
    expect((await world.store.check({ readData: true })).findings).toEqual([]);
    await world.store.close();
  }

  it('both stay, committed at once', () =>
    expectBoth(async (world) => {
      const [a, b] = [await world.server('a'), await world.server('b')];
      world.same = 2;
      const points = await Promise.all([a.commit(), b.commit()]);
      await Promise.all([a.close(), b.close()]);
      return points;
    }));

  it('both stay, committed one after the other', () =>
    expectBoth(async (world) => {
      const [a, b] = [await world.server('a'), await world.server('b')];
      world.same = 2;
      const points = [await a.commit(), await b.commit()];
      await Promise.all([a.close(), b.close()]);
      return points;
    }));

  it('both stay where the first one is sealed by then', () =>
    expectBoth(async (world) => {
      const [a, b] = [await world.server('a'), await world.server('b')];
      world.same = 2;
      const first = await a.commit();
      await world.store.seal(first.id);
      const points = [first, await b.commit()];
      await Promise.all([a.close(), b.close()]);
      return points;
    }));
});
