/** The codec: golden bytes, round trips, and that it is total whatever a peer sends. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { UnderstudyError } from '../../src/base/errors.ts';
import { replicationStates } from '../../src/model/replication.ts';
import { decodeMessage, encodeMessage, peekType } from '../../src/protocol/codec.ts';
import { EpochDigests } from '../../src/protocol/epoch-digests.ts';
import { openFrame, sealFrame } from '../../src/protocol/frame.ts';
import {
  MAX_ENTRIES_BYTES,
  MAX_FRAME_BYTES,
  MAX_MISSING_CHUNKS,
  MAX_PIECE_BYTES,
  MAX_TEXT_BYTES,
  MAX_VOLUME_ID_BYTES,
  MAX_VOLUMES,
  MAX_WORD_BYTES,
} from '../../src/protocol/limits.ts';
import type { Message, Status } from '../../src/protocol/messages.ts';
import { anyMessage, rawPiece, samples } from './support/messages.ts';
import fc from './support/properties.ts';

const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
/** Bytes as hex, so that views and copies compare equal. */
function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return hexOf(value);
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, plain(each)]));
}
const sampleOf = (type: Message['type']): Message => samples.find((each) => each.type === type)!;

const refusals = new Set([
  'ERR_PROTOCOL_FRAME',
  'ERR_PROTOCOL_CHECKSUM',
  'ERR_PROTOCOL_MESSAGE',
  'ERR_ENTRIES_INVALID',
]);

/** The message, or null where the decoder refuses as it should; anything else is thrown on. */
function decodeOrRefuse(frame: Uint8Array): Message | null {
  try {
    return decodeMessage(frame);
  } catch (error) {
    if (error instanceof UnderstudyError && refusals.has(error.code)) return null;
    throw error;
  }
}

/** What the decoder takes is what the encoder makes: one message, one frame. */
function expectTotal(frame: Uint8Array): void {
  const message = decodeOrRefuse(frame);
  if (message !== null) expect(hexOf(encodeMessage(message))).toBe(hexOf(frame));
}

describe('golden bytes', () => {
  const path = join(import.meta.dirname, 'protocol-golden.txt');
  const golden = new Map(
    readFileSync(path, 'utf8')
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'))
      .map((line) => line.split(' ') as [string, string]),
  );

  it('there are some of every type', () => {
    expect([...golden.keys()]).toEqual(samples.map((sample) => sample.type));
  });

  it.each(samples.map((sample) => [sample.type, sample] as const))(
    '%s is as it always was',
    (type, sample) => {
      expect(hexOf(encodeMessage(sample))).toBe(golden.get(type));
      expect(plain(decodeMessage(Buffer.from(golden.get(type)!, 'hex')))).toEqual(plain(sample));
    },
  );
});

describe('round trip', () => {
  it('decodes what was encoded', () => {
    fc.assert(
      fc.property(anyMessage, (message) => {
        const frame = encodeMessage(message);
        expect(peekType(frame)).toBe(message.type);
        expect(plain(decodeMessage(frame))).toEqual(plain(message));
        expect(hexOf(encodeMessage(decodeMessage(frame)))).toBe(hexOf(frame));
      }),
      { numRuns: 1000 },
    );
  });

  it('decodes a frame in the middle of other bytes', () => {
    const frame = encodeMessage(sampleOf('patch'));
    const around = new Uint8Array(frame.length + 13);
    around.set(frame, 5);
    const decoded = decodeMessage(around.subarray(5, 5 + frame.length));
    expect(plain(decoded)).toEqual(plain(sampleOf('patch')));
  });

  it('makes views of contents, not copies', () => {
    const frame = encodeMessage(sampleOf('pieces'));
    const message = decodeMessage(frame);
    if (message.type !== 'pieces') throw new Error('not pieces');
    expect(message.pieces.every((piece) => piece.stored.buffer === frame.buffer)).toBe(true);
  });

  it('makes frames that may be given to another thread', () => {
    for (const sample of samples) {
      const frame = encodeMessage(sample);
      expect([frame.byteOffset, frame.buffer.byteLength]).toEqual([0, frame.length]);
    }
  });

  it('keeps the time of a cut to the millisecond, never later', () => {
    const commit = { ...sampleOf('commit'), timeMs: 1000.9 } as Message;
    expect(decodeMessage(encodeMessage(commit))).toMatchObject({ timeMs: 1000 });
  });

  it('cuts text for people where it is too long, between characters', () => {
    const status = sampleOf('status') as Status;
    const reason = `${'ü'.repeat(MAX_TEXT_BYTES)}\ud800`;
    const volumes = [{ ...status.volumes[0]!, reason }];
    const decoded = decodeMessage(encodeMessage({ type: 'status', volumes })) as Status;
    expect(decoded.volumes[0]!.reason).toBe('ü'.repeat(MAX_TEXT_BYTES / 2));
  });

  it('tells of more missing chunks than fit that there are more', () => {
    const chunks = Array.from({ length: MAX_MISSING_CHUNKS + 1 }, (_, i) => i);
    const missing: Message = { type: 'missing', volumes: [{ volume: 0, chunks, more: false }] };
    const decoded = decodeMessage(encodeMessage(missing));
    expect(decoded).toEqual({
      type: 'missing',
      volumes: [{ volume: 0, chunks: chunks.slice(0, MAX_MISSING_CHUNKS), more: true }],
    });
  });
});

