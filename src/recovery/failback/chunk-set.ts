/** Which chunks of a volume, as a bit each, and as stretches of neighbours. */
import { CHUNK_BYTES, chunkCount, type Extent } from '../../model/geometry.ts';

export class ChunkSet {
  private readonly sizeBytes: number;
  private readonly bits: Uint8Array;

  constructor(sizeBytes: number) {
    this.sizeBytes = sizeBytes;
    this.bits = new Uint8Array(Math.ceil(chunkCount(sizeBytes) / 8));
  }

  /** All chunks that the stretch touches. */
  add({ offset, length }: Extent): void {
    const end = chunkCount(offset + length);
    for (let chunk = Math.floor(offset / CHUNK_BYTES); chunk < end; chunk += 1) {
      this.bits[chunk >> 3]! |= 1 << (chunk & 7);
    }
  }

  has(offset: number): boolean {
    const chunk = Math.floor(offset / CHUNK_BYTES);
    return ((this.bits[chunk >> 3]! >> (chunk & 7)) & 1) === 1;
  }

  /** Ascending, of whole chunks. */
  *extents(): Generator<Extent> {
    const chunks = chunkCount(this.sizeBytes);
    let first = -1;
    for (let chunk = 0; chunk <= chunks; chunk += 1) {
      const isIn = chunk < chunks && ((this.bits[chunk >> 3]! >> (chunk & 7)) & 1) === 1;
      if (isIn && first < 0) first = chunk;
      if (isIn || first < 0) continue;
      const offset = first * CHUNK_BYTES;
      yield { offset, length: Math.min(chunk * CHUNK_BYTES, this.sizeBytes) - offset };
      first = -1;
    }
  }
}
