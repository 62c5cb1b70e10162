/**
 * Little-endian cursors over bytes: how every header and record of the store is written and read. The
 * reader is total: whatever the bytes are, it returns a value or throws ERR_OBJECT_DAMAGED.
 */
import { UnderstudyError } from '../../base/errors.ts';

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true });

/** Collects fields, then hands out one array. */
export class ByteWriter {
  private bytes = new Uint8Array(256);
  private at = 0;

  get length(): number {
    return this.at;
  }

  u8(value: number): this {
    return this.put(1, (view, at) => view.setUint8(at, value));
  }

  u16(value: number): this {
    return this.put(2, (view, at) => view.setUint16(at, value, true));
  }

  u32(value: number): this {
    return this.put(4, (view, at) => view.setUint32(at, value, true));
  }

  /** A whole number below 2^53. */
  u64(value: number): this {
    return this.put(8, (view, at) => view.setBigUint64(at, BigInt(value), true));
  }

  raw64(value: bigint): this {
    return this.put(8, (view, at) => view.setBigUint64(at, value, true));
  }

  raw(value: Uint8Array): this {
    this.reserve(value.length);
    this.bytes.set(value, this.at);
    this.at += value.length;
    return this;
  }

  /** u16 length, then UTF-8. */
  text(value: string): this {
    const bytes = encoder.encode(value);
    return this.u16(bytes.length).raw(bytes);
  }

  take(): Uint8Array {
    return this.bytes.slice(0, this.at);
  }

  private put(size: number, set: (view: DataView, at: number) => void): this {
    this.reserve(size);
    set(new DataView(this.bytes.buffer), this.at);
    this.at += size;
    return this;
  }

  private reserve(size: number): void {
    if (this.at + size <= this.bytes.length) return;
    const grown = new Uint8Array(Math.max(this.bytes.length * 2, this.at + size));
    grown.set(this.bytes);
    this.bytes = grown;
  }
}

export class ByteReader {
  private readonly bytes: Uint8Array;
  private readonly view: DataView;
  private readonly path: string;
  private at: number;

  constructor(bytes: Uint8Array, path: string, at = 0) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.path = path;
    this.at = at;
  }

  get position(): number {
    return this.at;
  }

  u8(): number {
    return this.view.getUint8(this.advance(1));
  }

  u16(): number {
    return this.view.getUint16(this.advance(2), true);
  }

  u32(): number {
    return this.view.getUint32(this.advance(4), true);
  }

  u64(): number {
    const value = this.view.getBigUint64(this.advance(8), true);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw this.damaged('a number is out of range');
    return Number(value);
  }

  raw64(): bigint {
    return this.view.getBigUint64(this.advance(8), true);
  }

  /** A view of the next `length` bytes. */
  raw(length: number): Uint8Array {
    const start = this.advance(length);
    return this.bytes.subarray(start, start + length);
  }

  text(): string {
    const bytes = this.raw(this.u16());
    try {
      return decoder.decode(bytes);
    } catch (cause) {
      throw this.damaged('a text is not UTF-8', cause);
    }
  }

  damaged(detail: string, cause?: unknown): UnderstudyError {
    const context = { path: this.path, offset: this.at };
    return new UnderstudyError('ERR_OBJECT_DAMAGED', `${this.path}: ${detail}`, context, cause);
  }

  private advance(size: number): number {
    const start = this.at;
    if (start + size > this.bytes.length) throw this.damaged('cut short');
    this.at = start + size;
    return start;
  }
}
