// What the tracker decides in TypeScript: admission, granularity, whether a history is unbroken;
// and that its tables equal those of the C headers.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { RawHeader } from '../../src/native/addon.ts';
import { refusalReason, refuseOverlaps, type Sysfs } from '../../src/native/admission.ts';
import { taintText } from '../../src/native/engine.ts';
import { granularityFor, lostHistoryReason, pinDirectoryOf } from '../../src/native/tracker.ts';
import type { DeviceGeometry } from '../../src/native/types.ts';
import { omissions } from '../tools/replica.ts';

const GIB = 1024 ** 3;
const disk: DeviceGeometry = {
  sizeBytes: 10 * GIB,
  sectorBytes: 512,
  kind: 'disk',
  diskMajor: 8,
  diskMinor: 0,
  startBytes: 0,
  diskSequence: 5,
};
const partition: DeviceGeometry = {
  ...disk,
  kind: 'partition',
  startBytes: GIB,
  sizeBytes: 2 * GIB,
};
const node = '/sys/dev/block/8:0';

/** A machine of the given files; a path with something below it exists too. */
function machine(files: Record<string, string>, links: Record<string, string> = {}): Sysfs {
  const all: Record<string, string> = { [`${node}/mq/0`]: '', ...files };
  const below = (path: string) => Object.keys(all).filter((name) => name.startsWith(`${path}/`));
  return {
    read: (path) => all[path] ?? '',
    exists: (path) => path in all || below(path).length > 0,
    list: (path) => [
      ...new Set(below(path).map((name) => name.slice(path.length + 1).split('/')[0]!)),
    ],
    resolve: (path) => links[path] ?? path,
  };
}

const reasonFor = (files: Record<string, string>, links?: Record<string, string>) =>
  refusalReason({ path: '/dev/sda', geometry: disk }, machine(files, links));

describe('admission', () => {
  it('takes disks and partitions whose driver makes requests', () => {
    expect(reasonFor({})).toBeNull();
    expect(refusalReason({ path: '/dev/sda1', geometry: partition }, machine({}))).toBeNull();
    expect(reasonFor({ [`${node}/queue/zoned`]: 'none', [`${node}/queue/dax`]: '0' })).toBeNull();
    expect(reasonFor({ [`${node}/holders/dm-0/dm/uuid`]: 'LVM-abc' })).toBeNull();
    expect(reasonFor({ [`${node}/holders/md0/md/level`]: 'raid1' })).toBeNull();
  });

  it.each([
    ['device-mapper', { [`${node}/dm/name`]: 'x' }],
    ['md device', { [`${node}/md/level`]: 'raid1' }],
    ['hidden path', { [`${node}/hidden`]: '1' }],
    ['DAX', { [`${node}/queue/dax`]: '1' }],
    ['zoned', { [`${node}/queue/zoned`]: 'host-managed' }],
    ['multipath device dm-3', { [`${node}/holders/dm-3/dm/uuid`]: 'mpath-3600' }],
    ['level raid0', { [`${node}/holders/md0/md/level`]: 'raid0' }],
    ['level linear', { [`${node}/holders/md0/md/level`]: 'linear' }],
  ])('refuses by name: %s', (reason, files) => {
    expect(reasonFor(files)).toContain(reason);
  });

  it('refuses bio-based drivers, NVMe multipath heads, and files', () => {
    const without = { ...machine({}), exists: () => false };
    expect(refusalReason({ path: '/dev/zram0', geometry: disk }, without)).toContain('requests');
    const head = '/sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1';
    expect(reasonFor({}, { [node]: head })).toContain('NVMe multipath');
    const file = { path: '/x', geometry: { ...disk, kind: 'file' as const } };
    expect(refusalReason(file, machine({}))).toContain('regular file');
  });

  it('refuses a disk with its partition, and the same volume twice', () => {
    const whole = { path: '/dev/sda', geometry: disk };
    const part = { path: '/dev/sda1', geometry: partition };
    const next = { path: '/dev/sda2', geometry: { ...partition, startBytes: 3 * GIB } };
    const other = { path: '/dev/sdb', geometry: { ...disk, diskMinor: 16 } };
    const file = { path: '/x', geometry: { ...disk, kind: 'file' as const } };
    const link = { path: '/y', geometry: { ...disk, kind: 'file' as const } };
    const sysfs = machine({}, { '/y': '/x' });
    expect(() => refuseOverlaps([part, next, other, file], sysfs)).not.toThrow();
    for (const pair of [
      [whole, part],
      [part, whole],
      [part, part],
      [file, link],
    ]) {
      expect(() => refuseOverlaps(pair, sysfs)).toThrow(
        expect.objectContaining({ code: 'ERR_TRACKER_OVERLAP' }),
      );
    }
  });
});

