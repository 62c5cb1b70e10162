/** What every `Disk` must do: run over the real one and over the faulty one. */
import { describe, expect, it } from 'vitest';
import type { Disk } from '../../../src/base/disk.ts';
import { UnderstudyError } from '../../../src/base/errors.ts';

const code = (run: Promise<unknown>): Promise<string> =>
  run.then(
    () => 'none',
    (error: unknown) => (error instanceof UnderstudyError ? error.code : String(error)),
  );

export function diskSuite(name: string, make: () => Promise<{ disk: Disk; root: string }>): void {
  describe(`disk: ${name}`, () => {
    it('writes several buffers back to back and reads them at any offset', async () => {
      const { disk, root } = await make();
      const file = await disk.open(`${root}/a`, 'create');
      const many = Array.from({ length: 3000 }, (_, i) => Uint8Array.of(i & 255, i >> 8));
      await file.write(many, 5);
      await file.sync();
      expect(await file.size()).toBe(6005);
      const read = new Uint8Array(10);
      expect(await file.read(read, 5 + 2 * 700)).toBe(10);
      expect([...read.subarray(0, 4)]).toEqual([700 & 255, 700 >> 8, 701 & 255, 701 >> 8]);
      expect(await file.read(read, 6000)).toBe(5);
      expect(await file.read(read, 7000)).toBe(0);
      expect([...(await disk.readFile(`${root}/a`)).subarray(0, 5)]).toEqual([0, 0, 0, 0, 0]);
      await file.truncate(100);
      expect(await file.size()).toBe(100);
      await file.truncate(200);
      expect([...(await disk.readFile(`${root}/a`)).subarray(100)]).toEqual(Array(100).fill(0));
      await file.close();
    });

    it('says by code what is missing, taken or not allowed', async () => {
      const { disk, root } = await make();
      expect(await code(disk.open(`${root}/a`, 'read'))).toBe('ERR_DISK_NOT_FOUND');
      expect(await code(disk.open(`${root}/no/a`, 'create'))).toBe('ERR_DISK_NOT_FOUND');
      expect(await code(disk.readFile(`${root}/a`))).toBe('ERR_DISK_NOT_FOUND');
      expect(await code(disk.remove(`${root}/a`))).toBe('ERR_DISK_NOT_FOUND');
      expect(await code(disk.rename(`${root}/a`, `${root}/b`))).toBe('ERR_DISK_NOT_FOUND');
      await (await disk.open(`${root}/a`, 'create')).close();
      expect(await code(disk.open(`${root}/a`, 'create'))).toBe('ERR_DISK_EXISTS');
      await (await disk.open(`${root}/b`, 'write')).close();
      expect(await code(disk.link(`${root}/a`, `${root}/b`))).toBe('ERR_DISK_EXISTS');
      const reader = await disk.open(`${root}/a`, 'read');
      expect(await code(reader.write([Uint8Array.of(1)], 0))).not.toBe('none');
      await reader.close();
    });

    it('links, renames over what is there, and keeps bytes while a handle or a name is left', async () => {
      const { disk, root } = await make();
      const file = await disk.open(`${root}/a`, 'create');
      await file.write([Uint8Array.of(1, 2, 3)], 0);
      await disk.makeDirectory(`${root}/x/y/z`);
      await disk.link(`${root}/a`, `${root}/x/y/b`);
      await disk.remove(`${root}/a`);
      expect(await disk.exists(`${root}/a`)).toBe(false);
      await file.write([Uint8Array.of(4)], 3);
      expect([...(await disk.readFile(`${root}/x/y/b`))]).toEqual([1, 2, 3, 4]);
      await (await disk.open(`${root}/c`, 'create')).close();
      await disk.rename(`${root}/x/y/b`, `${root}/c`);
      expect([...(await disk.readFile(`${root}/c`))]).toEqual([1, 2, 3, 4]);
      await disk.syncDirectory(root);
      await file.close();
    });

    it('lists names in order, tells folders, and takes a missing folder for an empty one', async () => {
      const { disk, root } = await make();
      await disk.makeDirectory(`${root}/b`);
      await disk.makeDirectory(`${root}/b`);
      for (const name of ['c', 'a']) await (await disk.open(`${root}/${name}`, 'create')).close();
      expect(await disk.list(root)).toEqual([
        { name: 'a', isDirectory: false },
        { name: 'b', isDirectory: true },
        { name: 'c', isDirectory: false },
      ]);
      expect(await disk.list(`${root}/none`)).toEqual([]);
      expect(await disk.exists(`${root}/b`)).toBe(true);
    });
  });
}
