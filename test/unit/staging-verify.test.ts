/** Contents are what their names say, in place and in threads, and lies are found. */
import { hash, randomBytes } from 'node:crypto';
import { Worker } from 'node:worker_threads';
import { compressSync } from 'lz4-napi';
import { afterAll, describe, expect, it, vi } from 'vitest';
import { CHUNK_BYTES } from '../../src/model/geometry.ts';
import { decodeMessage, encodeMessage } from '../../src/protocol/codec.ts';
import type { Pieces, WirePiece } from '../../src/protocol/messages.ts';
import { inlineVerifier, type Verifier } from '../../src/staging/verifier.ts';
import { createWorkerVerifier } from '../../src/staging/worker-verifier.ts';
import fc from './support/properties.ts';

const digestOf = (bytes: Uint8Array) => new Uint8Array(hash('sha256', bytes, 'buffer'));
const raw = (bytes: Uint8Array): WirePiece => ({
  digest: digestOf(bytes),
  codec: 0,
  rawLength: bytes.length,
  stored: bytes,
});
const packed = (bytes: Buffer): WirePiece => ({
  ...raw(bytes),
  codec: 1,
  stored: compressSync(bytes),
});
const text = Buffer.alloc(CHUNK_BYTES, 'a recovery point is a sealed set of manifests; ');
const frameOf = (pieces: WirePiece[]) => encodeMessage({ type: 'pieces', seq: 1, pieces });

const threads = createWorkerVerifier(2);
afterAll(() => threads.close());

const verifiers: [string, Verifier][] = [
  ['in place', inlineVerifier],
  ['in threads', threads],
];

describe.each(verifiers)('%s', (_name, verifier) => {
  /** Enough beside the piece in question that the frame goes to a thread. */
  const rest = Array.from({ length: 4 }, () => raw(randomBytes(CHUNK_BYTES)));
  const verify = (...pieces: WirePiece[]) => verifier.verify(frameOf([...rest, ...pieces]));

  it('gives the frame back as it was', async () => {
    const frame = frameOf([
      ...rest,
      packed(text),
      raw(Buffer.from('x')),
      packed(text.subarray(0, 4096)),
    ]);
    const copy = Buffer.from(frame);
    const back = await verifier.verify(frame);
    expect(Buffer.compare(back, copy)).toBe(0);
    expect((decodeMessage(back) as Pieces).pieces).toHaveLength(7);
  });

  const lies: [string, WirePiece][] = [
    ['other bytes', { ...raw(text), digest: digestOf(Buffer.from('y')) }],
    ['other packed bytes', { ...packed(text), digest: digestOf(Buffer.from('y')) }],
    [
      'LZ4 data that claims more',
      { ...packed(text), stored: withLength(compressSync(text), 2 ** 31 - 1) },
    ],
    ['LZ4 data that claims less', { ...packed(text), stored: withLength(compressSync(text), 10) }],
    [
      'LZ4 data that is shorter than it claims',
      { ...packed(text), stored: withLength(compressSync(text.subarray(0, 100)), CHUNK_BYTES) },
    ],
    [
      'LZ4 data that is longer than it claims',
      { ...packed(text), rawLength: 4096, stored: withLength(compressSync(text), 4096) },
    ],
    [
      'bytes that are no LZ4 data',
      { ...packed(text), stored: withLength(Buffer.alloc(500, 0xff), CHUNK_BYTES) },
    ],
  ];
  it.each(lies)('finds %s', async (_what, piece) => {
    await expect(verify(piece)).rejects.toMatchObject({ code: 'ERR_PROTOCOL_DIGEST' });
  });

  it('finds a damaged frame', async () => {
    const frame = frameOf(rest);
    frame[20] = frame[20]! ^ 1;
    await expect(verifier.verify(frame)).rejects.toMatchObject({ code: 'ERR_PROTOCOL_CHECKSUM' });
  });

  it('goes on after what was wrong', async () => {
    await expect(verify(lies[0]![1])).rejects.toThrow();
    await verify(packed(text));
  });
});

function withLength(stored: Buffer, length: number): Buffer {
  const copy = Buffer.from(stored);
  copy.writeUInt32LE(length, 0);
  return copy;
}

describe('any bytes in place of LZ4 data', () => {
  it('are refused with a code, or are what they are named', () => {
    const bytes = fc.uint8Array({ minLength: 1, maxLength: 300 });
    return fc.assert(
      fc.asyncProperty(bytes, fc.nat({ max: 60_000 }), async (body, extra) => {
        const rawLength = body.length + 5 + extra;
        const stored = withLength(Buffer.concat([Buffer.alloc(4), body]), rawLength);
        const piece: WirePiece = { digest: digestOf(body), codec: 1, rawLength, stored };
        await expect(inlineVerifier.verify(frameOf([piece]))).rejects.toMatchObject({
          code: 'ERR_PROTOCOL_DIGEST',
        });
      }),
      { numRuns: 300 },
    );
  });
});

describe('the threads', () => {
  it('take memory over and give it back; what lies in a larger buffer is copied', async () => {
    const frame = frameOf(Array.from({ length: 8 }, () => raw(randomBytes(CHUNK_BYTES))));
    const around = new Uint8Array(frame.length + 10);
    around.set(frame, 5);
    const view = around.subarray(5, 5 + frame.length);
    const back = await threads.verify(view);
    expect(view.length).toBe(frame.length);
    await threads.verify(frame);
    expect(frame.length).toBe(0);
    threads.release(back);
    expect(back.length).toBe(0);
    threads.release(view);
    expect(view.length).toBe(around.length - 10);
  });

  it('work on many frames at once, each with its own verdict', async () => {
    const frames = Array.from({ length: 24 }, (_, i) => {
      const pieces = [
        raw(randomBytes(CHUNK_BYTES)),
        raw(randomBytes(CHUNK_BYTES)),
        raw(randomBytes(CHUNK_BYTES)),
      ];
      if (i % 3 === 0) pieces[1] = { ...pieces[1]!, digest: digestOf(text) };
      return threads.verify(frameOf(pieces)).then(
        () => true,
        () => false,
      );
    });
    expect(await Promise.all(frames)).toEqual(Array.from({ length: 24 }, (_, i) => i % 3 !== 0));
  });

  it('that have ended fail what waits for them', async () => {
    const own = createWorkerVerifier(1);
    const frame = () => frameOf(Array.from({ length: 16 }, () => raw(randomBytes(CHUNK_BYTES))));
    const fails = () => expect(own.verify(frame())).rejects.toMatchObject({ code: 'ERR_BUG' });
    const { terminate } = Worker.prototype;
    let waiting: Promise<void> | null = null;
    // A frame from before may still be answered; one that comes as the thread is told to end is not.
    vi.spyOn(Worker.prototype, 'terminate').mockImplementationOnce(function (this: Worker) {
      const ended = terminate.call(this);
      waiting = fails();
      return ended;
    });
    await own.close();
    expect(waiting).not.toBeNull();
    await waiting;
    await fails();
  });
});
