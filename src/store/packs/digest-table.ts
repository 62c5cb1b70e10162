/**
 * Where pieces lie, in memory: a compact hash table from digest to location. Entries are kept in the
 * bytes of a pack's footer (56 each), so that a footer is this table sorted, without numbers of packs.
 * One table a journal segment, and one for what was published since the last index object.
 *
 * Digests are even, but a peer can choose contents whose digests begin alike: the hash is salted.
 */
import { assert } from '../../base/errors.ts';
import { DIGEST_BYTES } from '../../model/geometry.ts';

/** digest[32], owner[8], body offset u32, stored length and flags u32, raw length u32, pack u32. */
export const TABLE_ENTRY_BYTES = 56;
const OWNER_AT = 32;
const OFFSET_AT = 40;
const STORED_AT = 44;
const RAW_AT = 48;
const PACK_AT = 52;
/** Offsets are u32. */
export const MAX_PACK_BYTES = 2 ** 32;
/** Top bits of the stored length. */
const CODEC_BIT = 0x80000000;
const GRANT_BIT = 0x40000000;
const LENGTH_MASK = 0x3fffffff;

export interface TableEntry {
  readonly digest: Uint8Array;
  readonly owner: Uint8Array;
  /** Of the body, from the start of the pack. */
  readonly offset: number;
  readonly storedLength: number;
  readonly rawLength: number;
  readonly codec: number;
  readonly isGrant: boolean;
  /** Number of the pack in its owner's table of packs; a footer has 0. */
  readonly pack: number;
}

export function readTableEntry(bytes: Uint8Array, at: number): TableEntry {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, TABLE_ENTRY_BYTES);
  const stored = view.getUint32(STORED_AT, true);
  return {
    digest: bytes.subarray(at, at + DIGEST_BYTES),
    owner: bytes.subarray(at + OWNER_AT, at + OFFSET_AT),
    offset: view.getUint32(OFFSET_AT, true),
    storedLength: stored & LENGTH_MASK,
    rawLength: view.getUint32(RAW_AT, true),
    codec: (stored & CODEC_BIT) === 0 ? 0 : 1,
    isGrant: (stored & GRANT_BIT) !== 0,
    pack: view.getUint32(PACK_AT, true),
  };
}

export function writeTableEntry(bytes: Uint8Array, at: number, entry: TableEntry): void {
  assert(entry.offset < MAX_PACK_BYTES, 'an offset in a pack fits its 32 bits');
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, TABLE_ENTRY_BYTES);
  bytes.set(entry.digest, at);
  bytes.set(entry.owner, at + OWNER_AT);
  const flags = (entry.codec === 0 ? 0 : CODEC_BIT) + (entry.isGrant ? GRANT_BIT : 0);
  view.setUint32(OFFSET_AT, entry.offset, true);
  view.setUint32(STORED_AT, flags + entry.storedLength, true);
  view.setUint32(RAW_AT, entry.rawLength, true);
  view.setUint32(PACK_AT, entry.pack, true);
}

/** Entries as a footer has them: the pack's number is this run's own, and no part of what is stored. */
export function withoutPacks(entries: Uint8Array): Uint8Array {
  const bytes = entries.slice();
  for (let at = PACK_AT; at < bytes.length; at += TABLE_ENTRY_BYTES) bytes.fill(0, at, at + 4);
  return bytes;
}

/** Order of two digests as bytes. */
export function compareDigests(a: Uint8Array, aAt: number, b: Uint8Array, bAt: number): number {
  for (let i = 0; i < DIGEST_BYTES; i += 1) {
    const difference = a[aAt + i]! - b[bAt + i]!;
    if (difference !== 0) return difference;
  }
  return 0;
}

export class DigestTable {
  private bytes = new Uint8Array(64 * TABLE_ENTRY_BYTES);
  private slots = new Int32Array(128);
  private used = 0;
  private readonly salt: number;

  constructor(salt: number) {
    this.salt = salt;
  }

  get count(): number {
    return this.used;
  }

  get memoryBytes(): number {
    return this.bytes.length + this.slots.byteLength;
  }

  get(digest: Uint8Array): TableEntry | null {
    const index = this.slots[this.slotOf(digest, 0)]! - 1;
    return index < 0 ? null : readTableEntry(this.bytes, index * TABLE_ENTRY_BYTES);
  }

  /** The first entry of a digest stays. */
  add(entry: TableEntry): boolean {
    if ((this.used + 1) * 2 > this.slots.length) this.grow();
    const slot = this.slotOf(entry.digest, 0);
    if (this.slots[slot] !== 0) return false;
    writeTableEntry(this.bytes, this.used * TABLE_ENTRY_BYTES, entry);
    this.used += 1;
    this.slots[slot] = this.used;
    return true;
  }

  /** Adds, or puts the entry in the place of the one of the same digest. */
  set(entry: TableEntry): void {
    if (this.add(entry)) return;
    const index = this.slots[this.slotOf(entry.digest, 0)]! - 1;
    writeTableEntry(this.bytes, index * TABLE_ENTRY_BYTES, entry);
  }

  /** All entries, ascending by digest, as bytes. */
  sorted(): Uint8Array {
    const { bytes } = this;
    const view = new DataView(bytes.buffer);
    const order = Array.from({ length: this.used }, (_, i) => i * TABLE_ENTRY_BYTES);
    order.sort(
      (a, b) => view.getUint32(a) - view.getUint32(b) || compareDigests(bytes, a, bytes, b),
    );
    const result = new Uint8Array(this.used * TABLE_ENTRY_BYTES);
    for (const [i, at] of order.entries()) {
      result.set(bytes.subarray(at, at + TABLE_ENTRY_BYTES), i * TABLE_ENTRY_BYTES);
    }
    return result;
  }

  *entries(): Generator<TableEntry> {
    for (let i = 0; i < this.used; i += 1) yield readTableEntry(this.bytes, i * TABLE_ENTRY_BYTES);
  }

  /** The slot that holds the digest, or the empty one where it belongs. */
  private slotOf(digest: Uint8Array, digestAt: number): number {
    const size = this.slots.length;
    let slot = this.hash(digest, digestAt) & (size - 1);
    for (;;) {
      const index = this.slots[slot]! - 1;
      if (index < 0) return slot;
      if (compareDigests(this.bytes, index * TABLE_ENTRY_BYTES, digest, digestAt) === 0)
        return slot;
      slot = (slot + 1) & (size - 1);
    }
  }

  private hash(bytes: Uint8Array, at: number): number {
    const low =
      bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
    const high =
      bytes[at + 4]! | (bytes[at + 5]! << 8) | (bytes[at + 6]! << 16) | (bytes[at + 7]! << 24);
    let mixed = Math.imul(low ^ this.salt, 0x9e3779b1);
    mixed = Math.imul((mixed ^ (mixed >>> 15)) + high, 0x85ebca6b);
    return mixed ^ (mixed >>> 13);
  }

  private grow(): void {
    const slots = new Int32Array(this.slots.length * 2);
    const bytes = new Uint8Array((slots.length / 2) * TABLE_ENTRY_BYTES);
    bytes.set(this.bytes.subarray(0, this.used * TABLE_ENTRY_BYTES));
    this.slots = slots;
    this.bytes = bytes;
    for (let i = 0; i < this.used; i += 1) {
      this.slots[this.slotOf(bytes, i * TABLE_ENTRY_BYTES)] = i + 1;
    }
  }
}
