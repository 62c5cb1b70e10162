/**
 * An index object that is open for lookups (its tables in memory: 33 bytes a page of 256 entries and the
 * filter, about 1.4 bytes a piece), and the writer that makes one from sorted entries without holding it.
 */
import type { DiskFile } from '../../base/disk.ts';
import type { UnderstudyError } from '../../base/errors.ts';
import { DIGEST_BYTES } from '../../model/geometry.ts';
import { damaged, isDamage } from '../format/object-header.ts';
import { Bloom } from './bloom.ts';
import {
  compareDigests,
  readTableEntry,
  TABLE_ENTRY_BYTES,
  type TableEntry,
  writeTableEntry,
} from './digest-table.ts';
import type { FileCache } from './file-cache.ts';
import {
  encodeIndexHead,
  encodePage,
  headBytes,
  type IndexedPack,
  type IndexHead,
  PAGE_ENTRIES,
  pageCount,
  readIndexHead,
  readPage,
} from './index-format.ts';

const CACHED_PAGES = 512;

/** Pages of all index objects, the most recently used ones; each object has its own mark in it. */
export class PageCache {
  private readonly pages = new Map<string, Uint8Array>();
  private marks = 0;

  /** For an object that was opened: no other one gets it, whatever its name. */
  mark(): string {
    this.marks += 1;
    return `${this.marks}:`;
  }

  async get(mark: string, page: number, load: () => Promise<Uint8Array>): Promise<Uint8Array> {
    const key = mark + page;
    const known = this.pages.get(key);
    if (known !== undefined) {
      this.pages.delete(key);
      this.pages.set(key, known);
      return known;
    }
    const bytes = await load();
    this.pages.set(key, bytes);
    if (this.pages.size > CACHED_PAGES) this.pages.delete(this.pages.keys().next().value!);
    return bytes;
  }

  /** The object is gone. */
  evict(mark: string): void {
    for (const key of [...this.pages.keys()]) if (key.startsWith(mark)) this.pages.delete(key);
  }
}

export class IndexObject {
  readonly path: string;
  /** Newer objects have higher numbers. */
  readonly number: number;
  readonly head: IndexHead;
  /** For each pack of the object its number in the table of packs. */
  readonly packNumbers: readonly number[];
  private readonly files: FileCache;
  private readonly cache: PageCache;
  private readonly mark: string;

  private constructor(
    files: FileCache,
    cache: PageCache,
    given: { path: string; number: number; head: IndexHead; packNumbers: readonly number[] },
  ) {
    this.files = files;
    this.cache = cache;
    this.mark = cache.mark();
    this.path = given.path;
    this.number = given.number;
    this.head = given.head;
    this.packNumbers = given.packNumbers;
  }

  /** `numberOf` enters a pack into the table of packs where it is not known yet. */
  static async open(
    files: FileCache,
    cache: PageCache,
    path: string,
    number: number,
    numberOf: (pack: IndexedPack) => number,
  ): Promise<IndexObject> {
    const head = await files.with(path, (file) => readIndexHead(file));
    const packNumbers = head.packs.map(numberOf);
    return new IndexObject(files, cache, { path, number, head, packNumbers });
  }

  /** The entry of `key`, its pack as a number in the table of packs. */
  async find(key: Uint8Array): Promise<TableEntry | null> {
    const entry = await this.lookUp(key);
    return entry === null ? null : this.numbered(entry);
  }

  /** The id of the pack that had `key` when this object was made, whether it is there or not. */
  async packOf(key: Uint8Array): Promise<string | null> {
    const entry = await this.lookUp(key);
    return entry === null ? null : (this.head.packs[entry.pack]?.id ?? null);
  }

