/**
 * The bytes of a sealed file, which holds another file whole: a header with the data key's id and a random
 * salt, then blocks of 16 KiB, each with its tag. FORMAT-ENCRYPTION.md, "Sealed files".
 *
 *   header  object-header.ts, magic US-SEALD: data key[8], salt[32]; 64 bytes
 *   blocks  16,384 bytes and a tag; the last one has 1 to 16,384, or none where the file is empty
 *
 * The key is derived for each file from its salt, so a block's number is nonce enough; that a block is the
 * last is part of the nonce, so that nothing can be cut off or added. The header is bound to each block.
 */
import { fromHex, toHex } from '../format/checksum.ts';
import { damaged, encodeHeader, openHeader } from '../format/object-header.ts';
import { type Aead, deriveKey, NONCE_BYTES, TAG_BYTES } from './aead.ts';

const MAGIC = 'US-SEALD';
export const SALT_BYTES = 32;
export const SEALED_HEADER_BYTES = 64;
const CHECKSUM_BYTES = 8;
export const BLOCK_BYTES = 16_384;
export const STORED_BLOCK_BYTES = BLOCK_BYTES + TAG_BYTES;

export const encodeSealedHeader = (keyId: string, salt: Uint8Array): Uint8Array =>
  encodeHeader(MAGIC, (writer) => writer.raw(fromHex(keyId)).raw(salt));

/** ERR_OBJECT_DAMAGED, also for a file that is not sealed. */
export function decodeSealedHeader(
  bytes: Uint8Array,
  path: string,
): { keyId: string; salt: Uint8Array } {
  const { fields, length } = openHeader(bytes, MAGIC, path);
  if (length !== SEALED_HEADER_BYTES) throw damaged(path, `header of ${length} bytes`);
  return { keyId: toHex(fields.raw(8)), salt: fields.raw(SALT_BYTES) };
}

/** How many blocks a file of `storedBytes` has, and how long its content is. ERR_OBJECT_DAMAGED. */
export function sealedExtent(storedBytes: number, path: string): { blocks: number; size: number } {
  const body = storedBytes - SEALED_HEADER_BYTES;
  const blocks = Math.ceil(body / STORED_BLOCK_BYTES);
  const size = body - blocks * TAG_BYTES;
  const isWhole = blocks > 0 && (size > (blocks - 1) * BLOCK_BYTES || (blocks === 1 && size === 0));
  if (!isWhole) throw damaged(path, 'cut short');
  return { blocks, size };
}

/** Seals and opens the blocks of one file. */
export class BlockCipher {
  private readonly aead: Aead;
  private readonly key: Uint8Array;
  private readonly bound: Uint8Array;

  constructor(aead: Aead, dataKey: Uint8Array, salt: Uint8Array, header: Uint8Array) {
    this.aead = aead;
    this.key = deriveKey(dataKey, salt, 'understudy object 1\n');
    this.bound = header.slice(0, SEALED_HEADER_BYTES - CHECKSUM_BYTES);
  }

  seal(block: number, isLast: boolean, plain: Uint8Array): Uint8Array[] {
    return this.aead.seal(this.key, nonceOf(block, isLast), this.bound, plain);
  }

  open(block: number, isLast: boolean, stored: Uint8Array): Uint8Array | null {
    return this.aead.open(this.key, nonceOf(block, isLast), this.bound, stored);
  }
}

function nonceOf(block: number, isLast: boolean): Uint8Array {
  const nonce = new Uint8Array(NONCE_BYTES);
  const view = new DataView(nonce.buffer);
  view.setUint32(0, isLast ? 1 : 0, true);
  view.setBigUint64(4, BigInt(block), true);
  return nonce;
}
