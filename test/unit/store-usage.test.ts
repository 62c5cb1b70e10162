/**
 * What servers and points take, held against what was written: two servers of one image, a point that
 * changes little, what dropping points frees. Of so few contents the filters miss none, so that figures
 * that are estimates elsewhere are exact here.
 */
import { describe, expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { BLOCK_BYTES, CHUNK_BYTES } from '../../src/model/geometry.ts';
import { openRepository } from '../../src/store/offline.ts';
import type { Ingest, Store } from '../../src/store/types.ts';
import { Random } from '../simulation/random.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { commit, drain, openWithoutGrace, SourceVolume, sync } from './support/store-world.ts';

const CHUNKS = 20;
const T = 1_700_000_000_000;

class World {
  readonly disk = new FaultyDisk();
  readonly random = new Random(9);
  store!: Store;
  private seconds = 0;

  async open(): Promise<void> {
    this.store = await openWithoutGrace(this.disk, this.random);
  }

  /** A server whose volume begins with `shared` chunks of the one image, and has `own` of its own. */
  async server(name: string, shared: number, own: number): Promise<[Ingest, SourceVolume]> {
    const volume = new SourceVolume('/dev/a', (CHUNKS + 4) * CHUNK_BYTES, name.repeat(32));
    volume.content.set(new Random(77).bytes(shared * CHUNK_BYTES));
    volume.content.set(this.random.bytes(own * CHUNK_BYTES), shared * CHUNK_BYTES);
    const ingest = await this.store.beginIngest(name, [volume.description]);
    await sync(ingest, 0, volume);
    await this.point(ingest, volume);
    return [ingest, volume];
  }

  async point(ingest: Ingest, volume: SourceVolume): Promise<string> {
    await drain(ingest, 0, volume);
    this.seconds += 1;
    const { id } = await commit(ingest, [volume], T + this.seconds * 1000);
    await this.store.seal(id);
    return id;
  }

  write(volume: SourceVolume, block: number): void {
    volume.content.set(this.random.bytes(BLOCK_BYTES), block * BLOCK_BYTES);
    volume.dirty.add(block);
  }
}

describe('usage', () => {
  it('by server tells what is distinct, stored and shared', async () => {
    const world = new World();
    await world.open();
    const [a] = await world.server('a', CHUNKS, 0);
    const [b] = await world.server('b', CHUNKS - 5, 3);
    const usage = await world.store.usage('server');
    const [first, second] = usage.servers;
    const tables = 2; // bases' tables count, one a server
    expect(usage.contents).toBe(CHUNKS + 3 + tables);
    expect(first).toMatchObject({ server: 'a', points: 1, contents: CHUNKS + 1 });
    expect(second).toMatchObject({ server: 'b', points: 1, contents: CHUNKS - 5 + 3 + 1 });
    const size = (CHUNKS + 4) * CHUNK_BYTES;
    expect(usage.logicalBytes).toBe(2 * size);
    expect(first!.logicalBytes).toBe(size);
    expect(first!.sharedStoredBytes).toBe((CHUNKS - 5) * CHUNK_BYTES);
    expect(second!.sharedStoredBytes).toBe((CHUNKS - 5) * CHUNK_BYTES);
    // Two servers of one image cost little more than one.
    const alone = second!.storedBytes - second!.sharedStoredBytes;
    expect(usage.storedBytes - first!.storedBytes).toBe(alone);
    expect(alone).toBeLessThan(3.1 * CHUNK_BYTES);
    await a.close();
    await b.close();
    await world.store.close();
    world.disk.reopen();
    const offline = await openRepository('/data', silentLog, world.disk.mount());
    expect(await offline.usage('server')).toEqual(usage);
    expect(await offline.statistics()).toMatchObject({ points: 2, servers: 2 });
    await offline.close();
  });

  it('by point tells what changed and what it added, sealed or staged', async () => {
    const world = new World();
    await world.open();
    const [ingest, volume] = await world.server('a', CHUNKS, 0);
    for (let block = 0; block < 40; block += 10) world.write(volume, block);
    await world.point(ingest, volume);
    // The same content in two blocks, and one that an older point has.
    world.write(volume, 50);
    volume.content.copyWithin(60 * BLOCK_BYTES, 50 * BLOCK_BYTES, 51 * BLOCK_BYTES);
    volume.content.copyWithin(70 * BLOCK_BYTES, 0, BLOCK_BYTES);
    for (const block of [60, 70]) volume.dirty.add(block);
    await drain(ingest, 0, volume);
    await commit(ingest, [volume], T + 60_000);
    const { points } = await world.store.usage('point');
    expect(
      points.map(({ changedContents, newContents }) => [changedContents, newContents]),
    ).toEqual([
      [CHUNKS, CHUNKS],
      [4, 4],
      [3, 1],
    ]);
    expect(points[1]).toMatchObject({ newBytes: 4 * BLOCK_BYTES, newStoredBytes: 4 * BLOCK_BYTES });
    expect(points[1]!.mapBytes).toBeGreaterThan(0);
    expect(points[2]).toMatchObject({ changedBytes: 3 * BLOCK_BYTES, mapBytes: 0 });
    await ingest.close();
    await world.store.close();
  });

  it('an estimate of what a drop frees is what collection then finds dead', async () => {
    const world = new World();
    await world.open();
    const [ingest, volume] = await world.server('a', CHUNKS, 0);
    const ids: string[] = [];
    for (let round = 0; round < 6; round += 1) {
      for (const block of [0, 100 + round]) world.write(volume, block);
      ids.push(await world.point(ingest, volume));
    }
    await ingest.close();
    const drop = ids.slice(0, 4);
    const freed = await world.store.estimateFreed(drop);
    // Block 0 of four points is overwritten; what they wrote beside it is still seen by the later ones.
    expect(freed.contents).toBe(4);
    expect(freed.storedBytes).toBe(4 * (BLOCK_BYTES + 64));
    const before = await world.store.usage('point');
    await world.store.applyRetention({ drop });
    const after = await world.store.usage('point');
    expect(before.contents - after.contents).toBe(freed.contents);
    expect(await world.store.estimateFreed([])).toMatchObject({ contents: 0, storedBytes: 0 });
    await world.store.close();
  });
});
