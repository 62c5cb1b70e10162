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
import { join } from 'node:path';

const SECTOR = 512;
export const MIB = 1 << 20;
const CORE_SECTOR = 2048;
const GRUB = '/usr/lib/grub/i386-pc';

/** `label`: gpt has a BIOS boot partition in front, and the root is the second one; mbr the first. */
export function makeDisk(disk: string, label: 'gpt' | 'mbr', fileSystem: string): void {
  const content = readFileSync(fileSystem);
  const start = 2 * MIB;
  sized(disk, start + content.length + MIB);
  const rootSectors = content.length / SECTOR;
  const lines =
    label === 'gpt'
      ? [
          'label: gpt',
          `start=${CORE_SECTOR}, size=${start / SECTOR - CORE_SECTOR}, type=21686148-6449-6E6F-744E-656564454649`,
          `start=${start / SECTOR}, size=${rootSectors}, type=L`,
        ]
      : ['label: dos', `start=${start / SECTOR}, size=${rootSectors}, type=83, bootable`];
  execFileSync('sfdisk', ['-q', disk], { input: `${lines.join('\n')}\n` });
  place(disk, content, start);
}

/** `config`: GRUB's own commands, built into it; `prefix`: "(hd0,gpt2)/boot". */
export function installGrub(
  work: string,
  disk: string,
  { config, prefix, modules }: { config: string; prefix: string; modules: readonly string[] },
): void {
  const configPath = join(work, 'grub-core.cfg');
  const core = join(work, 'core.img');
  writeFileSync(configPath, config);
  const words = ['-O', 'i386-pc', '-d', GRUB, '-o', core, '-c', configPath, '-p', prefix];
  run('grub-mkimage', ...words, 'biosdisk', 'part_gpt', 'part_msdos', 'linux', 'boot', ...modules);
  const bytes = readFileSync(core);
  bytes.writeBigUInt64LE(BigInt(CORE_SECTOR + 1), SECTOR - 12);
  bytes.writeUInt16LE(Math.ceil(bytes.length / SECTOR) - 1, SECTOR - 4);
  place(disk, bytes, CORE_SECTOR * SECTOR);
  const boot = readFileSync(join(GRUB, 'boot.img')).subarray(0, 440);
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
