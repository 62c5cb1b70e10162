/**
 * How an instance has to start a disk, told from its partition table. The disk is hostile input: whatever
 * lies there, the answer is a mode or a clear refusal. Pure but for the reading.
 */
import { UnderstudyError } from '../../base/errors.ts';
import { partitionTypes, readPartitionTable, TABLE_BYTES } from '../../model/partition-table.ts';
import type { BlockImage } from '../image-overlay.ts';

export type BootMode = 'legacy-bios' | 'uefi' | 'uefi-preferred';

/** `start`: the first TABLE_BYTES of the disk, or all of a smaller one. ERR_EC2_DISK. */
export function bootModeOf(start: Uint8Array, name: string): BootMode {
  const table = readPartitionTable(start);
  const { types, hasBootCode } = table;
  if (!table.hasSignature) {
    throw refused(name, 'has no partition table: it is not a disk that boots');
  }
  if (table.kind === 'gpt') {
    if (table.sectorBytes !== 512) {
      throw refused(name, 'has sectors of 4,096 bytes; as an EBS volume it would have 512');
    }
    if (!types.includes(partitionTypes.efiSystem)) return 'legacy-bios';
    return efiOr(types.includes(partitionTypes.biosBoot) && hasBootCode);
  }
  if (table.isProtective) throw refused(name, 'has a damaged partition table (no GPT header)');
  return types.includes(partitionTypes.mbrEfiSystem) ? efiOr(hasBootCode) : 'legacy-bios';
}

/** Reads what it needs from the image. */
export async function bootModeOfImage(image: BlockImage, name: string): Promise<BootMode> {
  return bootModeOf(await image.read(0, Math.min(TABLE_BYTES, image.sizeBytes)), name);
}

const efiOr = (bootsByBios: boolean): BootMode => (bootsByBios ? 'uefi-preferred' : 'uefi');

const refused = (name: string, what: string) =>
  new UnderstudyError('ERR_EC2_DISK', `${name} ${what}`, { volume: name });
