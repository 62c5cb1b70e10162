/**
 * How the firmware has to start a disk, told from its partition table (MBR and GPT, UEFI specification 2.10,
 * chapter 5). The disk is hostile input: whatever lies there, the answer is a mode or a clear refusal. Pure.
 */
import { UnderstudyError } from '../../base/errors.ts';
import type { BlockImage } from './block-image.ts';

export type BootMode = 'legacy-bios' | 'uefi' | 'uefi-preferred';

/** What has to be read for it, from the beginning of the disk. */
export const BOOT_MODE_BYTES = 2 * 4096 + 128 * 128;

const SECTOR = 512;
const MBR_ENTRIES = 446;
const TYPE_PROTECTIVE = 0xee;
const TYPE_EFI = 0xef;
/** As they lie on disk: the first three fields are little-endian. */
const GUID_EFI_SYSTEM = '28732ac11ff8d211ba4b00a0c93ec93b';
const GUID_BIOS_BOOT = '4861682149646f6e744e656564454649';
const MAX_ENTRIES = 128;

/** `start`: the first BOOT_MODE_BYTES of the disk, or all of a smaller one. ERR_EC2_DISK. */
export function bootModeOf(start: Buffer, name: string): BootMode {
  if (start.length < SECTOR * 2 || start.readUInt16LE(510) !== 0xaa55) {
    throw refused(name, 'has no partition table: it is not a disk that boots');
  }
  const types = [0, 1, 2, 3].map((at) => start[MBR_ENTRIES + at * 16 + 4]!);
  const hasCode = start.subarray(0, 440).some((byte) => byte !== 0);
  if (!types.includes(TYPE_PROTECTIVE))
    return types.includes(TYPE_EFI) ? efiOr(hasCode) : 'legacy-bios';
  if (!isGptAt(start, SECTOR)) {
    if (isGptAt(start, 4096)) {
      throw refused(name, 'has sectors of 4,096 bytes; as an EBS volume it would have 512');
    }
    throw refused(name, 'has a damaged partition table (no GPT header)');
  }
  const guids = typesOfGpt(start);
  if (!guids.has(GUID_EFI_SYSTEM)) return 'legacy-bios';
  return efiOr(guids.has(GUID_BIOS_BOOT) && hasCode);
}

/** Reads what it needs from the image. */
export async function bootModeOfImage(image: BlockImage, name: string): Promise<BootMode> {
  const length = Math.min(BOOT_MODE_BYTES, image.sizeBytes);
  return bootModeOf(Buffer.from(await image.read(0, length)), name);
}

const efiOr = (bootsByBios: boolean): BootMode => (bootsByBios ? 'uefi-preferred' : 'uefi');

const isGptAt = (start: Buffer, offset: number): boolean =>
  start.toString('latin1', offset, offset + 8) === 'EFI PART';

/** Types of the partitions in the GPT's table, as far as it lies within what was read. */
function typesOfGpt(start: Buffer): Set<string> {
  const table = Number(start.readBigUInt64LE(SECTOR + 72)) * SECTOR;
  const count = Math.min(start.readUInt32LE(SECTOR + 80), MAX_ENTRIES);
  const entryBytes = start.readUInt32LE(SECTOR + 84);
  const found = new Set<string>();
  if (entryBytes < 128) return found;
  for (let at = 0; at < count; at += 1) {
    const offset = table + at * entryBytes;
    if (offset + 16 > start.length) break;
    found.add(start.toString('hex', offset, offset + 16));
  }
  return found;
}

const refused = (name: string, what: string) =>
  new UnderstudyError('ERR_EC2_DISK', `${name} ${what}`, { volume: name });
