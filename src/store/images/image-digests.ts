/**
 * Digests of an image, piece by piece, so that a copy of it can be resumed and proved without sending the
 * bytes twice: SHA-256 of every MiB that is not all zero. What is read here was checked against its
 * chunk's digest by the reader (P3); zeros are found from the manifest and never read.
 */
import { createHash } from 'node:crypto';
import { MIB } from '../../base/units.ts';
import type { ImageReader } from '../types.ts';

export const PIECE_BYTES = MIB;
/** Most pieces that one call looks at: bounds its time and its answer. */
const MAX_PIECES = 256;

export interface PieceDigest {
  readonly offset: number;
  readonly length: number;
  /** Hex. */
  readonly digest: string;
}
export interface PieceDigests {
  readonly pieces: readonly PieceDigest[];
  /** Where to ask on from; null at the end of the image. */
  readonly next: number | null;
}

const zeros = Buffer.alloc(PIECE_BYTES);
export const isZeroFilled = (bytes: Uint8Array): boolean =>
  zeros.compare(bytes, 0, bytes.length, 0, bytes.length) === 0;

export const digestOf = (bytes: Uint8Array): string =>
  createHash('sha256').update(bytes).digest('hex');

type Readable = Pick<ImageReader, 'sizeBytes' | 'read' | 'nextData'>;

/** The pieces that are not zero, from the piece that holds `offset` on, ascending. */
export async function digestPieces(image: Readable, offset: number): Promise<PieceDigests> {
  const pieces: PieceDigest[] = [];
  let at = offset - (offset % PIECE_BYTES);
  for (let looked = 0; looked < MAX_PIECES; looked += 1) {
    if (at >= image.sizeBytes) return { pieces, next: null };
    const data = await image.nextData(at);
    if (data === null) return { pieces, next: null };
    at = data.offset - (data.offset % PIECE_BYTES);
    const length = Math.min(PIECE_BYTES, image.sizeBytes - at);
    const bytes = await image.read(at, length);
    if (!isZeroFilled(bytes)) pieces.push({ offset: at, length, digest: digestOf(bytes) });
    at += length;
  }
  return { pieces, next: at >= image.sizeBytes ? null : at };
}
