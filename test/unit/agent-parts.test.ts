/** The agent's small parts: batches, slices, cursor, scan table, window, bucket, outbox, holds, content. */
import { randomBytes } from 'node:crypto';
import { uncompressSync } from 'lz4-napi';
import { describe, expect, it } from 'vitest';
import { batchesOf } from '../../src/agent/batch.ts';
import { BufferHolds } from '../../src/agent/buffer-holds.ts';
import { digestOf, isZeroRange, Packer } from '../../src/agent/content.ts';
import { FlowWindow } from '../../src/agent/flow-window.ts';
import { entriesOf } from '../../src/agent/offers.ts';
import { Outbox, type OutItem } from '../../src/agent/outbox.ts';
import { groupChunksFor, ScanTable } from '../../src/agent/scan-table.ts';
import { SyncCursor } from '../../src/agent/sync-cursor.ts';
import { extentsOf, planSlice } from '../../src/agent/sync-plan.ts';
import { TokenBucket } from '../../src/base/token-bucket.ts';
import { KIB, MIB, TIB } from '../../src/base/units.ts';
import type { Extent } from '../../src/model/geometry.ts';
import { compressInto } from '../../src/native/index.ts';
import { VirtualClock } from '../simulation/virtual-clock.ts';
import fc from './support/properties.ts';

const CHUNK = 64 * KIB;

describe('a batch', () => {
  it('has whole chunks where all blocks lie in one run, else masks', () => {
    const pieces = [
      { volume: 0, offset: 0, length: CHUNK, at: 0 },
      { volume: 1, offset: CHUNK + 8192, length: 8192, at: CHUNK },
      { volume: 0, offset: 3 * CHUNK, length: 32 * KIB, at: 2 * CHUNK },
      { volume: 0, offset: 3 * CHUNK + 32 * KIB, length: 32 * KIB, at: 4 * CHUNK },
    ];
    expect(batchesOf(pieces, [MIB, MIB])).toEqual([
      {
        volume: 0,
        parts: [
          { chunk: 0, mask: 0, at: [0], length: CHUNK },
          {
            chunk: 3,
            mask: 0xffff,
            at: Array.from({ length: 16 }, (_, b) => (b < 8 ? 2 : 4) * CHUNK + (b % 8) * 4096),
            length: 4096,
          },
        ].map((part) =>
          part.chunk === 3
            ? {
                ...part,
                at: part.at.map((at, b) => (b < 8 ? at : 4 * CHUNK + (b - 8) * 4096)),
              }
            : part,
        ),
      },
      { volume: 1, parts: [{ chunk: 1, mask: 0b1100, at: [CHUNK, CHUNK + 4096], length: 4096 }] },
    ]);
  });

  it('knows that the last chunk and block of a volume are short', () => {
    const sizeBytes = CHUNK + 4096 + 512;
    const whole = [{ volume: 0, offset: CHUNK, length: 4608, at: 0 }];
    expect(batchesOf(whole, [sizeBytes])[0]!.parts).toEqual([
      { chunk: 1, mask: 0, at: [0], length: 4608 },
    ]);
    const tail = [{ volume: 0, offset: CHUNK + 4096, length: 512, at: 0 }];
    expect(batchesOf(tail, [sizeBytes])[0]!.parts).toEqual([
      { chunk: 1, mask: 0b10, at: [0], length: 512 },
    ]);
  });

  it('takes the later of two reads of a block', () => {
    const pieces = [
      { volume: 0, offset: 0, length: 8192, at: 0 },
      { volume: 0, offset: 4096, length: 4096, at: 8192 },
    ];
    expect(batchesOf(pieces, [MIB])[0]!.parts[0]!.at).toEqual([0, 8192]);
  });
});

const sparse =
  (data: Extent[]) =>
  async (offset: number): Promise<Extent | null> => {
    const next = data.find((extent) => extent.offset + extent.length > offset);
    if (next === undefined) return null;
    const from = Math.max(offset, next.offset);
    return { offset: from, length: next.offset + next.length - from };
  };
const limits = { dataChunks: 8, segments: 100, alignChunks: 1 };

