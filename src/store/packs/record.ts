/**
 * Records of a journal segment, which is later a pack as it is. Two shapes of header, both ending in an
 * XXH64; every body follows its header at once. FORMAT.md, "Records", is the specification.
 *
 *   piece, grant (64 bytes): type u8, codec u8, 0 u16, stored length u32, raw length u32, attempt u32,
 *       owner[8], digest[32], XXH64 of these 56 bytes. The body of a piece is not under the checksum:
 *       its digest protects it, and ingest then never hashes a byte twice.
 *       A grant's body is the digest that it is about (grant.ts).
 *   others (24 bytes): type u8, 0[3], body length u32, attempt u32, 0 u32, XXH64 of the first 16 bytes
 *       and the body.
 *
 * In an encrypted repository the bodies are sealed (keys/pack-seal.ts), and lengths are those of the
 * sealed bytes. The attempt is 0 but where a segment was cut back; in a plain one it is always 0.
 */
import { assert } from '../../base/errors.ts';
import { CHUNK_BYTES, DIGEST_BYTES } from '../../model/geometry.ts';
import { ByteReader, ByteWriter } from '../format/bytes.ts';
import { CHECKSUM_BYTES, checksum, sealChecksum } from '../format/checksum.ts';
import type { PackSeal, SealedPlace } from '../keys/pack-seal.ts';
import type { VerifiedPiece } from '../types.ts';

export const RECORD_PIECE = 1;
/** `owner` has sent the content of `digest` too: it may be told "have". */
export const RECORD_GRANT = 2;
/** Gives a handle to an open epoch of a volume, for this segment. */
export const RECORD_VOLUME = 3;
export const RECORD_ENTRIES = 4;
export const RECORD_CURSOR = 5;
export const RECORD_COMMIT = 6;
export const RECORD_END = 7;

export const PIECE_HEADER_BYTES = 64;
/** Where the digest lies in it. */
export const DIGEST_IN_HEADER = 24;
export const RECORD_HEADER_BYTES = 24;
const ATTEMPT_IN_HEADER = 12;
const CHECKED_BYTES = 16;
const ATTEMPT_AT = 8;
/** No piece is longer than a chunk; LZ4 is kept only where it is shorter. */
export const MAX_PIECE_BYTES = CHUNK_BYTES;
/** Bounds what a damaged length makes a reader allocate; a longer record is never written. */
export const MAX_BODY_BYTES = 64 * 1024 * 1024;
/** With which the bodies of entries and cursors begin. */
export const HANDLE_BYTES = 4;

export interface PieceRecord {
  readonly type: number;
  readonly codec: number;
  readonly storedLength: number;
  readonly rawLength: number;
  readonly owner: Uint8Array;
  readonly digest: Uint8Array;
}

/** Writes the header of a piece at `at` of `target`. */
export function writePieceHeader(
  target: Uint8Array,
  at: number,
  piece: Omit<VerifiedPiece, 'stored'> & { storedLength: number },
  owner: Uint8Array,
  type: number,
  attempt = 0,
): void {
  const view = new DataView(target.buffer, target.byteOffset + at, PIECE_HEADER_BYTES);
  view.setUint8(0, type);
  view.setUint8(1, piece.codec);
  view.setUint16(2, 0);
  view.setUint32(4, piece.storedLength, true);
  view.setUint32(8, piece.rawLength, true);
  view.setUint32(ATTEMPT_IN_HEADER, attempt, true);
  target.set(owner, at + 16);
  target.set(piece.digest, at + DIGEST_IN_HEADER);
  sealChecksum(target, at, at + PIECE_HEADER_BYTES - CHECKSUM_BYTES);
}

/**
 * The header of a piece or grant whose checksum has been checked; null where it makes no sense. `overhead`:
 * by how much a piece's body is longer for being sealed.
 */
export function readPieceHeader(bytes: Uint8Array, overhead = 0): PieceRecord | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, PIECE_HEADER_BYTES);
  const record = {
    type: view.getUint8(0),
    codec: view.getUint8(1),
    storedLength: view.getUint32(4, true),
    rawLength: view.getUint32(8, true),
    owner: bytes.subarray(16, 24),
    digest: bytes.subarray(DIGEST_IN_HEADER, DIGEST_IN_HEADER + DIGEST_BYTES),
  };
  const isBodyRight =
    record.type === RECORD_GRANT
      ? record.storedLength === DIGEST_BYTES
      : record.storedLength > overhead && record.storedLength <= MAX_PIECE_BYTES + 4 + overhead;
  const isRight =
    isBodyRight && record.codec <= 1 && record.rawLength > 0 && record.rawLength <= MAX_PIECE_BYTES;
  return isRight ? record : null;
}

