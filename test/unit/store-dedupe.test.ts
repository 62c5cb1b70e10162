/**
 * Dedupe across servers: after the bytes have arrived for all, so that an offer tells nothing of another
 * server's content; before, only within a declared domain. Two servers of one image cost little more than
 * one.
 */
import { describe, expect, it } from 'vitest';
import { UnderstudyError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import { parseDedupeDomains } from '../../src/model/dedupe-domain.ts';
import { wholeEntry } from '../../src/model/entry.ts';
import { CHUNK_BYTES } from '../../src/model/geometry.ts';
import { MemoryCatalog } from '../../src/store/catalog/catalog-memory.ts';
import { openStore } from '../../src/store/open-store.ts';
import type { Store } from '../../src/store/types.ts';
import { Random } from '../simulation/random.ts';
import { VirtualClock } from '../simulation/virtual-clock.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { commit, drain, pieceOf, SourceVolume, sync } from './support/store-world.ts';

const CHUNKS = 48;
const T = 1_700_000_000_000;

async function open(disk: FaultyDisk, dedupeDomains: readonly string[][] = []): Promise<Store> {
  const random = new Random(1);
  return openStore({
    disk: disk.mount(),
    clock: new VirtualClock(),
    randomBytes: (count) => random.bytes(count),
    ...{ root: '/data', catalog: new MemoryCatalog(), log: silentLog },
    settings: { dedupeDomains },
  });
}

/** A server whose disk was written from one image, of content that does not compress. */
function imaged(generation: string): SourceVolume {
  const volume = new SourceVolume('/dev/a', CHUNKS * CHUNK_BYTES, generation.repeat(32));
  volume.content.set(new Random(77).bytes(volume.content.length));
  return volume;
}

/** Offers all chunks; returns how many had to be sent. */
async function replicate(store: Store, server: string, volume: SourceVolume): Promise<number> {
  const ingest = await store.beginIngest(server, [volume.description]);
  let sent = 0;
  const counted = {
    ...ingest,
    offer: (...args: Parameters<typeof ingest.offer>) => ingest.offer(...args),
    pieces: async (pieces: Parameters<typeof ingest.pieces>[0]) => {
      sent += pieces.length;
      await ingest.pieces(pieces);
    },
  };
  await sync(counted, 0, volume);
  const { id } = await commit(ingest, [volume], T + volume.epoch * 1000);
  await store.seal(id);
  await ingest.close();
  return sent;
}

const storedBytes = async (store: Store) => (await store.statistics()).storedBytes;

describe('two servers of one image', () => {
  it('both send it, and it is stored once', async () => {
    const store = await open(new FaultyDisk());
    expect(await replicate(store, 'web1', imaged('a'))).toBe(CHUNKS);
    const one = await storedBytes(store);
    expect(await replicate(store, 'web2', imaged('b'))).toBe(CHUNKS);
    const two = await storedBytes(store);
    // The second costs its grants (152 bytes a content) and its maps.
    expect((two - one) / one).toBeLessThan(0.01);
    await store.close();
  });

  it('an offer tells nothing of what another server has', async () => {
    const store = await open(new FaultyDisk(), [['web1', 'web3']]);
    const volume = imaged('a');
    await replicate(store, 'web1', volume);
    const other = imaged('b');
    const ingest = await store.beginIngest('web2', [other.description]);
    const { piece, verified } = pieceOf(volume.chunk(3));
    const entry = { index: 3, count: 1, entry: wholeEntry(piece) };
    expect([...(await ingest.offer(0, [entry], 0)).need]).toEqual([1]);
    await ingest.pieces([verified!]);
    expect([...(await ingest.offer(0, [entry], 0)).need]).toEqual([0]); // it has sent it itself
    await ingest.close();
    await store.close();
  });

  it('of one domain send it once, also after a restart and after a collection', async () => {
    const disk = new FaultyDisk();
    let store = await open(disk, [['web1', 'web2', 'web3']]);
    expect(await replicate(store, 'web1', imaged('a'))).toBe(CHUNKS);
    expect(await replicate(store, 'web2', imaged('b'))).toBe(0);
    await store.collect();
    await store.close();
    disk.reopen();
    store = await open(disk, [['web2', 'web3']]);
    // web3 is not of web1's domain any more, and web2 has sent nothing of it.
    expect(await replicate(store, 'web3', imaged('c'))).toBe(CHUNKS);
    expect((await store.check({ readData: true })).findings).toEqual([]);
    const [point] = await store.points({ server: 'web2' });
    const image = await store.openImage(point!.id, '/dev/a');
    expect(Buffer.compare(await image.read(0, image.sizeBytes), imaged('b').content)).toBe(0);
    image.close();
    await store.close();
  });

  it('a member is told of what another has sent after it', async () => {
    const store = await open(new FaultyDisk(), [['web1', 'web2']]);
    await replicate(store, 'other', imaged('a'));
    expect(await replicate(store, 'web1', imaged('b'))).toBe(CHUNKS); // by a grant
    expect(await replicate(store, 'web2', imaged('c'))).toBe(0);
    const volume = imaged('c');
    volume.write(new Random(5), 0, 5 * CHUNK_BYTES);
    volume.epoch = 1;
    const ingest = await store.beginIngest('web2', [volume.description]);
    await drain(ingest, 0, volume);
    await commit(ingest, [volume], T + 9000);
    await ingest.close();
    await store.close();
  });
});

describe('dedupe domains', () => {
  it('are read from options, also where commas have split them', () => {
    const expected = [
      ['web1', 'web2'],
      ['db1', 'db2', 'db3'],
    ];
    expect(parseDedupeDomains(['w=web1,web2', 'd=db1,db2,db3'])).toEqual(expected);
    expect(parseDedupeDomains(['w=web1', 'web2', 'd=db1', 'db2', 'db3'])).toEqual(expected);
    expect(parseDedupeDomains([])).toEqual([]);
  });

  it.each([
    ['web1'],
    ['=a,b'],
    ['w=a'],
    ['w=a,a'],
    ['w=a,b', 'w=c,d'],
    ['w=a,b', 'x=b,c'],
    ['w=a=b'],
  ])('%j is refused', (...items) => {
    expect(() => parseDedupeDomains(items)).toThrow(UnderstudyError);
  });
});
