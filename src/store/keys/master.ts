/**
 * Master keys: what an operator has, and what a repository's own keys are wrapped with. From a key file,
 * from a passphrase, or from a KMS (kms.ts). None of them is ever written into the repository. For each
 * wrapping a master gives a secret, and says how it can give that secret again.
 */
import { randomBytes, scrypt } from 'node:crypto';
import { UnderstudyError } from '../../base/errors.ts';
import { fromHex, toHex } from '../format/checksum.ts';
import { deriveKey, KEY_BYTES } from './aead.ts';

/** How a master gives a secret again; as a key object has it. */
export type MasterInfo =
  | { readonly kind: 'file'; readonly id: string }
  /** The repository's own root key, which the masters open. */
  | { readonly kind: 'root'; readonly id: string }
  | {
      readonly kind: 'passphrase';
      readonly salt: string;
      readonly n: number;
      readonly r: number;
      readonly p: number;
    }
  | { readonly kind: 'kms'; readonly keyId: string; readonly blob: string };

/** What the key is for that a secret wraps; a KMS keeps it in its log and binds it in. */
export interface WrapContext {
  readonly repository: string;
  readonly purpose: string;
}

export interface MasterKey {
  /** As messages name it. */
  readonly name: string;
  readonly kind: MasterInfo['kind'];
  /**
   * A secret of 32 bytes for one more wrapping. `like`: of a former one, whose secret it is where the master has
   * one for each.
   */
  wrap(context: WrapContext, like?: MasterInfo): Promise<{ secret: Uint8Array; info: MasterInfo }>;
  /** Null where this master is not the one. ERR_KEY_DENIED, ERR_KEY_UNAVAILABLE. */
  unwrap(info: MasterInfo, context: WrapContext): Promise<Uint8Array | null>;
}

/** Public: two key files are told apart by it, and it says nothing of the key. */
export const fileKeyId = (key: Uint8Array): string =>
  toHex(deriveKey(key, new Uint8Array(0), 'understudy key file 1\n')).slice(0, 16);

/** `key`: 32 bytes out of a key file (key-file.ts). */
export function fileMaster(key: Uint8Array, name: string): MasterKey {
  const id = fileKeyId(key);
  return {
    name,
    kind: 'file',
    wrap: async () => ({ secret: key, info: { kind: 'file', id } }),
    unwrap: async (info) => (info.kind === 'file' && info.id === id ? key : null),
  };
}

/** The root key of a repository opens all its other keys: so they need no master that is not at hand. */
export const rootMaster = (id: string, key: Uint8Array): MasterKey => ({
  name: `root key ${id}`,
  kind: 'root',
  wrap: async () => ({ secret: key, info: { kind: 'root', id } }),
  unwrap: async (info) => (info.kind === 'root' && info.id === id ? key : null),
});

interface ScryptCost {
  readonly n: number;
  readonly r: number;
  readonly p: number;
}

/** 64 MiB and about a fifth of a second. */
const SCRYPT_COST: ScryptCost = { n: 65_536, r: 8, p: 1 };
const SALT_BYTES = 32;
/** What a key object may ask for: no more than 1 GiB. */
const MAX_MEMORY_BYTES = 2 ** 30;
const MAX_P = 16;

function stretch(passphrase: string, salt: string, { n, r, p }: ScryptCost): Promise<Uint8Array> {
  const text = Buffer.from(passphrase.normalize('NFKC'), 'utf8');
  return new Promise((resolve, reject) => {
    const options = { N: n, r, p, maxmem: 128 * n * r + 2 ** 20 };
    scrypt(text, fromHex(salt), KEY_BYTES, options, (error, key) => {
      if (error) reject(error);
      else resolve(key);
    });
  });
}

const isBearable = ({ n, r, p }: ScryptCost): boolean =>
  Number.isInteger(Math.log2(n)) && n > 1 && 128 * n * r <= MAX_MEMORY_BYTES && p <= MAX_P;

/** The passphrase is stretched once for each salt: all keys wrapped at one time share one. */
export function passphraseMaster(
  passphrase: string,
  name: string,
  cost: ScryptCost = SCRYPT_COST,
): MasterKey {
  if (passphrase === '') throw new UnderstudyError('ERR_KEY_FILE', `${name}: it is empty`);
  const own = toHex(randomBytes(SALT_BYTES));
  const stretched = new Map<string, Promise<Uint8Array>>();
  const secretOf = (salt: string, of: ScryptCost): Promise<Uint8Array> => {
    const key = `${salt} ${of.n} ${of.r} ${of.p}`;
    const known = stretched.get(key) ?? stretch(passphrase, salt, of);
    stretched.set(key, known);
    return known;
  };
  return {
    name,
    kind: 'passphrase',
    async wrap(_context, like) {
      const isLike = like?.kind === 'passphrase' && isBearable(like);
      const info = isLike ? like : ({ kind: 'passphrase', salt: own, ...cost } as const);
      return { secret: await secretOf(info.salt, info), info };
    },
    async unwrap(info) {
      if (info.kind !== 'passphrase' || !isBearable(info)) return null;
      return secretOf(info.salt, info);
    },
  };
}
