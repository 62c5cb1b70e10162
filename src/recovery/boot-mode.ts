/**
 * How a disk boots, from its first bytes: the partition table (GPT or MBR), an EFI system partition, a
 * BIOS boot partition, boot code. Pure. The disk is a source's and hostile input: every number in it is
 * checked before it is used, and nothing here fails; a table that cannot be understood is no table.
 */

export type BootMode = 'bios' | 'uefi';

export interface BootFacts {
  readonly table: 'gpt' | 'mbr' | 'none';
  /** Null: nothing to boot was found. */
  readonly mode: BootMode | null;
  /** What was seen, for people. */
  readonly seen: string;
}

/** So much of the disk's beginning is looked at (a table of 4096-byte sectors lies within). */
export const HEAD_BYTES = 65_536;

const SECTOR_SIZES = [512, 4096];
const BOOT_CODE_BYTES = 440;
const MBR_PARTITIONS = 446;
const MAX_ENTRIES = 1024;
const TYPE_ESP = 'c12a7328-f81f-11d2-ba4b-00a0c93ec93b';
const TYPE_BIOS_BOOT = '21686148-6449-6e6f-744e-656564454649';
const MBR_TYPE_ESP = 0xef;
const MBR_TYPE_PROTECTIVE = 0xee;

/** `head`: the first HEAD_BYTES of the disk, or all of a smaller one. */
export function bootFacts(head: Uint8Array): BootFacts {
  const bytes = Buffer.from(head.buffer, head.byteOffset, head.byteLength);
  const hasSignature = bytes.length >= 512 && bytes.readUInt16LE(510) === 0xaa55;
  const hasCode = hasSignature && bytes.subarray(0, BOOT_CODE_BYTES).some((byte) => byte !== 0);
  const types = gptTypes(bytes);
  if (types !== null) return gptFacts(types, hasCode);
  return hasSignature ? mbrFacts(bytes, hasCode) : { table: 'none', mode: null, seen: 'no table' };
}

function gptFacts(types: ReadonlySet<string>, hasCode: boolean): BootFacts {
  const hasEsp = types.has(TYPE_ESP);
  if (types.has(TYPE_BIOS_BOOT) && hasCode) {
    const also = hasEsp ? ' (and an EFI system partition)' : '';
    return { table: 'gpt', mode: 'bios', seen: `GPT, BIOS boot partition and boot code${also}` };
  }
  if (hasEsp) return { table: 'gpt', mode: 'uefi', seen: 'GPT, EFI system partition' };
  if (hasCode) return { table: 'gpt', mode: 'bios', seen: 'GPT, boot code' };
  return { table: 'gpt', mode: null, seen: 'GPT, nothing that boots' };
}

function mbrFacts(bytes: Buffer, hasCode: boolean): BootFacts {
  const types = [0, 1, 2, 3].map((index) => bytes[MBR_PARTITIONS + index * 16 + 4]!);
  const hasTable = types.some((type) => type !== 0 && type !== MBR_TYPE_PROTECTIVE);
  const table = hasTable ? 'mbr' : 'none';
  const name = hasTable ? 'MBR' : 'no table';
  if (hasCode) return { table, mode: 'bios', seen: `${name}, boot code` };
  if (types.includes(MBR_TYPE_ESP)) {
    return { table, mode: 'uefi', seen: 'MBR, EFI system partition' };
  }
  return { table, mode: null, seen: `${name}, nothing that boots` };
}

/** Type GUIDs of the partitions, or null where there is no GPT. */
function gptTypes(bytes: Buffer): Set<string> | null {
  for (const sector of SECTOR_SIZES) {
    const isHeader = bytes.toString('latin1', sector, sector + 8) === 'EFI PART';
    if (isHeader && bytes.length >= sector + 92) return entryTypes(bytes, sector);
  }
  return null;
}

function entryTypes(bytes: Buffer, sector: number): Set<string> {
  const types = new Set<string>();
  const start = Number(bytes.readBigUInt64LE(sector + 72)) * sector;
  const count = Math.min(bytes.readUInt32LE(sector + 80), MAX_ENTRIES);
  const size = bytes.readUInt32LE(sector + 84);
  if (size < 128 || size > 4096) return types;
  for (let index = 0; index < count; index += 1) {
    const at = start + index * size;
    if (at + 16 > bytes.length) break;
    const type = guidAt(bytes, at);
    if (!/^[0-]+$/.test(type)) types.add(type);
  }
  return types;
}

/** The first three fields of a GUID lie with their low byte first. */
function guidAt(bytes: Buffer, at: number): string {
  const hex = (from: number, to: number) => bytes.toString('hex', at + from, at + to);
  const swapped = (from: number, to: number) =>
    Buffer.from(bytes.subarray(at + from, at + to))
      .reverse()
      .toString('hex');
  return [swapped(0, 4), swapped(4, 6), swapped(6, 8), hex(8, 10), hex(10, 16)].join('-');
}
