/**
 * The work on bytes: zero test, digest, compression. Synchronous and pure in effect; the pipeline runs it
 * in worker threads, the simulator in its own. Bytes may lie in shared memory that nobody writes to while
 * they are looked at.
 */
import { hash } from 'node:crypto';
import { CHUNK_BYTES } from '../model/geometry.ts';
import { compressInto } from '../native/index.ts';

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

/**
 * Contents as they are stored and sent: LZ4 where it saves at least a sixteenth, else the bytes themselves
 * (a view). What was compressed lies in memory that is used again: it is good until `clear`.
 */
export class Packer {
  private memory = Buffer.alloc(0);
  private used = 0;

  /** `expectedBytes`: plain bytes until the next `clear`; more than that is possible and slower. */
  clear(expectedBytes: number): void {
    this.used = 0;
    this.reserve(expectedBytes);
  }

  pack(bytes: Buffer, at: number, length: number): StoredContent {
    const limit = length - Math.ceil(length / 16);
    this.reserve(limit);
    const packed = compressInto(bytes, at, length, this.memory, this.used, limit);
    if (packed === 0) return { codec: 0, stored: bytes.subarray(at, at + length) };
    const stored = this.memory.subarray(this.used, this.used + packed);
    this.used += packed;
    return { codec: 1, stored };
  }

  /** New memory where the rest does not do; what lies in the old one stays as it is. */
  private reserve(length: number): void {
    if (this.memory.length - this.used >= length) return;
    this.memory = Buffer.allocUnsafeSlow(Math.max(length, CHUNK_BYTES));
    this.used = 0;
  }
}
