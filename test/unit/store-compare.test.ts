/** Which chunks somebody has otherwise than a point: told by digests alone, plain and encrypted. */
import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { BLOCK_BYTES, CHUNK_BYTES, chunkCount, chunkLength } from '../../src/model/geometry.ts';
import { MemoryCatalog } from '../../src/store/catalog/catalog-memory.ts';
import { openStore } from '../../src/store/open-store.ts';
import { Random } from '../simulation/random.ts';
import { VirtualClock } from '../simulation/virtual-clock.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { testMaster } from './support/key-mode.ts';
import { commit, drain, SourceVolume, sync } from './support/store-world.ts';

/** Two leaves, the last chunk short. */
const SIZE = 1060 * CHUNK_BYTES - 3 * BLOCK_BYTES;
const CHUNKS = chunkCount(SIZE);

const sha256 = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest();
const bitsOf = (map: Uint8Array, first: number, count: number): number[] =>
  Array.from({ length: count }, (_, i) => first + i).filter(
    (_, i) => ((map[i >> 3]! >> (i & 7)) & 1) === 1,
  );

async function world(isEncrypted: boolean) {
  const random = new Random(5);
  const volume = new SourceVolume('/dev/a', SIZE, 'a'.repeat(32));
  const store = await openStore({
    disk: new FaultyDisk().mount(),
    clock: new VirtualClock(),
    randomBytes: (count) => random.bytes(count),
    ...{ root: '/data', catalog: new MemoryCatalog(), log: silentLog },
    settings: { graceMs: 0 },
    ...(isEncrypted && { keys: { master: testMaster } }),
  });
  for (let i = 0; i < 30; i += 1) volume.write(random, random.below(SIZE), 3 * CHUNK_BYTES);
  volume.dirty.clear();
  const ingest = await store.beginIngest('web', [volume.description]);
  await sync(ingest, 0, volume);
  await commit(ingest, [volume], 1e12);
  for (let write = 0; write < 40; write += 1) {
    volume.write(random, BLOCK_BYTES * random.below(SIZE / BLOCK_BYTES - 1), BLOCK_BYTES);
  }
  await drain(ingest, 0, volume);
  const { id } = await commit(ingest, [volume], 2e12);
  await ingest.close();
  const compare = (first: number, digests: Uint8Array) =>
    store.compareChunks(id, '/dev/a', first, digests);
  const chunk = (at: number) => Buffer.from(volume.chunk(at));
  return { random, volume, store, id, compare, chunk };
}

describe.each([
  ['a plain', false],
  ['an encrypted', true],
])('chunks compared with %s repository', (_what, isEncrypted) => {
  it('differ where their bytes do, and nowhere else, whatever the maps know of them', async () => {
    const { random, store, compare, chunk } = await world(isEncrypted);
    const theirs = Array.from({ length: CHUNKS }, (_, at) => chunk(at));
    const isZero = (bytes: Buffer) => bytes.every((byte) => byte === 0);
    const changed = new Set<number>();
    for (let i = 0; i < 60; i += 1) changed.add(random.below(CHUNKS));
    changed.add(CHUNKS - 1);
    for (const at of changed) theirs[at]![random.below(chunkLength(at, SIZE))]! ^= 1;
    // Somebody has zeros where the point has data, too.
    const gone = [...theirs.keys()].find((at) => !changed.has(at) && !isZero(theirs[at]!))!;
    changed.add(gone);
    theirs[gone]!.fill(0);
    for (const [first, count] of [
      [0, 1024],
      [1000, CHUNKS - 1000],
      [CHUNKS - 1, 1],
    ] as const) {
      const digests = Buffer.concat(theirs.slice(first, first + count).map(sha256));
      const { different, zero, count: told } = await compare(first, digests);
      const expected = [...changed].filter((at) => at >= first && at < first + count);
      expected.sort((a, b) => a - b);
      expect(bitsOf(different, first, count)).toEqual(expected);
      expect(told).toBe(expected.length);
      expect(bitsOf(zero, first, count)).toEqual(expected.filter((at) => isZero(chunk(at))));
    }
    await store.close();
  });

  it('are of the point that was committed last, though the clock of its machine is behind', async () => {
    const { store, volume, id } = await world(isEncrypted);
    expect((await store.lastCommitted('web'))?.id).toBe(id);
    expect(await store.lastCommitted('none')).toBeNull();
    const ingest = await store.beginIngest('web', [volume.description]);
    const later = await commit(ingest, [volume], 1e11);
    await ingest.close();
    expect((await store.points({ server: 'web', limit: 1 }))[0]?.id).toBe(id);
    expect((await store.lastCommitted('web'))?.id).toBe(later.id);
    await store.close();
  });

  it('must lie in the volume, and be no more than a call takes', async () => {
    const { store, compare, id } = await world(isEncrypted);
    const digests = (count: number) => new Uint8Array(32 * count);
    for (const [first, bytes] of [
      [-1, digests(1)],
      [0.5, digests(1)],
      [CHUNKS, digests(1)],
      [0, digests(1025)],
      [0, new Uint8Array(31)],
    ] as const) {
      await expect(compare(first, bytes)).rejects.toMatchObject({ code: 'ERR_IMAGE_RANGE' });
    }
    expect((await compare(0, digests(0))).count).toBe(0);
    const none = store.compareChunks(id, '/dev/x', 0, digests(1));
    await expect(none).rejects.toMatchObject({ code: 'ERR_VOLUME_NOT_FOUND' });
    await store.close();
  });
});