describe('a slice of a sync', () => {
  it('tells a hole of two TiB as one segment', async () => {
    const slice = await planSlice(sparse([]), 2 * TIB, 0, limits);
    expect(slice.segments).toEqual([{ kind: 'hole', from: 0, to: (2 * TIB) / CHUNK }]);
    expect(extentsOf(slice, 2 * TIB)).toEqual([]);
  });

  it('is bounded in data, and goes on where it ended', async () => {
    const all = sparse([{ offset: 0, length: 20 * CHUNK + 10 }]);
    const size = 20 * CHUNK + 10;
    const first = await planSlice(all, size, 0, limits);
    expect(first).toEqual({ segments: [{ kind: 'data', from: 0, to: 8 }], nextChunk: 8 });
    const last = await planSlice(all, size, 16, limits);
    expect(last.nextChunk).toBe(21);
    expect(extentsOf(last, size)).toEqual([{ offset: 16 * CHUNK, length: 4 * CHUNK + 10 }]);
  });

  it('covers every chunk exactly once, with data wherever there is any', async () => {
    const extents = fc.array(fc.tuple(fc.nat(3000), fc.integer({ min: 1, max: 400 })), {
      maxLength: 6,
    });
    await fc.assert(
      fc.asyncProperty(extents, fc.constantFrom(1, 4, 16), async (raw, alignChunks) => {
        const size = 250 * CHUNK + 1234;
        const data = raw
          .map(([offset, length]) => ({ offset: offset * 4096, length: length * 512 }))
          .sort((a, b) => a.offset - b.offset)
          .filter(({ offset }) => offset < size)
          .map(({ offset, length }) => ({ offset, length: Math.min(length, size - offset) }));
        const merged = data.filter((d, i) => i === 0 || d.offset >= ends(data.slice(0, i)));
        const seen: ('data' | 'hole')[] = [];
        for (let at = 0; at < 251; ) {
          const slice = await planSlice(sparse(merged), size, at, { ...limits, alignChunks });
          for (const segment of slice.segments) {
            expect(segment.from).toBe(seen.length);
            for (let i = segment.from; i < segment.to; i += 1) seen.push(segment.kind);
          }
          expect(slice.nextChunk).toBe(seen.length);
          at = slice.nextChunk;
        }
        expect(seen.length).toBe(251);
        for (const { offset, length } of merged) {
          const last = Math.floor((offset + length - 1) / CHUNK);
          for (let i = Math.floor(offset / CHUNK); i <= last; i += 1) expect(seen[i]).toBe('data');
        }
      }),
      { numRuns: 100 },
    );
  });
});
const ends = (data: Extent[]): number => Math.max(...data.map((d) => d.offset + d.length));

describe('the cursor of a sync', () => {
  const slice = {
    segments: [
      { kind: 'data' as const, from: 2, to: 4 },
      { kind: 'hole' as const, from: 4, to: 9 },
      { kind: 'data' as const, from: 9, to: 10 },
    ],
    nextChunk: 10,
  };
  const whole = (chunk: number) => ({ chunk, mask: 0, at: [0], length: CHUNK });

  it('moves over what was read and over holes', () => {
    const cursor = new SyncCursor(slice, 2, 10 * CHUNK);
    cursor.coverPart(whole(2));
    cursor.coverPart(whole(3));
    expect(cursor.holesBefore(9)).toHaveLength(1);
    cursor.coverRun(4, 9);
    cursor.coverPart({ chunk: 9, mask: 0x00ff, at: [], length: 4096 });
    expect(cursor.chunk).toBe(9);
    cursor.coverPart({ chunk: 9, mask: 0xff00, at: [], length: 4096 });
    expect(cursor.chunk).toBe(10);
    expect(cursor.holesBefore(99)).toEqual([]);
  });

  it('never passes a gap', () => {
    const cursor = new SyncCursor(slice, 2, 10 * CHUNK);
    cursor.coverPart(whole(3));
    cursor.coverRun(4, 9);
    expect(cursor.chunk).toBe(2);
  });
});

describe('the scan table', () => {
  const a = new Uint8Array(32).fill(1);
  const b = new Uint8Array(32).fill(2);

  it('tells what differs from before', () => {
    const table = new ScanTable(4);
    expect(table.note(7, [a, b])).toBe(true);
    expect(table.note(7, [a, b])).toBe(false);
    expect(table.note(7, [b, a])).toBe(true);
    expect(table.note(7, ['zero', a])).toBe(true);
    expect(table.note(7, ['zero', 'zero'])).toBe(true);
    expect(table.noteZeros(7, 8)).toBe(false);
    table.forget(7);
    expect(table.note(7, ['zero', 'zero'])).toBe(true);
  });

  it('knows huge holes without memory, and data within them', () => {
    const table = new ScanTable(16);
    expect(table.noteZeros(0, 2 ** 21)).toBe(true);
    expect(table.noteZeros(0, 2 ** 21)).toBe(false);
    expect(table.note(12345, [a])).toBe(true);
    expect(table.noteZeros(0, 12345)).toBe(false);
    expect(table.noteZeros(0, 2 ** 21)).toBe(true);
    expect(table.noteZeros(0, 2 ** 21)).toBe(false);
  });

  it('has groups that fit into a buffer', () => {
    expect([CHUNK, 3 * CHUNK, MIB, 4 * MIB].map(groupChunksFor)).toEqual([1, 2, 16, 16]);
  });
});

