/** What a volume is called, and the disk of the root file system found in trees of sysfs. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { nameVolumes, rootDiskOf, splitVolume } from '../../src/agent/volume-names.ts';

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'understudy-names-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

describe('a volume', () => {
  const nothing = () => false;

  it('is called as its path, or as it is told', () => {
    expect(splitVolume('/dev/vda', nothing)).toEqual({ name: '/dev/vda', path: '/dev/vda' });
    expect(splitVolume('root=/dev/vda', nothing)).toEqual({ name: 'root', path: '/dev/vda' });
    const moved = { name: '/dev/vda', path: '/dev/nvme0n1' };
    expect(splitVolume('/dev/vda=/dev/nvme0n1', nothing)).toEqual(moved);
    const strange = '/dev/disk/by-id/a=b';
    expect(splitVolume(strange, () => true)).toEqual({ name: strange, path: strange });
  });

  it('is refused without a name or a path, and where two share a name', () => {
    for (const text of ['=/dev/vda', 'root=', `${'x'.repeat(256)}=/dev/vda`]) {
      expect(() => splitVolume(text, nothing), text).toThrow(/--volume/);
    }
    expect(() => nameVolumes(['a=/dev/x', 'a=/dev/y'])).toThrow('two volumes are called a');
  });

  it('may be the disk of the root file system', () => {
    const root = { name: 'root', path: '/dev/nvme0n1' };
    expect(nameVolumes(['root=root-disk'], () => root.path)).toEqual([root]);
  });
});

/** sysfs of sda (sda1, sda2), nvme0n1 (p1), dm-0 on sda2, dm-1 on sda1 and nvme0n1p1. */
function machine(root: string) {
  const sys = join(folder, 'sys');
  const add = (number: string, place: string, slaves: readonly string[] = []) => {
    const node = join(sys, 'devices', place);
    mkdirSync(join(node, 'slaves'), { recursive: true });
    const isPartition = /\/.*\/.*\d$/.test(place) && place.split('/').length === 3;
    if (isPartition) writeFileSync(join(node, 'partition'), '1\n');
    for (const slave of slaves) {
      symlinkSync(join(sys, 'devices', slave), join(node, 'slaves', slave.split('/').at(-1)!));
    }
    const link = join(sys, 'dev/block', number);
    mkdirSync(dirname(link), { recursive: true });
    symlinkSync(node, link);
  };
  add('8:0', 'pci/sda');
  add('8:1', 'pci/sda/sda1');
  add('8:2', 'pci/sda/sda2');
  add('259:0', 'pci/nvme0n1');
  add('259:1', 'pci/nvme0n1/nvme0n1p1');
  add('253:0', 'virtual/dm-0', ['pci/sda/sda2']);
  add('253:1', 'virtual/dm-1', ['pci/sda/sda1', 'pci/nvme0n1/nvme0n1p1']);
  const mountinfo = join(folder, 'mountinfo');
  writeFileSync(mountinfo, `1 0 0:2 / /proc rw - proc proc rw\n2 1 ${root} / / rw - ext4 /x rw\n`);
  return { sys, mountinfo };
}

describe('the disk of the root file system', () => {
  it.each([
    ['a partition', '8:1', '/dev/sda'],
    ['a whole disk', '259:0', '/dev/nvme0n1'],
    ['a logical volume', '253:0', '/dev/sda'],
  ])('is found beneath %s', (_what, number, disk) => {
    expect(rootDiskOf(machine(number))).toBe(disk);
  });

  it('must be one, and be there', () => {
    expect(() => rootDiskOf(machine('253:1'))).toThrow(/on several disks: nvme0n1, sda/);
    rmSync(join(folder, 'sys'), { recursive: true });
    expect(() => rootDiskOf(machine('0:25'))).toThrow(/on no disk/);
  });
});
