/**
 * Reading a repository that is far away: many requests at a time, and reading ahead. The bytes, the errors and
 * the findings are those of one request after the other, whatever comes first and whichever request fails;
 * memory and requests are bounded; and a reader in sequence does not wait for each.
 */

import { describe, expect, it } from 'vitest';
import { UnderstudyError } from '../../src/base/errors.ts';
import { inOrder } from '../../src/base/in-order.ts';
import { CHUNK_BYTES } from '../../src/model/geometry.ts';
import { parseConnections } from '../../src/store/objects/s3-settings.ts';
import type { OfflineRepository } from '../../src/store/offline.ts';
import { ReadGate } from '../../src/store/packs/read-gate.ts';
import type { CheckReport } from '../../src/store/types.ts';
import { Random } from '../simulation/random.ts';
import { BucketLife, FAR } from './support/bucket-life.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import type { MemoryObjects } from './support/memory-objects.ts';
import fc from './support/properties.ts';
import { type Expected, SourceVolume } from './support/store-world.ts';

const MIB = 2 ** 20;
const turn = () => new Promise((go) => setImmediate(go));

/** A repository of a volume of `bytes` with a few points that have changed it here and there. */
async function lived(
  bytes: number,
  seed: number,
  far: typeof FAR | undefined = FAR,
): Promise<BucketLife> {
  const life = new BucketLife(new FaultyDisk(), seed, true, far);
  const volume = new SourceVolume('/dev/a', bytes, 'a'.repeat(32));
  life.volumes.splice(0, life.volumes.length, volume);
  const noise = life.random.bytes(CHUNK_BYTES);
  for (let at = 0; at < bytes; at += CHUNK_BYTES) {
    // Here and there a hole; no two chunks are the same.
    if (Math.floor(at / (3 * MIB)) % 4 === 2) continue;
    volume.content.set(noise.subarray(0, bytes - at), at);
    volume.content.set(Buffer.from(`${at}`), at);
  }
  await life.open({ segmentBytes: 8 * MIB, baseAfterDeltas: 3, smallPackBytes: 100_000 });
  const ingest = await life.connect();
  for (let i = 0; i < 5; i += 1) await life.writeAndCommit(ingest, 20);
  await life.store!.seal(life.acknowledged.at(-1)!.id);
  await ingest.close();
  await life.store!.close();
  life.disk.reopen();
  return life;
}

/** Every read takes some turns, other ones fewer: they overtake each other. Tells how many there were at most. */
function slow(objects: MemoryObjects, random: Random): { most: number; mostBytes: number } {
  const told = { most: 0, mostBytes: 0 };
  let [now, nowBytes] = [0, 0];
  const read = objects.read.bind(objects);
  objects.read = async (name, offset, length) => {
    const bytes = Math.min(length, (objects.held.get(name)?.bytes.length ?? 0) - offset);
    now += 1;
    nowBytes += bytes;
    told.most = Math.max(told.most, now);
    told.mostBytes = Math.max(told.mostBytes, nowBytes);
    for (let turns = random.below(8); turns >= 0; turns -= 1) await turn();
    try {
      return await read(name, offset, length);
    } finally {
      now -= 1;
      nowBytes -= bytes;
    }
  };
  return told;
}

async function withImage<T>(
  life: BucketLife,
  use: (
    image: Awaited<ReturnType<OfflineRepository['openImage']>>,
    content: Uint8Array,
    offline: OfflineRepository,
  ) => Promise<T>,
  point: Expected = life.acknowledged.at(-1)!,
): Promise<T> {
  const offline = await life.offline();
  const [[volume, content]] = [...point.contents] as [[string, Uint8Array]];
  const image = await offline.openImage(point.id, volume);
  try {
    return await use(image, content, offline);
  } finally {
    image.close();
    await offline.close();
  }
}

const isSame = (read: Uint8Array, content: Uint8Array, at: number): boolean =>
  Buffer.compare(read, content.subarray(at, at + read.length)) === 0;

describe('work on many items at a time', () => {
  it('gives its results in the order of the items, and never more than so many at a time', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat(6)), fc.integer({ min: 1, max: 5 }), async (turns, most) => {
        let now = 0;
        const work = async (count: number) => {
          now += 1;
          expect(now).toBeLessThanOrEqual(most);
          for (let i = 0; i < count; i += 1) await turn();
          return count;
        };
        const results: number[] = [];
        for await (const result of inOrder(turns, most, work)) {
          results.push(result);
          now -= 1;
        }
        expect(results).toEqual(turns);
      }),
    );
  });

  it('throws what failed first in that order, begins nothing more, and hands back what came too late', async () => {
    const begun: number[] = [];
    const late: number[] = [];
    const work = async (item: number) => {
      begun.push(item);
      for (let i = 0; i < 10 - item; i += 1) await turn();
      if (item === 2 || item === 3) throw new Error(`item ${item}`);
      return item;
    };
    const taken: number[] = [];
    const run = async () => {
      const items = Array.from({ length: 20 }, (_, i) => i);
      for await (const item of inOrder(items, 4, work, (item) => late.push(item))) taken.push(item);
    };
    await expect(run()).rejects.toThrow('item 2');
    for (let i = 0; i < 20; i += 1) await turn();
    expect(taken).toEqual([0, 1]);
    expect(begun).toEqual([0, 1, 2, 3, 4, 5]);
    expect(late.sort()).toEqual([4, 5]);
  });
});

