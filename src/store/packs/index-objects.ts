/**
 * All index objects of a repository, and their upkeep: a full table in memory becomes an object of level
 * 0; four objects of one level are merged into one of the next (an LSM tree), so that a lookup asks few
 * objects and nothing in memory grows but the filters. A merged object names those that it replaces: a
 * crash before they are removed is made good at the next opening.
 */

import type { Disk } from '../../base/disk.ts';
import type { UnderstudyError } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { equalBytes } from '../format/checksum.ts';
import type { Paths } from '../format/layout.ts';
import type { Names } from '../format/names.ts';
import { publish } from '../format/object-file.ts';
import { isDamage, isNotFound } from '../format/object-header.ts';
import { removeUnlessKept } from '../objects/removal.ts';
import type { DamageNotes } from './damage-notes.ts';
import {
  compareDigests,
  DigestTable,
  readTableEntry,
  TABLE_ENTRY_BYTES,
  type TableEntry,
} from './digest-table.ts';
import type { FileCache } from './file-cache.ts';
import { grantOf } from './grant.ts';
import type { IndexedPack } from './index-format.ts';
import { IndexObject, IndexWriter, PageCache } from './index-object.ts';
import type { PackInfo, PackTable } from './pack-table.ts';

const FAN_IN = 4;

export interface IndexWorld {
  readonly disk: Disk;
  readonly log: Log;
  readonly paths: Paths;
  readonly files: FileCache;
  readonly packs: PackTable;
  /** What is noted there is not found. */
  readonly damage?: Pick<DamageNotes, 'isEmpty' | 'has'>;
  /** Nothing is removed then: what is damaged or replaced is left out. */
  readonly isReadOnly: boolean;
}

const indexedPack = ({ id, pieces, rawBytes, storedBytes, fileBytes }: PackInfo): IndexedPack => ({
  id,
  pieces,
  rawBytes,
  storedBytes,
  fileBytes,
});

export class IndexObjects {
  private readonly world: IndexWorld;
  private readonly cache = new PageCache();
  /** Newest first. */
  private objects: IndexObject[] = [];
  /** The highest number so far: none is used again, for files that are open are known by their names. */
  private highest = 0;

  constructor(world: IndexWorld) {
    this.world = world;
  }

  /** Objects that were damaged when they were opened, and are left out; not of a service: there they go. */
  readonly leftOut: UnderstudyError[] = [];

  get all(): readonly IndexObject[] {
    return this.objects;
  }

  /**
   * Opens what is there. `held`: ids of the packs in the repository. Returns those that no object covers.
   * A damaged object is left out: the footers of its packs say the same.
   */
  async open(held: ReadonlySet<string>): Promise<string[]> {
    const { disk, paths, log } = this.world;
    const covered = new Set<string>();
    for (const { name } of await disk.list(paths.index)) {
      const number = numberOf(name);
      if (number === null) continue;
      this.highest = Math.max(this.highest, number);
      const path = `${paths.index}/${name}`;
      try {
        this.objects.unshift(await this.openObject(path, number, held, covered));
      } catch (error) {
        if (isNotFound(error)) continue; // merged beside an offline reader
        if (!isDamage(error)) throw error;
        log.warn('an index object is damaged; footers of packs are read instead', { path });
        if (this.world.isReadOnly) this.leftOut.push(error);
        await this.remove([path]);
      }
    }
    await this.removeReplaced();
    return [...held].filter((id) => !covered.has(id));
  }

  async find(
    key: Uint8Array,
    isUsable: (entry: TableEntry) => boolean,
  ): Promise<TableEntry | null> {
    const { objects } = this;
    try {
      for (const object of objects) {
        const entry = await object.find(key);
        if (entry !== null && isUsable(entry)) return entry;
      }
      return null;
    } catch (error) {
      // A merge has replaced the objects meanwhile: ask the new ones.
      if (objects === this.objects) throw error;
      return this.find(key, isUsable);
    }
  }

  /** The object that an error says is damaged, or gone; null where it is about something else. */
  damagedBy(error: unknown): IndexObject | null {
    if (!isDamage(error) && !isNotFound(error)) return null;
    return this.objects.find(({ path }) => path === error.context.path) ?? null;
  }

  /** Gives an object up. */
  async drop(object: IndexObject): Promise<void> {
    this.objects = this.objects.filter((other) => other !== object);
    object.close();
    await this.remove([object.path]);
  }

  /** Makes an object of level 0 out of sorted entries (the bytes of a table), and merges where due. */
  async flush(sorted: Uint8Array, packs: readonly PackInfo[], temporary: string): Promise<void> {
    const count = sorted.length / TABLE_ENTRY_BYTES;
    await this.write(packs, [], count, 0, temporary, async (writer) => {
      for (let at = 0; at < sorted.length; at += TABLE_ENTRY_BYTES) {
        await writer.add(readTableEntry(sorted, at));
      }
    });
  }

  /** The objects of the lowest level that has too many; empty where none has. */
  private due(): IndexObject[] {
    const levels = [...new Set(this.objects.map(({ head }) => head.level))].sort((a, b) => a - b);
    for (const level of levels) {
      const objects = this.objects.filter(({ head }) => head.level === level);
      if (objects.length >= FAN_IN) return objects;
    }
    return [];
  }

