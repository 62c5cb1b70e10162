/**
 * What the system says of a disk that is to be overwritten: what it is, and everything that uses it or a
 * part of it. Reads /sys and /proc only; `target-check.ts` judges.
 */
import { existsSync, readdirSync, readFileSync, realpathSync, type Stats, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { SECTOR_BYTES } from '../../model/geometry.ts';

export interface TargetFacts {
  readonly path: string;
  readonly realPath: string;
  readonly kind: 'block' | 'file' | 'other' | 'missing';
  readonly sizeBytes: number;
  /** 0: a file has none. */
  readonly sectorBytes: number;
  readonly isReadOnly: boolean;
  /** What uses it: "sda1 is mounted on /home", "sda2 is swap", "sda3 is part of dm-0". */
  readonly uses: readonly string[];
}

export interface SystemFolders {
  readonly sys: string;
  readonly proc: string;
}
const system: SystemFolders = { sys: '/sys', proc: '/proc' };

export function targetFacts(path: string, folders = system): TargetFacts {
  const none = { path, realPath: path, sizeBytes: 0, sectorBytes: 0, isReadOnly: false, uses: [] };
  if (!existsSync(path)) return { ...none, kind: 'missing' };
  const realPath = realpathSync(path);
  const stats = statSync(realPath);
  if (stats.isFile()) {
    const uses = loopsOn(realPath, folders);
    return { ...none, realPath, kind: 'file', sizeBytes: stats.size, uses };
  }
  if (!stats.isBlockDevice()) return { ...none, realPath, kind: 'other' };
  return { path, realPath, kind: 'block', ...blockFacts(numberOf(stats), folders) };
}

/** Linux's encoding of a device number in st_rdev, as "8:1". */
function numberOf({ rdev }: Stats): string {
  return `${Math.floor(rdev / 256) % 4096}:${(rdev % 256) + Math.floor(rdev / 2 ** 20) * 256}`;
}

/** Facts of the block device of that number. */
export function blockFacts(
  number: string,
  folders: SystemFolders,
): Pick<TargetFacts, 'sizeBytes' | 'sectorBytes' | 'isReadOnly' | 'uses'> {
  const node = realpathSync(join(folders.sys, 'dev/block', number));
  const isPartition = existsSync(join(node, 'partition'));
  const disk = isPartition ? dirname(node) : node;
  const parts = isPartition ? [] : partitionsOf(disk);
  const own = [node, ...parts].map((folder) => ({ folder, number: read(join(folder, 'dev')) }));
  return {
    sizeBytes: SECTOR_BYTES * Number(read(join(node, 'size'))),
    sectorBytes: Number(read(join(disk, 'queue/logical_block_size'))) || SECTOR_BYTES,
    isReadOnly: read(join(node, 'ro')) === '1',
    uses: [
      ...mounts(own, folders),
      ...swaps(own, folders),
      ...own.flatMap(({ folder }) => holders(folder)),
      // What lies on the whole disk lies on its partition, too.
      ...(isPartition ? holders(disk) : []),
    ],
  };
}

interface Part {
  readonly folder: string;
  readonly number: string;
}

const partitionsOf = (disk: string): string[] =>
  names(disk)
    .map((name) => join(disk, name))
    .filter((folder) => existsSync(join(folder, 'partition')));

const unescaped = (text: string): string =>
  text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)));

function mounts(own: readonly Part[], { sys, proc }: SystemFolders): string[] {
  // Of the machine's first process: this command's own view may be narrower.
  const text = read(join(proc, '1/mountinfo')) || read(join(proc, 'self/mountinfo'));
  const found = text.split('\n').flatMap((line) => {
    const fields = line.split(' ');
    const source = unescaped(fields[fields.indexOf('-') + 2] ?? '');
    const number = fields[2] ?? '';
    // btrfs has numbers of its own.
    const real = number.startsWith('0:') ? numberOfPath(source) : number;
    const part = own.find((each) => each.number !== '' && each.number === real);
    const at = unescaped(fields[4] ?? '');
    return part === undefined ? [] : [`${basename(part.folder)} is mounted on ${at}`];
  });
  return [...found, ...btrfsMembers(own, sys)];
}

/** A btrfs file system that is mounted names all its devices. */
function btrfsMembers(own: readonly Part[], sys: string): string[] {
  return names(join(sys, 'fs/btrfs')).flatMap((id) =>
    names(join(sys, 'fs/btrfs', id, 'devices'))
      .filter((name) => own.some(({ folder }) => basename(folder) === name))
      .map((name) => `${name} is part of the btrfs ${id}`),
  );
}

function swaps(own: readonly Part[], { proc }: SystemFolders): string[] {
  const lines = read(join(proc, 'swaps')).split('\n').slice(1);
  const paths = lines.map((line) => unescaped(line.split(/\s/)[0] ?? '')).filter(Boolean);
  return own
    .filter(({ number }) => paths.some((path) => numberOfPath(path) === number))
    .map(({ folder }) => `${basename(folder)} is swap`);
}

const holders = (folder: string): string[] =>
  names(join(folder, 'holders')).map((name) => `${basename(folder)} is part of ${name}`);

function loopsOn(realPath: string, { sys }: SystemFolders): string[] {
  return names(join(sys, 'block'))
    .filter((name) => read(join(sys, 'block', name, 'loop/backing_file')) === realPath)
    .map((name) => `it is the file behind /dev/${name}`);
}

function numberOfPath(path: string): string {
  if (!path.startsWith('/') || !existsSync(path)) return '';
  const stats = statSync(path);
  return stats.isBlockDevice() ? numberOf(stats) : '';
}

/** '' where there is no such attribute. */
function read(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return '';
  }
}

function names(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
