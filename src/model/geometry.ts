/**
 * The fixed sizes of version 1 of everything, and the arithmetic between bytes, blocks, chunks and
 * leaves. A chunk is the unit of digest and dedupe; a block is the finest thing tracked and patched; a
 * leaf groups 1024 chunks in one table of a manifest.
 */

export const SECTOR_BYTES = 512;
export const BLOCK_BYTES = 4096;
export const CHUNK_BYTES = 65536;
export const BLOCKS_PER_CHUNK = CHUNK_BYTES / BLOCK_BYTES;
export const CHUNKS_PER_LEAF = 1024;
export const DIGEST_BYTES = 32;
/** 64 TiB: offsets stay far below 2^53 and chunk indexes below 2^32. */
export const MAX_VOLUME_BYTES = 2 ** 46;

/** Half-open byte range of a volume. */
export interface Extent {
  readonly offset: number;
  readonly length: number;
}

export const chunkCount = (sizeBytes: number): number => Math.ceil(sizeBytes / CHUNK_BYTES);
export const leafCount = (sizeBytes: number): number =>
  Math.ceil(chunkCount(sizeBytes) / CHUNKS_PER_LEAF);
/** Length of chunk `index`: the last one of a volume may be short. */
export const chunkLength = (index: number, sizeBytes: number): number =>
  Math.min(CHUNK_BYTES, sizeBytes - index * CHUNK_BYTES);
/** How many blocks chunk `index` has (the last block may be short too). */
export const blocksInChunk = (index: number, sizeBytes: number): number =>
  Math.ceil(chunkLength(index, sizeBytes) / BLOCK_BYTES);
export const blockLength = (chunk: number, block: number, sizeBytes: number): number =>
  Math.min(BLOCK_BYTES, chunkLength(chunk, sizeBytes) - block * BLOCK_BYTES);