  /**
   * One merge; true where there was something to merge. Of two copies of a content one stays; where the
   * other has another owner, a grant stands for it.
   */
  async mergeWhereDue(temporary: string): Promise<boolean> {
    const inputs = this.due();
    if (inputs.length === 0) return false;
    const { packs: table } = this.world;
    const numbers = new Set(inputs.flatMap(({ packNumbers }) => packNumbers));
    const packs = [...numbers].map((number) => table.byNumber(number)).filter((p) => p !== null);
    // Their names lie anywhere in the order: they must be known before the first entry is written.
    const grants = await grantsOf(inputs, table, this.world.files.vault.names);
    const count = inputs.reduce((sum, { head }) => sum + head.entries, grants.count);
    const level = inputs[0]!.head.level + 1;
    const replaces = inputs.map(({ number }) => number);
    await this.write(packs, replaces, count, level, temporary, async (writer) => {
      const streams = [...inputs.map((input) => input.entries()), inMemory(grants.sorted())];
      for await (const { kept } of merged(streams, table)) await writer.add(kept);
    });
    await this.removeReplaced();
    return true;
  }

  private async write(
    packs: readonly PackInfo[],
    replaces: readonly number[],
    most: number,
    level: number,
    temporary: string,
    fill: (writer: IndexWriter) => Promise<void>,
  ): Promise<void> {
    const { disk, paths } = this.world;
    const file = await disk.open(temporary, 'create');
    const byNumber = new Map(packs.map((info) => [info.number, indexedPack(info)]));
    const writer = new IndexWriter(file, byNumber, replaces, most);
    try {
      await fill(writer);
      await writer.finish(level);
    } catch (error) {
      await writer.abandon();
      await disk.remove(temporary);
      throw error;
    }
    this.highest += 1;
    const number = this.highest;
    const path = paths.indexObject(String(number).padStart(16, '0'));
    await publish(disk, temporary, path);
    const held = new Set(packs.map(({ id }) => id));
    const object = await this.openObject(path, number, held, new Set());
    this.objects = inOrder([...this.objects, object]);
  }

  private async openObject(
    path: string,
    number: number,
    held: ReadonlySet<string>,
    covered: Set<string>,
  ): Promise<IndexObject> {
    const { files, paths, packs } = this.world;
    return IndexObject.open(files, this.cache, path, number, (pack) => {
      if (!held.has(pack.id)) return -1;
      covered.add(pack.id);
      const known = packs.byId(pack.id);
      if (known?.isPublished === true) return known.number;
      return packs.enter({ ...pack, path: paths.pack(pack.id), isPublished: true }).number;
    });
  }

  private async removeReplaced(): Promise<void> {
    const replaced = new Set(this.objects.flatMap(({ head }) => head.replaces));
    const gone = this.objects.filter(({ number }) => replaced.has(number));
    this.objects = inOrder(this.objects.filter(({ number }) => !replaced.has(number)));
    for (const object of gone) object.close();
    await this.remove(gone.map(({ path }) => path));
  }

  private async remove(gone: readonly string[]): Promise<void> {
    const { disk, paths, isReadOnly } = this.world;
    if (isReadOnly || gone.length === 0) return;
    for (const path of gone) await removeUnlessKept(disk, path);
    await disk.syncDirectory(paths.index);
  }
}

/** Newest first: lower levels hold what came later. */
const inOrder = (objects: readonly IndexObject[]): IndexObject[] =>
  [...objects].sort((a, b) => a.head.level - b.head.level || b.number - a.number);

const numberOf = (name: string): number | null => {
  const match = /^(\d{16})\.index$/.exec(name);
  return match === null ? null : Number(match[1]);
};

async function* inMemory(sorted: Uint8Array): AsyncGenerator<TableEntry> {
  for (let at = 0; at < sorted.length; at += TABLE_ENTRY_BYTES) yield readTableEntry(sorted, at);
}

/** Grants that stand for the copies which a merge leaves out. */
async function grantsOf(
  inputs: readonly IndexObject[],
  packs: PackTable,
  names: Names,
): Promise<DigestTable> {
  const grants = new DigestTable(0);
  const streams = inputs.map((input) => input.entries());
  for await (const { kept, others } of merged(streams, packs)) {
    for (const copy of others) {
      if (!copy.isGrant && !equalBytes(copy.owner, kept.owner)) grants.add(grantOf(names, copy));
    }
  }
  return grants;
}

/**
 * Sorted streams (newest first) as one; of equal digests the newest that is not condemned is kept.
 * `others`: copies of the same in packs that stand.
 */
async function* merged(
  streams: readonly AsyncGenerator<TableEntry>[],
  packs: PackTable,
): AsyncGenerator<{ kept: TableEntry; others: TableEntry[] }> {
  const heads = await Promise.all(streams.map((stream) => stream.next()));
  const isAlive = (entry: TableEntry) => packs.byNumber(entry.pack) !== null;
  const isGood = (entry: TableEntry) => packs.byNumber(entry.pack)?.isCondemned === false;
  for (;;) {
    let smallest: TableEntry | null = null;
    for (const { value } of heads) {
      if (value === undefined) continue;
      if (smallest === null || compareDigests(value.digest, 0, smallest.digest, 0) < 0) {
        smallest = value;
      }
    }
    if (smallest === null) return;
    const { digest } = smallest;
    const same: TableEntry[] = [];
    for (const [i, head] of heads.entries()) {
      if (head.value === undefined || compareDigests(head.value.digest, 0, digest, 0) !== 0)
        continue;
      same.push(head.value);
      heads[i] = await streams[i]!.next();
    }
    const kept = same.find(isGood) ?? same.find(isAlive);
    if (kept === undefined) continue;
    yield { kept, others: same.filter((other) => other !== kept && isGood(other)) };
  }
}
