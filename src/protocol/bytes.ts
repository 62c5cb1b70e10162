/**
 * Little-endian fields in and out of bytes, with a bound on every one. The reader is total: it returns a
 * value that its writer could have written, or throws ERR_PROTOCOL_MESSAGE; it makes views, never copies.
 * The writer throws ERR_BUG for what cannot be said: our own side made it.
 */
import { assert, UnderstudyError } from '../base/errors.ts';

export const malformed = (detail: string): UnderstudyError =>
  new UnderstudyError('ERR_PROTOCOL_MESSAGE', `malformed message: ${detail}`);

const U32 = 2 ** 32;

/** Longest prefix of well-formed text that fits into `maxBytes` of UTF-8. */
function clip(text: string, maxBytes: number): Buffer {
  const bytes = Buffer.from(text.toWellFormed(), 'utf8');
  if (bytes.length <= maxBytes) return bytes;
  let end = maxBytes;
  while (end > 0 && (bytes[end]! & 0xc0) === 0x80) end -= 1;
  return bytes.subarray(0, end);
}

export class ByteWriter {
  private bytes = Buffer.allocUnsafe(256);
  private at = 0;

  u8(value: number): void {
    assert(Number.isInteger(value) && value >= 0 && value < 256, `u8 ${value}`);
    // Taken first: it may move the bytes.
    const at = this.take(1);
    this.bytes[at] = value;
  }

  u16(value: number): void {
    assert(Number.isInteger(value) && value >= 0 && value < 65536, `u16 ${value}`);
    const at = this.take(2);
    this.bytes.writeUInt16LE(value, at);
  }

  u32(value: number): void {
    assert(Number.isInteger(value) && value >= 0 && value < U32, `u32 ${value}`);
    const at = this.take(4);
    this.bytes.writeUInt32LE(value, at);
  }

  /** An integer up to 2^53 - 1 in eight bytes. */
  u64(value: number): void {
    assert(Number.isSafeInteger(value) && value >= 0, `u64 ${value}`);
    this.u32(value % U32);
    this.u32(Math.floor(value / U32));
  }

  /** Finite, not negative. */
  f64(value: number): void {
    assert(Number.isFinite(value) && value >= 0, `f64 ${value}`);
    const at = this.take(8);
    this.bytes.writeDoubleLE(value === 0 ? 0 : value, at);
  }

  /** u16 length, then UTF-8. */
  text(value: string, maxBytes: number): void {
    assert(value.isWellFormed(), 'text is well-formed');
    const bytes = Buffer.from(value, 'utf8');
    assert(bytes.length <= maxBytes, `text of ${bytes.length} bytes, at most ${maxBytes}`);
    this.u16(bytes.length);
    this.raw(bytes);
  }

  /** Text for people: cut to fit rather than refused. */
  clippedText(value: string, maxBytes: number): void {
    const bytes = clip(value, maxBytes);
    this.u16(bytes.length);
    this.raw(bytes);
  }

  /** `byteCount` bytes given as lower-case hex. */
  hex(value: string, byteCount: number): void {
    const isHex = value.length === 2 * byteCount && /^[0-9a-f]*$/.test(value);
    assert(isHex, `"${value}" is not ${byteCount} bytes in hex`);
    this.raw(Buffer.from(value, 'hex'));
  }

  raw(bytes: Uint8Array): void {
    const at = this.take(bytes.length);
    this.bytes.set(bytes, at);
  }

  /** What was written: a view. */
  done(): Uint8Array {
    return this.bytes.subarray(0, this.at);
  }

  private take(count: number): number {
    const at = this.at;
    this.at += count;
    if (this.at > this.bytes.length) {
      const larger = Buffer.allocUnsafe(Math.max(2 * this.bytes.length, this.at));
      larger.set(this.bytes.subarray(0, at));
      this.bytes = larger;
    }
    return at;
  }
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

export class ByteReader {
  private readonly bytes: Uint8Array;
  private readonly view: DataView;
  private at = 0;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  u8(): number {
    return this.bytes[this.take(1)]!;
  }

  u16(): number {
    return this.view.getUint16(this.take(2), true);
  }

  u32(): number {
    return this.view.getUint32(this.take(4), true);
  }

  u64(): number {
    const low = this.u32();
    const value = this.u32() * U32 + low;
    if (!Number.isSafeInteger(value)) throw malformed('a number is out of range');
    return value;
  }

  f64(): number {
    const value = this.view.getFloat64(this.take(8), true);
    if (!Number.isFinite(value) || value < 0 || Object.is(value, -0)) {
      throw malformed('not a finite, positive number');
    }
    return value;
  }

  flag(): boolean {
    const value = this.u8();
    if (value > 1) throw malformed(`flag ${value}`);
    return value === 1;
  }

  /** A number of items of at least `minBytes` each, which must fit into what is left. */
  count(value: number, minBytes: number, max: number): number {
    if (value > max) throw malformed(`${value} items, at most ${max}`);
    if (value * minBytes > this.left) throw malformed('more items than bytes');
    return value;
  }

  text(maxBytes: number): string {
    const length = this.u16();
    if (length > maxBytes) throw malformed(`text of ${length} bytes, at most ${maxBytes}`);
    const bytes = this.raw(length);
    try {
      return utf8.decode(bytes);
    } catch (cause) {
      throw new UnderstudyError('ERR_PROTOCOL_MESSAGE', 'text is not UTF-8', {}, cause);
    }
  }

  hex(byteCount: number): string {
    const bytes = this.raw(byteCount);
    return Buffer.from(bytes.buffer, bytes.byteOffset, byteCount).toString('hex');
  }

  /** A view of the input. */
  raw(length: number): Uint8Array {
    const at = this.take(length);
    return this.bytes.subarray(at, at + length);
  }

  get left(): number {
    return this.bytes.length - this.at;
  }

  private take(count: number): number {
    if (count > this.left) throw malformed('cut short');
    const at = this.at;
    this.at += count;
    return at;
  }
}
