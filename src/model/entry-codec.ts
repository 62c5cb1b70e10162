/**
 * Bytes of a list of entries: the one encoding used on the wire, in the journal, in deltas and in leaf
 * tables. Canonical: a list has exactly one encoding (neighbouring zero runs are one run), and the decoder
 * accepts nothing else. Total: any bytes either decode or throw ERR_ENTRIES_INVALID. No count goes before
 * the list: it ends where its bytes end.
 *
 *   item   = head, then what its kind needs; indexes ascend and do not overlap
 *   head   = varint of gap * 8 + kind; gap = index - end of the item before (0 for the first)
 *   kind 0 = zero run: varint(count - 1)            kind 1 = whole: digest[32]
 *   kind 2 = patch: overlay                         kind 3 = whole with blocks: digest[32], overlay
 *   kind 4 = zero with blocks: overlay
 *   overlay = mask u16 LE (not 0), zero mask u16 LE (part of mask), digest[32] of each other set bit,
 *             lowest first
 *   varint = 7 bits a byte, low bits first, top bit set on all but the last; shortest form only
 *
 * Decoded digests are views of the input: whoever keeps them keeps the input.
 */
import { UnderstudyError } from '../base/errors.ts';
import type { ChunkEntry, IndexedEntry, Piece } from './entry.ts';
import {
  BLOCKS_PER_CHUNK,
  blocksInChunk,
  CHUNK_BYTES,
  chunkCount,
  DIGEST_BYTES,
  MAX_VOLUME_BYTES,
} from './geometry.ts';

/** Most chunks that a volume can have: the bound of every index. */
export const MAX_CHUNKS = MAX_VOLUME_BYTES / CHUNK_BYTES;
const FULL_MASK = 2 ** BLOCKS_PER_CHUNK - 1;

const KIND_ZERO = 0;
const KIND_WHOLE = 1;
const KIND_PATCH = 2;
const KIND_WHOLE_BLOCKS = 3;
const KIND_ZERO_BLOCKS = 4;

function invalid(detail: string): UnderstudyError {
  return new UnderstudyError('ERR_ENTRIES_INVALID', `entries: ${detail}`);
}

function kindOf(entry: ChunkEntry): number {
  if (entry.mask === 0) return entry.whole === 'zero' ? KIND_ZERO : KIND_WHOLE;
  if (entry.whole === null) return KIND_PATCH;
  return entry.whole === 'zero' ? KIND_ZERO_BLOCKS : KIND_WHOLE_BLOCKS;
}

function bitCount(mask: number): number {
  let count = 0;
  for (let rest = mask; rest !== 0; rest &= rest - 1) count += 1;
  return count;
}

function checkShape({ index, count, entry }: IndexedEntry, end: number): void {
  if (!Number.isInteger(index) || index < end) throw invalid(`index ${index} does not ascend`);
  if (!Number.isInteger(count) || count < 1) throw invalid(`count ${count}`);
  if (index + count > MAX_CHUNKS) throw invalid(`index ${index + count} is out of range`);
  const { whole, mask, blocks } = entry;
  if (count > 1 && (whole !== 'zero' || mask !== 0)) throw invalid('a run of what is not zero');
  if (whole === null && mask === 0) throw invalid('an entry that says nothing');
  if (!Number.isInteger(mask) || mask < 0 || mask > FULL_MASK) throw invalid(`mask ${mask}`);
  if (blocks.length !== bitCount(mask)) throw invalid('mask and blocks differ');
  const pieces = whole === null ? blocks : [whole, ...blocks];
  if (pieces.some((piece) => piece !== 'zero' && piece.length !== DIGEST_BYTES)) {
    throw invalid('a digest is not 32 bytes long');
  }
}

/** One run for neighbouring zero runs; throws where the list is not one (order, shape). */
export function normaliseEntries(entries: readonly IndexedEntry[]): IndexedEntry[] {
  const result: IndexedEntry[] = [];
  let end = 0;
  let endsInZeros = false;
  for (const item of entries) {
    checkShape(item, end);
    const isZero = item.entry.whole === 'zero' && item.entry.mask === 0;
    if (isZero && endsInZeros && item.index === end) {
      const run = result.pop()!;
      result.push({ index: run.index, count: run.count + item.count, entry: run.entry });
    } else {
      result.push(item);
    }
    end = item.index + item.count;
    endsInZeros = isZero;
  }
  return result;
}

