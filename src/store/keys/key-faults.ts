/**
 * What is wrong with the files of the keys, and what can be done about it. Each key lies in two files for each
 * master that opens it (all keys but the root key have one: the root key). A file is right where it opens;
 * one of a master that is not at hand is taken at its word. What is missing is made from one that is right; what
 * is damaged goes when all are there, and no sooner: a human may be able to read it yet.
 */
import { basename } from 'node:path';
import { aesGcm } from './aead.ts';
import {
  COPIES,
  factsOf,
  type KeyWorld,
  keyIdOf,
  listKeyObjects,
  type OpenKey,
  type StoredKey,
  underRoot,
  writeKey,
} from './key-files.ts';
import { unwrapped } from './key-object.ts';
import type { MasterInfo } from './master.ts';

export interface KeyFault {
  readonly kind: 'damaged-object' | 'missing-object';
  /** Path of the file; of one that is not there the rest of its name is not known. */
  readonly object: string;
  readonly detail: string;
}

export interface KeyMend {
  readonly object: string;
  /** What is done, or why nothing can be. */
  readonly action: string;
  readonly isPossible: boolean;
  /** Makes what is missing; null: the file itself goes. */
  readonly make: (() => Promise<unknown>) | null;
}

/** Of which repository, and how its root key is opened. */
export interface KnownRoot {
  readonly repository: string;
  readonly root: OpenKey;
  readonly opener: MasterInfo;
}

/** The right files of one key under one master. */
interface Shelf {
  readonly files: readonly [StoredKey, ...StoredKey[]];
  readonly object: string;
  /** False where its master is not at hand. */
  readonly isOurs: boolean;
}

interface Damaged {
  readonly path: string;
  readonly id: string;
  readonly detail: string;
}

interface Look {
  readonly damaged: readonly Damaged[];
  readonly shelves: readonly Shelf[];
}

/** What two files of one key under one master have in common. */
function wordOf(master: MasterInfo): string {
  if (master.kind === 'passphrase') return `passphrase with the salt ${master.salt.slice(0, 8)}..`;
  if (master.kind === 'kms') return `KMS key ${master.keyId}`;
  return `${master.kind === 'file' ? 'key file' : 'root key'} ${master.id}`;
}

const shelfOf = ({ id, master }: StoredKey): string => `${id} ${wordOf(master)}`;

async function lookAt(world: KeyWorld, known: KnownRoot): Promise<Look> {
  const damaged: Damaged[] = [];
  const note = (path: string, detail: string) =>
    damaged.push({ path, id: keyIdOf(basename(path)), detail });
  const objects = await listKeyObjects(world, known.repository, ({ context, message }) =>
    note(String(context.path), message),
  );
  const opening = new Set<string>([`${known.root.id} ${wordOf(known.opener)}`]);
  const closed: StoredKey[] = [];
  const shelves = new Map<string, [StoredKey, ...StoredKey[]]>();
  const keep = (object: StoredKey) => {
    const shelf = shelves.get(shelfOf(object));
    if (shelf === undefined) shelves.set(shelfOf(object), [object]);
    else shelf.push(object);
  };
  for (const object of objects) {
    if (object.master.kind === 'kms') keep(object);
    else if (await opens(world, known, object)) {
      opening.add(shelfOf(object));
      keep(object);
    } else closed.push(object);
  }
  for (const object of closed) {
    const isOther = object.purpose === 'root' && !opening.has(shelfOf(object));
    const misnamed = { ...object, master: known.opener };
    if (isOther && !(await opens(world, known, misnamed))) keep(object);
    else note(object.path, `${object.path}: it does not open: some of it was changed`);
  }
  const found = [...shelves].map(([shelf, files]) => {
    const object = `${world.paths.keys}/${files[0].id}-*.key`;
    return { files, object, isOurs: opening.has(shelf) };
  });
  return { damaged, shelves: found };
}

async function opens(world: KeyWorld, { root }: KnownRoot, object: StoredKey): Promise<boolean> {
  const { master, aead = aesGcm } = object.purpose === 'root' ? world : underRoot(world, root);
  if (master.kind !== object.master.kind) return false;
  return (await unwrapped(aead, master, object)) !== null;
}

const lacking = ({ files }: Shelf): number => Math.max(0, COPIES - files.length);

/** Where a damaged file of the key may be the one that is lacking, that is told, and not that it is gone. */
export async function keyFaults(world: KeyWorld, known: KnownRoot): Promise<KeyFault[]> {
  const { damaged, shelves } = await lookAt(world, known);
  const faults = damaged.map(({ path, detail }): KeyFault => {
    return { kind: 'damaged-object', object: path, detail };
  });
  for (const id of new Set(shelves.map(({ files }) => files[0].id))) {
    const short = shelves.filter((shelf) => shelf.files[0].id === id && lacking(shelf) > 0);
    const count = short.reduce((sum, shelf) => sum + lacking(shelf), 0);
    if (count <= damaged.filter((file) => file.id === id).length) continue;
    for (const { files, object } of short) {
      const [{ purpose, master }] = files;
      const what = `one of the two files in which the ${purpose} key lies under the ${wordOf(master)} is gone`;
      faults.push({
        kind: 'missing-object',
        object,
        detail: `${what}: repo repair makes it again`,
      });
    }
  }
  return faults;
}

export async function keyMends(world: KeyWorld, known: KnownRoot): Promise<KeyMend[]> {
  const { damaged, shelves } = await lookAt(world, known);
  const made = shelves
    .filter((shelf) => lacking(shelf) > 0)
    .map((shelf) => mendOf(world, known, shelf));
  const gone = damaged.map(({ path: object, id }): KeyMend => {
    const own = shelves.filter(({ files }) => files[0].id === id);
    const short = own.find((shelf) => lacking(shelf) > 0 && !shelf.isOurs);
    const isPossible = own.length > 0 && short === undefined;
    let action = 'it goes: two others have the key';
    if (own.length === 0)
      action = 'no other file has the key: put it back as it was, from a backup';
    else if (short !== undefined) action = stays(short);
    return { object, action, isPossible, make: null };
  });
  return [...made, ...gone];
}

const stays = ({ files }: Shelf): string =>
  `it stays until a repair is given the ${wordOf(files[0].master)}: a file of that is lacking`;

function mendOf(world: KeyWorld, known: KnownRoot, shelf: Shelf): KeyMend {
  const { files, object, isOurs } = shelf;
  const [right] = files;
  if (!isOurs) {
    const action = `repair with the ${wordOf(right.master)}: nothing else can make it again`;
    return { object, action, isPossible: false, make: null };
  }
  const make = async () => {
    const isRoot = right.purpose === 'root';
    const own = isRoot ? world : underRoot(world, known.root);
    const key = isRoot ? known.root.key : await unwrapped(own.aead ?? aesGcm, own.master, right);
    const written = { copies: lacking(shelf), like: right.master };
    await writeKey(own, { ...factsOf(right), key: key! }, written);
  };
  return { object, action: 'made again from the other file', isPossible: true, make };
}
