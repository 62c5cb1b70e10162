/**
 * A key of the repository as it lies in `keys/`: the root key wrapped under a secret that a master key
 * gives, the others under the root key. Made once; another master is another file, and nothing that was
 * sealed is written anew. What the key is for is bound in, so that none can take the place of
 * another, or come from another repository. FORMAT-ENCRYPTION.md, "Keys".
 */
import { fromHex, toHex } from '../format/checksum.ts';
import { damaged } from '../format/object-header.ts';
import { type Aead, deriveKey, KEY_BYTES, NONCE_BYTES } from './aead.ts';
import type { MasterInfo, MasterKey } from './master.ts';

const FORMAT_NAME = 'understudy key';
const VERSION = 1;
const SALT_BYTES = 32;

export interface KeyFacts {
  /** 16 hex digits, chosen at random. */
  readonly id: string;
  readonly repository: string;
  readonly purpose: 'root' | 'names' | 'data';
  /** Of a data key its dedupe domain; of the name key how contents are named. */
  readonly domain: string;
  /** Of the data keys of a domain the highest is used for what is written. */
  readonly number: number;
  readonly createdMs: number;
}

export interface KeyObject extends KeyFacts {
  readonly master: MasterInfo;
  /** Of this wrapping, 64 hex digits. */
  readonly salt: string;
  /** The key and its tag, 96 hex digits. */
  readonly sealed: string;
}

const boundOf = ({ id, repository, purpose, domain, number, createdMs }: KeyFacts): Uint8Array => {
  const lines = ['understudy key 1', repository, id, purpose, domain, number, createdMs];
  return Buffer.from(lines.map((line) => `${line}\n`).join(''), 'utf8');
};

const wrapKey = (secret: Uint8Array, salt: Uint8Array): Uint8Array =>
  deriveKey(secret, salt, 'understudy wrap 1\n');

interface WrapWorld {
  readonly aead: Aead;
  readonly master: MasterKey;
  readonly randomBytes: (count: number) => Uint8Array;
}

/** `like`: to be opened as this former wrapping of the master is. */
export async function wrapped(
  { aead, master, randomBytes }: WrapWorld,
  facts: KeyFacts,
  key: Uint8Array,
  like?: MasterInfo,
): Promise<KeyObject> {
  const { repository, purpose } = facts;
  const { secret, info } = await master.wrap({ repository, purpose }, like);
  const salt = randomBytes(SALT_BYTES);
  // A salt for each wrapping, so a key for each: no nonce is needed.
  const nonce = new Uint8Array(NONCE_BYTES);
  const sealed = Buffer.concat(aead.seal(wrapKey(secret, salt), nonce, boundOf(facts), key));
  return { ...facts, master: info, salt: toHex(salt), sealed: toHex(sealed) };
}

/** Null where the master is another one, or the object was changed. */
export async function unwrapped(
  aead: Aead,
  master: MasterKey,
  object: KeyObject,
): Promise<Uint8Array | null> {
  const { repository, purpose } = object;
  const secret = await master.unwrap(object.master, { repository, purpose });
  if (secret === null) return null;
  const nonce = new Uint8Array(NONCE_BYTES);
  const key = wrapKey(secret, fromHex(object.salt));
  return aead.open(key, nonce, boundOf(object), fromHex(object.sealed));
}

export function encodeKeyObject({ id, ...object }: KeyObject): Uint8Array {
  const value = { format: FORMAT_NAME, version: VERSION, key: id, ...object };
  return Buffer.from(`${JSON.stringify(value, null, 2)}\n`, 'utf8');
}

type Fields = Record<string, unknown>;

const isHex = (value: unknown, digits: number): value is string =>
  typeof value === 'string' && value.length === digits && /^[0-9a-f]+$/.test(value);
const isCount = (value: unknown): value is number =>
  typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;

const isPurpose = (value: unknown): value is KeyFacts['purpose'] =>
  value === 'root' || value === 'names' || value === 'data';

function masterOf(value: unknown): MasterInfo | null {
  const { kind, id, salt, n, r, p, keyId, blob } = (value ?? {}) as Fields;
  if ((kind === 'file' || kind === 'root') && isHex(id, 16)) return { kind, id };
  if (kind === 'passphrase' && isHex(salt, 64) && isCount(n) && isCount(r) && isCount(p)) {
    return { kind, salt, n, r, p };
  }
  const isKms = kind === 'kms' && typeof keyId === 'string' && typeof blob === 'string';
  return isKms ? { kind, keyId, blob } : null;
}

/** ERR_OBJECT_DAMAGED. */
export function decodeKeyObject(bytes: Uint8Array, path: string): KeyObject {
  let fields: Fields;
  try {
    fields = (JSON.parse(Buffer.from(bytes).toString('utf8')) ?? {}) as Fields;
  } catch (cause) {
    throw damaged(path, 'not JSON', cause);
  }
  const { format, version, key: id, repository, purpose, domain, number, createdMs } = fields;
  const { salt, sealed } = fields;
  const master = masterOf(fields.master);
  const isKey = isHex(id, 16) && isHex(repository, 32) && isPurpose(purpose);
  const isPlaced = typeof domain === 'string' && isCount(number) && isCount(createdMs);
  const isWrapped = isHex(salt, 2 * SALT_BYTES) && isHex(sealed, 2 * (KEY_BYTES + 16));
  if (format !== FORMAT_NAME || version !== VERSION) throw damaged(path, 'not a key object');
  if (!isKey || !isPlaced || !isWrapped || master === null) {
    throw damaged(path, 'a key object that makes no sense');
  }
  const facts: KeyFacts = { id, repository, purpose, domain, number, createdMs };
  return { ...facts, master, salt, sealed };
}
