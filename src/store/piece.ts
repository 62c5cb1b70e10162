/**
 * A content as it is stored: opened only where it is what its name says (P3). A hostile or damaged length
 * never allocates: the length before LZ4 data must equal the raw length that is known, at most a chunk.
 */
import { uncompressSync } from 'lz4-napi';
import { equalBytes, sha256 } from './checksum.ts';
import type { TableEntry } from './digest-table.ts';
import { MAX_PIECE_BYTES } from './record.ts';

/** Content of stored bytes; null where they are not what `digest` names. */
export function openPiece(
  stored: Uint8Array,
  { codec, rawLength, digest }: Pick<TableEntry, 'codec' | 'rawLength' | 'digest'>,
): Uint8Array | null {
  const content = codec === 0 ? stored : decompress(stored, rawLength);
  if (content === null || content.length !== rawLength) return null;
  return equalBytes(sha256(content), digest) ? content : null;
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