  /** Its pack is a place in the head's list of packs. */
  private async lookUp(key: Uint8Array): Promise<TableEntry | null> {
    if (!this.head.filter.mayHave(key)) return null;
    const page = this.pageOf(key);
    if (page < 0) return null;
    const entries = await this.page(page);
    let low = 0;
    let high = entries.length / TABLE_ENTRY_BYTES;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (compareDigests(entries, middle * TABLE_ENTRY_BYTES, key, 0) < 0) low = middle + 1;
      else high = middle;
    }
    const at = low * TABLE_ENTRY_BYTES;
    if (at >= entries.length || compareDigests(entries, at, key, 0) !== 0) return null;
    return readTableEntry(entries, at);
  }

  /** All entries in order; without those of pages that are damaged where `onDamage` is given. */
  async *entries(onDamage?: () => void): AsyncGenerator<TableEntry> {
    for (let page = 0; page < pageCount(this.head.entries); page += 1) {
      const entries = await this.readEntries(page, onDamage);
      for (let at = 0; at < entries.length; at += TABLE_ENTRY_BYTES) {
        yield this.numbered(readTableEntry(entries, at));
      }
    }
  }

  /** Its pages are not asked for any more. */
  close(): void {
    this.cache.evict(this.mark);
  }

  /** What a check says of entries out of order. */
  disordered(): UnderstudyError {
    return damaged(this.path, 'its entries are not in order');
  }

  private numbered(entry: TableEntry): TableEntry {
    return { ...entry, pack: this.packNumbers[entry.pack] ?? -1 };
  }

  private page(page: number): Promise<Uint8Array> {
    return this.cache.get(this.mark, page, () => this.readEntries(page));
  }

  private async readEntries(page: number, onDamage?: () => void): Promise<Uint8Array> {
    try {
      return await this.files.with(this.path, (file) => readPage(file, this.head, page));
    } catch (error) {
      if (onDamage === undefined || !isDamage(error)) throw error;
      onDamage();
      return new Uint8Array(0);
    }
  }

  /** The last page whose first digest is not after `key`. */
  private pageOf(key: Uint8Array): number {
    let low = 0;
    let high = pageCount(this.head.entries);
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (compareDigests(this.head.fences, middle * DIGEST_BYTES, key, 0) <= 0) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }
}

/** Writes an object from entries that come in order; `most` bounds their number. */
export class IndexWriter {
  private readonly file: DiskFile;
  private readonly packs: readonly IndexedPack[];
  private readonly places: ReadonlyMap<number, number>;
  private readonly replaces: readonly number[];
  private readonly filter: Bloom;
  private readonly fences: Uint8Array;
  private page = new Uint8Array(PAGE_ENTRIES * TABLE_ENTRY_BYTES);
  private inPage = 0;
  private isClosed = false;
  private count = 0;
  private readonly pagesOffset: number;
  private offset: number;

  /** `packs` by their numbers in the table of packs. */
  constructor(
    file: DiskFile,
    packs: ReadonlyMap<number, IndexedPack>,
    replaces: readonly number[],
    most: number,
  ) {
    this.file = file;
    this.packs = [...packs.values()];
    this.places = new Map([...packs.keys()].map((number, place) => [number, place]));
    this.replaces = replaces;
    this.filter = Bloom.sized(most);
    this.fences = new Uint8Array(pageCount(most) * DIGEST_BYTES);
    const counts = { packs: packs.size, replaces: replaces.length, entries: most };
    this.pagesOffset = headBytes({ ...counts, filterBytes: this.filter.bits.length });
    this.offset = this.pagesOffset;
  }

  /** An entry of a pack that is not in the table is left out. */
  async add(entry: TableEntry): Promise<void> {
    const pack = this.places.get(entry.pack);
    if (pack === undefined) return;
    if (this.inPage === 0) {
      this.fences.set(entry.digest, Math.floor(this.count / PAGE_ENTRIES) * DIGEST_BYTES);
    }
    writeTableEntry(this.page, this.inPage * TABLE_ENTRY_BYTES, { ...entry, pack });
    this.filter.add(entry.digest);
    this.inPage += 1;
    this.count += 1;
    if (this.inPage === PAGE_ENTRIES) await this.flush();
  }

  /** Head, sync, close. */
  async finish(level: number): Promise<void> {
    await this.flush();
    const head = encodeIndexHead({
      level,
      entries: this.count,
      packs: this.packs,
      replaces: this.replaces,
      fences: this.fences.subarray(0, pageCount(this.count) * DIGEST_BYTES),
      filter: this.filter,
      pagesOffset: this.pagesOffset,
    });
    await this.file.write([head], 0);
    await this.file.sync();
    await this.abandon();
  }

  /** Closes the file; nothing where that was done. */
  async abandon(): Promise<void> {
    if (this.isClosed) return;
    this.isClosed = true;
    await this.file.close();
  }

  private async flush(): Promise<void> {
    if (this.inPage === 0) return;
    const page = encodePage(this.page.subarray(0, this.inPage * TABLE_ENTRY_BYTES));
    await this.file.write([page], this.offset);
    this.offset += page.length;
    this.inPage = 0;
  }
}