describe('what is read at a time', () => {
  it('is bounded in requests and bytes, first come first served, and a larger one goes by itself', async () => {
    const gate = new ReadGate({ requests: 2, bytes: 100 });
    const order: string[] = [];
    const take = async (name: string, bytes: number) => {
      const release = await gate.take(bytes);
      order.push(name);
      return release;
    };
    const first = await take('a', 60);
    const waiting = [take('large', 500), take('b', 10), take('c', 10), take('d', 10)];
    await turn();
    expect(order).toEqual(['a']);
    first();
    const large = await waiting[0]!;
    await turn();
    expect(order).toEqual(['a', 'large']);
    large();
    const [b] = [await waiting[1]!, await waiting[2]!];
    expect(order).toEqual(['a', 'large', 'b', 'c']);
    b();
    await waiting[3]!;
    expect(order).toEqual(['a', 'large', 'b', 'c', 'd']);
  });

  it('is an option of those who read a bucket', () => {
    expect(parseConnections('64')).toBe(64);
    for (const text of ['0', '257', '-1', '1.5', 'many', '']) {
      expect(() => parseConnections(text)).toThrow(/1 to 256/);
    }
  });
});

/** A map that others of the read are opening. */
const MOST_LATE = 1;

describe('an image that is far away', () => {
  it('has the same bytes, whoever overtakes whom, in sequence and at random', async () => {
    for (const seed of [1, 2]) {
      const life = await lived(14 * MIB + 5000, seed);
      slow(life.objects, new Random(seed));
      await withImage(life, async (image, content) => {
        const random = new Random(seed);
        let at = 0;
        const sequence = async () => {
          while (at < content.length) {
            const data = await image.nextData(at);
            const from = random.chance(0.3) && data !== null ? data.offset : at;
            const length = Math.min(1 + random.below(3 * MIB), content.length - from);
            at = from + length;
            expect(isSame(await image.read(from, length), content, from)).toBe(true);
          }
        };
        const scattered = async () => {
          for (let i = 0; i < 60; i += 1) {
            const from = random.below(content.length);
            const length = Math.min(random.below(200_000), content.length - from);
            expect(isSame(await image.read(from, length), content, from)).toBe(true);
          }
        };
        await Promise.all([sequence(), sequence(), scattered(), scattered()]);
        expect(isSame(await image.read(0, content.length), content, 0)).toBe(true);
      });
    }
  });

  it('is read by many requests at a time, within the bounds of memory', async () => {
    const life = await lived(32 * MIB, 4, { requests: 6, bytes: 5 * MIB });
    const told = slow(life.objects, new Random(4));
    await withImage(life, async (image, content) => {
      for (let at = 0; at < content.length; at += MIB) {
        expect(isSame(await image.read(at, MIB), content, at)).toBe(true);
      }
    });
    expect(told.most).toBeGreaterThan(2);
    expect(told.most).toBeLessThanOrEqual(6);
    expect(told.mostBytes).toBeLessThanOrEqual(6 * MIB); // the cache rounds up to its blocks
  });

  it('costs a bounded number of requests in sequence, most of them before they are waited for', async () => {
    const life = await lived(32 * MIB, 5);
    const { objects } = life;
    slow(objects, new Random(5));
    await withImage(life, async (image, content) => {
      objects.requests.length = 0;
      let waits = 0;
      for (let at = 0; at < content.length; at += 256 * 1024) {
        const before = objects.count('read');
        await image.read(at, 256 * 1024);
        if (objects.count('read') > before) waits += 1;
      }
      // 16 units of 2 MiB, each of one piece of a pack, and what five points have changed.
      expect(objects.count('read')).toBeLessThan(60);
      expect(objects.count('list') + objects.count('bytes')).toBe(0);
      expect(waits).toBeLessThan(22); // 31 without reading ahead
    });
  });

  it('asks for nothing that a reader at random does not want', async () => {
    const life = await lived(32 * MIB, 6);
    const { objects } = life;
    await withImage(life, async (image) => {
      await image.read(0, 4096); // the map is known now
      let asked = 0;
      const read = objects.read.bind(objects);
      objects.read = (name, offset, length) => {
        asked += length;
        return read(name, offset, length);
      };
      const LENGTH = 3 * CHUNK_BYTES;
      const places = [20, 3, 27, 11, 30, 14, 1, 24];
      for (const at of places) await image.read(at * MIB, LENGTH);
      for (let i = 0; i < 50; i += 1) await turn();
      // What lies beside a piece is read along, up to the blocks of the cache.
      expect(asked).toBeLessThan(places.length * 2 * LENGTH);
    });
  });

  it('is opened again without a request', async () => {
    const life = await lived(4 * MIB, 7);
    await withImage(life, async (image, content, offline) => {
      await image.read(0, content.length);
      const { id } = life.acknowledged.at(-1)!;
      life.objects.requests.length = 0;
      const again = await offline.openImage(id, '/dev/a');
      expect(isSame(await again.read(0, 4096), content, 0)).toBe(true);
      again.close();
      expect(life.objects.requests).toEqual([]);
      expect(isSame(await image.read(0, 4096), content, 0)).toBe(true);
    });
  });

  it('fails with the error of a request that failed, at any of them, and reads right afterwards', async () => {
    const life = await lived(12 * MIB, 8, { requests: 4, bytes: 5 * MIB });
    const { objects } = life;
    objects.delay = async () => {
      for (let i = 0; i < 3; i += 1) await turn();
    };
    const whole = await withImage(life, async (image, content) => {
      objects.requests.length = 0;
      await image.read(0, content.length);
      return objects.requests.length;
    });
    expect(whole).toBeGreaterThan(10);
    for (let n = 1; n <= whole; n += 1) {
      await withImage(life, async (image, content) => {
        const from = objects.requests.length;
        objects.before = (_kind, name, count) => {
          if (count !== from + n) return;
          throw new UnderstudyError('ERR_OBJECTS_UNAVAILABLE', `planned: ${name}`);
        };
        const failed = expect(image.read(0, content.length), `request ${n}`).rejects;
        await failed.toMatchObject({ code: 'ERR_OBJECTS_UNAVAILABLE' });
        objects.before = () => undefined;
        const begun = objects.requests.length;
        for (let i = 0; i < 40; i += 1) await turn();
        expect(objects.requests.length - begun, 'no more is begun').toBeLessThanOrEqual(MOST_LATE);
        expect(isSame(await image.read(0, content.length), content, 0)).toBe(true);
      });
    }
  });

  it('tells of a damaged content as one that is near does, and reads on elsewhere', async () => {
    const life = await lived(12 * MIB, 9);
    const near = new BucketLife(new FaultyDisk(), 9, true);
    for (const [name, held] of life.objects.held) near.objects.held.set(name, held);
    near.acknowledged.push(...life.acknowledged);
    turnBytes(life, 3);
    const outcome = (one: BucketLife) =>
      withImage(one, async (image, content) => {
        const results: unknown[] = [];
        for (let at = 0; at < content.length; at += 2 * MIB) {
          const length = Math.min(2 * MIB, content.length - at);
          const read = image.read(at, length);
          results.push(
            await read.then(
              (bytes) => isSame(bytes, content, at),
              ({ code, message, context }: UnderstudyError) => ({ code, message, context }),
            ),
          );
        }
        return results;
      });
    slow(life.objects, new Random(9));
    const told = await outcome(life);
    expect(told).toContain(true);
    expect(told).toContainEqual(expect.objectContaining({ code: 'ERR_PIECE_DAMAGED' }));
    expect(told).toEqual(await outcome(near));
  });
});

