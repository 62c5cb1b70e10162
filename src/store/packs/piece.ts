/**
 * A content as it is stored: opened only where it is what its name says (P3). A hostile or damaged length
 * never allocates: the length before LZ4 data must equal the raw length that is known, at most a chunk.
 */
import { uncompressSync } from 'lz4-napi';
import { equalBytes } from '../format/checksum.ts';
import type { Names } from '../format/names.ts';
import type { PackSeal } from '../keys/pack-seal.ts';
import type { TableEntry } from './digest-table.ts';
import { MAX_PIECE_BYTES, piecePlace } from './record.ts';

/**
 * The stored bytes of a piece, as they were before they were sealed. `read`: its body, and before it the
 * `seal.lead` bytes that opening needs; null where it is cut short, or not what was sealed at that place.
 */
export function unsealPiece(
  read: Uint8Array,
  seal: PackSeal,
  { offset, storedLength }: Pick<TableEntry, 'offset' | 'storedLength'>,
): Uint8Array | null {
  if (read.length < seal.lead + storedLength) return null;
  if (seal.lead === 0) return read.subarray(0, storedLength);
  const place = piecePlace(read.subarray(0, seal.lead), offset - seal.lead);
  return seal.openPiece(place, read.subarray(seal.lead, seal.lead + storedLength));
}

/** Content of stored bytes; null where they are not what `digest` names. */
export function openPiece(
  stored: Uint8Array | null,
  { codec, rawLength, digest }: Pick<TableEntry, 'codec' | 'rawLength' | 'digest'>,
  names: Names,
): Uint8Array | null {
  if (stored === null) return null;
  const content = codec === 0 ? stored : decompress(stored, rawLength);
  if (content === null || content.length !== rawLength) return null;
  return equalBytes(names.ofContent(content), digest) ? content : null;
}

function decompress(stored: Uint8Array, rawLength: number): Uint8Array | null {
  if (stored.length < 5 || rawLength > MAX_PIECE_BYTES) return null;
  const view = new DataView(stored.buffer, stored.byteOffset, 4);
  if (view.getUint32(0, true) !== rawLength) return null;
  try {
    return uncompressSync(stored);
  } catch {
    return null; // not LZ4: the caller reports the piece as damaged
  }
}
