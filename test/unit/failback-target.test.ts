/** Which disks may be overwritten: facts from trees of sysfs and proc, and their judgement. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { checkTarget, refusalOfTarget } from '../../src/recovery/failback/target-check.ts';
import {
  blockFacts,
  type TargetFacts,
  targetFacts,
} from '../../src/recovery/failback/target-facts.ts';

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'understudy-target-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const put = (path: string, text: string) => {
  mkdirSync(dirname(join(folder, path)), { recursive: true });
  writeFileSync(join(folder, path), `${text}\n`);
};

/** sda with sda1 and sda2; nothing uses them. */
function machine() {
  put('sys/devices/sda/size', '2048');
  put('sys/devices/sda/dev', '8:0');
  put('sys/devices/sda/ro', '0');
  put('sys/devices/sda/queue/logical_block_size', '4096');
  for (const part of ['1', '2']) {
    put(`sys/devices/sda/sda${part}/partition`, part);
    put(`sys/devices/sda/sda${part}/dev`, `8:${part}`);
    put(`sys/devices/sda/sda${part}/size`, '1024');
    put(`sys/devices/sda/sda${part}/ro`, '0');
  }
  mkdirSync(join(folder, 'sys/dev/block'), { recursive: true });
  for (const [number, place] of [
    ['8:0', 'sda'],
    ['8:1', 'sda/sda1'],
  ] as const) {
    symlinkSync(join(folder, 'sys/devices', place), join(folder, 'sys/dev/block', number));
  }
  put('proc/1/mountinfo', '1 0 0:2 / /proc rw - proc proc rw');
  put('proc/swaps', 'Filename Type Size');
  return { sys: join(folder, 'sys'), proc: join(folder, 'proc') };
}

describe('what uses a disk', () => {
  it('is nothing, where nothing does', () => {
    const folders = machine();
    const facts = { sizeBytes: 2 ** 20, sectorBytes: 4096, isReadOnly: false, uses: [] };
    expect(blockFacts('8:0', folders)).toEqual(facts);
    expect(blockFacts('8:1', folders)).toEqual({ ...facts, sizeBytes: 2 ** 19 });
  });

  it('is told of the disk and of all its partitions', () => {
    const folders = machine();
    put('proc/1/mountinfo', '1 0 8:1 / /a\\040b rw - ext4 /dev/sda1 rw');
    put('sys/devices/sda/sda2/holders/dm-0', '');
    put('sys/fs/btrfs/5f/devices/sda2', '');
    put('sys/devices/sda/ro', '1');
    const { uses, isReadOnly } = blockFacts('8:0', folders);
    expect(isReadOnly).toBe(true);
    expect(uses).toEqual([
      'sda1 is mounted on /a b',
      'sda2 is part of the btrfs 5f',
      'sda2 is part of dm-0',
    ]);
  });

  it('is what holds the whole disk, too, for a partition of it', () => {
    const folders = machine();
    put('sys/devices/sda/holders/md0', '');
    expect(blockFacts('8:1', folders).uses).toEqual(['sda is part of md0']);
  });

  it('is a loop device, of a file', () => {
    const folders = machine();
    put('disk.raw', 'x');
    const path = join(folder, 'disk.raw');
    expect(targetFacts(path, folders)).toMatchObject({ kind: 'file', sizeBytes: 2, uses: [] });
    put('sys/block/loop7/loop/backing_file', path);
    expect(targetFacts(path, folders).uses).toEqual(['it is the file behind /dev/loop7']);
    expect(targetFacts(folder, folders).kind).toBe('other');
    expect(targetFacts(join(folder, 'no'), folders).kind).toBe('missing');
  });
});

const facts: TargetFacts = {
  ...{ path: '/dev/sdx', realPath: '/dev/sdx', kind: 'block', sizeBytes: 1000, sectorBytes: 512 },
  ...{ isReadOnly: false, uses: [] },
};
const wanted = { volume: 'root', sizeBytes: 1000, sectorBytes: 512 };

describe('a target', () => {
  it('may be of the same size, larger, or a file', () => {
    for (const change of [{}, { sizeBytes: 1001 }, { kind: 'file', sectorBytes: 0 } as const]) {
      expect(() => checkTarget({ ...facts, ...change }, wanted, ['/dev/other'])).not.toThrow();
    }
  });

  it.each([
    [{ kind: 'missing' } as const, /no such disk/],
    [{ kind: 'other' } as const, /neither/],
    [{ uses: ['sdx1 is mounted on /', 'sdx2 is swap'] }, /in use: sdx1 is mounted on .*swap/],
    [{ isReadOnly: true }, /read-only/],
    [{ sizeBytes: 999 }, /too small for root.*999 of 1000 bytes/],
    [{ sectorBytes: 4096 }, /sectors have 4096/],
  ])('is refused with %j', (change, why) => {
    expect(refusalOfTarget({ ...facts, ...change }, wanted, [])).toMatch(why);
    expect(() => checkTarget({ ...facts, ...change }, wanted, [])).toThrow(why);
  });

  it('is refused while an agent replicates it', () => {
    expect(refusalOfTarget(facts, wanted, ['/dev/sdx'])).toMatch(/agent/);
  });
});
