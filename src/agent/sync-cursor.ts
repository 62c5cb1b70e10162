/**
 * Follows a slice of a sync as its buffers come in: which holes lie before what was read, and up to which
 * chunk everything has been covered without a gap. A gap (a read fault) stops the cursor for good, so that
 * staging never believes more synced than was offered. Pure bookkeeping.
 */
import { blocksInChunk } from '../model/geometry.ts';
import type { ChunkPart } from './batch.ts';
import type { Segment, Slice } from './sync-plan.ts';

export class SyncCursor {
  private readonly sizeBytes: number;
  private readonly holes: Segment[];
  private covered: number;
  private partMask = 0;

  constructor(slice: Slice, fromChunk: number, sizeBytes: number) {
    this.holes = slice.segments.filter((segment) => segment.kind === 'hole');
    this.covered = fromChunk;
    this.sizeBytes = sizeBytes;
  }

  /** All chunks below have been covered. */
  get chunk(): number {
    return this.covered;
  }

  /** Holes that begin before `chunk`, in order; each is returned once. */
  holesBefore(chunk: number): Segment[] {
    const count = this.holes.findIndex((hole) => hole.from >= chunk);
    return this.holes.splice(0, count < 0 ? this.holes.length : count);
  }

  coverRun(from: number, to: number): void {
    if (from <= this.covered && to > this.covered) {
      this.covered = to;
      this.partMask = 0;
    }
  }

  coverPart(part: ChunkPart): void {
    if (part.mask === 0) this.coverRun(part.chunk, part.chunk + 1);
    if (part.mask === 0 || part.chunk !== this.covered) return;
    this.partMask |= part.mask;
    if (this.partMask === 2 ** blocksInChunk(part.chunk, this.sizeBytes) - 1) {
      this.coverRun(part.chunk, part.chunk + 1);
    }
  }
}
