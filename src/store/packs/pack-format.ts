/**
 * A pack's two ends: the header with which a journal segment begins, and the footer that makes it a
 * pack. In between lie records (record.ts). FORMAT.md, "Packs".
 *
 *   footer  = table entries (digest-table.ts), ascending by digest; sealed in an encrypted repository
 *   trailer = the last 64 bytes of the file: magic, footer offset and count, sums, the data key's id,
 *             XXH64 of the footer as it is stored, XXH64 of the trailer
 */
import type { DiskFile } from '../../base/disk.ts';
import { ByteReader, ByteWriter } from '../format/bytes.ts';
import { CHECKSUM_BYTES, checksum, hasChecksum, sealChecksum } from '../format/checksum.ts';
import { damaged } from '../format/object-header.ts';
import { KEY_ID_AT, TRAILER_BYTES } from '../keys/pack-header.ts';
import { type PackSeal, plainSeal } from '../keys/pack-seal.ts';
import {
  readTableEntry,
  TABLE_ENTRY_BYTES,
  type TableEntry,
  withoutPacks,
} from './digest-table.ts';

const TRAILER_MAGIC = 'US-PKEND';
/** What a sealed footer is bound to: all of the trailer that does not depend on its stored bytes. */
const BOUND_BYTES = 48;

export interface PackSums {
  readonly pieces: number;
  readonly rawBytes: number;
  readonly storedBytes: number;
}

interface PackTrailer extends PackSums {
  readonly footerOffset: number;
  readonly entries: number;
  readonly footerChecksum: bigint;
  /** What the footer is bound to. */
  readonly bound: Uint8Array;
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
export function encodeFooter(
  entries: Uint8Array,
  offset: number,
  seal: PackSeal = plainSeal,
): Uint8Array[] {
  const footer = withoutPacks(entries);
  const sums = sumOf(footerEntries(footer));
  const trailer = new ByteWriter()
    .raw(Buffer.from(TRAILER_MAGIC, 'latin1'))
    .u64(offset)
    .u32(footer.length / TABLE_ENTRY_BYTES)
    .u32(sums.pieces)
    .u64(sums.rawBytes)
    .u64(sums.storedBytes)
    .raw(seal.keyId)
    .raw64(0n)
    .raw64(0n)
    .take();
  const stored = seal.sealFooter(trailer.slice(0, BOUND_BYTES), footer);
  const view = new DataView(trailer.buffer, trailer.byteOffset, TRAILER_BYTES);
  view.setBigUint64(BOUND_BYTES, checksum(stored), true);
  sealChecksum(trailer, 0, TRAILER_BYTES - CHECKSUM_BYTES);
  return [stored, trailer];
}

async function readExactly(file: DiskFile, length: number, offset: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  if ((await file.read(bytes, offset)) < length) throw damaged(file.path, 'cut short');
  return bytes;
}

/** ERR_OBJECT_DAMAGED where the file does not end in a trailer. */
export async function readTrailer(
  file: DiskFile,
  size: number,
  seal: PackSeal = plainSeal,
): Promise<PackTrailer> {
  if (size < seal.headerBytes + TRAILER_BYTES) throw damaged(file.path, 'cut short');
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
  const trailer = { footerOffset, entries, pieces, rawBytes, storedBytes };
  const footerBytes = entries * TABLE_ENTRY_BYTES + seal.footerOverhead;
  if (footerOffset + footerBytes + TRAILER_BYTES !== size) {
    throw damaged(file.path, 'the footer does not fit');
  }
  reader.raw(BOUND_BYTES - KEY_ID_AT);
  return { ...trailer, footerChecksum: reader.raw64(), bound: bytes.subarray(0, BOUND_BYTES) };
}

/** The footer's entries as bytes, checked. */
export async function readFooter(
  file: DiskFile,
  trailer: PackTrailer,
  seal: PackSeal = plainSeal,
): Promise<Uint8Array> {
  const length = trailer.entries * TABLE_ENTRY_BYTES + seal.footerOverhead;
  const stored = await readExactly(file, length, trailer.footerOffset);
  if (checksum(stored) !== trailer.footerChecksum) {
    throw damaged(file.path, 'the checksum of the footer is wrong');
  }
  const footer = seal.openFooter(trailer.bound, stored);
  if (footer === null) throw damaged(file.path, 'the footer is not what was sealed');
  return footer;
}
