/** A machine out of `test/fixtures/doctor`, laid out in a folder as its files lay below /. */
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';

export interface RecordedTable {
  kind: 'gpt' | 'mbr' | 'none';
  bootCode: boolean;
  types: string[];
}
interface RecordedDisk {
  number: string;
  sectors: number;
  sectorBytes?: number;
  table?: RecordedTable;
  partitions?: Record<string, number>;
  /** Id of a mapping: LVM-..., CRYPT-... */
  mapping?: string;
  slaves?: string[];
}
export interface RecordedImage {
  packed: 'none' | 'gzip' | 'zstd';
  early?: string[];
  names: string[];
  /** So many bytes are missing at its end. */
  cutBytes?: number;
}
export interface RecordedMachine {
  about: string;
  disks: Record<string, RecordedDisk>;
  links: Record<string, string>;
  initramfs: Record<string, RecordedImage>;
  files: Record<string, string>;
}

export const readRecorded = (name: string): RecordedMachine =>
  JSON.parse(
    readFileSync(join(import.meta.dirname, '../../fixtures/doctor', `${name}.json`), 'utf8'),
  ) as RecordedMachine;

/** An archive of files without content, in the format of an initramfs. */
export function cpioOf(names: readonly string[], content = Buffer.from('content')): Buffer {
  const parts: Buffer[] = [];
  const add = (name: string, bytes: Buffer) => {
    const fields = [1, 0o100644, 0, 0, 1, 0, bytes.length, 0, 0, 0, 0, name.length + 1, 0];
    const head = fields.map((field) => field.toString(16).padStart(8, '0')).join('');
    parts.push(padded(Buffer.from(`070701${head}${name}\0`)), padded(bytes));
  };
  for (const name of names) add(name, content);
  add('TRAILER!!!', Buffer.alloc(0));
  const all = Buffer.concat(parts);
  return Buffer.concat([all, Buffer.alloc((512 - (all.length % 512)) % 512)]);
}
const padded = (bytes: Buffer): Buffer =>
  Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)]);

export function imageOf({ packed, early, names, cutBytes = 0 }: RecordedImage): Buffer {
  const plain = cpioOf(names);
  const through = { none: (b: Buffer) => b, gzip: gzipSync, zstd: zstdCompressSync };
  const main = through[packed](plain);
  const all = Buffer.concat([early === undefined ? Buffer.alloc(0) : cpioOf(early), main]);
  return all.subarray(0, all.length - cutBytes);
}

/** First sectors of a disk with such a table. */
export function tableOf({ kind, bootCode, types }: RecordedTable, sectorBytes = 512): Buffer {
  const bytes = Buffer.alloc(65536);
  if (bootCode) bytes.write('\xeb\x63\x90GRUB', 0, 'latin1');
  if (kind === 'none') return bytes;
  bytes.writeUInt16LE(0xaa55, 510);
  if (kind === 'mbr') {
    types.forEach((type, i) => {
      bytes[446 + 16 * i + 4] = Number.parseInt(type, 16);
    });
    return bytes;
  }
  bytes[446 + 4] = 0xee;
  bytes.write('EFI PART', sectorBytes, 'latin1');
  bytes.writeBigUInt64LE(2n, sectorBytes + 72);
  bytes.writeUInt32LE(128, sectorBytes + 80);
  bytes.writeUInt32LE(128, sectorBytes + 84);
  types.forEach((type, i) => {
    const hex = Buffer.from(type.replaceAll('-', ''), 'hex');
    const swapped = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].map((at) => hex[at]!);
    bytes.set(swapped, 2 * sectorBytes + 128 * i);
  });
  return bytes;
}

export function layOut(machine: RecordedMachine, root: string): void {
  const write = (path: string, content: string | Buffer) => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), content);
  };
  for (const [path, text] of Object.entries(machine.files)) write(path, text);
  for (const [path, image] of Object.entries(machine.initramfs)) write(path, imageOf(image));
  for (const [name, disk] of Object.entries(machine.disks)) {
    const folder = `/sys/block/${name}`;
    write(`${folder}/dev`, `${disk.number}\n`);
    write(`${folder}/size`, `${disk.sectors}\n`);
    write(`${folder}/queue/logical_block_size`, `${disk.sectorBytes ?? 512}\n`);
    if (disk.mapping !== undefined) write(`${folder}/dm/uuid`, `${disk.mapping}\n`);
    for (const slave of disk.slaves ?? []) write(`${folder}/slaves/${slave}/dev`, '');
    const [major = '', minor = ''] = disk.number.split(':');
    Object.entries(disk.partitions ?? {}).forEach(([part, sectors], i) => {
      write(`${folder}/${part}/partition`, `${i + 1}\n`);
      write(`${folder}/${part}/size`, `${sectors}\n`);
      write(`${folder}/${part}/dev`, `${major}:${Number(minor) + i + 1}\n`);
      write(`/dev/${part}`, '');
    });
    const head = disk.table === undefined ? '' : tableOf(disk.table, disk.sectorBytes);
    write(`/dev/${name}`, head);
  }
  for (const [path, to] of Object.entries(machine.links)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    symlinkSync(to, join(root, path));
  }
}
