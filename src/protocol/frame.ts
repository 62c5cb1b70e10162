/**
 * One frame: a head that says what follows and how long it is, the message's fields, a checksum over all
 * of that, and then the contents. Contents are not under the checksum: each is checked against its
 * SHA-256 before it is used (P3). Byte table in PROTOCOL.md. Pure; the hash is loaded with the module.
 *
 * `openFrame` is total: a head and fields that are whole and as they were sent, or ERR_PROTOCOL_FRAME or
 * ERR_PROTOCOL_CHECKSUM.
 */
import xxhash from 'xxhash-wasm';
import { assert, UnderstudyError } from '../base/errors.ts';
import { MAX_FRAME_BYTES } from './limits.ts';

const { h64Raw } = await xxhash();

export const HEAD_BYTES = 12;
export const CHECKSUM_BYTES = 8;
const MAGIC = 0x55;
/** Of what is not content: entries, a table of pieces, names. */
export const FRAME_OVERHEAD_BYTES = HEAD_BYTES + CHECKSUM_BYTES;

export interface OpenFrame {
  readonly type: number;
  /** The message's fields: a view. */
  readonly fields: Uint8Array;
  /** The contents, back to back: a view. */
  readonly contents: Uint8Array;
}

/** A frame in memory of its own, or at the begin of `into` where it fits there. */
export function sealFrame(
  type: number,
  fields: Uint8Array,
  contents: readonly Uint8Array[],
  into?: Buffer,
): Uint8Array {
  const contentLength = contents.reduce((sum, part) => sum + part.length, 0);
  const length = HEAD_BYTES + fields.length + CHECKSUM_BYTES + contentLength;
  assert(length <= MAX_FRAME_BYTES, `a frame of ${length} bytes`);
  const hasRoom = into !== undefined && into.length >= length;
  const frame = hasRoom ? into.subarray(0, length) : Buffer.allocUnsafeSlow(length);
  frame[0] = MAGIC;
  frame[1] = type;
  frame.writeUInt16LE(0, 2);
  frame.writeUInt32LE(fields.length, 4);
  frame.writeUInt32LE(contentLength, 8);
  frame.set(fields, HEAD_BYTES);
  const sumAt = HEAD_BYTES + fields.length;
  frame.writeBigUInt64LE(h64Raw(frame.subarray(0, sumAt)), sumAt);
  let at = sumAt + CHECKSUM_BYTES;
  for (const part of contents) {
    frame.set(part, at);
    at += part.length;
  }
  return frame;
}

const bad = (detail: string) => new UnderstudyError('ERR_PROTOCOL_FRAME', `bad frame: ${detail}`);

export function openFrame(frame: Uint8Array): OpenFrame {
  if (frame.length > MAX_FRAME_BYTES) throw bad(`${frame.length} bytes long`);
  if (frame.length < FRAME_OVERHEAD_BYTES) throw bad('too short');
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  if (frame[0] !== MAGIC) throw bad('not a frame of understudy');
  const flags = view.getUint16(2, true);
  if (flags !== 0) throw bad(`unknown flags ${flags}`);
  const fieldLength = view.getUint32(4, true);
  const contentLength = view.getUint32(8, true);
  if (FRAME_OVERHEAD_BYTES + fieldLength + contentLength !== frame.length) {
    throw bad('its lengths do not add up');
  }
  const sumAt = HEAD_BYTES + fieldLength;
  if (view.getBigUint64(sumAt, true) !== h64Raw(frame.subarray(0, sumAt))) {
    throw new UnderstudyError('ERR_PROTOCOL_CHECKSUM', 'a frame was damaged on its way');
  }
  return {
    type: frame[1]!,
    fields: frame.subarray(HEAD_BYTES, sumAt),
    contents: frame.subarray(sumAt + CHECKSUM_BYTES),
  };
}

/** The type byte of what looks like a frame, unchecked; -1 for anything else. */
export const peekFrameType = (frame: Uint8Array): number =>
  frame.length >= FRAME_OVERHEAD_BYTES && frame[0] === MAGIC ? frame[1]! : -1;

/** Bytes of contents that what looks like a frame claims to hold, unchecked, never beyond its length. */
export function peekContentBytes(frame: Uint8Array): number {
  if (frame.length < FRAME_OVERHEAD_BYTES) return 0;
  const claimed = new DataView(frame.buffer, frame.byteOffset).getUint32(8, true);
  return Math.min(claimed, frame.length);
}
