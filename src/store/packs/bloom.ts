/**
 * A Bloom filter over digests: never says no to what was added. Its bits come from the digest itself,
 * which is as even as a hash can be. Used to skip index objects, and as the live set of a collection,
 * where a false yes only keeps a dead piece.
 */
const HASHES = 7;
const BITS_PER_KEY = 10;

export class Bloom {
  readonly bits: Uint8Array;
  private readonly size: number;

  constructor(bits: Uint8Array) {
    this.bits = bits;
    this.size = bits.length * 8;
  }

  /** For `count` keys: about 1 in 100 others is taken for one of them. */
  static sized(count: number, maxBytes = Number.POSITIVE_INFINITY): Bloom {
    const bytes = Math.max(64, Math.ceil((count * BITS_PER_KEY) / 8));
    return new Bloom(new Uint8Array(Math.min(bytes, maxBytes)));
  }

  add(key: Uint8Array, at = 0): void {
    const [first, step] = hashes(key, at);
    for (let i = 0; i < HASHES; i += 1) {
      const bit = (first + i * step) % this.size;
      this.bits[Math.floor(bit / 8)]! |= 1 << (bit & 7);
    }
  }

  mayHave(key: Uint8Array, at = 0): boolean {
    const [first, step] = hashes(key, at);
    for (let i = 0; i < HASHES; i += 1) {
      const bit = (first + i * step) % this.size;
      if ((this.bits[Math.floor(bit / 8)]! & (1 << (bit & 7))) === 0) return false;
    }
    return true;
  }
}

/** Two numbers of 32 bits out of the digest's end; the step is odd. */
function hashes(key: Uint8Array, at: number): [number, number] {
  return [number32(key, at + 24), (number32(key, at + 28) | 1) >>> 0];
}

const number32 = (key: Uint8Array, at: number): number =>
  ((key[at]! << 24) | (key[at + 1]! << 16) | (key[at + 2]! << 8) | key[at + 3]!) >>> 0;
