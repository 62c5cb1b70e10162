/**
 * The partition table in the first bytes of a disk: its kind (GPT or MBR; UEFI specification 2.10, chapter
 * 5), the types of its partitions, whether boot code is there. The disk may be anybody's and is hostile
 * input: any bytes are read without failing, every number is checked before it is used, and what cannot be
 * understood is no table. No checksum is looked at: what firmware takes is what counts. What follows from
 * a table is for those who ask. Pure.
 */

export interface PartitionTable {
  readonly kind: 'gpt' | 'mbr' | 'none';
  /** The unit of a GPT; null for the others. */
  readonly sectorBytes: number | null;
  /** 0x55 0xaa at the end of the first 512 bytes. Some file systems have it, too. */
  readonly hasSignature: boolean;
  /** With the signature, something lies where a BIOS begins to run. */
  readonly hasBootCode: boolean;
  /** An entry says that this is a GPT; where `kind` is 'none', the GPT itself is missing or damaged. */
  readonly isProtective: boolean;
  /** GUIDs in lower case, or for MBR two hex digits; of partitions in use, in their order. */
  readonly types: readonly string[];
}

/** So much of a disk's beginning is to be read: a GPT of 128 entries in sectors of 4096 lies within. */
export const TABLE_BYTES = 65_536;

export const partitionTypes = {
  efiSystem: 'c12a7328-f81f-11d2-ba4b-00a0c93ec93b',
  biosBoot: '21686148-6449-6e6f-744e-656564454649',
  /** PowerPC's. */
  prep: '9e1a2d38-c612-4316-aa26-8b49521e5a8b',
  mbrEfiSystem: 'ef',
} as const;

const BOOT_CODE_BYTES = 440;
const MBR_ENTRIES_AT = 446;
const MBR_PROTECTIVE = 'ee';
const HEADER_BYTES = 92;
const MAX_ENTRIES = 1024;
const LEAST_ENTRY_BYTES = 128;
const MOST_ENTRY_BYTES = 4096;

/**
 * `head`: the first TABLE_BYTES of the disk, or all of a smaller one. `sectorBytes`: the disk's logical
 * sectors where they are known; else a GPT is looked for at 512 and at 4096.
 */
export function readPartitionTable(head: Uint8Array, sectorBytes?: number): PartitionTable {
  const bytes = Buffer.from(head.buffer, head.byteOffset, head.byteLength);
  const hasSignature = bytes.length >= 512 && bytes.readUInt16LE(510) === 0xaa55;
  const hasBootCode = hasSignature && bytes.subarray(0, BOOT_CODE_BYTES).some((byte) => byte !== 0);
  const entries = hasSignature ? mbrTypes(bytes) : [];
  const isProtective = entries.includes(MBR_PROTECTIVE);
  const seen = { hasSignature, hasBootCode, isProtective };
  for (const sector of sectorBytes === undefined ? [512, 4096] : [sectorBytes]) {
    const types = isProtective ? gptTypes(bytes, sector) : null;
    if (types !== null) return { kind: 'gpt', sectorBytes: sector, ...seen, types };
  }
  // A file system without a table has the signature, too (vfat), and no entries that make sense.
  const types = entries.filter((type) => type !== MBR_PROTECTIVE);
  return { kind: types.length > 0 ? 'mbr' : 'none', sectorBytes: null, ...seen, types };
}

interface PartitionName {
  /** As in PARTUUID=: a GUID in lower case, or of an MBR "<signature>-<number>". */
  readonly uuid: string;
  /** As in PARTLABEL=; '' where it has none. */
  readonly label: string;
}

const MBR_SIGNATURE_AT = 440;
const GPT_NAME_BYTES = 72;

/** Of the partition `number` (from 1) of the disk that begins with `head`; null where that cannot be told. */
export function partitionName(head: Uint8Array, number: number): PartitionName | null {
  const bytes = Buffer.from(head.buffer, head.byteOffset, head.byteLength);
  const { kind, sectorBytes } = readPartitionTable(head);
  if (kind === 'mbr') {
    const signature = bytes.readUInt32LE(MBR_SIGNATURE_AT);
    const hex = (value: number, digits: number) => value.toString(16).padStart(digits, '0');
    return signature === 0 ? null : { uuid: `${hex(signature, 8)}-${hex(number, 2)}`, label: '' };
  }
  if (kind !== 'gpt') return null;
  const entry = gptEntries(bytes, sectorBytes!)?.find((each) => each.number === number)?.bytes;
  if (entry === undefined || entry.length < 56 + GPT_NAME_BYTES) return null;
  const name = entry.toString('utf16le', 56, 56 + GPT_NAME_BYTES).replace(/\0.*$/s, '');
  return { uuid: guidText(entry.subarray(16, 32)), label: name };
}

function mbrTypes(bytes: Buffer): string[] {
  const types = [0, 1, 2, 3].map((index) => bytes[MBR_ENTRIES_AT + index * 16 + 4]!);
  return types.filter((type) => type !== 0).map((type) => type.toString(16).padStart(2, '0'));
}

/** Null where no header lies there. */
const gptTypes = (bytes: Buffer, sectorBytes: number): string[] | null =>
  gptEntries(bytes, sectorBytes)?.map((entry) => guidText(entry.bytes)) ?? null;

/** Those in use; null where no header lies there. */
function gptEntries(
  bytes: Buffer,
  sectorBytes: number,
): { number: number; bytes: Buffer }[] | null {
  const header = bytes.subarray(sectorBytes, sectorBytes + HEADER_BYTES);
  if (header.length < HEADER_BYTES || header.toString('latin1', 0, 8) !== 'EFI PART') return null;
  const start = Number(header.readBigUInt64LE(72)) * sectorBytes;
  const count = Math.min(header.readUInt32LE(80), MAX_ENTRIES);
  const entryBytes = header.readUInt32LE(84);
  const entries: { number: number; bytes: Buffer }[] = [];
  if (entryBytes < LEAST_ENTRY_BYTES || entryBytes > MOST_ENTRY_BYTES) return entries;
  for (let index = 0; index < count; index += 1) {
    const at = start + index * entryBytes;
    if (at + 16 > bytes.length) break;
    const entry = bytes.subarray(at, at + entryBytes);
    const isUsed = entry.subarray(0, 16).some((byte) => byte !== 0);
    if (isUsed) entries.push({ number: index + 1, bytes: entry });
  }
  return entries;
}

/** The first three fields of a GUID lie with their low byte first. */
function guidText(bytes: Buffer): string {
  const swapped = (from: number, to: number) =>
    Buffer.from(bytes.subarray(from, to)).reverse().toString('hex');
  const plain = (from: number, to: number) => bytes.toString('hex', from, to);
  return [swapped(0, 4), swapped(4, 6), swapped(6, 8), plain(8, 10), plain(10, 16)].join('-');
}
