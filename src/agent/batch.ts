/**
 * From what the engine read to what is said of it: which chunks a buffer covers whole and of which it
 * holds single blocks. Pure arithmetic over extents; no byte is touched here. Of two reads of one block
 * in a buffer the later counts.
 */
import {
  BLOCK_BYTES,
  BLOCKS_PER_CHUNK,
  blockLength,
  blocksInChunk,
  CHUNK_BYTES,
  chunkLength,
} from '../model/geometry.ts';
import type { FilledBuffer } from '../native/types.ts';

/** A chunk that lies in a buffer, whole and in one run: `mask` 0; else the blocks of `mask`. */
export interface ChunkPart {
  readonly chunk: number;
  readonly mask: number;
  /** Where the bytes lie: one place for a whole, one a block (lowest first) for a mask. */
  readonly at: readonly number[];
  /** Length of the whole, or of the last block of the mask (the others are full). */
  readonly length: number;
}

/** The parts of one volume in one buffer, in ascending order of chunks. */
export interface VolumeBatch {
  readonly volume: number;
  readonly parts: readonly ChunkPart[];
}

type Pieces = FilledBuffer['pieces'];

/** Groups what lies in a buffer by volume and chunk. `sizes` are the volumes' sizes by index. */
export function batchesOf(pieces: Pieces, sizes: readonly number[]): VolumeBatch[] {
  const byVolume = new Map<number, Map<number, number[]>>();
  for (const piece of pieces) {
    const chunks = byVolume.get(piece.volume) ?? new Map<number, number[]>();
    byVolume.set(piece.volume, chunks);
    place(piece, chunks);
  }
  return [...byVolume].map(([volume, chunks]) => ({
    volume,
    parts: [...chunks]
      .sort(([a], [b]) => a - b)
      .map(([chunk, places]) => partOf(chunk, places, sizes[volume]!)),
  }));
}

/** Notes for each block of `piece` where its bytes lie; places[block] is -1 where it is not here. */
function place(piece: Pieces[number], chunks: Map<number, number[]>): void {
  for (let done = 0; done < piece.length; done += BLOCK_BYTES) {
    const offset = piece.offset + done;
    const chunk = Math.floor(offset / CHUNK_BYTES);
    let places = chunks.get(chunk);
    if (places === undefined) {
      places = new Array<number>(BLOCKS_PER_CHUNK).fill(-1);
      chunks.set(chunk, places);
    }
    places[(offset - chunk * CHUNK_BYTES) / BLOCK_BYTES] = piece.at + done;
  }
}

function partOf(chunk: number, places: readonly number[], sizeBytes: number): ChunkPart {
  const count = blocksInChunk(chunk, sizeBytes);
  const first = places[0]!;
  const isWhole =
    first >= 0 && places.slice(0, count).every((at, block) => at === first + block * BLOCK_BYTES);
  if (isWhole) return { chunk, mask: 0, at: [first], length: chunkLength(chunk, sizeBytes) };
  const present = places.flatMap((at, block) => (at >= 0 && block < count ? [block] : []));
  return {
    chunk,
    mask: present.reduce((mask, block) => mask | (1 << block), 0),
    at: present.map((block) => places[block]!),
    length: blockLength(chunk, present.at(-1)!, sizeBytes),
  };
}