/** One byte in the body of each of so many packs. */
function turnBytes({ objects }: BucketLife, count: number): void {
  const packs = [...objects.held].filter(([name]) => name.startsWith('packs/'));
  for (const [, { bytes }] of packs
    .sort((a, b) => b[1].bytes.length - a[1].bytes.length)
    .slice(0, count)) {
    bytes[bytes.length >> 1]! ^= 1;
  }
}

it('a check of what is far away finds the same as one after the other, in the same order', async () => {
  const life = await lived(14 * MIB, 10);
  turnBytes(life, 3);
  const [base] = [...life.objects.held.keys()].filter((name) => name.startsWith('bases/'));
  life.objects.held.delete(base!);
  // Some packs do not say what they have.
  const small = [...life.objects.held].filter(([name]) => name.startsWith('packs/'));
  small.sort((a, b) => a[1].bytes.length - b[1].bytes.length);
  for (const [, { bytes }] of small.slice(0, 4)) bytes[bytes.length - 1]! ^= 1;
  const near = new BucketLife(new FaultyDisk(), 10, true);
  for (const [name, held] of life.objects.held) near.objects.held.set(name, held);
  const check = async (one: BucketLife): Promise<CheckReport> => {
    const offline = await one.offline();
    const report = await offline.check({ readData: true });
    await offline.close();
    return report;
  };
  const told = slow(life.objects, new Random(10));
  const report = await check(life);
  expect(told.most).toBeGreaterThan(3);
  expect(report.findings.length).toBeGreaterThan(2);
  expect(report).toEqual(await check(near));
});
