/** A small file that is rewritten whole, also where two want that at the same instant. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { Disk } from '../../src/base/disk.ts';
import { UnderstudyError } from '../../src/base/errors.ts';
import { nodeDisk } from '../../src/base/node-disk.ts';
import { replaceFile } from '../../src/base/replace-file.ts';

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'understudy-replace-'));
  path = join(folder, 'file');
});
afterEach(() => rmSync(folder, { recursive: true }));

it('is what the last of several wrote, each of which was told that it is durable', async () => {
  const texts = Array.from({ length: 20 }, (_, n) => `${n}`.repeat(1 + ((n * 7) % 20) * 1000));
  await Promise.all(texts.map((text) => replaceFile(nodeDisk, path, [Buffer.from(text)])));
  expect(readFileSync(path, 'utf8')).toBe(texts.at(-1));
  expect(readdirSync(folder)).toEqual(['file']);
});

it('is written by those behind one that fails, and that one is told', async () => {
  let syncs = 0;
  const disk: Disk = {
    ...nodeDisk,
    async open(at, mode) {
      const file = await nodeDisk.open(at, mode);
      const sync = file.sync.bind(file);
      file.sync = async () => {
        syncs += 1;
        if (syncs === 2) throw new UnderstudyError('ERR_DISK_FULL', 'no room');
        await sync();
      };
      return file;
    },
  };
  const write = (text: string) => replaceFile(disk, path, [Buffer.from(text)]);
  const all = await Promise.allSettled(['one', 'two', 'three'].map(write));
  expect(all.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
  expect(readFileSync(path, 'utf8')).toBe('three');
});
