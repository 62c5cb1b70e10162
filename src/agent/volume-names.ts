/**
 * What the operator calls a volume and where it is. A volume keeps its name over the life of a server,
 * recovery points know it by that; its path changes when the machine moves to another bus (vda, then
 * nvme0n1). So a volume is given as PATH, whose name is the path itself, or as NAME=PATH. The path
 * `root-disk` stands for the whole disk that holds the root file system, whatever it is called here.
 */
import { existsSync, readdirSync, readFileSync, realpathSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { UnderstudyError } from '../base/errors.ts';
import type { SystemPaths } from './volume-facts.ts';

export interface NamedVolume {
  /** In recovery points. */
  readonly name: string;
  /** Here and now. */
  readonly path: string;
}

export const ROOT_DISK = 'root-disk';
/** As on the wire (MAX_VOLUME_ID_BYTES). */
const MAX_NAME_BYTES = 255;

const usage = (message: string): UnderstudyError => new UnderstudyError('ERR_USAGE', message);

/** Splits "PATH" or "NAME=PATH"; what exists as it stands is a path. Pure but for `exists`. */
export function splitVolume(text: string, exists: (path: string) => boolean): NamedVolume {
  const at = text.indexOf('=');
  if (at < 0 || exists(text)) return { name: text, path: text };
  const [name, path] = [text.slice(0, at), text.slice(at + 1)];
  if (name === '' || path === '') throw usage(`--volume: "${text}" is not PATH or NAME=PATH`);
  if (Buffer.byteLength(name) > MAX_NAME_BYTES) throw usage(`--volume: the name is too long`);
  return { name, path };
}

/** ERR_USAGE, ERR_DEVICE_NOT_VOLUME where the disk of the root file system cannot be told. */
export function nameVolumes(texts: readonly string[], rootDisk = rootDiskOf): NamedVolume[] {
  const volumes = texts.map((text) => {
    const { name, path } = splitVolume(text, existsSync);
    return path === ROOT_DISK && !existsSync(path) ? { name, path: rootDisk() } : { name, path };
  });
  const twice = volumes.find(({ name }, i) => volumes.findIndex((v) => v.name === name) !== i);
  if (twice !== undefined) throw usage(`--volume: two volumes are called ${twice.name}`);
  return volumes;
}

const realSystem: SystemPaths = { sys: '/sys', mountinfo: '/proc/self/mountinfo' };

/** Path of the one whole disk beneath the root file system. ERR_DEVICE_NOT_VOLUME. */
export function rootDiskOf(system = realSystem): string {
  const disks = new Set(disksBeneath(join(system.sys, 'dev/block', rootNumber(system))));
  const [disk, ...others] = [...disks].sort();
  if (disk !== undefined && others.length === 0) return `/dev/${disk.replaceAll('!', '/')}`;
  const what =
    disk === undefined ? 'on no disk' : `on several disks: ${[...disks].sort().join(', ')}`;
  const message = `the root file system is ${what}; name each one: --volume NAME=/dev/...`;
  throw new UnderstudyError('ERR_DEVICE_NOT_VOLUME', message);
}

/** "8:1"; of file systems that have no device of their own (btrfs), that of the source. */
function rootNumber({ mountinfo }: SystemPaths): string {
  const rows = readFileSync(mountinfo, 'utf8').split('\n');
  const fields = rows.map((row) => row.split(' ')).findLast((row) => row[4] === '/') ?? [];
  const number = fields[2] ?? '0:0';
  const source = fields[fields.indexOf('-') + 2] ?? '';
  if (!number.startsWith('0:') || !source.startsWith('/dev/') || !existsSync(source)) return number;
  const { rdev } = statSync(source);
  return `${Math.floor(rdev / 256) % 4096}:${(rdev % 256) + Math.floor(rdev / 2 ** 20) * 256}`;
}

/** Kernel names of the whole disks that a device of sysfs lies on. */
function disksBeneath(node: string): string[] {
  if (!existsSync(node)) return [];
  const folder = realpathSync(node);
  const slaves = existsSync(join(folder, 'slaves')) ? readdirSync(join(folder, 'slaves')) : [];
  if (slaves.length > 0)
    return slaves.flatMap((name) => disksBeneath(join(folder, 'slaves', name)));
  const isPartition = existsSync(join(folder, 'partition'));
  return [basename(isPartition ? dirname(folder) : folder)];
}
