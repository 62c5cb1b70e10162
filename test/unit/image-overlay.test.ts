/** An image with changes laid over it reads as if they had been written into it. */

import { expect, it } from 'vitest';
import { merged, overlaid } from '../../src/recovery/image-overlay.ts';
import { imageOf } from './support/aws-world.ts';
import fc from './support/properties.ts';

const KIB = 1024;
const SIZE = 200 * KIB;

/** Ascending stretches that do not touch. */
const stretches = fc
  .uniqueArray(fc.nat(SIZE / KIB - 1), { maxLength: 8 })
  .map((at) => at.toSorted((a, b) => a - b))
  .map((at) => at.filter((kib, i) => kib % 2 === 0 && kib !== at[i - 1]))
  .map((at) => at.map((kib) => ({ offset: kib * KIB + 100, length: KIB })));

it('at every place, and tells all its data', async () => {
  await fc.assert(
    fc.asyncProperty(stretches, fc.nat(SIZE - 1), fc.nat(SIZE), async (changed, at, length) => {
      const below = Buffer.alloc(SIZE);
      below.fill(7, 70 * KIB, 75 * KIB);
      const expected = Buffer.from(below);
      for (const { offset, length: bytes } of changed) expected.fill(9, offset, offset + bytes);
      const read = async (offset: number, bytes: number) => {
        const inside = changed.some((extent) => {
          const end = extent.offset + extent.length;
          return extent.offset <= offset && offset + bytes <= end;
        });
        expect(inside).toBe(true);
        return Buffer.alloc(bytes, 9);
      };
      const image = overlaid(imageOf(below), { id: 'x', changed, read });
      const end = Math.min(SIZE, at + length);
      const got = Buffer.from(await image.read(at, end - at));
      expect(got.equals(expected.subarray(at, end))).toBe(true);
      const told = Buffer.alloc(SIZE);
      for (let data = await image.nextData(0); data !== null; ) {
        told.fill(1, data.offset, data.offset + data.length);
        data = await image.nextData(data.offset + data.length);
      }
      for (const [i, byte] of expected.entries()) {
        if (byte !== 0 && told[i] !== 1) expect.unreachable(`data at ${i} is not told`);
      }
      // The bytes below are as they were.
      expect(below.includes(9)).toBe(false);
    }),
    { numRuns: 60 },
  );
});

it('merged stretches ascend', async () => {
  await fc.assert(
    fc.asyncProperty(stretches, stretches, async (a, b) => {
      const offsets: number[] = [];
      for await (const { offset } of merged(a, b)) offsets.push(offset);
      expect(offsets).toEqual([...a, ...b].map(({ offset }) => offset).toSorted((x, y) => x - y));
    }),
  );
});
