/**
 * Damage that the source can make good: a content that is right nowhere is no longer said to be held, the
 * volume's next session is told that nothing is, and a rescan sends what is hurt and nothing else. Points
 * that show the same contents are whole again; others stay hurt, and are told.
 */
import { beforeEach, describe, expect, it } from 'vitest';
import { CHUNK_BYTES } from '../../src/model/geometry.ts';
import type { Ingest } from '../../src/store/types.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { readableOf, StoreLife } from './support/store-life.ts';
import { commit, type Expected, pieceOf, SourceVolume } from './support/store-world.ts';

let disk: FaultyDisk;
let life: StoreLife;
const volume = () => life.volumes[0]!;
const settings = { smallPackBytes: 0, baseAfterDeltas: 1000 };

beforeEach(async () => {
  disk = new FaultyDisk();
  life = new StoreLife(disk, 9);
  life.volumes.length = 0;
  life.volumes.push(new SourceVolume('/dev/a', 12 * CHUNK_BYTES, 'a'.repeat(32)));
  for (let chunk = 0; chunk < 10; chunk += 1) {
    volume().content.set(life.random.bytes(CHUNK_BYTES), chunk * CHUNK_BYTES);
    for (let block = 0; block < 16; block += 1) volume().dirty.add(chunk * 16 + block);
  }
  await life.open(settings);
});

/** Commits what is dirty and seals it. */
async function point(ingest: Ingest): Promise<Expected> {
  const made = await life.writeAndCommit(ingest, 0);
  await life.store!.seal(made.id);
  await life.store!.check({ readData: false }); // waits for upkeep
  return made;
}

/** Flips a bit in the content of a chunk, wherever a pack holds it. */
function damage(chunk: number): void {
  const { verified } = pieceOf(volume().chunk(chunk));
  const stored = Buffer.from(verified!.stored);
  let found = 0;
  for (const path of disk.files('/data/repo/packs')) {
    const at = Buffer.from(disk.peek(path)).indexOf(stored.subarray(0, 64));
    if (at < 0) continue;
    disk.flip(path, at + 80);
    found += 1;
  }
  expect(found).toBe(1);
}

/** As an agent rescans: every chunk is offered under a new generation. Returns how many were sent. */
async function rescan(generation: string): Promise<number> {
  const source = volume();
  source.generation = generation;
  source.epoch = 0;
  const ingest = await life.store!.beginIngest('web', [source.description]);
  expect(ingest.positions[0]!.committed?.generation).not.toBe(generation);
  let sent = 0;
  for (let chunk = 0; chunk < 12; chunk += 1) {
    const { piece, verified } = pieceOf(source.chunk(chunk));
    const entry = { whole: piece, mask: 0, blocks: [] };
    const { need } = await ingest.offer(0, [{ index: chunk, count: 1, entry }], chunk + 1);
    if (need[0] !== 1) continue;
    await ingest.pieces([verified!]);
    sent += 1;
  }
  const made = await commit(ingest, [source], 1_800_000_000_000);
  life.acknowledged.push(made);
  await life.store!.seal(made.id);
  await life.store!.check({ readData: false });
  await ingest.close();
  return sent;
}

const demanded: string[] = [];
const listen = () => {
  demanded.length = 0;
  life.store!.watchRescans((server) => demanded.push(server));
};

const positionOf = async () => {
  const ingest = await life.store!.beginIngest('web', [volume().description]);
  await ingest.close();
  return ingest.positions[0]!.committed;
};

