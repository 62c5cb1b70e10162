/**
 * SHA-256 whose state can be written down and taken up again, which node:crypto cannot: an upload that was
 * interrupted goes on with the checksum over all its blocks' checksums without reading them again. It sees
 * 32 bytes for every 512 KiB of a volume, so its speed does not matter. FIPS 180-4, section 6.2.
 */

/** As it is written down. */
export interface Sha256State {
  /** The eight words of the hash so far, in hex. */
  readonly words: string;
  /** Bytes that do not fill a block yet, in hex. */
  readonly rest: string;
  /** Bytes seen in all. */
  readonly bytes: number;
}

const BLOCK_BYTES = 64;

/** The first 32 bits of the fractional parts of the square or cube roots of the first primes. */
function rootsOfPrimes(count: number, root: (prime: number) => number): number[] {
  const primes: number[] = [];
  for (let n = 2; primes.length < count; n += 1) {
    if (primes.every((prime) => n % prime !== 0)) primes.push(n);
  }
  return primes.map((prime) => Math.floor((root(prime) % 1) * 2 ** 32));
}

const START = rootsOfPrimes(8, Math.sqrt);
const ROUND = rootsOfPrimes(64, Math.cbrt);

export const emptySha256: Sha256State = {
  words: START.map((word) => word.toString(16).padStart(8, '0')).join(''),
  rest: '',
  bytes: 0,
};

const turn = (word: number, by: number): number => (word >>> by) | (word << (32 - by));

/** One block into the words. */
function compress(words: Uint32Array, block: DataView): void {
  const w = new Uint32Array(64);
  for (let i = 0; i < 16; i += 1) w[i] = block.getUint32(i * 4);
  for (let i = 16; i < 64; i += 1) {
    const early = w[i - 15]!;
    const late = w[i - 2]!;
    const s0 = turn(early, 7) ^ turn(early, 18) ^ (early >>> 3);
    const s1 = turn(late, 17) ^ turn(late, 19) ^ (late >>> 10);
    w[i] = w[i - 16]! + s0 + w[i - 7]! + s1;
  }
  let [a, b, c, d, e, f, g, h] = words as unknown as [
    ...[number, number, number, number],
    ...[number, number, number, number],
  ];
  for (let i = 0; i < 64; i += 1) {
    const s1 = turn(e, 6) ^ turn(e, 11) ^ turn(e, 25);
    const t1 = (h + s1 + ((e & f) ^ (~e & g)) + ROUND[i]! + w[i]!) | 0;
    const s0 = turn(a, 2) ^ turn(a, 13) ^ turn(a, 22);
    const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    [h, g, f, e, d, c, b, a] = [g, f, e, (d + t1) | 0, c, b, a, (t1 + t2) | 0];
  }
  [a, b, c, d, e, f, g, h].forEach((word, i) => {
    words[i] = words[i]! + word;
  });
}

const wordsOf = (hex: string): Uint32Array =>
  Uint32Array.from({ length: 8 }, (_, i) => Number.parseInt(hex.slice(i * 8, i * 8 + 8), 16));
const hexOf = (words: Uint32Array): string =>
  [...words].map((word) => word.toString(16).padStart(8, '0')).join('');

/** The state after `bytes` more. */
export function sha256Update(state: Sha256State, bytes: Uint8Array): Sha256State {
  const words = wordsOf(state.words);
  const all = Buffer.concat([Buffer.from(state.rest, 'hex'), bytes]);
  let at = 0;
  for (; at + BLOCK_BYTES <= all.length; at += BLOCK_BYTES) {
    compress(words, new DataView(all.buffer, all.byteOffset + at, BLOCK_BYTES));
  }
  const rest = all.subarray(at).toString('hex');
  return { words: hexOf(words), rest, bytes: state.bytes + bytes.length };
}

/** The digest of all bytes seen. */
export function sha256Finish(state: Sha256State): Buffer {
  const restBytes = state.rest.length / 2;
  const padding = Buffer.alloc(restBytes < 56 ? 56 - restBytes : 120 - restBytes);
  padding[0] = 0x80;
  const length = Buffer.alloc(8);
  length.writeBigUInt64BE(BigInt(state.bytes) * 8n);
  const { words } = sha256Update(state, Buffer.concat([padding, length]));
  return Buffer.from(words, 'hex');
}
