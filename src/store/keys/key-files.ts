/**
 * The files of a repository's keys: `keys/ID-XXXXXXXX.key`, each made once, and each key in two of them, wrapped
 * apart from each other. FORMAT-ENCRYPTION.md, "Keys". What the keys are for is said in repository-keys.ts.
 */
import type { Disk } from '../../base/disk.ts';
import type { UnderstudyError } from '../../base/errors.ts';
import { toHex } from '../format/checksum.ts';
import type { Paths } from '../format/layout.ts';
import { makeFolder, writeObject } from '../format/object-file.ts';
import { damaged, isDamage, isNotFound } from '../format/object-header.ts';
import { type Aead, aesGcm } from './aead.ts';
import {
  decodeKeyObject,
  encodeKeyObject,
  type KeyFacts,
  type KeyObject,
  wrapped,
} from './key-object.ts';
import { type MasterInfo, type MasterKey, rootMaster } from './master.ts';

export interface KeyWorld {
  /** The disk itself, not a sealed one. */
  readonly disk: Disk;
  readonly paths: Pick<Paths, 'keys' | 'temporary'>;
  readonly master: MasterKey;
  readonly randomBytes: (count: number) => Uint8Array;
  readonly nowMs: number;
  readonly aead?: Aead;
}

/** A key object, and the file it lies in. */
export interface StoredKey extends KeyObject {
  readonly path: string;
}

export interface OpenKey extends KeyFacts {
  readonly key: Uint8Array;
}

/** Files of one key under one master. */
export const COPIES = 2;

const ID_DIGITS = 16;
const KEY_NAME = /^[0-9a-f]{16}-[0-9a-f]{8}\.key$/;

export const isKeyName = (name: string): boolean => KEY_NAME.test(name);
/** Of which key a file of this name is. */
export const keyIdOf = (name: string): string => name.slice(0, ID_DIGITS);

export const factsOf = (object: KeyFacts): KeyFacts => {
  const { id, repository, purpose, domain, number, createdMs } = object;
  return { id, repository, purpose, domain, number, createdMs };
};

/** All key objects of the repository; those that are damaged are handed to `onDamage`. */
export async function listKeyObjects(
  { disk, paths }: Pick<KeyWorld, 'disk' | 'paths'>,
  repository: string,
  onDamage: (error: UnderstudyError) => void = () => undefined,
): Promise<StoredKey[]> {
  const found: StoredKey[] = [];
  for (const { name } of await disk.list(paths.keys)) {
    if (!isKeyName(name)) continue;
    const path = `${paths.keys}/${name}`;
    try {
      const object = decodeKeyObject(await disk.readFile(path), path);
      const isOurs = object.repository === repository && name.startsWith(`${object.id}-`);
      if (!isOurs) throw damaged(path, 'the key of another name or repository');
      found.push({ ...object, path });
    } catch (error) {
      if (isNotFound(error)) continue;
      if (!isDamage(error)) throw error;
      onDamage(error);
    }
  }
  return found;
}

/** The repositories that key objects name, the one that most of them name first. */
export async function repositoriesOf({ disk, paths }: Pick<KeyWorld, 'disk' | 'paths'>) {
  const counts = new Map<string, number>();
  for (const { name } of await disk.list(paths.keys)) {
    if (!isKeyName(name)) continue;
    const path = `${paths.keys}/${name}`;
    try {
      const { repository } = decodeKeyObject(await disk.readFile(path), path);
      counts.set(repository, (counts.get(repository) ?? 0) + 1);
    } catch (error) {
      if (!isDamage(error) && !isNotFound(error)) throw error;
    }
  }
  return [...counts].sort(([, a], [, b]) => b - a).map(([id]) => id);
}

/** How many files, and as which former one they are opened. */
export interface Written {
  readonly copies: number;
  readonly like?: MasterInfo;
}

/** Durable once it resolves: how its files are opened. */
export async function writeKey(
  world: KeyWorld,
  { key, ...facts }: OpenKey,
  { copies, like }: Written = { copies: COPIES },
): Promise<MasterInfo> {
  const { disk, paths, master, randomBytes, aead = aesGcm } = world;
  await makeFolder(disk, paths.temporary);
  for (let copy = 1; ; copy += 1) {
    const object = await wrapped({ aead, master, randomBytes }, facts, key, like);
    const name = `${facts.id}-${toHex(randomBytes(4))}.key`;
    const temporary = `${paths.temporary}/new-${name}`;
    await writeObject(disk, temporary, `${paths.keys}/${name}`, [encodeKeyObject(object)]);
    if (copy >= copies) return object.master;
  }
}

/** The world in which keys are wrapped under the root key. */
export const underRoot = (world: KeyWorld, root: OpenKey): KeyWorld => ({
  ...world,
  master: rootMaster(root.id, root.key),
});
