/** What the doctor reads of images: names in an initramfs of any packing, types in a partition table. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { compareReleases } from '../../src/agent/doctor/gather-kernels.ts';
import { listInitramfs } from '../../src/agent/doctor/initramfs.ts';
import fc from './support/properties.ts';
import { cpioOf, imageOf } from './support/recorded-machine.ts';

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'understudy-initramfs-'));
  path = join(folder, 'initrd.img');
});
afterEach(() => rmSync(folder, { recursive: true }));

const names = Array.from({ length: 300 }, (_, i) => `usr/lib/modules/6.1/kernel/m${i}.ko`);
const early = ['kernel/x86/microcode/GenuineIntel.bin'];
const list = (bytes: Buffer): Promise<string[]> => {
  writeFileSync(path, bytes);
  return listInitramfs(path);
};

describe('listInitramfs', () => {
  it.each(['none', 'gzip', 'zstd'] as const)(
    'reads %s, behind microcode and alone',
    async (packed) => {
      expect(await list(imageOf({ packed, names }))).toEqual(names);
      expect(await list(imageOf({ packed, early, names }))).toEqual([...early, ...names]);
    },
  );

  it.each(['xz', 'lz4', 'bzip2'])('reads %s by its program', async (program) => {
    const packed = execFileSync(program, ['-c'], { input: cpioOf(names) });
    expect(await list(Buffer.concat([cpioOf(early), packed]))).toEqual([...early, ...names]);
  });

  it('reads what GNU cpio and a large content make of it', async () => {
    const large = cpioOf(['a', 'b'], Buffer.alloc(700_001, 7));
    expect(await list(gzipSync(Buffer.concat([large, cpioOf(['c'])])))).toEqual(['a', 'b', 'c']);
  });

  it.each<[string, Buffer]>([
    ['an empty file', Buffer.alloc(0)],
    ['no archive', Buffer.from('#!/bin/sh\nexit 0\n'.repeat(50))],
    ['an archive cut short', cpioOf(names).subarray(0, 5000)],
    ['packed bytes cut short', imageOf({ packed: 'zstd', names, cutBytes: 30 })],
    ['packed bytes that are no archive', gzipSync(Buffer.alloc(5000, 3))],
    ['microcode and then nothing of sense', Buffer.concat([cpioOf(early), Buffer.alloc(600, 9)])],
    [
      'an xz that is damaged',
      Buffer.concat([Buffer.from('fd377a585a00', 'hex'), Buffer.alloc(500)]),
    ],
  ])('says so of %s', async (_name, bytes) => {
    await expect(list(bytes)).rejects.toThrow();
  });

  it('does not mind what lies behind the end', async () => {
    const image = Buffer.concat([imageOf({ packed: 'gzip', names }), Buffer.alloc(4096)]);
    expect(await list(image)).toEqual(names);
  });

  it('ends for any bytes', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 400 }), fc.boolean(), async (bytes, isPacked) => {
        const own = Buffer.concat([Buffer.from(isPacked ? '' : '070701'), bytes]);
        await list(isPacked ? gzipSync(own) : own).catch((error: unknown) => {
          expect(error).toBeInstanceOf(Error);
        });
      }),
      { numRuns: 200 },
    );
  });
});

describe('releases of kernels', () => {
  it('sort by their numbers', () => {
    const sorted = ['5.4.0-9-x', '5.4.0-26-x', '5.14.0-1.el9', '6.1.0-9-a', '6.1.0-56-a'];
    expect(sorted.toReversed().sort(compareReleases)).toEqual(sorted);
  });
});
