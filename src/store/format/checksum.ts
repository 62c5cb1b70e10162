/**
 * The two hashes of the repository. XXH64 is a checksum of headers and records (never an identity);
 * SHA-256 names contents and links chains. Loaded once, then synchronous.
 */
import { hash } from 'node:crypto';
import xxhash from 'xxhash-wasm';

const { h64Raw } = await xxhash();

export const CHECKSUM_BYTES = 8;

export const checksum = (bytes: Uint8Array): bigint => h64Raw(bytes);

/** Writes the checksum of bytes [start, at) at `at`, little-endian. */
export function sealChecksum(bytes: Uint8Array, start: number, at: number): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, CHECKSUM_BYTES);
  view.setBigUint64(0, h64Raw(bytes.subarray(start, at)), true);
}

export function hasChecksum(bytes: Uint8Array, start: number, at: number): boolean {
  if (at < start || at + CHECKSUM_BYTES > bytes.length) return false;
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, CHECKSUM_BYTES);
  return view.getBigUint64(0, true) === h64Raw(bytes.subarray(start, at));
}

export const sha256 = (bytes: Uint8Array): Uint8Array => hash('sha256', bytes, 'buffer');

export const toHex = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex');
export const fromHex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'hex'));

export const equalBytes = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && Buffer.compare(a, b) === 0;
