/**
 * Index objects: many digests and where they lie, sorted, immutable. Everything in them can be made again
 * from the footers of packs. FORMAT.md, "Index".
 *
 *   header  object-header.ts: level, counts, where the pages begin, XXH64 of the tables below
 *   packs   of each pack that is wholly in this object: id[16], pieces u32, raw u64, stored u64, file u64
 *   replaces, a u64 each: numbers of the objects that this one was merged from
 *   fences  the first digest of each page
 *   filter  bits of a Bloom filter over the digests (bloom.ts)
 *   pages   256 table entries each (digest-table.ts; pack = place in the pack table), then their XXH64
 */
import type { DiskFile } from '../../base/disk.ts';
import { DIGEST_BYTES } from '../../model/geometry.ts';
import { ByteReader, ByteWriter } from '../format/bytes.ts';
import { CHECKSUM_BYTES, checksum, hasChecksum, sealChecksum, toHex } from '../format/checksum.ts';
import {
  damaged,
  encodeHeader,
  headerLength,
  MAX_HEADER_BYTES,
  openHeader,
  PREFIX_BYTES,
} from '../format/object-header.ts';
import { Bloom } from './bloom.ts';
import { TABLE_ENTRY_BYTES } from './digest-table.ts';
import type { PackSums } from './pack-format.ts';

const MAGIC = 'US-INDEX';
export const PAGE_ENTRIES = 256;
export const PAGE_BYTES = PAGE_ENTRIES * TABLE_ENTRY_BYTES + CHECKSUM_BYTES;
const PACK_BYTES = 44;

export interface IndexedPack extends PackSums {
  readonly id: string;
  readonly fileBytes: number;
}

export interface IndexHead {
  /** 0: flushed from memory; n + 1: merged from objects of level n. */
  readonly level: number;
  readonly entries: number;
  readonly packs: readonly IndexedPack[];
  readonly replaces: readonly number[];
  /** 32 bytes a page. */
  readonly fences: Uint8Array;
  readonly filter: Bloom;
  /** Where the pages begin. */
  readonly pagesOffset: number;
}

export const pageCount = (entries: number): number => Math.ceil(entries / PAGE_ENTRIES);

/** Length of what lies before the pages. */
export function headBytes(counts: {
  packs: number;
  replaces: number;
  entries: number;
  filterBytes: number;
}): number {
  const tables =
    counts.packs * PACK_BYTES +
    counts.replaces * 8 +
    pageCount(counts.entries) * DIGEST_BYTES +
    counts.filterBytes;
  return HEADER_BYTES + tables;
}

const HEADER_BYTES = PREFIX_BYTES + 4 + 8 + 8 + 4 + 4 + 4 + 8 + CHECKSUM_BYTES;

export function encodeIndexHead(head: IndexHead): Uint8Array {
  const tables = new ByteWriter();
  for (const { id, pieces, rawBytes, storedBytes, fileBytes } of head.packs) {
    tables.raw(Buffer.from(id, 'hex')).u32(pieces).u64(rawBytes).u64(storedBytes).u64(fileBytes);
  }
  for (const number of head.replaces) tables.u64(number);
  const bytes = tables.raw(head.fences).raw(head.filter.bits).take();
  const header = encodeHeader(MAGIC, (writer) =>
    writer
      .u32(head.level)
      .u64(head.entries)
      .u64(head.pagesOffset)
      .u32(head.packs.length)
      .u32(head.replaces.length)
      .u32(head.filter.bits.length)
      .raw64(checksum(bytes)),
  );
  return Buffer.concat([header, bytes]);
}

/** ERR_OBJECT_DAMAGED. */
export async function readIndexHead(file: DiskFile): Promise<IndexHead> {
  const { path } = file;
  const bytes = new Uint8Array(MAX_HEADER_BYTES);
  const header = bytes.subarray(0, await file.read(bytes, 0));
  const { fields, length } = openHeader(header, MAGIC, path);
  if (headerLength(header, MAGIC, path) !== HEADER_BYTES) throw damaged(path, 'wrong header');
  const level = fields.u32();
  const entries = fields.u64();
  const pagesOffset = fields.u64();
  const packs = fields.u32();
  const replaces = fields.u32();
  const filterBytes = fields.u32();
  const sum = fields.raw64();
  const end = headBytes({ packs, replaces, entries, filterBytes });
  const size = await file.size();
  const isInside = end <= pagesOffset && pagesOffset + entries * TABLE_ENTRY_BYTES <= size;
  if (!isInside || filterBytes === 0) throw damaged(path, 'cut short');
  const tables = new Uint8Array(end - length);
  const count = await file.read(tables, length);
  if (count < tables.length || checksum(tables) !== sum) throw damaged(path, 'tables are damaged');
  const reader = new ByteReader(tables, path);
  return {
    level,
    entries,
    packs: Array.from({ length: packs }, () => readPack(reader)),
    replaces: Array.from({ length: replaces }, () => reader.u64()),
    fences: reader.raw(pageCount(entries) * DIGEST_BYTES),
    filter: new Bloom(reader.raw(filterBytes)),
    pagesOffset,
  };
}

const readPack = (reader: ByteReader): IndexedPack => ({
  id: toHex(reader.raw(16)),
  pieces: reader.u32(),
  rawBytes: reader.u64(),
  storedBytes: reader.u64(),
  fileBytes: reader.u64(),
});

/** Entries of one page with their checksum behind; the last page may be short. */
export function encodePage(entries: Uint8Array): Uint8Array {
  const page = new Uint8Array(entries.length + CHECKSUM_BYTES);
  page.set(entries);
  sealChecksum(page, 0, entries.length);
  return page;
}

/** The entries of page `page`. ERR_OBJECT_DAMAGED. */
export async function readPage(
  file: DiskFile,
  head: Pick<IndexHead, 'entries' | 'pagesOffset'>,
  page: number,
): Promise<Uint8Array> {
  const count = Math.min(PAGE_ENTRIES, head.entries - page * PAGE_ENTRIES);
  const length = count * TABLE_ENTRY_BYTES;
  const bytes = new Uint8Array(length + CHECKSUM_BYTES);
  const read = await file.read(bytes, head.pagesOffset + page * PAGE_BYTES);
  if (read < bytes.length || !hasChecksum(bytes, 0, length)) {
    throw damaged(file.path, `page ${page} is damaged`);
  }
  return bytes.subarray(0, length);
}
