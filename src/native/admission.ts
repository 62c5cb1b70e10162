/**
 * Which volumes the bpf tracker may take: what cannot be tracked soundly is refused by name, with a
 * reason (P1, P6). Decided from sysfs alone, read through a small interface so that tests can show
 * any machine.
 */
import { UnderstudyError } from '../base/errors.ts';
import type { DeviceGeometry, TrackedVolumeOptions } from './types.ts';

export interface Sysfs {
  /** First line of a file below /sys, '' where it is missing. */
  read(path: string): string;
  exists(path: string): boolean;
  list(path: string): string[];
  /** Where the link leads, '' where it is missing. */
  resolve(path: string): string;
}

/** Levels of md that re-aim a bio which was traced already: what was queued would be miscounted. */
const REAIMING_LEVELS = ['linear', 'raid0'];

function holderReason(sysfs: Sysfs, node: string): string | null {
  for (const holder of sysfs.list(`${node}/holders`)) {
    const at = `${node}/holders/${holder}`;
    if (sysfs.read(`${at}/dm/uuid`).startsWith('mpath-')) {
      return `it is a path of the multipath device ${holder}`;
    }
    const level = sysfs.read(`${at}/md/level`);
    if (REAIMING_LEVELS.includes(level))
      return `it carries ${holder}, an md array of level ${level}`;
  }
  return null;
}

/** Why the bpf tracker cannot take this volume; null where it can. */
export function refusalReason(
  volume: { path: string; geometry: Pick<DeviceGeometry, 'kind' | 'diskMajor' | 'diskMinor'> },
  sysfs: Sysfs,
): string | null {
  const { geometry } = volume;
  if (geometry.kind === 'file') return 'it is a regular file';
  const node = `/sys/dev/block/${geometry.diskMajor}:${geometry.diskMinor}`;
  const stacked = sysfs.exists(`${node}/dm`) ? 'device-mapper' : 'md';
  if (sysfs.exists(`${node}/dm`) || sysfs.exists(`${node}/md`)) {
    return `it is a ${stacked} device: replicate the whole disks beneath it`;
  }
  if (sysfs.read(`${node}/hidden`) === '1') return 'it is a hidden path of a multipath device';
  if (sysfs.resolve(node).includes('/nvme-subsystem/')) return 'it is an NVMe multipath device';
  if (!sysfs.exists(`${node}/mq`)) return 'its driver takes bios without making requests of them';
  if (sysfs.read(`${node}/queue/dax`) === '1')
    return 'it can be written past the block layer (DAX)';
  const zoned = sysfs.read(`${node}/queue/zoned`);
  if (zoned !== '' && zoned !== 'none') return `it is a zoned device (${zoned})`;
  return holderReason(sysfs, node);
}

function overlaps(a: TrackedVolumeOptions, b: TrackedVolumeOptions, sysfs: Sysfs): boolean {
  const [x, y] = [a.geometry, b.geometry];
  if (x.kind === 'file' || y.kind === 'file')
    return sysfs.resolve(a.path) === sysfs.resolve(b.path);
  if (x.diskMajor !== y.diskMajor || x.diskMinor !== y.diskMinor) return false;
  return x.startBytes < y.startBytes + y.sizeBytes && y.startBytes < x.startBytes + x.sizeBytes;
}

/** Throws ERR_TRACKER_OVERLAP for a disk with its partition, or the same volume twice. */
export function refuseOverlaps(volumes: readonly TrackedVolumeOptions[], sysfs: Sysfs): void {
  volumes.forEach((volume, index) => {
    for (const other of volumes.slice(0, index)) {
      if (!overlaps(volume, other, sysfs)) continue;
      throw new UnderstudyError(
        'ERR_TRACKER_OVERLAP',
        `${volume.path} and ${other.path} are, in part or whole, the same storage`,
        { volume: volume.path, path: other.path },
      );
    }
  });
}