describe('the window', () => {
  it('reserves for offers and frees by number', () => {
    const window = new FlowWindow(100);
    window.add(1, 60);
    expect(window.hasRoom(41)).toBe(false);
    window.settle(1, 10);
    expect(window.hasRoom(90)).toBe(true);
    window.add(2, 90);
    expect(window.hasRoom(1)).toBe(false);
    expect(window.hasRoom(0)).toBe(true);
    window.stored(1);
    expect(window.inFlightBytes).toBe(90);
    window.stored(2);
    expect(window.hasRoom(5000)).toBe(true);
  });
});

describe('the token bucket', () => {
  it('lets through what it should over time, frames larger than a burst too', () => {
    let now = 0;
    const bucket = new TokenBucket(1000, now);
    let sent = 0;
    while (now < 60_000) {
      const wait = bucket.waitMs(now);
      now += wait;
      bucket.take(900, now);
      sent += 900;
    }
    expect(sent / (now / 1000)).toBeGreaterThan(950);
    expect(sent / (now / 1000)).toBeLessThan(1050);
  });

  it('without a limit never waits', () => {
    const bucket = new TokenBucket(0, 0);
    bucket.take(1e12, 0);
    expect(bucket.waitMs(0)).toBe(0);
  });
});

describe('the outbox', () => {
  class Sink {
    sent: string[] = [];
    buffered = 0;
    send(frame: Uint8Array, onGone?: () => void): void {
      this.sent.push(Buffer.from(frame).toString());
      onGone?.();
    }
    bufferedBytes(): number {
      return this.buffered;
    }
  }
  const item = (name: string, over: Partial<OutItem> = {}): OutItem => ({
    isReady: true,
    seq: null,
    isNumbered: true,
    isNeeded: true,
    roomBytes: 0,
    frame: (seq) => Buffer.from(`${name}${seq}`),
    onSent: () => undefined,
    ...over,
  });
  const reply = (name: string) => ({
    frame: Buffer.from(name),
    onSent: () => undefined,
    onGone: () => undefined,
  });
  const open = () => {
    const sink = new Sink();
    const outbox = new Outbox(new VirtualClock(), new TokenBucket(0, 0));
    outbox.open(sink, 100);
    return { sink, outbox };
  };

  it('sends in the order of taking in, whatever is ready first', () => {
    const { sink, outbox } = open();
    const slow = item('slow', { isReady: false });
    outbox.add(slow);
    outbox.add(item('fast'));
    outbox.pump();
    expect(sink.sent).toEqual([]);
    slow.isReady = true;
    outbox.pump();
    expect(sink.sent).toEqual(['slow1', 'fast2']);
  });

  it('drops what is not needed without a gap in the numbers', () => {
    const { sink, outbox } = open();
    outbox.add(item('a'));
    outbox.add(item('b', { isNeeded: false }));
    outbox.add(item('c'));
    outbox.pump();
    expect(sink.sent).toEqual(['a1', 'c2']);
  });

  it('sends what is not needed where its number is given away already', () => {
    const { sink, outbox } = open();
    outbox.add(item('b', { isNeeded: false }));
    expect(outbox.addNumbered(item('p'))).toBe(2);
    outbox.pump();
    expect(sink.sent).toEqual(['b1', 'p2']);
  });

  it('waits for room in the window, but never with a reply', () => {
    const { sink, outbox } = open();
    outbox.add(item('offer', { roomBytes: 80 }));
    outbox.add(item('patch', { roomBytes: 30 }));
    outbox.pump();
    expect(sink.sent).toEqual(['offer1']);
    outbox.reply(1, 80, reply('pieces'));
    expect(sink.sent).toEqual(['offer1', 'pieces']);
    outbox.stored(1);
    expect(sink.sent).toEqual(['offer1', 'pieces', 'patch2']);
  });

  it('waits while the connection is behind, and while an item is held', () => {
    const { sink, outbox } = open();
    let isHeld = true;
    sink.buffered = 2 ** 30;
    outbox.add(item('commit', { isNumbered: false, isHeld: () => isHeld }));
    outbox.pump();
    sink.buffered = 0;
    outbox.pump();
    expect(sink.sent).toEqual([]);
    isHeld = false;
    outbox.pump();
    expect(sink.sent).toEqual(['commit0']);
  });

  it('forgets everything when the session ends', () => {
    const { sink, outbox } = open();
    outbox.add(item('a', { isReady: false }));
    outbox.drop();
    outbox.open(sink, 100);
    outbox.add(item('b'));
    outbox.pump();
    expect(sink.sent).toEqual(['b1']);
  });
});