describe('whatever a peer sends', () => {
  it('random bytes are refused with a code', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        expect(decodeOrRefuse(bytes)).toBeNull();
      }),
      { numRuns: 2000 },
    );
  });

  it('a frame cut short or made longer is refused', () => {
    for (const sample of samples) {
      const frame = encodeMessage(sample);
      for (let length = 0; length < frame.length; length += 1) {
        expect(decodeOrRefuse(frame.subarray(0, length))).toBeNull();
      }
      expect(decodeOrRefuse(Buffer.concat([frame, Buffer.of(0)]))).toBeNull();
    }
  });

  it('any flipped bit outside of the contents is found', () => {
    for (const sample of samples) {
      const frame = encodeMessage(sample);
      const checked = frame.length - openFrame(frame).contents.length;
      for (let bit = 0; bit < checked * 8; bit += 1) {
        const damaged = Buffer.from(frame);
        damaged[bit >> 3] = damaged[bit >> 3]! ^ (1 << (bit & 7));
        expect(decodeOrRefuse(damaged)).toBeNull();
      }
    }
  });

  it('fields made up by someone who can compute a checksum are refused or read exactly', () => {
    const bodies = fc.uint8Array({ maxLength: 200 });
    fc.assert(
      fc.property(fc.nat({ max: 20 }), bodies, bodies, (type, fields, contents) => {
        expectTotal(sealFrame(type, fields, [contents]));
      }),
      { numRuns: 3000 },
    );
  });

  it('fields changed by someone who can compute a checksum are refused or read exactly', () => {
    const change = fc.record({ at: fc.nat({ max: 2000 }), value: fc.nat({ max: 255 }) });
    const changes = fc.array(change, { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(anyMessage, changes, fc.nat({ max: 40 }), (message, list, drop) => {
        const { type, fields, contents } = openFrame(encodeMessage(message));
        const own = new Uint8Array(fields);
        for (const { at, value } of list) if (own.length > 0) own[at % own.length] = value;
        const kept = drop > 30 ? own.subarray(0, Math.max(0, own.length - (drop - 30))) : own;
        expectTotal(sealFrame(type, kept, [contents]));
      }),
      { numRuns: 3000 },
    );
  });

  it('counts that promise more than the frame holds cost nothing', () => {
    const huge = Buffer.alloc(4, 0xff);
    const frames = [
      sealFrame(4, Buffer.concat([Buffer.alloc(8), huge]), []),
      sealFrame(6, Buffer.concat([Buffer.alloc(4), huge]), []),
      sealFrame(3, Buffer.concat([Buffer.alloc(10), huge]), []),
      sealFrame(10, Buffer.from('ffff', 'hex'), []),
      sealFrame(12, Buffer.from('ffff', 'hex'), []),
    ];
    const before = process.memoryUsage().arrayBuffers;
    for (const frame of frames) expect(decodeOrRefuse(frame)).toBeNull();
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(2 ** 20);
  });

  it('a frame longer than a frame may be is refused without a look', () => {
    expect(() => decodeMessage(new Uint8Array(MAX_FRAME_BYTES + 1))).toThrow(
      expect.objectContaining({ code: 'ERR_PROTOCOL_FRAME' }),
    );
  });
});

describe('what our own side must not say', () => {
  const bad: [string, Message][] = [
    ['a negative number', { type: 'stored', seq: -1, bytes: 0 }],
    ['a number that is none', { type: 'stored', seq: Number.NaN, bytes: 0 }],
    [
      'a generation that is no hex',
      { type: 'committed', pointId: 'x', volumes: [{ volume: 0, generation: 'xyz', epoch: 1 }] },
    ],
    ['a name that is too long', { type: 'cut-request', requestId: 'x'.repeat(200) }],
    [
      'a frame that is too long',
      {
        type: 'pieces',
        seq: 1,
        pieces: Array.from({ length: 70 }, () => ({
          ...rawPiece('x'),
          stored: new Uint8Array(65_536),
        })),
      },
    ],
  ];
  it.each(bad)('%s is a defect', (_name, message) => {
    expect(() => encodeMessage(message)).toThrow(expect.objectContaining({ code: 'ERR_BUG' }));
  });
});

describe('content digest of an epoch', () => {
  it('is that of all entries in their order, by volume, and begins anew', () => {
    const digests = new EpochDigests();
    const empty = digests.current(0);
    digests.add(0, Buffer.from('ab'));
    digests.add(1, Buffer.from('abc'));
    digests.add(0, Buffer.from('c'));
    expect(digests.current(0)).toBe(digests.current(1));
    expect(digests.current(0)).toBe(
      'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad',
    );
    digests.restart(0);
    expect(digests.current(0)).toBe(empty);
    digests.clear();
    expect(digests.current(1)).toBe(empty);
  });
});

describe('PROTOCOL.md', () => {
  const text = readFileSync(join(import.meta.dirname, '../../src/protocol/PROTOCOL.md'), 'utf8');

  it('has every type under its byte', () => {
    for (const sample of samples) {
      const byte = encodeMessage(sample)[1];
      expect(text).toMatch(new RegExp(`^\\| ${byte} \\| ${sample.type} \\|`, 'm'));
    }
  });

  it('has the states and methods in the order of their bytes', () => {
    const listed = replicationStates.map((state, byte) => `${byte} ${state}`).join(', ');
    expect(text.replaceAll('\n', ' ')).toContain(listed);
  });

  it('has the bounds', () => {
    const bounds = [MAX_ENTRIES_BYTES / 1024, MAX_VOLUMES, MAX_VOLUME_ID_BYTES, MAX_WORD_BYTES];
    for (const bound of bounds) expect(text).toContain(String(bound));
    for (const bound of [MAX_MISSING_CHUNKS, MAX_TEXT_BYTES, MAX_PIECE_BYTES]) {
      expect(text).toContain(bound.toLocaleString('en'));
    }
    expect(text).toContain(`at most ${MAX_FRAME_BYTES / 2 ** 20} MiB`);
  });
});
