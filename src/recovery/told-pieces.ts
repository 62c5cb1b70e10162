/** Digests of the pieces of an image as they were written, in 40 bytes each: what the file must give back. */
import type { PieceDigest } from '../store/images/image-digests.ts';

const DIGEST_BYTES = 32;
const SLAB_PIECES = 1024;

export class ToldPieces {
  private readonly slabs: Buffer[] = [];
  /** Offset and length of each, one after the other. */
  private readonly spans: number[] = [];

  get count(): number {
    return this.spans.length / 2;
  }

  add({ offset, length, digest }: PieceDigest): void {
    const at = this.count % SLAB_PIECES;
    if (at === 0) this.slabs.push(Buffer.alloc(SLAB_PIECES * DIGEST_BYTES));
    this.slabs.at(-1)!.write(digest, at * DIGEST_BYTES, 'hex');
    this.spans.push(offset, length);
  }

  *[Symbol.iterator](): Generator<PieceDigest> {
    for (let i = 0; i < this.count; i += 1) {
      const at = (i % SLAB_PIECES) * DIGEST_BYTES;
      const slab = this.slabs[Math.floor(i / SLAB_PIECES)]!;
      const digest = slab.toString('hex', at, at + DIGEST_BYTES);
      yield { offset: this.spans[2 * i]!, length: this.spans[2 * i + 1]!, digest };
    }
  }
}
