/** The disk's contract, over the real disk and over the faulty one; and what the faulty one forgets. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { nodeDisk } from '../../src/base/node-disk.ts';
import { Random } from '../simulation/random.ts';
import { diskSuite } from './support/disk-suite.ts';
import { FaultyDisk, PowerCut } from './support/faulty-disk.ts';

const roots: string[] = [];
afterAll(async () => {
  for (const root of roots) await rm(root, { recursive: true, force: true });
});

diskSuite('real', async () => {
  const root = await mkdtemp(join(tmpdir(), 'understudy-disk-'));
  roots.push(root);
  return { disk: nodeDisk, root };
});
diskSuite('faulty', async () => {
  const disk = new FaultyDisk();
  await disk.makeDirectory('/data');
  return { disk, root: '/data' };
});

describe('the real disk', () => {
  it('says so where no folder can be made, and ends', async () => {
    await expect(nodeDisk.makeDirectory('/proc/understudy/x')).rejects.toMatchObject({
      code: 'ERR_DISK_NOT_FOUND',
    });
  });

  it('takes a folder that two make at once, and no file in its place', async () => {
    const root = await mkdtemp(join(tmpdir(), 'understudy-disk-'));
    roots.push(root);
    await Promise.all([1, 2, 3].map(() => nodeDisk.makeDirectory(join(root, 'a/b'))));
    await (await nodeDisk.open(join(root, 'c'), 'create')).close();
    await expect(nodeDisk.makeDirectory(join(root, 'c/d'))).rejects.toThrow();
  });
});

describe('faulty disk', () => {
  it('keeps what was synced and may forget the rest, contents and names', async () => {
    let forgotten = 0;
    let kept = 0;
    for (let seed = 0; seed < 40; seed += 1) {
      const disk = new FaultyDisk();
      const safe = await disk.open('/safe', 'create');
      await safe.write([Uint8Array.of(1)], 0);
      await safe.sync();
      await disk.syncDirectory('/');
      await safe.write([Uint8Array.of(2)], 0);
      await disk.open('/unsafe', 'create');
      disk.restart(new Random(seed));
      const [value] = await disk.readFile('/safe');
      expect([1, 2]).toContain(value);
      if (value === 1 && !(await disk.exists('/unsafe'))) forgotten += 1;
      if (value === 2 && (await disk.exists('/unsafe'))) kept += 1;
      await expect(safe.size()).rejects.toThrow(PowerCut);
    }
    expect(forgotten).toBeGreaterThan(0);
    expect(kept).toBeGreaterThan(0);
  });

  it('is off from the call on at which the power goes', async () => {
    const disk = new FaultyDisk();
    disk.cutPowerAt(2);
    await disk.makeDirectory('/a');
    await expect(disk.makeDirectory('/b')).rejects.toThrow(PowerCut);
    await expect(disk.exists('/a')).rejects.toThrow(PowerCut);
    disk.restart(new Random(1));
    expect(await disk.exists('/b')).toBe(false);
  });

  it('writes what fits and then is full', async () => {
    const disk = new FaultyDisk();
    disk.capacityBytes = 10;
    const file = await disk.open('/a', 'create');
    await file.write([new Uint8Array(8)], 0);
    await expect(file.write([new Uint8Array(8)], 8)).rejects.toMatchObject({
      code: 'ERR_DISK_FULL',
    });
    expect(await file.size()).toBe(10);
    await file.write([new Uint8Array(4)], 2);
  });
});
