/**
 * What an earlier pass found of a scanned volume: 16 bytes of digest for every mebibyte that holds data,
 * nothing for holes. A later pass offers only what differs, and knows whether anything did. 16 MiB of
 * memory for a TiB of data.
 */
import { createHash } from 'node:crypto';
import type { Piece } from '../model/entry.ts';
import { CHUNK_BYTES } from '../model/geometry.ts';

/** Most chunks that share one digest: a mebibyte. */
const MAX_GROUP_CHUNKS = 16;
const GROUPS_PER_LEAF = 64;
const MARK_BYTES = 16;
const ZERO_MARK = Buffer.alloc(MARK_BYTES, 0xff);
const ZERO_LEAF = Buffer.alloc(MARK_BYTES * GROUPS_PER_LEAF, 0xff);
const separator = Buffer.from([0]);

/** The largest power of two of chunks that a buffer holds: a group is looked at in one buffer. */
export function groupChunksFor(bufferBytes: number): number {
  let chunks = 1;
  while (chunks < MAX_GROUP_CHUNKS && 2 * chunks * CHUNK_BYTES <= bufferBytes) chunks *= 2;
  return chunks;
}

export class ScanTable {
  readonly groupChunks: number;
  private readonly leaves = new Map<number, Buffer>();

  constructor(groupChunks: number) {
    this.groupChunks = groupChunks;
  }

  /** Notes the pieces of a whole group; true where they differ from what was noted before. */
  note(group: number, pieces: readonly Piece[]): boolean {
    return this.set(group, markOf(pieces));
  }

  /** The group is not known any more: it was seen in parts. */
  forget(group: number): void {
    this.set(group, Buffer.alloc(MARK_BYTES));
  }

  /** Notes that groups [from, to) are zero; true where any of them was not. */
  noteZeros(from: number, to: number): boolean {
    let hasChanged = false;
    for (let group = from; group < to; ) {
      const leaf = Math.floor(group / GROUPS_PER_LEAF);
      const leafEnd = (leaf + 1) * GROUPS_PER_LEAF;
      if (group % GROUPS_PER_LEAF === 0 && leafEnd <= to) {
        if (this.leaves.get(leaf) !== ZERO_LEAF) hasChanged = true;
        this.leaves.set(leaf, ZERO_LEAF);
        group = leafEnd;
      } else {
        if (this.set(group, ZERO_MARK)) hasChanged = true;
        group += 1;
      }
    }
    return hasChanged;
  }

  private set(group: number, mark: Buffer): boolean {
    const index = Math.floor(group / GROUPS_PER_LEAF);
    const at = (group % GROUPS_PER_LEAF) * MARK_BYTES;
    const leaf = this.leaves.get(index);
    if (leaf?.compare(mark, 0, MARK_BYTES, at, at + MARK_BYTES) === 0) return false;
    const own =
      leaf === undefined || leaf === ZERO_LEAF
        ? Buffer.from(leaf ?? Buffer.alloc(ZERO_LEAF.length))
        : leaf;
    own.set(mark, at);
    this.leaves.set(index, own);
    return true;
  }
}

function markOf(pieces: readonly Piece[]): Buffer {
  if (pieces.every((piece) => piece === 'zero')) return ZERO_MARK;
  const hash = createHash('sha256');
  for (const piece of pieces) hash.update(piece === 'zero' ? separator : piece);
  return hash.digest().subarray(0, MARK_BYTES);
}