/** Where a piece with this header lies, for its seal. */
export const piecePlace = (header: Uint8Array, offset: number): SealedPlace => ({
  offset,
  attempt: new DataView(header.buffer, header.byteOffset).getUint32(ATTEMPT_IN_HEADER, true),
  head: header.subarray(0, PIECE_HEADER_BYTES - CHECKSUM_BYTES),
});

/** Header and body of a record that is no piece. */
export function encodeRecord(type: number, body: Uint8Array): Uint8Array {
  assert(body.length <= MAX_BODY_BYTES, 'a record can be read back');
  const bytes = new Uint8Array(RECORD_HEADER_BYTES + body.length);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, type);
  view.setUint32(4, body.length, true);
  bytes.set(body, RECORD_HEADER_BYTES);
  view.setBigUint64(CHECKED_BYTES, recordChecksum(bytes), true);
  return bytes;
}

/** A record (as encodeRecord gives it) as it is written at `offset`: with its body sealed. */
export function sealRecord(
  record: Uint8Array,
  seal: PackSeal,
  offset: number,
  attempt: number,
): Uint8Array {
  if (seal.overhead === 0) return record;
  const body = record.subarray(RECORD_HEADER_BYTES);
  const bytes = new Uint8Array(record.length + seal.overhead);
  bytes.set(record.subarray(0, ATTEMPT_AT));
  const view = new DataView(bytes.buffer);
  view.setUint32(4, body.length + seal.overhead, true);
  view.setUint32(ATTEMPT_AT, attempt, true);
  const place = { offset, attempt, head: bytes.subarray(0, CHECKED_BYTES) };
  let at = RECORD_HEADER_BYTES;
  for (const part of seal.sealRecord(place, body, bytes[0] === RECORD_END)) {
    bytes.set(part, at);
    at += part.length;
  }
  view.setBigUint64(CHECKED_BYTES, recordChecksum(bytes), true);
  return bytes;
}

function recordChecksum(bytes: Uint8Array): bigint {
  const checked = new Uint8Array(bytes.length - CHECKSUM_BYTES);
  checked.set(bytes.subarray(0, CHECKED_BYTES));
  checked.set(bytes.subarray(RECORD_HEADER_BYTES), CHECKED_BYTES);
  return checksum(checked);
}

/** Body of a whole record that lies at `offset`, or null where it is not what was written there. */
export function openRecord(bytes: Uint8Array, seal: PackSeal, offset: number): Uint8Array | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (view.getBigUint64(CHECKED_BYTES, true) !== recordChecksum(bytes)) return null;
  const attempt = view.getUint32(ATTEMPT_AT, true);
  const place = { offset, attempt, head: bytes.subarray(0, CHECKED_BYTES) };
  return seal.openRecord(place, bytes.subarray(RECORD_HEADER_BYTES), bytes[0] === RECORD_END);
}

export interface VolumeRecord {
  readonly handle: number;
  readonly server: string;
  readonly volume: string;
  readonly generation: string;
  /** The epoch that is open. */
  readonly epoch: number;
  readonly sizeBytes: number;
  readonly sectorBytes: number;
}

export const encodeVolumeRecord = (record: VolumeRecord): Uint8Array =>
  encodeRecord(
    RECORD_VOLUME,
    new ByteWriter()
      .u32(record.handle)
      .u32(record.epoch)
      .u64(record.sizeBytes)
      .u32(record.sectorBytes)
      .text(record.server)
      .text(record.volume)
      .text(record.generation)
      .take(),
  );

export function decodeVolumeRecord(body: Uint8Array, path: string): VolumeRecord {
  const reader = new ByteReader(body, path);
  return {
    handle: reader.u32(),
    epoch: reader.u32(),
    sizeBytes: reader.u64(),
    sectorBytes: reader.u32(),
    server: reader.text(),
    volume: reader.text(),
    generation: reader.text(),
  };
}

/** `entries` as entry-codec.ts has them, laid over the open epoch that `handle` names. */
export const encodeEntriesRecord = (handle: number, entries: Uint8Array): Uint8Array =>
  encodeRecord(RECORD_ENTRIES, new ByteWriter().u32(handle).raw(entries).take());

export const encodeCursorRecord = (handle: number, syncedChunks: number): Uint8Array =>
  encodeRecord(RECORD_CURSOR, new ByteWriter().u32(handle).u64(syncedChunks).take());

export function decodeCursorRecord(body: Uint8Array, path: string): [number, number] {
  const reader = new ByteReader(body, path);
  return [reader.u32(), reader.u64()];
}

/** The handle with which entries and cursors begin. */
export const recordHandle = (body: Uint8Array, path: string): number =>
  new ByteReader(body, path).u32();
