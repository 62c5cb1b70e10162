/**
 * What encryption does to one pack or journal segment. Each body is sealed on its own under the pack's
 * key, so that a piece can be read without its neighbours; its place (the pack by the key, the offset by
 * the nonce, the head as associated data) is bound in, so that nothing can be moved or exchanged. A plain
 * pack has the seal that does nothing. FORMAT-ENCRYPTION.md, "Packs", has every byte.
 *
 * Grants are not sealed: they hold a name and nothing else, and their own name, which is keyed, proves it.
 */
import { createHmac } from 'node:crypto';
import { assert } from '../../base/errors.ts';
import { type Aead, deriveKey, NONCE_BYTES, TAG_BYTES } from './aead.ts';

/** Nonces begin with the attempt; these are no attempts. */
const END_DOMAIN = 0xfffffffe;
const FOOTER_SALT_BYTES = 16;

/** The head of a record: what is bound in, and where it lies. */
export interface SealedPlace {
  /** Of the record, from the start of the file. */
  readonly offset: number;
  /** Counts how often the segment was cut back: an offset may have been written before. */
  readonly attempt: number;
  /** The head without its checksum. */
  readonly head: Uint8Array;
}

export interface PackSeal {
  /** Length of the pack's header. */
  readonly headerBytes: number;
  /** So many bytes before a body are read with it: its head. 0: the body is enough. */
  readonly lead: number;
  /** By how much a sealed body is longer than what it was made from; a footer. */
  readonly overhead: number;
  readonly footerOverhead: number;
  /** The data key, 8 bytes; zeros where there is none. */
  readonly keyId: Uint8Array;
  sealPiece(place: SealedPlace, body: Uint8Array): readonly Uint8Array[];
  /** Null where it is not what was sealed there. */
  openPiece(place: SealedPlace, sealed: Uint8Array): Uint8Array | null;
  sealRecord(place: SealedPlace, body: Uint8Array, isEnd: boolean): readonly Uint8Array[];
  openRecord(place: SealedPlace, sealed: Uint8Array, isEnd: boolean): Uint8Array | null;
  /** `bound`: the trailer as far as it does not depend on the footer's stored bytes. */
  sealFooter(bound: Uint8Array, footer: Uint8Array): Uint8Array;
  openFooter(bound: Uint8Array, sealed: Uint8Array): Uint8Array | null;
}

const KEY_ID_BYTES = 8;
export const PLAIN_HEADER_BYTES = 56;
export const SEALED_HEADER_BYTES = PLAIN_HEADER_BYTES + KEY_ID_BYTES;
/** A piece's head. */
const LEAD_BYTES = 64;

export const plainSeal: PackSeal = {
  headerBytes: PLAIN_HEADER_BYTES,
  lead: 0,
  overhead: 0,
  footerOverhead: 0,
  keyId: new Uint8Array(KEY_ID_BYTES),
  sealPiece: (_place, body) => [body],
  openPiece: (_place, sealed) => sealed,
  sealRecord: (_place, body) => [body],
  openRecord: (_place, sealed) => sealed,
  sealFooter: (_bound, footer) => footer,
  openFooter: (_bound, sealed) => sealed,
};

function nonceOf(domain: number, offset: number): Uint8Array {
  const nonce = new Uint8Array(NONCE_BYTES);
  const view = new DataView(nonce.buffer);
  view.setUint32(0, domain, true);
  view.setBigUint64(4, BigInt(offset), true);
  return nonce;
}

interface PackKeys {
  readonly aead: Aead;
  /** 32 bytes. */
  readonly dataKey: Uint8Array;
  readonly keyId: Uint8Array;
  /** The pack's id, 16 random bytes. */
  readonly id: Uint8Array;
  /** The header without its checksum; null where it is damaged: pieces and footer are readable still. */
  readonly header: Uint8Array | null;
}

export class SealedPack implements PackSeal {
  readonly headerBytes = SEALED_HEADER_BYTES;
  readonly lead = LEAD_BYTES;
  readonly overhead = TAG_BYTES;
  readonly footerOverhead = FOOTER_SALT_BYTES + TAG_BYTES;
  readonly keyId: Uint8Array;
  private readonly aead: Aead;
  private readonly header: Uint8Array | null;
  private readonly key: Uint8Array;
  private readonly footerKey: Uint8Array;

  constructor({ aead, dataKey, keyId, id, header }: PackKeys) {
    this.aead = aead;
    this.keyId = keyId;
    this.header = header;
    this.key = deriveKey(dataKey, id, 'understudy pack 1\n');
    this.footerKey = deriveKey(dataKey, id, 'understudy footer 1\n');
  }

  sealPiece({ offset, attempt, head }: SealedPlace, body: Uint8Array): Uint8Array[] {
    return this.aead.seal(this.key, attemptNonce(attempt, offset), head, body);
  }

  openPiece({ offset, attempt, head }: SealedPlace, sealed: Uint8Array): Uint8Array | null {
    if (attempt >= END_DOMAIN) return null;
    return this.aead.open(this.key, nonceOf(attempt, offset), head, sealed);
  }

  sealRecord(place: SealedPlace, body: Uint8Array, isEnd: boolean): Uint8Array[] {
    assert(this.header !== null, 'what is written has a header');
    assert(!isEnd || body.length === 0, 'an end record says nothing');
    const { attempt, offset } = place;
    const nonce = isEnd ? nonceOf(END_DOMAIN, offset) : attemptNonce(attempt, offset);
    return this.aead.seal(this.key, nonce, this.bound(place, this.header), body);
  }

  openRecord(place: SealedPlace, sealed: Uint8Array, isEnd: boolean): Uint8Array | null {
    const { attempt, offset } = place;
    if (this.header === null || attempt >= END_DOMAIN) return null;
    const nonce = nonceOf(isEnd ? END_DOMAIN : attempt, offset);
    return this.aead.open(this.key, nonce, this.bound(place, this.header), sealed);
  }

  /**
   * The key depends on the footer itself: two copies of one journal may come to different footers at the
   * same offset, and the same footer always gives the same bytes.
   */
  sealFooter(bound: Uint8Array, footer: Uint8Array): Uint8Array {
    const mac = createHmac('sha256', this.footerKey).update(bound).update(footer).digest();
    const salt = mac.subarray(0, FOOTER_SALT_BYTES);
    const sealed = this.aead.seal(this.keyOf(salt), new Uint8Array(NONCE_BYTES), bound, footer);
    return Buffer.concat([salt, ...sealed]);
  }

  openFooter(bound: Uint8Array, sealed: Uint8Array): Uint8Array | null {
    const key = this.keyOf(sealed.subarray(0, FOOTER_SALT_BYTES));
    const body = sealed.subarray(FOOTER_SALT_BYTES);
    return this.aead.open(key, new Uint8Array(NONCE_BYTES), bound, body);
  }

  private keyOf(salt: Uint8Array): Uint8Array {
    return deriveKey(this.footerKey, salt, 'understudy footer key 1\n');
  }

  /** Records other than pieces also prove the segment's number: it may not be played in another turn. */
  private bound({ head }: SealedPlace, header: Uint8Array): Uint8Array {
    return Buffer.concat([head, header]);
  }
}

function attemptNonce(attempt: number, offset: number): Uint8Array {
  assert(attempt < END_DOMAIN, 'a segment is not cut back so often');
  return nonceOf(attempt, offset);
}
