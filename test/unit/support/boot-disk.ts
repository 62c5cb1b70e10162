/** Beginnings of disks that boot in one way or another. */

const EFI = '28732ac11ff8d211ba4b00a0c93ec93b';
const BIOS = '4861682149646f6e744e656564454649';
const LINUX = 'af3dc60f838472478e793d69d8477de4';

export interface DiskKind {
  readonly table: 'mbr' | 'gpt' | 'none';
  readonly sector?: 512 | 4096;
  readonly partitions?: readonly ('efi' | 'bios' | 'linux')[];
  readonly hasCode?: boolean;
}

export function bootDisk(kind: DiskKind, sizeBytes = 65_536): Buffer {
  const { table, sector = 512, partitions = ['linux'], hasCode = true } = kind;
  const disk = Buffer.alloc(sizeBytes);
  if (table === 'none') return disk;
  if (hasCode) disk.fill(0x90, 0, 64);
  disk.writeUInt16LE(0xaa55, 510);
  if (table === 'mbr') {
    const types = { efi: 0xef, bios: 0x83, linux: 0x83 };
    partitions.forEach((name, at) => {
      disk[446 + at * 16 + 4] = types[name];
    });
    return disk;
  }
  disk[446 + 4] = 0xee;
  disk.write('EFI PART', sector, 'latin1');
  disk.writeBigUInt64LE(2n, sector + 72);
  disk.writeUInt32LE(128, sector + 80);
  disk.writeUInt32LE(128, sector + 84);
  const guids = { efi: EFI, bios: BIOS, linux: LINUX };
  partitions.forEach((name, at) => {
    Buffer.from(guids[name], 'hex').copy(disk, 2 * sector + at * 128);
  });
  return disk;
}
