/**
 * Raw disks made by files alone: a table, file systems at their places, GRUB for BIOS as grub-install puts
 * it. Nothing is mounted, no loop device.
 */
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  ftruncateSync,
  openSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';

const SECTOR = 512;
export const MIB = 1 << 20;
const CORE_SECTOR = 2048;
const GRUB = '/usr/lib/grub';
const ESP_BYTES = 8 * MIB;

/** Of an efi disk. */
export interface EfiLayout {
  readonly espBytes: number;
  /** GUID of the partition with the root. */
  readonly rootPart?: string;
}

/**
 * `label`: gpt has a BIOS boot partition in front, efi (a GPT, too) an EFI system partition, and the root is
 * the second one; of mbr the first.
 */
export function makeDisk(
  disk: string,
  label: 'gpt' | 'efi' | 'mbr',
  fileSystem: string,
  { espBytes, rootPart }: EfiLayout = { espBytes: ESP_BYTES },
): void {
  const content = readFileSync(fileSystem);
  const start = label === 'efi' ? MIB + espBytes : 2 * MIB;
  const uuid = rootPart === undefined ? '' : `, uuid=${rootPart}`;
  sized(disk, start + content.length + MIB);
  const rootSectors = content.length / SECTOR;
  const lines =
    label === 'mbr'
      ? ['label: dos', `start=${start / SECTOR}, size=${rootSectors}, type=83, bootable`]
      : [
          'label: gpt',
          `start=${CORE_SECTOR}, size=${start / SECTOR - CORE_SECTOR}, type=${bootTypes[label]}`,
          `start=${start / SECTOR}, size=${rootSectors}, type=L${uuid}`,
        ];
  execFileSync('sfdisk', ['-q', disk], { input: `${lines.join('\n')}\n` });
  place(disk, content, start);
}

const bootTypes = {
  gpt: '21686148-6449-6E6F-744E-656564454649',
  efi: 'C12A7328-F81F-11D2-BA4B-00A0C93EC93B',
};

export interface Grub {
  /** GRUB's own commands, built into it. */
  readonly config: string;
  /** "(hd0,gpt2)/boot" */
  readonly prefix: string;
  readonly modules: readonly string[];
}

/** What grub-install does on a UEFI machine: into a folder of EFI; with --removable that is BOOT. */
export function installEfiGrub(
  work: string,
  disk: string,
  { config, prefix, modules }: Grub,
  to: string = 'BOOT/BOOTX64.EFI',
): void {
  const configPath = join(work, 'grub-core.cfg');
  const image = join(work, 'grub.efi');
  writeFileSync(configPath, config);
  const folder = join(GRUB, 'x86_64-efi');
  const words = ['-O', 'x86_64-efi', '-d', folder, '-o', image, '-c', configPath, '-p', prefix];
  run('grub-mkimage', ...words, 'part_gpt', 'linux', 'boot', ...modules);
  placeEsp(work, disk, { [`EFI/${to}`]: image });
}

/** An EFI system partition with these files: where they go, and where they are. */
export function placeEsp(
  work: string,
  disk: string,
  files: Readonly<Record<string, string>>,
  espBytes = ESP_BYTES,
): void {
  const partition = join(work, 'esp.fat');
  sized(partition, espBytes);
  run('mkfs.vfat', '-n', 'ESP', partition);
  const folders = new Set<string>();
  for (const path of Object.keys(files)) {
    for (let at = dirname(path); at !== '.'; at = dirname(at)) folders.add(at);
  }
  for (const folder of [...folders].sort()) run('mmd', '-i', partition, `::/${folder}`);
  for (const [to, from] of Object.entries(files)) run('mcopy', '-i', partition, from, `::/${to}`);
  place(disk, readFileSync(partition), CORE_SECTOR * SECTOR);
}

/** What it does on a BIOS machine. */
export function installGrub(work: string, disk: string, { config, prefix, modules }: Grub): void {
  const configPath = join(work, 'grub-core.cfg');
  const core = join(work, 'core.img');
  const folder = join(GRUB, 'i386-pc');
  writeFileSync(configPath, config);
  const words = ['-O', 'i386-pc', '-d', folder, '-o', core, '-c', configPath, '-p', prefix];
  run('grub-mkimage', ...words, 'biosdisk', 'part_gpt', 'part_msdos', 'linux', 'boot', ...modules);
  const bytes = readFileSync(core);
  bytes.writeBigUInt64LE(BigInt(CORE_SECTOR + 1), SECTOR - 12);
  bytes.writeUInt16LE(Math.ceil(bytes.length / SECTOR) - 1, SECTOR - 4);
  place(disk, bytes, CORE_SECTOR * SECTOR);
  const boot = readFileSync(join(folder, 'boot.img')).subarray(0, 440);
  boot.writeBigUInt64LE(BigInt(CORE_SECTOR), 0x5c);
  place(disk, boot, 0);
}

export function run(command: string, ...words: string[]): void {
  execFileSync(command, words, { stdio: ['ignore', 'ignore', 'pipe'] });
}

export function sized(path: string, bytes: number): void {
  const fd = openSync(path, 'w');
  ftruncateSync(fd, bytes);
  closeSync(fd);
}

/** Writes `bytes` into a file at `offset`, zeros left out: the disk stays sparse. */
export function place(path: string, bytes: Buffer, offset: number): void {
  const fd = openSync(path, 'r+');
  for (let at = 0; at < bytes.length; at += 65_536) {
    const part = bytes.subarray(at, at + 65_536);
    if (part.some((byte) => byte !== 0)) writeSync(fd, part, 0, part.length, offset + at);
  }
  closeSync(fd);
}