describe('holds', () => {
  it('give a buffer back once, when the last is let go', () => {
    const released: number[] = [];
    const holds = new BufferHolds(4, (buffer) => released.push(buffer));
    const [first, second] = holds.take(2, 2);
    first!.letGo();
    first!.letGo();
    expect(released).toEqual([]);
    expect(holds.free).toBe(3);
    second!.letGo();
    expect(released).toEqual([2]);
  });

  it('outlive the end of a session while a task runs', async () => {
    const released: number[] = [];
    const holds = new BufferHolds(4, (buffer) => released.push(buffer));
    const [busy] = holds.take(0, 1);
    holds.take(1, 1);
    const task = Promise.withResolvers<number>();
    const during = busy!.during(task.promise);
    holds.dropAll();
    expect(released).toEqual([1]);
    task.resolve(5);
    expect(await during).toBe(5);
    expect(released).toEqual([1, 0]);
  });
});

describe('content', () => {
  it('is compressed where it helps and comes back as it was', () => {
    const text = Buffer.from('all work and no play makes jack a dull boy\n'.repeat(2000)).subarray(
      0,
      CHUNK,
    );
    const packed = new Packer().pack(text, 0, CHUNK);
    expect(packed.codec).toBe(1);
    expect(packed.stored.length).toBeLessThan(CHUNK / 4);
    expect(uncompressSync(packed.stored).equals(text)).toBe(true);
  });

  it('stays good until the packer is cleared, however much there is', () => {
    const contents = Array.from({ length: 40 }, (_, i) =>
      Buffer.from(`content ${i} and so on, and on, `.repeat(4000)).subarray(0, CHUNK - i),
    );
    const packer = new Packer();
    for (let round = 0; round < 3; round += 1) {
      packer.clear(8 * CHUNK);
      const all = contents.map((content) => packer.pack(content, 0, content.length));
      all.forEach(({ codec, stored }, i) => {
        expect(codec).toBe(1);
        expect(uncompressSync(Buffer.from(stored)).equals(contents[i]!)).toBe(true);
      });
    }
  });

  it('is refused by the addon outside of its memory', () => {
    const bytes = Buffer.alloc(100, 'a');
    const into = Buffer.alloc(100);
    expect(compressInto(bytes, 0, 100, into, 0, 100)).toBeGreaterThan(4);
    expect(compressInto(bytes, 0, 100, into, 0, 4)).toBe(0);
    expect(compressInto(randomBytes(100), 0, 100, into, 0, 100)).toBe(0);
    for (const wrong of [
      [1, 100, 0, 100],
      [0, 101, 0, 100],
      [0, 0, 0, 100],
      [0, 100, 1, 100],
      [0, 100, 0, 101],
      [2 ** 52, 2 ** 52, 0, 100],
    ] as const) {
      const [at, length, targetAt, limit] = wrong;
      expect(() => compressInto(bytes, at, length, into, targetAt, limit)).toThrow(RangeError);
    }
  });

  it('is stored as it is where compression does not help', () => {
    for (const content of [
      randomBytes(CHUNK),
      Buffer.from(randomBytes(CHUNK).toString('base64')).subarray(0, CHUNK),
    ]) {
      const { codec, stored } = new Packer().pack(content, 0, CHUNK);
      expect(codec).toBe(0);
      expect(Buffer.from(stored).equals(content)).toBe(true);
    }
  });

  it('that is zero is known', () => {
    const bytes = Buffer.alloc(2 * CHUNK);
    expect(isZeroRange(bytes, 4096, CHUNK)).toBe(true);
    bytes[4096 + CHUNK - 1] = 1;
    expect(isZeroRange(bytes, 4096, CHUNK)).toBe(false);
    expect(isZeroRange(bytes, 4096, CHUNK - 1)).toBe(true);
  });

  it('has the digest that the world knows', () => {
    expect(Buffer.from(digestOf(Buffer.from('xabcx'), 1, 3)).toString('hex')).toBe(
      'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad',
    );
  });

  it('of holes and zeros next to each other is one run', () => {
    const named = [3, 4, 9].map((chunk) => ({
      part: { chunk, mask: 0, at: [0], length: CHUNK },
      piece: chunk === 9 ? new Uint8Array(32) : ('zero' as const),
    }));
    const entries = entriesOf(named, [
      { from: 0, to: 3 },
      { from: 5, to: 9 },
    ]);
    expect(entries.map(({ index, count }) => [index, count])).toEqual([
      [0, 9],
      [9, 1],
    ]);
  });
});