describe('granularity', () => {
  it('is as fine as the budget allows', () => {
    const gibInPlanes = (GIB / 4096 / 8) * 6;
    expect(granularityFor([GIB], gibInPlanes)).toBe(4096);
    expect(granularityFor([GIB], gibInPlanes - 1)).toBe(8192);
    expect(granularityFor([GIB, 15 * GIB], gibInPlanes)).toBe(65536);
    expect(() => granularityFor([17 * GIB], gibInPlanes)).toThrow(
      expect.objectContaining({ code: 'ERR_TRACKER_MEMORY' }),
    );
  });
});

describe('history', () => {
  const header: RawHeader = {
    generation: 'a',
    bootId: 'boot',
    granularityBytes: 4096,
    startBytes: disk.startBytes,
    sizeBytes: disk.sizeBytes,
    diskMajor: disk.diskMajor,
    diskMinor: disk.diskMinor,
    diskSequence: disk.diskSequence,
    committedEpoch: 3,
    synced: true,
    taint: 0,
  };
  it.each<[string, Partial<RawHeader>]>([
    ['', {}],
    ['reboot', { bootId: 'other' }],
    ['device-replaced', { diskSequence: 6 }],
    ['device-replaced', { diskMinor: 16 }],
    ['moved', { startBytes: 512 }],
    ['resized', { sizeBytes: 512 }],
    ['tainted', { taint: 2 }],
  ])('is lost, or not: "%s"', (reason, changed) => {
    expect(lostHistoryReason({ ...header, ...changed }, disk, 'boot')).toBe(reason);
  });
});

describe('tables that must agree with C', () => {
  const enumOf = (file: string, name: string): Record<string, number> => {
    const text = readFileSync(join(import.meta.dirname, '../../native/tracker', file), 'utf8');
    const body = new RegExp(`enum ${name} \\{([^}]*)\\}`).exec(text)![1]!;
    const entries = [...body.matchAll(/([A-Z_]+) = (\d+)/g)];
    return Object.fromEntries(entries.map((entry) => [entry[1]!, Number(entry[2])]));
  };

  it('every taint has its word', () => {
    const bits = Object.values(enumOf('layout.h', 'taint_bit'));
    expect(bits.length).toBeGreaterThan(5);
    const words = bits.map(taintText);
    expect(new Set(words).size).toBe(bits.length);
    expect(words).not.toContain('');
    expect(taintText(bits[0]! | bits[1]!)).toBe(`${words[0]}, ${words[1]}`);
  });

  it('every omission has its name', () => {
    const fromHeader = Object.values(enumOf('test_knobs.h', 'omission'));
    expect(fromHeader).toEqual(Object.values(omissions));
  });
});

it('pins of agents with odd names are kept apart, in names that bpffs takes', () => {
  expect(pinDirectoryOf('web-1')).toBe('/sys/fs/bpf/understudy/web-1');
  expect(pinDirectoryOf('web.1')).toMatch(/\/[0-9a-f]{32}$/);
  expect(pinDirectoryOf('web.1')).not.toBe(pinDirectoryOf('web_1'));
});
