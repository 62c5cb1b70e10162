/** The algebra of entries and its bytes, as properties: everything above composes with these. */

import { describe, expect, it } from 'vitest';
import { UnderstudyError } from '../../src/base/errors.ts';
import {
  type ChunkEntry,
  compose,
  type IndexedEntry,
  isTotal,
  type Piece,
} from '../../src/model/entry.ts';
import {
  appendEntries,
  checkEntriesWithin,
  decodeEntries,
  encodeEntries,
  endOfEntries,
  normaliseEntries,
} from '../../src/model/entry-codec.ts';
import fc from './support/properties.ts';

const digest = (byte: number): Uint8Array => new Uint8Array(32).fill(byte);
const piece: fc.Arbitrary<Piece> = fc.oneof(
  fc.constant('zero' as const),
  fc.integer({ min: 1, max: 200 }).map(digest),
);
const whole = piece.map((value): ChunkEntry => ({ whole: value, mask: 0, blocks: [] }));
const overlay = (under: fc.Arbitrary<Piece | null>): fc.Arbitrary<ChunkEntry> =>
  fc
    .tuple(
      under,
      fc.integer({ min: 1, max: 65535 }),
      fc.array(piece, { minLength: 16, maxLength: 16 }),
    )
    .map(([base, mask, pool]) => ({
      whole: base,
      mask,
      blocks: pool.filter((_, bit) => (mask & (1 << bit)) !== 0),
    }));
const entry: fc.Arbitrary<ChunkEntry> = fc.oneof(whole, overlay(fc.constant(null)), overlay(piece));
const EMPTY: ChunkEntry = { whole: null, mask: 0, blocks: [] };

/** A list as it may be sent: gaps, runs of zeros, all kinds. */
const entries: fc.Arbitrary<IndexedEntry[]> = fc
  .array(
    fc.record({ gap: fc.nat({ max: 5000 }), run: fc.integer({ min: 1, max: 70_000 }), entry }),
    { maxLength: 40 },
  )
  .map((items) => {
    let at = 0;
    return items.map(({ gap, run, entry: value }) => {
      const count = value.whole === 'zero' && value.mask === 0 ? run : 1;
      const index = at + gap;
      at = index + count;
      return { index, count, entry: value };
    });
  });

/** Content of a chunk as a reader sees it: what each of its blocks is. */
const seen = (value: ChunkEntry): string[] => {
  let next = 0;
  const name = (one: Piece | null | undefined) =>
    one instanceof Uint8Array ? `${one[0]}` : `${one}`;
  return Array.from({ length: 16 }, (_, bit) => {
    if ((value.mask & (1 << bit)) === 0) return `whole ${name(value.whole)}`;
    next += 1;
    return `block ${name(value.blocks[next - 1])}`;
  });
};

describe('compose', () => {
  it('is associative', () => {
    fc.assert(
      fc.property(entry, entry, entry, (a, b, c) => {
        expect(compose(compose(a, b), c)).toEqual(compose(a, compose(b, c)));
      }),
    );
  });

  it('has the empty entry as its neutral element', () => {
    fc.assert(
      fc.property(entry, (a) => {
        expect(compose(a, EMPTY)).toEqual(a);
        expect(compose(EMPTY, a)).toEqual(a);
        expect(compose(undefined, a)).toEqual(a);
      }),
    );
  });

  it('changes nothing when the same is laid over twice, so a replay may begin early', () => {
    fc.assert(
      fc.property(entry, entry, entry, (a, b, c) => {
        const once = compose(compose(a, b), c);
        const twice = compose(compose(compose(compose(a, b), c), b), c);
        expect(twice).toEqual(once);
      }),
    );
  });

  it('shows the newer block, else the newer whole, else the older one', () => {
    fc.assert(
      fc.property(entry, entry, (older, newer) => {
        const result = seen(compose(older, newer));
        const below = seen(older);
        const above = seen(newer);
        for (const [bit, value] of result.entries()) {
          expect(value).toBe(above[bit] === 'whole null' ? below[bit] : above[bit]);
        }
      }),
    );
  });

  it('knows a chunk of which every byte is known', () => {
    expect(isTotal({ whole: 'zero', mask: 0, blocks: [] }, 16)).toBe(true);
    expect(isTotal({ whole: null, mask: 7, blocks: [] }, 3)).toBe(true);
    expect(isTotal({ whole: null, mask: 7, blocks: [] }, 4)).toBe(false);
  });
});

const refused = (run: () => unknown): boolean => {
  try {
    run();
    return false;
  } catch (error) {
    if (error instanceof UnderstudyError && error.code === 'ERR_ENTRIES_INVALID') return true;
    throw error;
  }
};

