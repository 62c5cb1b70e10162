/**
 * How a disk boots, from its partition table: an EFI system partition, a BIOS boot partition, boot code.
 * Pure; nothing here fails: a table that cannot be understood is no table.
 */
import {
  type PartitionTable,
  partitionTypes,
  readPartitionTable,
} from '../model/partition-table.ts';

export type BootMode = 'bios' | 'uefi';

export interface BootFacts {
  readonly table: 'gpt' | 'mbr' | 'none';
  /** Null: nothing to boot was found. */
  readonly mode: BootMode | null;
  /** What was seen, for people. */
  readonly seen: string;
}

/** `head`: the first TABLE_BYTES of the disk, or all of a smaller one. */
export function bootFacts(head: Uint8Array): BootFacts {
  const table = readPartitionTable(head);
  return table.kind === 'gpt' ? gptFacts(table) : mbrFacts(table);
}

function gptFacts({ types, hasBootCode }: PartitionTable): BootFacts {
  const hasEsp = types.includes(partitionTypes.efiSystem);
  if (types.includes(partitionTypes.biosBoot) && hasBootCode) {
    const also = hasEsp ? ' (and an EFI system partition)' : '';
    return { table: 'gpt', mode: 'bios', seen: `GPT, BIOS boot partition and boot code${also}` };
  }
  if (hasEsp) return { table: 'gpt', mode: 'uefi', seen: 'GPT, EFI system partition' };
  if (hasBootCode) return { table: 'gpt', mode: 'bios', seen: 'GPT, boot code' };
  return { table: 'gpt', mode: null, seen: 'GPT, nothing that boots' };
}

function mbrFacts({ kind, types, hasBootCode }: PartitionTable): BootFacts {
  const name = kind === 'mbr' ? 'MBR' : 'no table';
  if (hasBootCode) return { table: kind, mode: 'bios', seen: `${name}, boot code` };
  if (types.includes(partitionTypes.mbrEfiSystem)) {
    return { table: kind, mode: 'uefi', seen: 'MBR, EFI system partition' };
  }
  return { table: kind, mode: null, seen: `${name}, nothing that boots` };
}