const varintLength = (value: number): number => {
  let length = 1;
  for (let rest = value; rest >= 128; rest = Math.floor(rest / 128)) length += 1;
  return length;
};

const isDigest = (piece: Piece | null): piece is Uint8Array => piece !== null && piece !== 'zero';

/** Bytes of an item after its head. */
function bodyLength({ count, entry }: IndexedEntry): number {
  if (entry.mask === 0) return entry.whole === 'zero' ? varintLength(count - 1) : DIGEST_BYTES;
  const digests = entry.blocks.filter(isDigest).length + (isDigest(entry.whole) ? 1 : 0);
  return 4 + digests * DIGEST_BYTES;
}

class Writer {
  readonly bytes: Uint8Array;
  private at = 0;

  constructor(length: number) {
    this.bytes = new Uint8Array(length);
  }

  varint(value: number): void {
    let rest = value;
    for (; rest >= 128; rest = Math.floor(rest / 128)) this.byte((rest % 128) + 128);
    this.byte(rest);
  }

  overlay({ mask, blocks }: ChunkEntry): void {
    let zeros = 0;
    let next = 0;
    for (let bit = 0; bit < BLOCKS_PER_CHUNK; bit += 1) {
      if ((mask & (1 << bit)) === 0) continue;
      if (blocks[next] === 'zero') zeros |= 1 << bit;
      next += 1;
    }
    for (const value of [mask & 255, mask >> 8, zeros & 255, zeros >> 8]) this.byte(value);
    for (const piece of blocks) if (isDigest(piece)) this.digest(piece);
  }

  digest(digest: Uint8Array): void {
    this.bytes.set(digest, this.at);
    this.at += DIGEST_BYTES;
  }

  private byte(value: number): void {
    this.bytes[this.at] = value;
    this.at += 1;
  }
}

/** Throws ERR_ENTRIES_INVALID where the list does not ascend or an entry is malformed. */
export function encodeEntries(entries: readonly IndexedEntry[]): Uint8Array {
  const items = normaliseEntries(entries);
  const heads: number[] = [];
  let length = 0;
  let end = 0;
  for (const item of items) {
    const head = (item.index - end) * 8 + kindOf(item.entry);
    heads.push(head);
    length += varintLength(head) + bodyLength(item);
    end = item.index + item.count;
  }
  const writer = new Writer(length);
  for (const [i, { count, entry }] of items.entries()) {
    writer.varint(heads[i]!);
    if (isDigest(entry.whole)) writer.digest(entry.whole);
    if (entry.mask !== 0) writer.overlay(entry);
    else if (entry.whole === 'zero') writer.varint(count - 1);
  }
  return writer.bytes;
}

class Reader {
  private readonly bytes: Uint8Array;
  private at = 0;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  get isAtEnd(): boolean {
    return this.at === this.bytes.length;
  }

  /** At most five bytes: values stay below 2^35. */
  varint(): number {
    let value = 0;
    let scale = 1;
    for (let length = 1; length <= 5; length += 1) {
      const byte = this.byte();
      value += (byte & 127) * scale;
      scale *= 128;
      if (byte < 128) {
        if (byte === 0 && length > 1) throw invalid('a number is not in its shortest form');
        return value;
      }
    }
    throw invalid('a number is too long');
  }

  mask(): number {
    return this.byte() | (this.byte() << 8);
  }

  digest(): Uint8Array {
    const end = this.at + DIGEST_BYTES;
    if (end > this.bytes.length) throw invalid('cut short');
    const digest = this.bytes.subarray(this.at, end);
    this.at = end;
    return digest;
  }

  skipDigests(count: number): void {
    this.at += count * DIGEST_BYTES;
    if (this.at > this.bytes.length) throw invalid('cut short');
  }

  private byte(): number {
    const value = this.bytes[this.at];
    if (value === undefined) throw invalid('cut short');
    this.at += 1;
    return value;
  }
}

