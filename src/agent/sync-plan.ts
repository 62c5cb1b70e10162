/**
 * Slices of a sync: which chunks are read next and which are known to be zero because the file has a hole
 * there. A slice is bounded in data and in segments, a hole is not: two TiB of nothing are one segment.
 * No byte is read here.
 */
import { CHUNK_BYTES, chunkCount, type Extent } from '../model/geometry.ts';

export interface Segment {
  readonly kind: 'data' | 'hole';
  /** Chunks [from, to). */
  readonly from: number;
  readonly to: number;
}
export interface Slice {
  readonly segments: readonly Segment[];
  /** Where the next slice begins. */
  readonly nextChunk: number;
}

export interface SliceLimits {
  readonly dataChunks: number;
  readonly segments: number;
  /** Segments begin and end at multiples of this many chunks (and at the volume's end). */
  readonly alignChunks: number;
}

/** Asks `nextData` (the device's) from `fromChunk` on until a limit or the end is reached. */
export async function planSlice(
  nextData: (offset: number) => Promise<Extent | null>,
  sizeBytes: number,
  fromChunk: number,
  limits: SliceLimits,
): Promise<Slice> {
  const chunks = chunkCount(sizeBytes);
  const segments: Segment[] = [];
  let left = limits.dataChunks;
  let at = fromChunk;
  while (at < chunks && left > 0 && segments.length < limits.segments) {
    const extent = await nextData(at * CHUNK_BYTES);
    if (extent === null) {
      segments.push({ kind: 'hole', from: at, to: chunks });
      at = chunks;
      break;
    }
    const { first, end } = alignedChunks(extent, limits.alignChunks);
    const from = Math.max(at, first);
    if (from > at) segments.push({ kind: 'hole', from: at, to: from });
    const to = Math.min(end, chunks, from + left);
    addData(segments, from, to);
    left -= to - from;
    at = to;
  }
  return { segments, nextChunk: at };
}

function alignedChunks(extent: Extent, align: number): { first: number; end: number } {
  const unit = align * CHUNK_BYTES;
  return {
    first: Math.floor(extent.offset / unit) * align,
    end: Math.ceil((extent.offset + extent.length) / unit) * align,
  };
}

function addData(segments: Segment[], from: number, to: number): void {
  const last = segments.at(-1);
  if (last?.kind === 'data' && last.to === from) segments.splice(-1, 1, { ...last, to });
  else segments.push({ kind: 'data', from, to });
}

/** The extents that the engine is to read for a slice. */
export const extentsOf = (slice: Slice, sizeBytes: number): Extent[] =>
  slice.segments
    .filter((segment) => segment.kind === 'data')
    .map(({ from, to }) => ({
      offset: from * CHUNK_BYTES,
      length: Math.min(to * CHUNK_BYTES, sizeBytes) - from * CHUNK_BYTES,
    }));
