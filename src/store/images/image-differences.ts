/**
 * Where a volume differs between two points, told by their maps: what the same map says of both is not even
 * read, and contents are read only where one of the two knows a chunk by single blocks. So it costs about
 * what has changed, not what the volume holds.
 */
import type { ChunkEntry, Piece } from '../../model/entry.ts';
import {
  CHUNK_BYTES,
  CHUNKS_PER_LEAF,
  chunkCount,
  chunkLength,
  type Extent,
  leafCount,
} from '../../model/geometry.ts';
import { equalBytes } from '../format/checksum.ts';
import type { ChainImage } from '../maps/image.ts';

/** Stretches of whole chunks, ascending, from the one that holds `offset` on; never too few. */
export async function* imageDifferences(
  older: ChainImage,
  newer: ChainImage,
  offset = 0,
): AsyncGenerator<Extent> {
  const { sizeBytes } = newer;
  /** The stretch that may go on: chunks [first, end). */
  let open: { first: number; end: number } | null = null;
  const extent = ({ first, end }: { first: number; end: number }): Extent => ({
    offset: first * CHUNK_BYTES,
    length: Math.min(end * CHUNK_BYTES, sizeBytes) - first * CHUNK_BYTES,
  });
  for await (const chunk of differingChunks(older, newer, Math.floor(offset / CHUNK_BYTES))) {
    if (open !== null && open.end === chunk && chunk - open.first < CHUNKS_PER_LEAF) {
      open.end = chunk + 1;
      continue;
    }
    if (open !== null) yield extent(open);
    open = { first: chunk, end: chunk + 1 };
  }
  if (open !== null) yield extent(open);
}

async function* differingChunks(
  older: ChainImage,
  newer: ChainImage,
  from: number,
): AsyncGenerator<number> {
  const { sizeBytes } = newer;
  const chunks = chunkCount(sizeBytes);
  for (let leaf = Math.floor(from / CHUNKS_PER_LEAF); leaf < leafCount(sizeBytes); leaf += 1) {
    if (older.sizeBytes === sizeBytes && isToldAlike(older, newer, leaf)) continue;
    const first = leaf * CHUNKS_PER_LEAF;
    const isBehind = first * CHUNK_BYTES >= older.sizeBytes;
    const before = isBehind ? null : await older.entries(leaf);
    const after = await newer.entries(leaf);
    for (let i = Math.max(0, from - first); i < CHUNKS_PER_LEAF && first + i < chunks; i += 1) {
      const was = before === null ? 'zero' : before[i];
      const is = after === null ? 'zero' : after[i];
      if (await differs(older, newer, first + i, was, is)) yield first + i;
    }
  }
}

/** True where the very same maps tell of this leaf in both. */
function isToldAlike(older: ChainImage, newer: ChainImage, leaf: number): boolean {
  const before = older.tellers(leaf);
  const after = newer.tellers(leaf);
  return before.length === after.length && before.every((teller, at) => teller === after[at]);
}

type Known = ChunkEntry | 'zero' | undefined;

async function differs(
  older: ChainImage,
  newer: ChainImage,
  chunk: number,
  was: Known,
  is: Known,
): Promise<boolean> {
  const isSameLength = chunkLength(chunk, older.sizeBytes) === chunkLength(chunk, newer.sizeBytes);
  if (!isSameLength || was === undefined || is === undefined) return true;
  const before = was === 'zero' ? zero : was;
  const after = is === 'zero' ? zero : is;
  if (isSameEntry(before, after)) return false;
  // Wholes are named by their content; the same bytes may be told by blocks, too.
  if (before.mask === 0 && after.mask === 0) return true;
  const offset = chunk * CHUNK_BYTES;
  const length = chunkLength(chunk, newer.sizeBytes);
  const held = await older.read(offset, length);
  return !equalBytes(held, await newer.read(offset, length));
}

const zero: ChunkEntry = { whole: 'zero', mask: 0, blocks: [] };

const isSamePiece = (a: Piece | null, b: Piece | null): boolean =>
  a === b || (a instanceof Uint8Array && b instanceof Uint8Array && equalBytes(a, b));

function isSameEntry(a: ChunkEntry, b: ChunkEntry): boolean {
  if (a.mask !== b.mask || !isSamePiece(a.whole, b.whole)) return false;
  return a.blocks.every((piece, at) => isSamePiece(piece, b.blocks[at]!));
}
