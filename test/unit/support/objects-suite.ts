/** What every `ObjectStore` must do: run over a directory, memory, and buckets of real servers. */
import { describe, expect, it } from 'vitest';
import { UnderstudyError } from '../../../src/base/errors.ts';
import {
  type ObjectSource,
  type ObjectStore,
  sourceOf,
} from '../../../src/store/objects/object-store.ts';

const code = (run: Promise<unknown>): Promise<string> =>
  run.then(
    () => 'none',
    (error: unknown) => (error instanceof UnderstudyError ? error.code : String(error)),
  );

const pattern = (length: number, seed = 1): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => (i * 31 + (i >> 8) * 7 + seed) & 255);

async function names(objects: ObjectStore, prefix: string): Promise<string[]> {
  const found: string[] = [];
  for await (const { name } of objects.list(prefix)) found.push(name);
  return found;
}

export interface ObjectsUnderTest {
  readonly objects: ObjectStore;
  /** A second user of the same place. */
  readonly other: ObjectStore;
}

/** `largeBytes`: an object beyond what goes in one piece. */
export function objectsSuite(
  title: string,
  make: () => Promise<ObjectsUnderTest>,
  largeBytes = 200_000,
): void {
  describe(`objects: ${title}`, () => {
    it('keeps what is put, and reads any range of it', async () => {
      const { objects, other } = await make();
      for (const [name, length] of [
        ['a/b/small', 1000],
        ['a/empty', 0],
        ['a/large', largeBytes],
      ] as const) {
        const bytes = pattern(length);
        expect(await objects.put(name, sourceOf(bytes))).toBe('stored');
        expect(await other.bytes(name)).toBe(length);
        expect(Buffer.compare(await other.read(name, 0, length + 10), bytes)).toBe(0);
        const middle = length >> 1;
        expect([...(await other.read(name, middle, 7))]).toEqual([
          ...bytes.subarray(middle, middle + 7),
        ]);
        expect((await other.read(name, length, 5)).length).toBe(0);
        expect((await other.read(name, length + 3, 5)).length).toBe(0);
      }
    });

    it('says what is not there', async () => {
      const { objects } = await make();
      expect(await objects.bytes('none')).toBeNull();
      expect(await code(objects.read('none', 0, 10))).toBe('ERR_DISK_NOT_FOUND');
      expect(await objects.remove('none')).toBe('removed');
      expect(await names(objects, '')).toEqual([]);
    });

    it('takes a name once; the same bytes again are stored, others change nothing', async () => {
      const { objects, other } = await make();
      for (const length of [500, largeBytes]) {
        const name = `once/${length}`;
        const bytes = pattern(length);
        expect(await objects.put(name, sourceOf(bytes))).toBe('stored');
        expect(await other.put(name, sourceOf(bytes))).toBe('stored');
        expect(await other.put(name, sourceOf(pattern(length, 2)))).toBe('exists');
        expect(await other.put(name, sourceOf(pattern(length + 1)))).toBe('exists');
        expect(Buffer.compare(await objects.read(name, 0, length), bytes)).toBe(0);
      }
    });

    it('gives a name to one of many who put at once', async () => {
      const { objects, other } = await make();
      for (const length of [300, largeBytes]) {
        const puts = Array.from({ length: 6 }, (_, i) =>
          (i % 2 === 0 ? objects : other).put(`race/${length}`, sourceOf(pattern(length, i))),
        );
        const results = await Promise.all(puts);
        expect(results.filter((result) => result === 'stored')).toHaveLength(1);
        const winner = results.indexOf('stored');
        const there = await objects.read(`race/${length}`, 0, length);
        expect(Buffer.compare(there, pattern(length, winner))).toBe(0);
      }
    });

    it('lists by prefix, in order, with sizes', async () => {
      const { objects } = await make();
      for (const name of ['b/2', 'b/1', 'b1', 'a', 'c/d/e']) {
        await objects.put(name, sourceOf(pattern(name.length)));
      }
      expect(await names(objects, '')).toEqual(['a', 'b/1', 'b/2', 'b1', 'c/d/e']);
      expect(await names(objects, 'b')).toEqual(['b/1', 'b/2', 'b1']);
      expect(await names(objects, 'b/')).toEqual(['b/1', 'b/2']);
      expect(await names(objects, 'c/d/e')).toEqual(['c/d/e']);
      expect(await names(objects, 'x')).toEqual([]);
      for await (const { name, bytes } of objects.list('')) expect(bytes).toBe(name.length);
    });

    it('frees a name that is removed', async () => {
      const { objects, other } = await make();
      await objects.put('x/1', sourceOf(pattern(10)));
      expect(await objects.remove('x/1')).toBe('removed');
      expect(await objects.remove('x/1')).toBe('removed');
      expect(await other.bytes('x/1')).toBeNull();
      expect(await names(other, 'x')).toEqual([]);
      expect(await other.put('x/1', sourceOf(pattern(20, 5)))).toBe('stored');
      expect(await objects.bytes('x/1')).toBe(20);
    });

    it('leaves nothing of a put whose source fails', async () => {
      const { objects } = await make();
      for (const length of [1000, largeBytes]) {
        const broken: ObjectSource = {
          bytes: length,
          read: async (offset, count) => {
            if (offset + count >= length) throw new UnderstudyError('ERR_DISK_IO', 'bad sector');
            return pattern(length).subarray(offset, offset + count);
          },
        };
        expect(await code(objects.put(`broken/${length}`, broken))).toBe('ERR_DISK_IO');
        expect(await objects.bytes(`broken/${length}`)).toBeNull();
      }
      expect(await names(objects, '')).toEqual([]);
      expect(await objects.clean()).toBe(0);
    });
  });
}
