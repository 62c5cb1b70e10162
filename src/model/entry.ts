/**
 * What is known of one chunk: an optional whole content (a digest, or zero) and, laid over it, single
 * blocks. Entries compose: `compose(older, newer)` is what a reader sees after both. That one operation
 * is used by the open epoch, by folding deltas, and by reading an image, and it is associative, with the
 * empty entry as its neutral element (tested as properties).
 */

/** Digest of a piece of content, or 'zero' for content that is all zero bytes (never stored or sent). */
export type Piece = Uint8Array | 'zero';

export interface ChunkEntry {
  /** The whole chunk, or null where only blocks are known (a patch: it lies over an older entry). */
  readonly whole: Piece | null;
  /** Bit i set: block i of the chunk is in `blocks`. */
  readonly mask: number;
  /** Pieces of the set bits of `mask`, lowest block first. */
  readonly blocks: readonly Piece[];
}

/** A run of chunks with the same kind of entry as it travels and is stored; `count` > 1 only for zeros. */
export interface IndexedEntry {
  readonly index: number;
  readonly count: number;
  readonly entry: ChunkEntry;
}

export const ZERO_ENTRY: ChunkEntry = { whole: 'zero', mask: 0, blocks: [] };
export const wholeEntry = (digest: Piece): ChunkEntry => ({ whole: digest, mask: 0, blocks: [] });
export const patchEntry = (mask: number, blocks: readonly Piece[]): ChunkEntry => ({
  whole: null,
  mask,
  blocks,
});

/** What a reader sees where `newer` was written after `older`. */
export function compose(older: ChunkEntry | undefined, newer: ChunkEntry): ChunkEntry {
  if (older === undefined || newer.whole !== null) return newer;
  if (newer.mask === 0) return older;
  const blocks: Piece[] = [];
  let fromOlder = 0;
  let fromNewer = 0;
  const mask = older.mask | newer.mask;
  for (let bit = 0; bit < 16; bit += 1) {
    const flag = 1 << bit;
    const inOlder = (older.mask & flag) !== 0;
    const inNewer = (newer.mask & flag) !== 0;
    if (inNewer) blocks.push(newer.blocks[fromNewer]!);
    else if (inOlder) blocks.push(older.blocks[fromOlder]!);
    if (inOlder) fromOlder += 1;
    if (inNewer) fromNewer += 1;
  }
  return { whole: older.whole, mask, blocks };
}

/** True where every byte of the chunk is known: a whole, or all of its `blockCount` blocks. */
export const isTotal = (entry: ChunkEntry, blockCount: number): boolean =>
  entry.whole !== null || entry.mask === (1 << blockCount) - 1;
