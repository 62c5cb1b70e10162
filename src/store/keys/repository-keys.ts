/**
 * The keys of one repository: made with it, opened with a master key at each start, rotated and wrapped
 * for other masters later. A data key that was rotated stays for what it sealed; the name key never
 * changes. A key that no object gives any more is what damage is: its files cannot be read.
 *
 * Masters open a root key, and that opens the others: so a key that is made later needs only the master
 * at hand. Each key lies in two files, wrapped apart from each other: one damaged file costs nothing.
 *
 * Order: a new repository's keys are durable before its format.json; a rotated key before anything is
 * sealed with it; a new wrapping before an old one may go.
 */
import { UnderstudyError } from '../../base/errors.ts';
import { toHex } from '../format/checksum.ts';
import type { Format } from '../format/format.ts';
import type { NamesMode } from '../format/names.ts';
import { keyedFolders, keyedNames, type Names } from '../format/names.ts';
import { makeFolder } from '../format/object-file.ts';
import { damaged } from '../format/object-header.ts';
import { aesGcm, KEY_BYTES } from './aead.ts';
import { type KeyFault, type KeyMend, keyFaults, keyMends } from './key-faults.ts';
import {
  COPIES,
  factsOf,
  isKeyName,
  type KeyWorld,
  keyIdOf,
  listKeyObjects,
  type OpenKey,
  type StoredKey,
  underRoot,
  writeKey,
} from './key-files.ts';
import { type KeyFacts, unwrapped } from './key-object.ts';
import type { MasterInfo, MasterKey } from './master.ts';
import type { DataKey, DataKeys } from './vault.ts';

const DEFAULT_DOMAIN = 'default';

export class RepositoryKeys implements DataKeys {
  readonly names: Names;
  private readonly world: KeyWorld;
  private readonly repository: string;
  private readonly root: OpenKey;
  /** How the master at hand has opened the root key. */
  private readonly opener: MasterInfo;
  private open: ReadonlyMap<string, OpenKey>;
  /** Ids that were looked for and are not there. */
  private readonly missing = new Set<string>();

  private constructor(
    world: KeyWorld,
    repository: string,
    names: Names,
    { root, opener, open }: Omit<OpenKeys, 'damage'>,
  ) {
    this.root = root;
    this.opener = opener;
    this.world = world;
    this.repository = repository;
    this.names = names;
    this.open = open;
  }

  /**
   * Opens all keys that the master can open. ERR_KEY_WRONG where it can open none, ERR_OBJECT_DAMAGED
   * where the name key is missing or is not of this kind of repository, ERR_KEY_DENIED,
   * ERR_KEY_UNAVAILABLE.
   */
  static async load(world: KeyWorld, { id, encryption }: Format): Promise<RepositoryKeys> {
    const { root, opener, open, damage } = await openAll(world, id);
    const nameKey = [...open.values()].find(({ purpose }) => purpose === 'names');
    if (nameKey === undefined) {
      throw damage[0] ?? damaged(world.paths.keys, 'the name key is missing');
    }
    if (nameKey.domain !== encryption?.names) {
      throw damaged(world.paths.keys, 'format.json says other names than the name key');
    }
    const keys = new RepositoryKeys(world, id, namesOf(nameKey), { root, opener, open });
    if (keys.newest() === null) {
      throw damage[0] ?? damaged(world.paths.keys, 'there is no data key');
    }
    return keys;
  }

  /** How the repository names contents, as its name key says. Throws what `load` throws. */
  static async namesOf(world: KeyWorld, id: string): Promise<NamesMode> {
    const { open, damage } = await openAll(world, id);
    const found = [...open.values()].find(({ purpose }) => purpose === 'names')?.domain;
    if (found === 'sha-256' || found === 'hmac-sha-256') return found;
    throw damage[0] ?? damaged(world.paths.keys, 'the name key is missing');
  }

  /** The keys of a new repository, durable. What is left of an attempt to make it goes. */
  static async create(
    world: KeyWorld,
    repository: string,
    names: NamesMode,
    nameKey?: Uint8Array,
  ): Promise<RepositoryKeys> {
    const { disk, paths, randomBytes, nowMs } = world;
    await makeFolder(disk, paths.keys);
    for (const { name } of await disk.list(paths.keys)) {
      if (isKeyName(name)) await disk.remove(`${paths.keys}/${name}`);
    }
    const facts = { repository, number: 1, createdMs: nowMs };
    const made = (purpose: KeyFacts['purpose'], domain: string, key?: Uint8Array): OpenKey => {
      const id = toHex(randomBytes(8));
      return { ...facts, purpose, domain, id, key: key ?? randomBytes(KEY_BYTES) };
    };
    const root = made('root', '');
    const own = [made('names', names, nameKey), made('data', DEFAULT_DOMAIN)];
    const opener = await writeKey(world, root);
    for (const key of own) await writeKey(underRoot(world, root), key);
    const open = new Map(own.map((key) => [key.id, key]));
    return new RepositoryKeys(world, repository, namesOf(own[0]!), { root, opener, open });
  }

  get current(): DataKey {
    return this.newest()!;
  }

  /** The name key, for a copy of the repository, which has the same names. */
  get nameKey(): Uint8Array {
    return [...this.open.values()].find(({ purpose }) => purpose === 'names')!.key;
  }

