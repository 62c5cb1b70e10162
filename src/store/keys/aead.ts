/**
 * AES-256-GCM and the derivation of keys: all the cryptography of the store's files, in one small place.
 * A cipher is made for each call with the key, the nonce and what is bound in; that no nonce is ever used
 * twice under one key with other bytes is the promise of the callers (FORMAT-ENCRYPTION.md, "Nonces").
 * Tests put their own `Aead` in the place of this one to watch for that.
 */
import { createCipheriv, createDecipheriv, hkdfSync } from 'node:crypto';

export const KEY_BYTES = 32;
export const TAG_BYTES = 16;
export const NONCE_BYTES = 12;

const ALGORITHM = 'aes-256-gcm';

export interface Aead {
  /** The ciphertext, as long as `plain`, and the tag. */
  seal(
    key: Uint8Array,
    nonce: Uint8Array,
    bound: Uint8Array,
    plain: Uint8Array,
  ): [ciphertext: Uint8Array, tag: Uint8Array];
  /** `sealed`: ciphertext and tag. Null where key, nonce, what is bound or any byte is another. */
  open(
    key: Uint8Array,
    nonce: Uint8Array,
    bound: Uint8Array,
    sealed: Uint8Array,
  ): Uint8Array | null;
}

export const aesGcm: Aead = {
  seal(key, nonce, bound, plain) {
    const cipher = createCipheriv(ALGORITHM, key, nonce, { authTagLength: TAG_BYTES });
    cipher.setAAD(bound);
    const ciphertext = cipher.update(plain);
    cipher.final();
    return [ciphertext, cipher.getAuthTag()];
  },
  open(key, nonce, bound, sealed) {
    const length = sealed.length - TAG_BYTES;
    if (length < 0) return null;
    const decipher = createDecipheriv(ALGORITHM, key, nonce, { authTagLength: TAG_BYTES });
    decipher.setAAD(bound);
    decipher.setAuthTag(sealed.subarray(length));
    const plain = decipher.update(sealed.subarray(0, length));
    try {
      decipher.final();
    } catch {
      return null; // the tag does not fit: the caller says of what
    }
    return plain;
  },
};

/** HKDF-SHA-256 of a key: `label` says what the result is for, `salt` for which file. */
export const deriveKey = (key: Uint8Array, salt: Uint8Array, label: string): Uint8Array =>
  new Uint8Array(hkdfSync('sha256', key, salt, Buffer.from(label, 'latin1'), KEY_BYTES));