function readOverlay(reader: Reader, whole: Piece | null): ChunkEntry {
  const mask = reader.mask();
  const zeros = reader.mask();
  if (mask === 0) throw invalid('an empty mask');
  if ((zeros & ~mask) !== 0) throw invalid('a zero block outside of the mask');
  const blocks: Piece[] = [];
  for (let bit = 0; bit < BLOCKS_PER_CHUNK; bit += 1) {
    if ((mask & (1 << bit)) === 0) continue;
    blocks.push((zeros & (1 << bit)) === 0 ? reader.digest() : 'zero');
  }
  return { whole, mask, blocks };
}

const ZERO: ChunkEntry = { whole: 'zero', mask: 0, blocks: [] };
const noBlocks: readonly Piece[] = [];

function readEntry(reader: Reader, kind: number): ChunkEntry {
  switch (kind) {
    case KIND_ZERO:
      return ZERO;
    case KIND_WHOLE:
      return { whole: reader.digest(), mask: 0, blocks: noBlocks };
    case KIND_PATCH:
      return readOverlay(reader, null);
    case KIND_WHOLE_BLOCKS:
      return readOverlay(reader, reader.digest());
    case KIND_ZERO_BLOCKS:
      return readOverlay(reader, 'zero');
    default:
      throw invalid(`unknown kind ${kind}`);
  }
}

/** Throws ERR_ENTRIES_INVALID for anything that `encodeEntries` does not make. */
export function decodeEntries(bytes: Uint8Array): IndexedEntry[] {
  const reader = new Reader(bytes);
  const entries: IndexedEntry[] = [];
  let end = 0;
  let endsInZeros = false;
  while (!reader.isAtEnd) {
    const head = reader.varint();
    const kind = head % 8;
    const index = end + Math.floor(head / 8);
    if (kind === KIND_ZERO && endsInZeros && index === end)
      throw invalid('a zero run in two parts');
    const entry = readEntry(reader, kind);
    const count = kind === KIND_ZERO ? reader.varint() + 1 : 1;
    end = index + count;
    if (end > MAX_CHUNKS) throw invalid(`index ${end} is out of range`);
    entries.push({ index, count, entry });
    endsInZeros = kind === KIND_ZERO;
  }
  return entries;
}

function skipEntry(reader: Reader, kind: number): void {
  if (kind === KIND_WHOLE || kind === KIND_WHOLE_BLOCKS) reader.skipDigests(1);
  if (kind === KIND_WHOLE) return;
  const mask = reader.mask();
  reader.skipDigests(bitCount(mask & ~reader.mask()));
}

/** Where a list ends that `encodeEntries` has made. Costs no memory, as nothing is decoded. */
export function endOfEntries(bytes: Uint8Array): { end: number; endsInZeros: boolean } {
  const reader = new Reader(bytes);
  let end = 0;
  let endsInZeros = false;
  while (!reader.isAtEnd) {
    const head = reader.varint();
    end += Math.floor(head / 8) + 1;
    endsInZeros = head % 8 === KIND_ZERO;
    if (endsInZeros) end += reader.varint();
    else skipEntry(reader, head % 8);
  }
  return { end, endsInZeros };
}

/**
 * What `encodeEntries` makes of both lists, where `newer` lies behind `older`, at a small part of the cost;
 * null where it does not, or where runs of zeros must be joined.
 */
export function appendEntries(
  older: Uint8Array,
  newer: readonly IndexedEntry[],
): Uint8Array | null {
  const { end, endsInZeros } = endOfEntries(older);
  const [first] = newer;
  if (first === undefined || first.index < end) return null;
  if (endsInZeros && first.index === end && kindOf(first.entry) === KIND_ZERO) return null;
  const added = encodeEntries(newer.map((item) => ({ ...item, index: item.index - end })));
  const both = new Uint8Array(older.length + added.length);
  both.set(older);
  both.set(added, older.length);
  return both;
}

/** Throws ERR_ENTRIES_INVALID where an entry lies beyond the end of a volume of `sizeBytes`. */
export function checkEntriesWithin(entries: readonly IndexedEntry[], sizeBytes: number): void {
  const chunks = chunkCount(sizeBytes);
  for (const { index, count, entry } of entries) {
    if (index + count > chunks) throw invalid(`chunk ${index + count - 1} is beyond the volume`);
    if (entry.mask >= 2 ** blocksInChunk(index, sizeBytes)) {
      throw invalid(`a block of chunk ${index} is beyond the volume`);
    }
  }
}