describe('damage that the source can make good', () => {
  it('is sent again by a rescan, and nothing else is; all points with it are whole, a check is clean', async () => {
    listen();
    const ingest = await life.connect();
    await point(ingest);
    volume().write(life.random, 10 * CHUNK_BYTES, CHUNK_BYTES);
    await point(ingest);
    await ingest.close();
    expect(await positionOf()).not.toBeNull();
    damage(3);
    damage(7);
    const { findings } = await life.store!.check({ readData: true });
    expect(findings.map(({ kind }) => kind)).toEqual(['damaged-piece', 'damaged-piece']);
    expect(findings[0]!.points).toEqual(life.acknowledged.map(({ id }) => id));
    await life.store!.check({ readData: false });
    expect(demanded).toEqual(['web']);
    expect(await positionOf()).toBeNull();
    expect(await readableOf(life, life.store!)).toEqual([]);
    expect(await rescan('b'.repeat(32))).toBe(2);
    expect(await readableOf(life, life.store!)).toEqual(life.acknowledged.map(({ id }) => id));
    expect(await positionOf()).not.toBeNull();
    expect((await life.store!.check({ readData: true })).findings).toEqual([]);
    await life.store!.close();
    disk.reopen();
    await life.open(settings);
    expect(await positionOf()).not.toBeNull();
    expect((await life.store!.check({ readData: true })).findings).toEqual([]);
  });

  it('is seen at the start where the newest maps are gone, before points are made upon the gap', async () => {
    const ingest = await life.connect();
    for (let i = 0; i < 3; i += 1) {
      volume().write(life.random, i * CHUNK_BYTES, CHUNK_BYTES);
      await point(ingest);
    }
    await ingest.close();
    await life.store!.close();
    disk.reopen();
    await life.open(settings);
    await life.store!.check({ readData: false }); // waits for upkeep
    expect(await positionOf()).not.toBeNull();
    await life.store!.close();
    disk.reopen();
    const maps = disk.files('/data/repo/deltas').sort();
    expect(maps.length).toBe(3);
    await disk.remove(maps.at(-1)!);
    await life.open(settings);
    await expect.poll(positionOf, { timeout: 30_000 }).toBeNull();
    await rescan('b'.repeat(32));
    expect(await readableOf(life, life.store!)).toContain(life.acknowledged.at(-1)!.id);
  });

  it('is known after a restart, before anything is read', async () => {
    const ingest = await life.connect();
    await point(ingest);
    await ingest.close();
    damage(3);
    await life.store!.check({ readData: true });
    await life.store!.check({ readData: false });
    await life.store!.close();
    disk.reopen();
    await life.open(settings);
    expect(await positionOf()).toBeNull();
    const { findings } = await life.store!.check({ readData: false });
    expect(findings.map(({ kind }) => kind)).toEqual(['damaged-piece']);
    expect(await rescan('b'.repeat(32))).toBe(1);
  });

  it('is noted when an image cannot be read', async () => {
    listen();
    const ingest = await life.connect();
    const { id } = await point(ingest);
    await ingest.close();
    damage(3);
    const image = await life.store!.openImage(id, '/dev/a');
    await expect(image.read(0, image.sizeBytes)).rejects.toMatchObject({
      code: 'ERR_PIECE_DAMAGED',
    });
    image.close();
    await life.store!.check({ readData: false });
    expect(demanded).toEqual(['web']);
    expect(await rescan('b'.repeat(32))).toBe(1);
    expect(await readableOf(life, life.store!)).toHaveLength(2);
  });

  it('asks for no rescan where only an older point is hurt: that stays so, and is told', async () => {
    listen();
    const ingest = await life.connect();
    const old = await point(ingest);
    const former = volume().chunk(3).slice();
    volume().content.set(life.random.bytes(CHUNK_BYTES), 3 * CHUNK_BYTES);
    for (let block = 0; block < 16; block += 1) volume().dirty.add(3 * 16 + block);
    const now = await point(ingest);
    await ingest.close();
    const current = volume().chunk(3).slice();
    volume().content.set(former, 3 * CHUNK_BYTES);
    damage(3);
    volume().content.set(current, 3 * CHUNK_BYTES);
    const { findings } = await life.store!.check({ readData: true });
    await life.store!.check({ readData: false });
    expect(findings.flatMap(({ points }) => points)).toEqual([old.id]);
    expect(demanded).toEqual([]);
    expect(await positionOf()).not.toBeNull();
    expect(await readableOf(life, life.store!)).toEqual([now.id]);
  });

  it('asks for a rescan where no maps lead to the newest state', async () => {
    listen();
    const ingest = await life.connect();
    await point(ingest);
    volume().write(life.random, 5000, 3000);
    await point(ingest);
    await ingest.close();
    for (const path of disk.files('/data/repo/deltas')) {
      if (path.endsWith('0000000001-0000000002.delta')) disk.flip(path, 40);
    }
    expect((await life.store!.check({ readData: false })).findings).toHaveLength(1);
    await life.store!.check({ readData: false });
    expect(demanded).toEqual(['web']);
    expect(await positionOf()).toBeNull();
    // The contents are all there: nothing but the map is made anew.
    expect(await rescan('b'.repeat(32))).toBeLessThanOrEqual(1);
    const read = await readableOf(life, life.store!);
    expect(read).toEqual([life.acknowledged[0]!.id, life.acknowledged[2]!.id]);
  });

  it('takes back what was read right after all', async () => {
    const ingest = await life.connect();
    await point(ingest);
    await ingest.close();
    damage(3);
    expect((await life.store!.check({ readData: true })).findings).toHaveLength(1);
    damage(3); // the bit as it was
    expect((await life.store!.check({ readData: true })).findings).toEqual([]);
    expect((await life.store!.check({ readData: false })).findings).toEqual([]);
  });
});
