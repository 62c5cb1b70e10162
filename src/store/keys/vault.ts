/**
 * What the keys of a repository do for the store: names, and the seals of packs and other files. A plain
 * repository has a vault that does nothing, at no cost. Whether a repository is encrypted is decided once,
 * by its format.json and the key that the operator gave; no file's own bytes can say that it is plain.
 */
import type { DiskFile } from '../../base/disk.ts';
import { fromHex, hasChecksum, toHex } from '../format/checksum.ts';
import { type Names, plainNames } from '../format/names.ts';
import { damaged, isDamage } from '../format/object-header.ts';
import { type Aead, aesGcm } from './aead.ts';
import type { KeyFault, KeyMend } from './key-faults.ts';
import {
  decodePackHeader,
  encodePackHeader,
  type PackHeader,
  TRAILER_BYTES,
  trailerKeyId,
} from './pack-header.ts';
import {
  type PackSeal,
  PLAIN_HEADER_BYTES,
  plainSeal,
  SEALED_HEADER_BYTES,
  SealedPack,
} from './pack-seal.ts';

export interface DataKey {
  /** 16 hex digits. */
  readonly id: string;
  readonly key: Uint8Array;
}

/** The data keys of a repository. */
export interface DataKeys {
  /** What is written from now on is sealed with it. */
  readonly current: DataKey;
  /** For a copy of the repository, which has the same names. */
  readonly nameKey: Uint8Array;
  /** Null where the repository has no such key. */
  find(id: string): Promise<DataKey | null>;
  /** Takes in what was made beside this process; the id of another `current`, or null. */
  refresh(): Promise<string | null>;
  /** What is wrong with their files. */
  faults(): Promise<KeyFault[]>;
  mends(): Promise<KeyMend[]>;
}

type NewPack = Omit<PackHeader, 'keyId'>;

export interface Vault {
  readonly names: Names;
  /** Null in a plain repository. */
  readonly keys: DataKeys | null;
  readonly aead: Aead;
  /** Header and seal of a pack that is about to be written. */
  newPack(header: NewPack): { header: Uint8Array; seal: PackSeal };
  /** The seal of a pack or segment. ERR_OBJECT_DAMAGED, ERR_DATA_FORMAT. */
  sealOf(file: DiskFile): Promise<PackSeal>;
  /** Its header too, which must be whole. ERR_OBJECT_DAMAGED, ERR_DATA_FORMAT. */
  openPack(file: DiskFile): Promise<{ header: PackHeader; seal: PackSeal }>;
}

async function readAt(file: DiskFile, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  if (offset < 0 || (await file.read(bytes, offset)) < length) {
    throw damaged(file.path, 'cut short');
  }
  return bytes;
}

export const plainVault: Vault = {
  names: plainNames,
  keys: null,
  aead: aesGcm,
  newPack: (header) => ({ header: encodePackHeader({ ...header, keyId: null }), seal: plainSeal }),
  sealOf: async () => plainSeal,
  async openPack(file) {
    const bytes = await readAt(file, 0, PLAIN_HEADER_BYTES);
    return { header: decodePackHeader(bytes, file.path, false), seal: plainSeal };
  },
};

const PACK_NAME = /(?:^|\/)([0-9a-f]{32})\.pack$/;

export class SealedVault implements Vault {
  readonly names: Names;
  readonly keys: DataKeys;
  readonly aead: Aead;
  /** By the open file: a name may come to mean another segment. */
  private readonly seals = new WeakMap<DiskFile, Promise<PackSeal>>();

  constructor(names: Names, keys: DataKeys, aead: Aead = aesGcm) {
    this.names = names;
    this.keys = keys;
    this.aead = aead;
  }

  newPack(given: NewPack): { header: Uint8Array; seal: PackSeal } {
    const { id: keyId, key: dataKey } = this.keys.current;
    const header = encodePackHeader({ ...given, keyId });
    return { header, seal: this.sealed(given.id, keyId, dataKey, header) };
  }

  sealOf(file: DiskFile): Promise<PackSeal> {
    const known = this.seals.get(file);
    if (known !== undefined) return known;
    const seal = this.readSeal(file);
    this.seals.set(file, seal);
    seal.catch(() => this.seals.delete(file));
    return seal;
  }

  async openPack(file: DiskFile): Promise<{ header: PackHeader; seal: PackSeal }> {
    const bytes = await readAt(file, 0, SEALED_HEADER_BYTES);
    const header = decodePackHeader(bytes, file.path, true);
    const named = PACK_NAME.exec(file.path)?.[1] ?? header.id;
    if (named !== header.id) throw damaged(file.path, 'the pack of another name');
    const dataKey = await this.dataKey(header.keyId!, file.path);
    return { header, seal: this.sealed(header.id, header.keyId!, dataKey, bytes) };
  }

  /** A damaged header costs nothing: the name and the trailer say what it said of the key. */
  private async readSeal(file: DiskFile): Promise<PackSeal> {
    try {
      return (await this.openPack(file)).seal;
    } catch (error) {
      const id = PACK_NAME.exec(file.path)?.[1];
      if (id === undefined || !isDamage(error)) throw error;
      const size = await file.size();
      const trailer = await readAt(file, size - TRAILER_BYTES, TRAILER_BYTES).catch(() => null);
      if (trailer === null || !hasChecksum(trailer, 0, TRAILER_BYTES - 8)) throw error;
      const keyId = toHex(trailerKeyId(trailer));
      return this.sealed(id, keyId, await this.dataKey(keyId, file.path), null);
    }
  }

  private async dataKey(id: string, path: string): Promise<Uint8Array> {
    const found = await this.keys.find(id);
    if (found === null) throw damaged(path, `its data key ${id} is not among the repository's`);
    return found.key;
  }

  private sealed(
    id: string,
    keyId: string,
    dataKey: Uint8Array,
    header: Uint8Array | null,
  ): PackSeal {
    const bound = header?.slice(0, SEALED_HEADER_BYTES - 8) ?? null;
    const ids = { id: fromHex(id), keyId: fromHex(keyId) };
    return new SealedPack({ aead: this.aead, dataKey, header: bound, ...ids });
  }
}
