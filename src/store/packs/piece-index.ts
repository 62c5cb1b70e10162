/**
 * Where each piece lies: digest -> pack and offset. Looked up in the tables of the journal's segments, in
 * the table of what was published since the last index object, then in the index objects, newest first.
 * An entry whose pack is condemned or gone does not count.
 */
import { equalBytes } from '../format/checksum.ts';
import { isDamage, isNotFound } from '../format/object-header.ts';
import { DigestTable, type TableEntry } from './digest-table.ts';
import { grantOf } from './grant.ts';
import type { IndexObject } from './index-object.ts';
import { IndexObjects, type IndexWorld } from './index-objects.ts';
import { entriesOf, readPack } from './pack-entries.ts';
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
  /** Of packs whose footers are damaged: counts where nothing else has it, and is in no index object. */
  private readonly salvaged: DigestTable;
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
    this.salvaged = new DigestTable(salt);
  }

  private rewrites = 0;
  private readonly sealedMeanwhile: number[] = [];

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

  /**
   * While packs are rewritten a content that was found in a segment is found there: the other pack that has
   * it may be about to go. To be ended by `endRewrite`.
   */
  beginRewrite(): void {
    this.rewrites += 1;
  }

  endRewrite(): void {
    this.rewrites -= 1;
    if (this.rewrites > 0) return;
    for (const pack of this.sealedMeanwhile.splice(0)) this.publishSegment(pack);
  }

  /** The segment lies in the repository now. */
  publishSegment(pack: number): void {
    if (this.rewrites > 0) {
      this.sealedMeanwhile.push(pack);
      return;
    }
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

  /** What was found in a pack whose footer is damaged. */
  addSalvaged(pack: number, entries: Iterable<TableEntry>): void {
    for (const entry of entries) this.salvaged.set({ ...entry, pack });
  }

  /** Where the content (or grant) of `key` lies; null where it is not held. */
  async find(key: Uint8Array): Promise<TableEntry | null> {
    const inMemory = this.findInMemory(key);
    if (inMemory !== null) return inMemory;
    if (this.objects.all.length === 0) return this.findSalvaged(key);
    try {
      const found = await this.objects.find(key, (entry) => this.isUsable(entry));
      // A pack may have been rewritten meanwhile, into one that memory knows.
      return found ?? this.findInMemory(key) ?? this.findSalvaged(key);
    } catch (error) {
      if (!(await this.healed(error))) throw error;
      return this.find(key);
    }
  }

  /** `find` for what is about to be referred to: a collection that runs keeps its pack. */
  async claim(key: Uint8Array): Promise<TableEntry | null> {
    const entry = await this.find(key);
    if (entry !== null) this.touched?.add(entry.pack);
    return entry;
  }

  /**
   * Length of the content where it is held and one of `owners` has sent it: it may be told so. Else 0.
   * `owners`: a server's own tag, and those of its dedupe domain.
   */
  async owns(owners: readonly Uint8Array[], digest: Uint8Array): Promise<number> {
    const entry = await this.claim(digest);
    if (entry === null) return 0;
    if (owners.some((owner) => equalBytes(entry.owner, owner))) return entry.rawLength;
    const { names } = this.world.files.vault;
    for (const owner of owners) {
      if ((await this.claim(names.grant(owner, digest))) !== null) return entry.rawLength;
      if (this.hasOwnCopy(owner, digest)) return entry.rawLength;
    }
    return 0;
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
  async merge(temporary: string): Promise<boolean> {
    try {
      return await this.objects.mergeWhereDue(temporary);
    } catch (error) {
      if (!(await this.healed(error))) throw error;
      return true;
    }
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

  /** True where the error was the damage of an index object, which is gone now. */
  private async healed(error: unknown): Promise<boolean> {
    const damaged = this.objects.damagedBy(error);
    if (damaged === null) return false;
    this.healing ??= this.heal(damaged).finally(() => {
      this.healing = null;
    });
    await this.healing;
    return true;
  }

  /** The footers of an object's packs say what it said: they are read, then it goes. */
  private async heal(object: IndexObject): Promise<void> {
    const { log, packs } = this.world;
    log.warn('an index object is damaged; footers of packs are read instead', {
      path: object.path,
    });
    const silent = new Set<number>();
    for (const number of object.packNumbers) {
      const pack = packs.byNumber(number);
      if (pack !== null && !(await this.readAgain(pack))) silent.add(number);
    }
    // Of a pack that does not say what it has, the pages that are whole still do.
    if (silent.size > 0) {
      const entries = object.entries(() => log.warn('a page of it is lost', { path: object.path }));
      for await (const entry of entries) {
        if (silent.has(entry.pack)) this.salvaged.add(entry);
      }
    }
    await this.objects.drop(object);
  }

  /** False where the footer cannot be read. */
  private async readAgain({ path, number }: PackInfo): Promise<boolean> {
    try {
      this.addPublished(number, entriesOf(await readPack(this.world.files, path)));
      return true;
    } catch (error) {
      if (!isDamage(error) && !isNotFound(error)) throw error;
      this.world.log.error('a pack is damaged', { path, error: error.message });
      return false;
    }
  }

  private findSalvaged(key: Uint8Array): TableEntry | null {
    const entry = this.salvaged.get(key);
    return entry !== null && this.isUsable(entry) ? entry : null;
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
    const grant = grantOf(this.world.files.vault.names, copy);
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
    const { packs, damage } = this.world;
    if (packs.byNumber(entry.pack)?.isCondemned !== false) return false;
    return damage === undefined || damage.isEmpty || !damage.has(entry.pack, entry.digest);
  }
}
