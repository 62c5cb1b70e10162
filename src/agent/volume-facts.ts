/**
 * What the system says of a path that is to be a volume: kind, numbers, what it is stacked on, what is
 * mounted there. Reads /sys and /proc only; judges nothing (`admission.ts` does).
 */
import {
  accessSync,
  constants,
  readdirSync,
  readFileSync,
  realpathSync,
  type Stats,
  statSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import type { BlockFacts, VolumeFacts } from './admission.ts';

export interface SystemPaths {
  readonly sys: string;
  readonly mountinfo: string;
}
const systemPaths: SystemPaths = { sys: '/sys', mountinfo: '/proc/self/mountinfo' };

export function volumeFacts(path: string, system = systemPaths): VolumeFacts {
  let realPath = path;
  let stats: Stats;
  try {
    realPath = realpathSync(path);
    stats = statSync(realPath);
  } catch (error) {
    return { path, realPath, kind: 'unreadable', errno: errnoOf(error) };
  }
  if (stats.isDirectory()) {
    return { path, realPath, kind: 'directory', mountedFrom: mountSource(realPath, stats, system) };
  }
  if (!stats.isFile() && !stats.isBlockDevice()) return { path, realPath, kind: 'other' };
  try {
    accessSync(realPath, constants.R_OK);
  } catch (error) {
    return { path, realPath, kind: 'unreadable', errno: errnoOf(error) };
  }
  if (stats.isFile()) {
    return { path, realPath, kind: 'file', identity: `${stats.dev}:${stats.ino}` };
  }
  return { path, realPath, kind: 'block', block: blockFacts(stats.rdev, system) };
}

const errnoOf = (error: unknown): string => (error as NodeJS.ErrnoException).code ?? String(error);

/** Linux's encoding of a device number in st_rdev. */
const majorOf = (rdev: number): number => Math.floor(rdev / 256) % 4096;
const minorOf = (rdev: number): number => (rdev % 256) + Math.floor(rdev / 2 ** 20) * 256;

function blockFacts(rdev: number, { sys }: SystemPaths): BlockFacts {
  const major = majorOf(rdev);
  const minor = minorOf(rdev);
  const folder = realPathOr(join(sys, 'dev/block', `${major}:${minor}`));
  const isPartition = readText(join(folder, 'partition')) !== '';
  const disk = isPartition ? join(folder, '..') : folder;
  const [diskMajor = major, diskMinor = minor] = numbersIn(readText(join(disk, 'dev')));
  const holders = [...names(join(folder, 'holders')), ...names(join(disk, 'holders'))];
  return {
    major,
    minor,
    diskMajor,
    diskMinor,
    kernelName: basename(folder),
    slaves: names(join(folder, 'slaves')),
    multipath: holders.find((name) => isMultipath(sys, name)) ?? '',
    backingFile: readText(join(disk, 'loop/backing_file')),
  };
}

const isMultipath = (sys: string, name: string): boolean =>
  readText(join(sys, 'class/block', name, 'dm/uuid')).startsWith('mpath-');

/** The device of the file system in which `path` lies, as mountinfo names it. */
function mountSource(path: string, stats: Stats, { mountinfo }: SystemPaths): string {
  const device = `${majorOf(stats.dev)}:${minorOf(stats.dev)}`;
  const rows = readText(mountinfo)
    .split('\n')
    .map((line) => line.split(' '))
    .filter((fields) => fields.length > 6);
  const at = (fields: string[]) => unescaped(fields[4]!);
  const match =
    rows.findLast((fields) => at(fields) === path) ??
    rows.findLast((fields) => fields[2] === device);
  if (match === undefined) return '';
  const source = match[match.indexOf('-') + 2] ?? '';
  return source.startsWith('/') ? unescaped(source) : '';
}

const unescaped = (text: string): string =>
  text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)));

const numbersIn = (text: string): number[] => text.split(':').filter(Boolean).map(Number);

/** '' where there is no such attribute. */
function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch (error) {
    if (isAbsent(error)) return '';
    throw error;
  }
}

function names(path: string): string[] {
  try {
    return readdirSync(path);
  } catch (error) {
    if (isAbsent(error)) return [];
    throw error;
  }
}

function realPathOr(path: string): string {
  try {
    return realpathSync(path);
  } catch (error) {
    if (isAbsent(error)) return path;
    throw error;
  }
}

const isAbsent = (error: unknown): boolean =>
  ['ENOENT', 'ENOTDIR', 'EINVAL', 'ENODEV', 'EACCES', 'EPERM'].includes(errnoOf(error));