describe('entry codec', () => {
  it('gives back what was encoded', () => {
    fc.assert(
      fc.property(entries, (list) => {
        expect(decodeEntries(encodeEntries(list))).toEqual(normaliseEntries(list));
      }),
    );
  });

  it('has one encoding for a list, and accepts no other bytes', () => {
    fc.assert(
      fc.property(entries, fc.nat(), fc.nat({ max: 255 }), (list, at, byte) => {
        const bytes = encodeEntries(list);
        if (bytes.length === 0) return;
        const changed = bytes.slice();
        changed[at % bytes.length] = byte;
        if (refused(() => decodeEntries(changed))) return;
        expect(encodeEntries(decodeEntries(changed))).toEqual(changed);
      }),
      { numRuns: 500 },
    );
  });

  it('is total: any bytes are a list or are refused', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        if (refused(() => decodeEntries(bytes))) return;
        expect(encodeEntries(decodeEntries(bytes))).toEqual(bytes);
      }),
      { numRuns: 1000 },
    );
  });

  it('refuses a list that is cut short, out of order, malformed or out of range', () => {
    const list = [{ index: 5, count: 1, entry: { whole: digest(1), mask: 0, blocks: [] } }];
    const bytes = encodeEntries(list);
    for (let length = 1; length < bytes.length; length += 1) {
      expect(refused(() => decodeEntries(bytes.subarray(0, length)))).toBe(true);
    }
    const zero = { whole: 'zero' as const, mask: 0, blocks: [] };
    const wrong: IndexedEntry[][] = [
      [...list, ...list],
      [{ ...list[0]!, count: 2 }],
      [{ index: -1, count: 1, entry: zero }],
      [{ index: 2 ** 30, count: 1, entry: zero }],
      [{ index: 0, count: 2 ** 31, entry: zero }],
      [{ index: 0, count: 1, entry: EMPTY }],
      [{ index: 0, count: 1, entry: { whole: null, mask: 3, blocks: ['zero'] } }],
      [{ index: 0, count: 1, entry: { whole: new Uint8Array(31), mask: 0, blocks: [] } }],
    ];
    for (const items of wrong) expect(refused(() => encodeEntries(items))).toBe(true);
  });

  it('joins neighbouring runs of zeros and refuses them apart', () => {
    const zero = { whole: 'zero' as const, mask: 0, blocks: [] };
    const apart = [
      { index: 3, count: 4, entry: zero },
      { index: 7, count: 2, entry: zero },
    ];
    expect(decodeEntries(encodeEntries(apart))).toEqual([{ index: 3, count: 6, entry: zero }]);
    expect(refused(() => decodeEntries(Uint8Array.of(3 * 8, 3, 0, 1)))).toBe(true);
  });

  it('appends a list to bytes as if both had been encoded together, or leaves it', () => {
    const behind = fc.tuple(entries, entries, fc.nat({ max: 2 }));
    fc.assert(
      fc.property(behind, ([list, more, gap]) => {
        const end = list.reduce((_, { index, count }) => index + count, 0);
        const older = encodeEntries(list);
        expect(endOfEntries(older).end).toBe(end);
        const newer = more.map((item) => ({ ...item, index: item.index + end + gap }));
        const both = encodeEntries([...list, ...newer]);
        const isJoined =
          normaliseEntries([...list, ...newer]).length <
          normaliseEntries(list).length + normaliseEntries(newer).length;
        const isLeft = isJoined || newer.length === 0;
        expect(appendEntries(older, newer)).toEqual(isLeft ? null : both);
        const isWithin = end > 0 && newer.length > 0;
        if (isWithin) expect(appendEntries(older, [{ ...newer[0]!, index: end - 1 }])).toBeNull();
      }),
    );
  });

  it('does not append zeros to zeros, which are one run', () => {
    const zeros = (index: number): IndexedEntry[] => [
      { index, count: 2, entry: { whole: 'zero', mask: 0, blocks: [] } },
    ];
    const older = encodeEntries(zeros(0));
    expect(appendEntries(older, zeros(2))).toBeNull();
    expect(appendEntries(older, zeros(3))).toEqual(encodeEntries([...zeros(0), ...zeros(3)]));
  });

  it('keeps golden bytes', () => {
    const list: IndexedEntry[] = [
      { index: 2, count: 300, entry: { whole: 'zero', mask: 0, blocks: [] } },
      { index: 302, count: 1, entry: { whole: digest(0xab), mask: 0, blocks: [] } },
      { index: 1000, count: 1, entry: { whole: null, mask: 0x8001, blocks: ['zero', digest(1)] } },
    ];
    const hex = Buffer.from(encodeEntries(list)).toString('hex');
    expect(hex).toBe(`10ab0201${'ab'.repeat(32)}ca2b01800100${'01'.repeat(32)}`);
  });

  it('says what lies beyond a volume', () => {
    const size = 65536 + 5000;
    const patch = (mask: number, index: number) => [
      { index, count: 1, entry: { whole: null, mask, blocks: [] } },
    ];
    expect(refused(() => checkEntriesWithin(patch(3, 1), size))).toBe(false);
    expect(refused(() => checkEntriesWithin(patch(4, 1), size))).toBe(true);
    expect(refused(() => checkEntriesWithin(patch(1, 2), size))).toBe(true);
  });
});
