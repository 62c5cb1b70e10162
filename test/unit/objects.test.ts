/** The contract of object stores over directories and memory; `test/system/s3.test.ts` has buckets. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import type { Disk } from '../../src/base/disk.ts';
import { nodeDisk } from '../../src/base/node-disk.ts';
import { DirectoryObjects } from '../../src/store/objects/directory-objects.ts';
import { sourceOf } from '../../src/store/objects/object-store.ts';
import { Random } from '../simulation/random.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { MemoryObjects } from './support/memory-objects.ts';
import { objectsSuite } from './support/objects-suite.ts';

const roots: string[] = [];
afterAll(async () => {
  for (const root of roots) await rm(root, { recursive: true, force: true });
});

let files = 0;
const unique = (): string => {
  files += 1;
  return String(files);
};
const over = (disk: Disk, root: string) => new DirectoryObjects(disk, root, unique);

objectsSuite('directory', async () => {
  const root = await mkdtemp(join(tmpdir(), 'understudy-objects-'));
  roots.push(root);
  return { objects: over(nodeDisk, root), other: over(nodeDisk, root) };
});
objectsSuite('directory on a faulty disk', async () => {
  const disk = new FaultyDisk();
  await disk.makeDirectory('/objects');
  return { objects: over(disk.mount(), '/objects'), other: over(disk.mount(), '/objects') };
});
objectsSuite('memory', async () => {
  const objects = new MemoryObjects();
  return { objects, other: objects };
});

describe('objects in a directory', () => {
  it('are there whole or not at all after a power cut at any call', async () => {
    const bytes = Uint8Array.from({ length: 5000 }, (_, i) => i & 255);
    let stored = 0;
    for (let call = 1; call < 40; call += 1) {
      const disk = new FaultyDisk();
      disk.cutPowerAt(call);
      const put = over(disk.mount(), '/objects').put('a/b', sourceOf(bytes));
      const isStored = await put.then(
        (result) => result === 'stored',
        () => false,
      );
      disk.restart(new Random(call));
      const after = over(disk.mount(), '/objects');
      const size = await after.bytes('a/b');
      if (isStored) stored += 1;
      if (isStored) expect(size).toBe(5000);
      if (size === null) continue;
      expect(Buffer.compare(await after.read('a/b', 0, 6000), bytes)).toBe(0);
    }
    expect(stored).toBeGreaterThan(0);
  });

  it('clean takes what a killed put has left, and nothing else', async () => {
    const disk = new FaultyDisk();
    const objects = over(disk.mount(), '/objects');
    await objects.put('a', sourceOf(Uint8Array.of(1)));
    await (await disk.open('/objects/.temporary/9', 'create')).close();
    expect(await objects.clean()).toBe(1);
    expect(disk.files('/objects')).toEqual(['/objects/a']);
  });
});
