/**
 * The work on bytes: zero test, digest, compression. Synchronous and pure in effect; the pipeline runs it
 * in worker threads, the simulator in its own. Bytes may lie in shared memory that nobody writes to while
 * they are looked at.
 */
import { hash } from 'node:crypto';
import { compressSync } from 'lz4-napi';
import { freeBytes } from '../base/memory.ts';
import { BLOCK_BYTES, CHUNK_BYTES } from '../model/geometry.ts';

const zeros = Buffer.alloc(CHUNK_BYTES);

/** `length` <= 64 KiB. */
export const isZeroRange = (bytes: Buffer, at: number, length: number): boolean =>
  bytes[at] === 0 && bytes.compare(zeros, 0, length, at, at + length) === 0;

export const digestOf = (bytes: Buffer, at: number, length: number): Uint8Array =>
  hash('sha256', bytes.subarray(at, at + length), 'buffer');

export interface StoredContent {
  readonly codec: 0 | 1;
  readonly stored: Uint8Array;
}

/** LZ4 where it saves at least a sixteenth, else the bytes themselves (a view). */
export function storedForm(bytes: Buffer, at: number, length: number): StoredContent {
  const raw = bytes.subarray(at, at + length);
  if (!looksCompressible(raw)) return { codec: 0, stored: raw };
  const packed = compressSync(raw);
  if (packed.length <= length - length / 16) return { codec: 1, stored: packed };
  freeBytes(packed);
  return { codec: 0, stored: raw };
}

const SAMPLES = 512;
const histogram = new Uint16Array(256);
/**
 * Sum of squared counts of 512 samples: 512 + 512 * 511 / 256 = 1534 is expected of random bytes, with a
 * deviation of about 45; text has 20,000, base64 4,600.
 */
const RANDOM_BELOW = 1800;
const DOUBTFUL_BELOW = 8000;

/** A cheap look before LZ4, which is slow on what it cannot compress. */
function looksCompressible(raw: Buffer): boolean {
  const evenness = sumOfSquares(raw);
  if (evenness < RANDOM_BELOW) return false;
  if (evenness > DOUBTFUL_BELOW || raw.length <= BLOCK_BYTES) return true;
  const at = Math.floor(raw.length / 2 / BLOCK_BYTES) * BLOCK_BYTES;
  const sample = raw.subarray(at, at + BLOCK_BYTES);
  const packed = compressSync(sample);
  const { length } = packed;
  freeBytes(packed);
  return length < sample.length * 0.97;
}

function sumOfSquares(raw: Buffer): number {
  histogram.fill(0);
  const stride = Math.max(1, Math.floor(raw.length / SAMPLES));
  const end = Math.min(raw.length, stride * SAMPLES);
  for (let at = 0; at < end; at += stride) {
    const value = raw[at]!;
    histogram[value] = histogram[value]! + 1;
  }
  let sum = 0;
  for (let value = 0; value < 256; value += 1) sum += histogram[value]! * histogram[value]!;
  return sum;
}
