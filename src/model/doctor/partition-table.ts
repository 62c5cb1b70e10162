/**
 * The partition table in the first sectors of a disk: kind, types, whether boot code is there. Reads any
 * bytes without failing; checks no checksum, for what firmware takes is what counts. Pure.
 */
import type { TableFacts } from './facts.ts';

/** Enough for a GPT of 128 entries with sectors of 4096 bytes. */
export const TABLE_BYTES = 65536;
const MBR_ENTRIES_AT = 446;
const BOOT_CODE_BYTES = 440;
const PROTECTIVE = 0xee;
const ENTRY_BYTES = 128;

export const partitionTypes = {
  efiSystem: 'c12a7328-f81f-11d2-ba4b-00a0c93ec93b',
  biosBoot: '21686148-6449-6e6f-744e-656564454649',
  /** PowerPC's. */
  prep: '9e1a2d38-c612-4316-aa26-8b49521e5a8b',
  mbrEfiSystem: 'ef',
} as const;

/** Mixed-endian, as GUIDs on disk are. */
function guidOf(bytes: Buffer): string {
  const part = (at: number, length: number) => bytes.subarray(at, at + length);
  const swapped = (at: number, length: number) => Buffer.from(part(at, length)).reverse();
  const parts = [swapped(0, 4), swapped(4, 2), swapped(6, 2), part(8, 2), part(10, 6)];
  return parts.map((each) => each.toString('hex')).join('-');
}

function gptTypes(bytes: Buffer, sectorBytes: number): string[] | null {
  const header = bytes.subarray(sectorBytes, sectorBytes + 92);
  if (header.length < 92 || header.toString('latin1', 0, 8) !== 'EFI PART') return null;
  const at = Number(header.readBigUInt64LE(72)) * sectorBytes;
  const count = Math.min(header.readUInt32LE(80), 1024);
  const entryBytes = Math.max(header.readUInt32LE(84), ENTRY_BYTES);
  const types: string[] = [];
  for (let i = 0; i < count; i += 1) {
    const own = bytes.subarray(at + i * entryBytes, at + i * entryBytes + 16);
    if (own.length === 16 && own.some((byte) => byte !== 0)) types.push(guidOf(own));
  }
  return types;
}

export function readTable(disk: string, head: Uint8Array, sectorBytes: number): TableFacts {
  const bytes = Buffer.from(head.buffer, head.byteOffset, head.length);
  const hasBootCode = bytes.subarray(0, BOOT_CODE_BYTES).some((byte) => byte !== 0);
  const hasSignature = bytes.length >= 512 && bytes.readUInt16LE(510) === 0xaa55;
  if (!hasSignature) return { disk, kind: 'none', hasBootCode, types: [] };
  const mbr = [0, 1, 2, 3].map((i) => bytes[MBR_ENTRIES_AT + i * 16 + 4]!).filter((t) => t !== 0);
  const gpt = mbr.includes(PROTECTIVE) ? gptTypes(bytes, sectorBytes) : null;
  if (gpt !== null) return { disk, kind: 'gpt', hasBootCode, types: gpt };
  // A file system without a table has the signature, too (vfat), and no entries that make sense.
  if (mbr.length === 0) return { disk, kind: 'none', hasBootCode, types: [] };
  const types = mbr.map((type) => type.toString(16).padStart(2, '0'));
  return { disk, kind: 'mbr', hasBootCode, types };
}