  /** One that was made beside this process is read when it is first met. */
  async find(id: string): Promise<DataKey | null> {
    const known = this.open.get(id);
    if (known !== undefined) return known.purpose === 'data' ? known : null;
    if (this.missing.has(id)) return null;
    const objects = await listKeyObjects(this.world, this.repository);
    if (objects.some((object) => object.id === id)) {
      const { open } = await openAll(this.world, this.repository);
      this.open = new Map([...this.open, ...open]);
    }
    if (!this.open.has(id)) this.missing.add(id);
    return this.find(id);
  }

  /**
   * Takes in the data keys that were made beside this process; the id of the one that is used from now on,
   * null where that is the same. Needs no master: the root key opens them. A key counts once both its files
   * are there, and durable: what is sealed with a key that is lost is lost.
   */
  async refresh(): Promise<string | null> {
    const { disk, paths } = this.world;
    const files = new Map<string, number>();
    for (const { name } of await disk.list(paths.keys)) {
      const id = isKeyName(name) ? keyIdOf(name) : this.root.id;
      files.set(id, (files.get(id) ?? 0) + 1);
    }
    const isNew = ([id, count]: [string, number]) =>
      id !== this.root.id && !this.open.has(id) && count >= COPIES;
    const fresh = new Set([...files].filter(isNew).map(([id]) => id));
    if (fresh.size === 0) return null;
    await disk.syncDirectory(paths.keys);
    const before = this.current.id;
    const objects = await listKeyObjects(this.world, this.repository);
    const wanted = objects.filter(({ id }) => fresh.has(id));
    this.open = new Map([
      ...this.open,
      ...(await opened(underRoot(this.world, this.root), wanted)),
    ]);
    for (const id of fresh) this.missing.delete(id);
    return this.current.id === before ? null : this.current.id;
  }

  /** A new data key, for all that is written from now on by whoever knows of it. */
  async rotate(): Promise<DataKey> {
    const { randomBytes, nowMs: createdMs } = this.world;
    const number = this.newest()!.number + 1;
    const facts = { repository: this.repository, number, createdMs };
    const purpose = 'data' as const;
    const id = toHex(randomBytes(8));
    const key = { ...facts, purpose, domain: DEFAULT_DOMAIN, id, key: randomBytes(KEY_BYTES) };
    await writeKey(underRoot(this.world, this.root), key);
    this.open = new Map([...this.open, [id, key]]);
    return key;
  }

  /** Lets another master open the repository too, with the keys that are made later. */
  async add(master: MasterKey): Promise<void> {
    await writeKey({ ...this.world, master }, this.root);
  }

  /** What is wrong with the files of the keys, by what lies there now. A KMS is not asked. */
  faults(): Promise<KeyFault[]> {
    return keyFaults(this.world, this.known());
  }

  /** What can be done about it, in this order. */
  mends(): Promise<KeyMend[]> {
    return keyMends(this.world, this.known());
  }

  private known() {
    return { repository: this.repository, root: this.root, opener: this.opener };
  }

  private newest(): OpenKey | null {
    const isCurrent = ({ purpose, domain }: OpenKey) =>
      purpose === 'data' && domain === DEFAULT_DOMAIN;
    const keys = [...this.open.values()].filter(isCurrent);
    return keys.sort((a, b) => b.number - a.number || (a.id < b.id ? -1 : 1))[0] ?? null;
  }
}

const namesOf = ({ domain, key }: OpenKey): Names =>
  domain === 'sha-256' ? keyedFolders(key) : keyedNames(key);

interface OpenKeys {
  readonly root: OpenKey;
  readonly opener: MasterInfo;
  /** All other keys, by their ids. */
  readonly open: ReadonlyMap<string, OpenKey>;
  readonly damage: readonly UnderstudyError[];
}

async function openAll(world: KeyWorld, repository: string): Promise<OpenKeys> {
  const damage: UnderstudyError[] = [];
  const objects = await listKeyObjects(world, repository, (error) => damage.push(error));
  const roots = objects.filter(({ purpose }) => purpose === 'root');
  if (roots.length === 0) {
    throw damage[0] ?? damaged(world.paths.keys, 'the keys of the repository are missing');
  }
  for (const object of roots) {
    const root = (await opened(world, [object])).get(object.id);
    if (root === undefined) continue;
    const others = objects.filter(({ purpose }) => purpose !== 'root');
    const open = await opened(underRoot(world, root), others);
    return { root, opener: object.master, open, damage };
  }
  throw wrongKey(world, roots);
}

/** Those of the keys that the master can open. */
async function opened(
  { master, aead = aesGcm }: KeyWorld,
  objects: readonly StoredKey[],
): Promise<Map<string, OpenKey>> {
  const open = new Map<string, OpenKey>();
  for (const object of objects) {
    if (object.master.kind !== master.kind || open.has(object.id)) continue;
    const key = await unwrapped(aead, master, object);
    if (key !== null) open.set(object.id, { ...factsOf(object), key });
  }
  return open;
}

function wrongKey({ master, paths }: KeyWorld, roots: readonly StoredKey[]): UnderstudyError {
  const kinds = [...new Set(roots.map((object) => kindNames[object.master.kind]))].join(', or ');
  const message = `${master.name} does not open this repository, which asks for ${kinds}`;
  return new UnderstudyError('ERR_KEY_WRONG', message, { path: paths.keys });
}

const kindNames: Record<StoredKey['master']['kind'], string> = {
  root: 'its root key',
  file: 'the key file that it was made with',
  passphrase: 'its passphrase',
  kms: 'its KMS key',
};
