/**
 * A pack's two ends: the header with which a journal segment begins, and the footer that makes it a
 * pack. In between lie records (record.ts). FORMAT.md, "Packs".
 *
 *   footer  = table entries (digest-table.ts), ascending by digest
 *   trailer = the last 64 bytes of the file: magic, footer offset and count, sums, XXH64 of the footer,
 *             XXH64 of the trailer
 */
import type { DiskFile } from '../base/disk.ts';
import { ByteReader, ByteWriter } from './bytes.ts';
import { CHECKSUM_BYTES, checksum, hasChecksum, sealChecksum, toHex } from './checksum.ts';
import {
  readTableEntry,
  TABLE_ENTRY_BYTES,
  type TableEntry,
  withoutPacks,
} from './digest-table.ts';
import { damaged, encodeHeader, openHeader } from './object-header.ts';

export const PACK_MAGIC = 'US-PACK ';
const TRAILER_MAGIC = 'US-PKEND';
export const TRAILER_BYTES = 64;
/** Prefix 16, id 16, sequence 8, creation 8, checksum 8. */
export const PACK_HEADER_BYTES = 56;

export interface PackHeader {
  /** 32 hex digits, chosen at random. */
  readonly id: string;
  /** Number of the journal segment, 0 for a pack that was not one. */
  readonly sequence: number;
  readonly createdMs: number;
}

export const encodePackHeader = ({ id, sequence, createdMs }: PackHeader): Uint8Array =>
  encodeHeader(PACK_MAGIC, (writer) =>
    writer.raw(Buffer.from(id, 'hex')).u64(sequence).u64(createdMs),
  );

export function decodePackHeader(bytes: Uint8Array, path: string): PackHeader {
  const { fields, length } = openHeader(bytes, PACK_MAGIC, path);
  if (length !== PACK_HEADER_BYTES) throw damaged(path, `header of ${length} bytes`);
  return { id: toHex(fields.raw(16)), sequence: fields.u64(), createdMs: fields.u64() };
}

export interface PackSums {
  readonly pieces: number;
  readonly rawBytes: number;
  readonly storedBytes: number;
}

export interface PackTrailer extends PackSums {
  readonly footerOffset: number;
  readonly entries: number;
  readonly footerChecksum: bigint;
}

export function sumOf(entries: Iterable<TableEntry>): PackSums {
  let pieces = 0;
  let rawBytes = 0;
  let storedBytes = 0;
  for (const entry of entries) {
    if (entry.isGrant) continue;
    pieces += 1;
    rawBytes += entry.rawLength;
    storedBytes += entry.storedLength;
  }
  return { pieces, rawBytes, storedBytes };
}

export function* footerEntries(footer: Uint8Array): Generator<TableEntry> {
  for (let at = 0; at < footer.length; at += TABLE_ENTRY_BYTES) yield readTableEntry(footer, at);
}

/**
 * Footer and trailer of a pack whose records end at `offset`. The same records give the same bytes, in
 * whatever run of the program: what is sealed again after a crash is as it was.
 */
export function encodeFooter(entries: Uint8Array, offset: number): Uint8Array[] {
  const footer = withoutPacks(entries);
  const sums = sumOf(footerEntries(footer));
  const trailer = new ByteWriter()
    .raw(Buffer.from(TRAILER_MAGIC, 'latin1'))
    .u64(offset)
    .u32(footer.length / TABLE_ENTRY_BYTES)
    .u32(sums.pieces)
    .u64(sums.rawBytes)
    .u64(sums.storedBytes)
    .u64(0)
    .raw64(checksum(footer))
    .raw64(0n)
    .take();
  sealChecksum(trailer, 0, TRAILER_BYTES - CHECKSUM_BYTES);
  return [footer, trailer];
}

async function readExactly(file: DiskFile, length: number, offset: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  if ((await file.read(bytes, offset)) < length) throw damaged(file.path, 'cut short');
  return bytes;
}

/** ERR_OBJECT_DAMAGED where the file does not end in a trailer. */
export async function readTrailer(file: DiskFile, size: number): Promise<PackTrailer> {
  if (size < PACK_HEADER_BYTES + TRAILER_BYTES) throw damaged(file.path, 'cut short');
  const bytes = await readExactly(file, TRAILER_BYTES, size - TRAILER_BYTES);
  const reader = new ByteReader(bytes, file.path);
  const magic = Buffer.from(reader.raw(8)).toString('latin1');
  if (magic !== TRAILER_MAGIC || !hasChecksum(bytes, 0, TRAILER_BYTES - CHECKSUM_BYTES)) {
    throw damaged(file.path, 'no trailer at the end of the pack');
  }
  const footerOffset = reader.u64();
  const entries = reader.u32();
  const pieces = reader.u32();
  const rawBytes = reader.u64();
  const storedBytes = reader.u64();
  reader.u64();
  const trailer = { footerOffset, entries, pieces, rawBytes, storedBytes };
  if (footerOffset + entries * TABLE_ENTRY_BYTES + TRAILER_BYTES !== size) {
    throw damaged(file.path, 'the footer does not fit');
  }
  return { ...trailer, footerChecksum: reader.raw64() };
}

/** The footer's entries as bytes, checked. */
export async function readFooter(file: DiskFile, trailer: PackTrailer): Promise<Uint8Array> {
  const length = trailer.entries * TABLE_ENTRY_BYTES;
  const footer = await readExactly(file, length, trailer.footerOffset);
  if (checksum(footer) !== trailer.footerChecksum) {
    throw damaged(file.path, 'the checksum of the footer is wrong');
  }
  return footer;
}
