/**
 * Where each piece lies: digest -> pack and offset. Looked up in the tables of the journal's segments, in
 * the table of what was published since the last index object, then in the index objects, newest first.
 * An entry whose pack is condemned or gone does not count.
 */

import { equalBytes } from './checksum.ts';
import { DigestTable, type TableEntry } from './digest-table.ts';
import { grantKey, grantOf } from './grant.ts';
import type { IndexObject } from './index-object.ts';
import { IndexObjects, type IndexWorld } from './index-objects.ts';
import { footerEntries, readFooter, readTrailer } from './pack-format.ts';
import type { PackInfo } from './pack-table.ts';

export class PieceIndex {
  readonly objects: IndexObjects;
  private readonly world: IndexWorld;
  private readonly salt: number;
  private readonly segments = new Map<number, DigestTable>();
  /** Published since the last flush; and what is being flushed. */
  private published: DigestTable;
  private flushing: DigestTable;
  private packsInMemory = new Set<number>();
  /** While a collection runs: packs of which something was claimed, so that it must not condemn them. */
  private touched: Set<number> | null = null;
  /** Set while a damaged object is being replaced by what footers say. */
  private healing: Promise<void> | null = null;

  constructor(world: IndexWorld, salt: number) {
    this.world = world;
    this.salt = salt;
    this.objects = new IndexObjects(world);
    this.published = new DigestTable(salt);
    this.flushing = new DigestTable(salt);
  }

  /** Entries in memory that an index object could hold. */
  get publishedCount(): number {
    return this.published.count;
  }

  /** The table of a journal segment, which is `pack`. */
  addSegment(pack: number): DigestTable {
    const table = new DigestTable(this.salt);
    this.segments.set(pack, table);
    return table;
  }

  /** The segment came to nothing. */
  dropSegment(pack: number): void {
    this.segments.delete(pack);
  }

  /** The segment lies in the repository now. */
  publishSegment(pack: number): void {
    const table = this.segments.get(pack);
    if (table === undefined) return;
    this.addPublished(pack, table.entries());
    this.segments.delete(pack);
  }

  /** All entries of a pack that was rewritten: they are found there from now on. */
  moveTo(pack: number, entries: Iterable<TableEntry>): void {
    for (const entry of entries) this.published.set({ ...entry, pack });
    this.packsInMemory.add(pack);
  }

  /** All entries of a published pack; what is found elsewhere already stays there. */
  addPublished(pack: number, entries: Iterable<TableEntry>): void {
    for (const entry of entries) {
      const own = { ...entry, pack };
      const known = this.published.get(entry.digest);
      if (known === null || !this.isUsable(known)) this.published.set(own);
      else if (!entry.isGrant && !equalBytes(known.owner, entry.owner)) this.keepGrant(own);
    }
    this.packsInMemory.add(pack);
  }

  /** Where the content (or grant) of `key` lies; null where it is not held. */
  async find(key: Uint8Array): Promise<TableEntry | null> {
    const inMemory = this.findInMemory(key);
    if (inMemory !== null) return inMemory;
    if (this.objects.all.length === 0) return null;
    try {
      const found = await this.objects.find(key, (entry) => this.isUsable(entry));
      // A pack may have been rewritten meanwhile, into one that memory knows.
      return found ?? this.findInMemory(key);
    } catch (error) {
      const damaged = this.objects.damagedBy(error);
      if (damaged === null) throw error;
      this.healing ??= this.heal(damaged).finally(() => {
        this.healing = null;
      });
      await this.healing;
      return this.find(key);
    }
  }

  /** `find` for what is about to be referred to: a collection that runs keeps its pack. */
  async claim(key: Uint8Array): Promise<TableEntry | null> {
    const entry = await this.find(key);
    if (entry !== null) this.touched?.add(entry.pack);
    return entry;
  }

  /** Length of the content where it is held and `owner` has sent it: it may be told so. Else 0. */
  async owns(owner: Uint8Array, digest: Uint8Array): Promise<number> {
    const entry = await this.claim(digest);
    if (entry === null) return 0;
    if (equalBytes(entry.owner, owner)) return entry.rawLength;
    const grant = await this.claim(grantKey(owner, digest));
    return grant !== null || this.hasOwnCopy(owner, digest) ? entry.rawLength : 0;
  }

  /** From now on notes in which packs something is claimed; returns the note, which goes on growing. */
  watch(): ReadonlySet<number> {
    this.touched = new Set();
    return this.touched;
  }

  unwatch(): void {
    this.touched = null;
  }

  /** One merge of index objects; true where one was due. */
  merge(temporary: string): Promise<boolean> {
    return this.objects.mergeWhereDue(temporary, (copy) => this.keepGrant(copy));
  }

  /** Writes what is in memory as an index object. */
  async flush(temporary: string): Promise<void> {
    if (this.published.count === 0) return;
    const packs: PackInfo[] = [];
    for (const number of this.packsInMemory) {
      const info = this.world.packs.byNumber(number);
      if (info !== null) packs.push(info);
    }
    this.flushing = this.published;
    this.published = new DigestTable(this.salt);
    this.packsInMemory = new Set();
    try {
      await this.objects.flush(this.flushing.sorted(), packs, temporary);
    } catch (error) {
      const later = this.published;
      this.published = this.flushing;
      for (const entry of later.entries()) this.published.set(entry);
      for (const { number } of packs) this.packsInMemory.add(number);
      throw error;
    } finally {
      this.flushing = new DigestTable(this.salt);
    }
  }

  /** The footers of an object's packs say what it said: they are read, then it goes. */
  private async heal(object: IndexObject): Promise<void> {
    const { log, packs, files } = this.world;
    log.warn('an index object is damaged; footers of packs are read instead', {
      path: object.path,
    });
    for (const number of object.packNumbers) {
      const pack = packs.byNumber(number);
      if (pack === null) continue;
      const footer = await files.with(pack.path, async (file) =>
        readFooter(file, await readTrailer(file, await file.size())),
      );
      this.addPublished(number, footerEntries(footer));
    }
    await this.objects.drop(object);
  }

  /** A second copy in memory whose owner this is, behind the one that is found first. */
  private hasOwnCopy(owner: Uint8Array, digest: Uint8Array): boolean {
    for (const table of this.tables()) {
      const entry = table.get(digest);
      if (entry === null || !this.isUsable(entry) || !equalBytes(entry.owner, owner)) continue;
      this.touched?.add(entry.pack);
      return true;
    }
    return false;
  }

  private keepGrant(copy: TableEntry): void {
    const grant = grantOf(copy);
    const known = this.published.get(grant.digest);
    if (known === null || !this.isUsable(known)) this.published.set(grant);
  }

  private *tables(): Generator<DigestTable> {
    yield* this.segments.values();
    yield this.published;
    yield this.flushing;
  }

  /** `find` without the index objects: at once. */
  findInMemory(key: Uint8Array): TableEntry | null {
    for (const table of this.tables()) {
      const entry = table.get(key);
      if (entry !== null && this.isUsable(entry)) return entry;
    }
    return null;
  }

  private isUsable(entry: TableEntry): boolean {
    return this.world.packs.byNumber(entry.pack)?.isCondemned === false;
  }
}
