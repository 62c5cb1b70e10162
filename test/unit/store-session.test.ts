/** What a session is told: what staging lacks, what differs, what is missing, what was committed before. */
import { beforeEach, describe, expect, it } from 'vitest';
import { UnderstudyError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import { patchEntry, wholeEntry, ZERO_ENTRY } from '../../src/model/entry.ts';
import { CHUNK_BYTES } from '../../src/model/geometry.ts';
import { MemoryCatalog } from '../../src/store/catalog/catalog-memory.ts';
import { openStore } from '../../src/store/open-store.ts';
import type { CommitRequest, Ingest, Store, VerifiedPiece } from '../../src/store/types.ts';
import { Random } from '../simulation/random.ts';
import { VirtualClock } from '../simulation/virtual-clock.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { withKeys } from './support/key-mode.ts';
import { cut, pieceOf, sha256 } from './support/store-world.ts';

const GENERATION = 'a'.repeat(32);
const CHUNKS = 4;
const description = {
  volume: '/dev/a',
  sizeBytes: CHUNKS * CHUNK_BYTES,
  sectorBytes: 512,
  generation: GENERATION,
};

let disk: FaultyDisk;
let random: Random;
let store: Store;

async function open(): Promise<Store> {
  return openStore({
    ...withKeys,
    disk: disk.mount(),
    clock: new VirtualClock(),
    randomBytes: (count) => random.bytes(count),
    root: '/data',
    catalog: new MemoryCatalog(),
    log: silentLog,
  });
}

beforeEach(async () => {
  disk = new FaultyDisk();
  random = new Random(1);
  store = await open();
});

const contentOf = (seed: number, length = CHUNK_BYTES): Uint8Array =>
  new Uint8Array(length).fill(seed).map((byte, i) => (i % 251 === 0 ? byte ^ 0x55 : byte));
const verified = (seed: number, length?: number): VerifiedPiece =>
  pieceOf(contentOf(seed, length)).verified!;
const wholes = (seeds: number[], first = 0) =>
  seeds.map((seed, i) => ({
    index: first + i,
    count: 1,
    entry: wholeEntry(verified(seed).digest),
  }));

const request = (epoch: number, more: Partial<CommitRequest> = {}): CommitRequest => ({
  timeMs: 1_700_000_000_000 + epoch * 1000,
  cut,
  requestId: '',
  volumes: [{ volume: 0, generation: GENERATION, epoch, contentDigest: `${epoch}`.repeat(64) }],
  missingVolumes: [],
  ...more,
});

async function syncAll(ingest: Ingest, seeds: number[]): Promise<number[]> {
  const { need } = await ingest.offer(0, wholes(seeds), seeds.length);
  await ingest.pieces(seeds.filter((_, i) => need[i] === 1).map((seed) => verified(seed)));
  return [...need];
}

const codeOf = (run: Promise<unknown>): Promise<string> =>
  run.then(
    () => 'none',
    (error: unknown) => (error instanceof UnderstudyError ? error.code : String(error)),
  );

async function readChunk(point: string, chunk: number): Promise<Uint8Array> {
  const image = await store.openImage(point, '/dev/a');
  const bytes = await image.read(chunk * CHUNK_BYTES, CHUNK_BYTES);
  image.close();
  return bytes;
}

describe('offers', () => {
  it('are answered by what is lacking: once for a content, however often it comes', async () => {
    const ingest = await store.beginIngest('web', [description]);
    expect([...(await ingest.offer(0, wholes([1, 1, 2]), 3)).need]).toEqual([1, 0, 1]);
    expect([...(await ingest.offer(0, wholes([2, 1], 2), 4)).need]).toEqual([0, 0]);
    await ingest.pieces([verified(1), verified(2)]);
    expect([...(await ingest.offer(0, wholes([1, 2, 3]), 0)).need]).toEqual([0, 0, 1]);
  });

  it('tell how many chunks differ from what is held, in the open epoch and the committed one', async () => {
    const ingest = await store.beginIngest('web', [description]);
    const zeros = { index: 0, count: CHUNKS, entry: ZERO_ENTRY };
    expect((await ingest.offer(0, [zeros], CHUNKS)).changed).toBe(CHUNKS);
    expect((await ingest.offer(0, [zeros], 0)).changed).toBe(0);
    expect((await ingest.offer(0, wholes([1], 2), 0)).changed).toBe(1);
    await ingest.pieces([verified(1)]);
    await ingest.commit(request(1));
    expect((await ingest.offer(0, [zeros], 0)).changed).toBe(1);
    expect((await ingest.offer(0, wholes([1], 2), 0)).changed).toBe(1);
    expect((await ingest.offer(0, wholes([1], 2), 0)).changed).toBe(0);
  });

  it('move the cursor only past what has arrived', async () => {
    let ingest = await store.beginIngest('web', [description]);
    await ingest.offer(0, wholes([1, 2]), 2);
    await ingest.offer(0, [{ index: 2, count: 2, entry: ZERO_ENTRY }], 4);
    await ingest.pieces([verified(1)]);
    await ingest.close();
    ingest = await store.beginIngest('web', [description]);
    expect(ingest.positions[0]!.syncedChunks).toBe(0);
    await ingest.offer(0, wholes([1, 2]), 2);
    await ingest.pieces([verified(2)]);
    await ingest.durable();
    disk.reopen();
    store = await open();
    ingest = await store.beginIngest('web', [description]);
    expect(ingest.positions[0]!.syncedChunks).toBe(2);
  });

  it('are no oracle: what another server stores is asked for all the same (P8)', async () => {
    const ingest = await store.beginIngest('web', [description]);
    await syncAll(ingest, [1, 2, 3, 4]);
    await ingest.commit(request(1));
    const other = await store.beginIngest('db', [description]);
    expect(await syncAll(other, [1, 2, 3, 9])).toEqual([1, 1, 1, 1]);
    // Having sent it, it may be told so; and it was not stored twice.
    expect([...(await other.offer(0, wholes([1, 2]), 0)).need]).toEqual([0, 0]);
    expect((await store.statistics()).dedupeHits).toBe(3);
    const outcome = await other.commit(request(1));
    expect(outcome.kind).toBe('committed');
  });

  it('may name only what the server has sent: naming another one is as good as missing', async () => {
    const ingest = await store.beginIngest('web', [description]);
    await syncAll(ingest, [1, 2, 3, 4]);
    await ingest.commit(request(1));
    const thief = await store.beginIngest('thief', [description]);
    const { need } = await thief.offer(0, wholes([1, 2, 3, 4]), 4);
    expect([...need]).toEqual([1, 1, 1, 1]);
    const outcome = await thief.commit(request(1));
    expect(outcome).toEqual({
      kind: 'missing',
      volumes: [{ volume: 0, chunks: [0, 1, 2, 3], more: false }],
    });
    await thief.patch(0, [{ index: 0, count: 1, entry: wholeEntry(verified(1).digest) }], []);
    expect((await thief.commit(request(1))).kind).toBe('missing');
  });

  it('are refused where they are no offers', async () => {
    const patch = patchEntry(1, [verified(1, 4096).digest]);
    for (const entries of [
      [{ index: 0, count: 1, entry: patch }],
      wholes([1, 2, 3, 4, 5]),
      [...wholes([1]), ...wholes([1])],
    ]) {
      const ingest = await store.beginIngest('web', [description]);
      expect(await codeOf(ingest.offer(0, entries, 0))).toBe('ERR_ENTRIES_INVALID');
      expect(await codeOf(ingest.durable())).toBe('ERR_ENTRIES_INVALID');
      await ingest.close();
      expect(await codeOf(ingest.durable())).toBe('ERR_INGEST_CLOSED');
    }
  });
});

describe('commit', () => {
  it('lists what is missing and changes nothing; then commits', async () => {
    const ingest = await store.beginIngest('web', [description]);
    await ingest.offer(0, wholes([1, 2]), 2);
    await ingest.pieces([verified(1)]);
    expect(await ingest.commit(request(1))).toEqual({
      kind: 'missing',
      volumes: [{ volume: 0, chunks: [1, 2, 3], more: false }],
    });
    expect(await store.points({})).toEqual([]);
    await ingest.pieces([verified(2)]);
    await ingest.patch(0, wholes([3, 4], 2), [verified(3), verified(4)]);
    const outcome = await ingest.commit(request(1));
    expect(outcome.kind).toBe('committed');
    expect(await store.points({})).toHaveLength(1);
  });

  it('is idempotent, also after a restart, and refuses another position', async () => {
    let ingest = await store.beginIngest('web', [description]);
    await syncAll(ingest, [1, 2, 3, 4]);
    const first = await ingest.commit(request(1));
    expect(await ingest.commit(request(1))).toEqual(first);
    disk.reopen();
    store = await open();
    ingest = await store.beginIngest('web', [description]);
    expect(ingest.positions[0]!.committed).toEqual({
      generation: GENERATION,
      epoch: 1,
      contentDigest: '1'.repeat(64),
    });
    expect(await ingest.commit(request(1))).toEqual(first);
    expect(await store.points({})).toHaveLength(1);
    for (const wrong of [
      request(3),
      request(1, { volumes: [{ ...request(1).volumes[0]!, contentDigest: 'f'.repeat(64) }] }),
      request(2, { volumes: [{ ...request(2).volumes[0]!, generation: 'b'.repeat(32) }] }),
      request(2, { volumes: [] }),
    ]) {
      expect(await codeOf(ingest.commit(wrong))).toBe('ERR_COMMIT_POSITION');
      await ingest.close();
      ingest = await store.beginIngest('web', [description]);
    }
    expect((await ingest.commit(request(2))).kind).toBe('committed');
  });

  it('lays patches over what was committed, and later entries over earlier ones', async () => {
    const ingest = await store.beginIngest('web', [description]);
    await syncAll(ingest, [1, 2, 3, 4]);
    const block = verified(7, 4096);
    await ingest.patch(
      0,
      [{ index: 1, count: 1, entry: patchEntry(0b100, [block.digest]) }],
      [block],
    );
    await ingest.offer(0, wholes([2], 1), 0);
    await ingest.commit(request(1));
    const entry = patchEntry(0b11, [block.digest, 'zero']);
    await ingest.patch(0, [{ index: 0, count: 1, entry }], [block]);
    await ingest.commit(request(2));
    const [second, first] = await store.points({});
    expect(await readChunk(first!.id, 1)).toEqual(contentOf(2));
    const expected = contentOf(1);
    expected.set(contentOf(7, 4096), 0);
    expected.fill(0, 4096, 8192);
    expect(sha256(await readChunk(second!.id, 0))).toEqual(sha256(expected));
    expect(await readChunk(first!.id, 0)).toEqual(contentOf(1));
  });

  it('refuses contents of another length than the place has', async () => {
    const ingest = await store.beginIngest('web', [description]);
    const short = verified(1, 4096);
    const entries = [
      { index: 0, count: 1, entry: wholeEntry(short.digest) },
      { index: 1, count: 3, entry: ZERO_ENTRY },
    ];
    await ingest.patch(0, entries, [short]);
    expect(await ingest.commit(request(1))).toMatchObject({ kind: 'missing' });
  });

  it('names volumes that are left out: the point is partial', async () => {
    const ingest = await store.beginIngest('web', [description]);
    await syncAll(ingest, [1, 2, 3, 4]);
    const outcome = await ingest.commit(request(1, { missingVolumes: ['/dev/b'] }));
    expect(outcome).toMatchObject({ point: { missingVolumes: ['/dev/b'] } });
  });
});

describe('sessions', () => {
  it('are one a server', async () => {
    const ingest = await store.beginIngest('web', [description]);
    expect(await codeOf(store.beginIngest('web', [description]))).toBe('ERR_INGEST_BUSY');
    await store.beginIngest('db', [description]);
    await ingest.close();
    await store.beginIngest('web', [description]);
  });

  it('are refused where server or volumes are described wrongly', async () => {
    for (const server of ['', '../x', 'a/b', '.x', 'x'.repeat(129)]) {
      expect(await codeOf(store.beginIngest(server, []))).toBe('ERR_INGEST_DESCRIPTION');
    }
    for (const wrong of [
      { ...description, sizeBytes: 0 },
      { ...description, sizeBytes: 2 ** 47 },
      { ...description, generation: 'x' },
      { ...description, volume: '' },
    ]) {
      expect(await codeOf(store.beginIngest('web', [wrong]))).toBe('ERR_INGEST_DESCRIPTION');
    }
    expect(await codeOf(store.beginIngest('web', [description, description]))).toBe(
      'ERR_INGEST_DESCRIPTION',
    );
  });

  it('of a new generation begin anew, and what was committed stays', async () => {
    let ingest = await store.beginIngest('web', [description]);
    await syncAll(ingest, [1, 2, 3, 4]);
    await ingest.commit(request(1));
    await ingest.offer(0, wholes([9]), 0);
    await ingest.close();
    const other = { ...description, generation: 'b'.repeat(32) };
    ingest = await store.beginIngest('web', [other]);
    expect(ingest.positions[0]).toMatchObject({
      committed: { generation: GENERATION, epoch: 1 },
      syncedChunks: 0,
    });
    const { need, changed } = await ingest.offer(0, wholes([1, 2, 3, 8]), 4);
    expect([...need]).toEqual([0, 0, 0, 1]);
    expect(changed).toBe(1);
    await ingest.pieces([verified(8)]);
    const outcome = await ingest.commit(
      request(1, {
        timeMs: request(1).timeMs + 1, // points of one time have no order
        volumes: [{ ...request(1).volumes[0]!, generation: other.generation }],
      }),
    );
    expect(outcome.kind).toBe('committed');
    await ingest.close();
    expect(await codeOf(store.beginIngest('web', [description]))).toBe('ERR_INGEST_DESCRIPTION');
    // Who has committed in it is told what is held instead, and nothing of it is taken.
    const former = { ...description, committedEpoch: 1 };
    for (const use of [
      (session: Ingest) => session.offer(0, wholes([5]), 1),
      (session: Ingest) => session.patch(0, wholes([5]), [verified(5)]),
      (session: Ingest) => session.commit(request(1)),
      (session: Ingest) => session.commit(request(2)),
    ]) {
      const session = await store.beginIngest('web', [former]);
      expect(session.positions[0]).toMatchObject({
        ...{ committed: { generation: other.generation, epoch: 1 }, syncedChunks: 0 },
      });
      expect(await codeOf(use(session))).toBe('ERR_INGEST_DESCRIPTION');
      await session.close();
    }
    const points = await store.points({ order: 'oldest' });
    expect(await readChunk(points[0]!.id, 3)).toEqual(contentOf(4));
    expect(await readChunk(points[1]!.id, 3)).toEqual(contentOf(8));
    await store.seal(points[1]!.id);
    expect((await store.check({ readData: true })).findings).toEqual([]);
  });
});

describe('positions', () => {
  it('outlive the points that they were committed with, and the catalog', async () => {
    const other = { ...description, volume: '/dev/b', generation: 'b'.repeat(32) };
    let ingest = await store.beginIngest('web', [description, other]);
    for (const volume of [0, 1]) {
      await ingest.patch(
        volume,
        wholes([1, 2, 3, 4]),
        [1, 2, 3, 4].map((seed) => verified(seed)),
      );
    }
    const second = { volume: 1, generation: other.generation, epoch: 1, contentDigest: 'x' };
    const volumes = [...request(1).volumes, second];
    await ingest.commit(request(1, { volumes, missingVolumes: ['/dev/c'] }));
    for (let epoch = 2; epoch < 5; epoch += 1) {
      await ingest.commit(request(epoch, { missingVolumes: ['/dev/b', '/dev/c'] }));
      await store.seal((await store.points({ limit: 1 }))[0]!.id);
    }
    const ids = (await store.points({ order: 'oldest' })).map(({ id }) => id);
    await store.applyRetention({ drop: ids });
    await store.collect();
    expect(await store.points({})).toHaveLength(1);
    await ingest.close();
    await store.close();
    disk.reopen();
    store = await open();
    ingest = await store.beginIngest('web', [description, other]);
    expect(ingest.positions.map(({ committed }) => committed?.epoch)).toEqual([4, 1]);
    await ingest.patch(1, wholes([5], 2), [verified(5)]);
    const next = [
      { volume: 0, generation: GENERATION, epoch: 5, contentDigest: '5' },
      { volume: 1, generation: other.generation, epoch: 2, contentDigest: 'y' },
    ];
    const outcome = await ingest.commit(request(5, { volumes: next }));
    if (outcome.kind !== 'committed') throw new Error('missing');
    const image = await store.openImage(outcome.point.id, '/dev/b');
    expect(await image.read(CHUNK_BYTES, 2 * CHUNK_BYTES)).toEqual(
      new Uint8Array([...contentOf(2), ...contentOf(5)]),
    );
    image.close();
    await store.seal(outcome.point.id);
    expect((await store.check({ readData: true })).findings).toEqual([]);
  });
});

describe('images', () => {
  it('tell where data is, and refuse what lies outside', async () => {
    const ingest = await store.beginIngest('web', [description]);
    const entries = [
      { index: 0, count: 2, entry: ZERO_ENTRY },
      ...wholes([5], 2),
      { index: 3, count: 1, entry: ZERO_ENTRY },
    ];
    await ingest.patch(0, entries, [verified(5)]);
    await ingest.commit(request(1));
    const [point] = await store.points({});
    const image = await store.openImage(point!.id, '/dev/a');
    const data = { offset: 2 * CHUNK_BYTES, length: CHUNK_BYTES };
    expect(await image.nextData(0)).toEqual(data);
    expect(await image.nextData(data.offset + 10)).toEqual({
      offset: data.offset + 10,
      length: CHUNK_BYTES - 10,
    });
    expect(await image.nextData(3 * CHUNK_BYTES)).toBeNull();
    expect([...(await image.read(data.offset - 2, 4))].slice(0, 2)).toEqual([0, 0]);
    for (const [offset, length] of [
      [-1, 1],
      [0, 4 * CHUNK_BYTES + 1],
      [4 * CHUNK_BYTES, 1],
      [0.5, 1],
    ]) {
      expect(await codeOf(image.read(offset!, length!))).toBe('ERR_IMAGE_RANGE');
    }
    image.close();
    expect(await codeOf(image.read(0, 1))).toBe('ERR_STORE_CLOSED');
    expect(await codeOf(store.openImage('none', '/dev/a'))).toBe('ERR_POINT_NOT_FOUND');
    expect(await codeOf(store.openImage(point!.id, '/dev/x'))).toBe('ERR_VOLUME_NOT_FOUND');
  });

  it('hold their point against retention, and survive a fold beneath them', async () => {
    const ingest = await store.beginIngest('web', [description]);
    await syncAll(ingest, [1, 2, 3, 4]);
    await ingest.commit(request(1));
    for (let epoch = 2; epoch < 8; epoch += 1) {
      await ingest.patch(0, wholes([epoch * 10], 1), [verified(epoch * 10)]);
      await ingest.commit(request(epoch));
    }
    const ids = (await store.points({ order: 'oldest' })).map(({ id }) => id);
    await store.seal(ids.at(-1)!);
    const image = await store.openImage(ids[4]!, '/dev/a');
    await store.applyRetention({ drop: ids });
    expect((await store.points({ order: 'oldest' })).map(({ id }) => id)).toEqual([ids[4], ids[6]]);
    expect(await image.read(CHUNK_BYTES, CHUNK_BYTES)).toEqual(contentOf(50));
    image.close();
    await store.applyRetention({ drop: ids });
    expect((await store.points({})).map(({ id }) => id)).toEqual([ids[6]]);
    expect(await readChunk(ids[6]!, 1)).toEqual(contentOf(70));
    expect((await store.check({ readData: true })).findings).toEqual([]);
  });
});
