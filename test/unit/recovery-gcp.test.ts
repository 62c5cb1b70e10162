/** Disks for Google Compute Engine: what GNU tar unpacks is the image; damage on any way is found. */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { nodeDisk } from '../../src/base/node-disk.ts';
import { GIB, MIB } from '../../src/base/units.ts';
import { exportGcp, gcpSizeOf } from '../../src/recovery/gcp.ts';
import type { ImageSource } from '../../src/recovery/pages.ts';
import {
  decodeSparseHead,
  encodeSparseHead,
  endOfArchive,
  type SparseFile,
} from '../../src/recovery/sparse-tar.ts';
import { digestOf, isZeroFilled } from '../../src/store/images/image-digests.ts';
import fc from './support/properties.ts';

let folder: string;
let out: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'understudy-gcp-'));
  out = join(folder, 'disk.tar.gz');
});
afterEach(() => rmSync(folder, { recursive: true }));

/** An image of `sizeBytes` that is zero but for these pieces of a MiB (the last may be shorter). */
function sourceOf(sizeBytes: number, contents: ReadonlyMap<number, Buffer>): ImageSource {
  const pieces = [...contents].map(([index, bytes]) => ({
    offset: index * MIB,
    length: bytes.length,
    digest: digestOf(bytes),
  }));
  const perPage = 3;
  return {
    sizeBytes,
    async digests(offset) {
      const left = pieces.filter((piece) => piece.offset >= offset);
      const page = left.slice(0, perPage);
      return { pieces: page, next: left.length > perPage ? left[perPage]!.offset : null };
    },
    async read(offset, length) {
      const bytes = Buffer.alloc(length);
      for (const { offset: at, length: own } of pieces) {
        if (at < offset || at + own > offset + length) continue;
        contents.get(at / MIB)!.copy(bytes, at - offset);
      }
      return bytes;
    },
  };
}

const write = (source: ImageSource, over: Partial<Parameters<typeof exportGcp>[1]> = {}) =>
  exportGcp(source, {
    disk: nodeDisk,
    out,
    stop: new AbortController().signal,
    onProgress: () => undefined,
    timeMs: Date.UTC(2026, 0, 2),
    ...over,
  });

function readAt(path: string, offset: number, length: number): Buffer {
  const fd = openSync(path, 'r');
  const bytes = Buffer.alloc(length);
  readSync(fd, bytes, 0, length, offset);
  closeSync(fd);
  return bytes;
}

/** GNU tar's opinion: unpacked, of the size, equal where there is data and holes elsewhere. */
function expectUnpacks(sizeBytes: number, contents: ReadonlyMap<number, Buffer>): void {
  const listed = execFileSync('tar', ['-tvzf', out], { encoding: 'utf8' });
  expect(listed.trim().split('\n')).toHaveLength(1);
  execFileSync('tar', ['-xSzf', out, '-C', folder]);
  const raw = join(folder, 'disk.raw');
  const { size, blocks } = statSync(raw);
  expect(size).toBe(gcpSizeOf(sizeBytes));
  expect(blocks * 512).toBeLessThanOrEqual(contents.size * MIB + 2 * MIB);
  for (const [index, bytes] of contents) {
    expect(readAt(raw, index * MIB, bytes.length).equals(bytes)).toBe(true);
    const after = contents.has(index + 1)
      ? Buffer.alloc(0)
      : readAt(raw, index * MIB + bytes.length, 600);
    expect(isZeroFilled(after)).toBe(true);
  }
}

describe('exportGcp', () => {
  it('makes a whole GiB of any size, with data to the last sector', async () => {
    const sizeBytes = 7 * MIB + 1536;
    const contents = new Map([
      [0, randomBytes(MIB)],
      [1, randomBytes(MIB)],
      [5, randomBytes(MIB)],
      [7, randomBytes(1536)],
    ]);
    const report = await write(sourceOf(sizeBytes, contents));
    expectUnpacks(sizeBytes, contents);
    expect(report).toMatchObject({ sizeBytes, diskBytes: GIB, dataBytes: 3 * MIB + 1536 });
  });

  it('fills up the last block where the volume does not end on one', async () => {
    const contents = new Map([[2, randomBytes(700)]]);
    await write(sourceOf(2 * MIB + 700, contents));
    expectUnpacks(2 * MIB + 700, contents);
  });

  it('tells more runs than fit into one head and one block, beyond 8 GiB', async () => {
    const sizeBytes = 9 * GIB;
    const places = [...Array.from({ length: 40 }, (_, i) => 3 * i), 8500, 9 * 1024 - 1];
    const contents = new Map(places.map((index) => [index, Buffer.alloc(MIB, index % 255 || 1)]));
    const report = await write(sourceOf(sizeBytes, contents));
    expectUnpacks(sizeBytes, contents);
    expect(report.diskBytes).toBe(sizeBytes);
    expect(statSync(out).size).toBeLessThan(MIB);
  });

  it('makes an empty disk of an image of zeros', async () => {
    await write(sourceOf(3 * MIB, new Map()));
    expectUnpacks(3 * MIB, new Map());
  });

  it('refuses what arrived wrong', async () => {
    const source = sourceOf(4 * MIB, new Map([[1, randomBytes(MIB)]]));
    const wrong = { ...source, read: async (_: number, length: number) => Buffer.alloc(length, 1) };
    await expect(write(wrong)).rejects.toMatchObject({ code: 'ERR_EXPORT_MISMATCH' });
  });

  it('refuses a source that tells another image while it is read', async () => {
    const contents = new Map([[1, randomBytes(MIB)]]);
    const source = sourceOf(4 * MIB, contents);
    let calls = 0;
    const digests: ImageSource['digests'] = async (offset) =>
      (calls++ === 0 ? sourceOf(4 * MIB, new Map()) : source).digests(offset);
    await expect(write({ ...source, digests })).rejects.toMatchObject({
      code: 'ERR_EXPORT_MISMATCH',
    });
  });

  /** Changes what was written after its sync, before it is read back. */
  const spoiledBy = (spoil: (path: string) => void) => ({
    ...nodeDisk,
    open: async (path: string, mode: 'read' | 'create' | 'write') => {
      const file = await nodeDisk.open(path, mode);
      const close = file.close.bind(file);
      file.close = async () => {
        await close();
        spoil(path);
      };
      return file;
    },
  });
  const repacked = (change: (tar: Buffer) => Buffer) => (path: string) =>
    writeFileSync(path, gzipSync(change(gunzipSync(readFileSync(path)))));

  it.each<[string, (path: string) => void]>([
    [
      'a flipped bit in the compressed bytes',
      (path) => {
        const fd = openSync(path, 'r+');
        writeSync(fd, 'rot', 70_000);
        closeSync(fd);
      },
    ],
    ['an end that is missing', (path) => writeFileSync(path, readFileSync(path).subarray(0, -9))],
    [
      'another byte in the data',
      repacked((tar) => {
        tar[512 + 5000]! ^= 1;
        return tar;
      }),
    ],
    [
      'another byte in the head',
      repacked((tar) => {
        tar[3]! ^= 1;
        return tar;
      }),
    ],
    [
      'something behind the end',
      repacked((tar) => {
        tar[tar.length - 1] = 1;
        return tar;
      }),
    ],
    ['no end of the archive', repacked((tar) => tar.subarray(0, 512 + MIB + 512))],
    ['an archive cut short', repacked((tar) => tar.subarray(0, 512 + MIB / 2))],
  ])('finds %s', async (_name, spoil) => {
    const source = sourceOf(4 * MIB, new Map([[1, randomBytes(MIB)]]));
    await expect(write(source, { disk: spoiledBy(spoil) })).rejects.toMatchObject({
      code: 'ERR_EXPORT_MISMATCH',
    });
  });

  it('stops when told', async () => {
    const stop = new AbortController();
    stop.abort();
    const source = sourceOf(4 * MIB, new Map([[1, randomBytes(MIB)]]));
    await expect(write(source, { stop: stop.signal })).rejects.toThrow();
    expect(existsSync(out)).toBe(false);
  });
});

describe('sparse heads', () => {
  it('give any list of runs back', async () => {
    const steps = fc.array(fc.tuple(fc.nat({ max: 2 ** 30 }), fc.integer({ min: 1, max: 99 })), {
      maxLength: 60,
    });
    await fc.assert(
      fc.asyncProperty(steps, fc.nat({ max: 2 ** 42 }), async (list, rest) => {
        let at = 0;
        const runs = list.map(([gap, blocks]) => {
          const offset = at + (gap + 1) * 512;
          at = offset + blocks * 512;
          return { offset, length: blocks * 512 };
        });
        const file: SparseFile = { name: 'disk.raw', sizeBytes: at + rest, runs };
        const head = encodeSparseHead(file, 0);
        let from = 0;
        const take = async (length: number) => {
          from += length;
          return head.subarray(from - length, from);
        };
        expect(await decodeSparseHead(take)).toEqual(file);
        expect(from).toBe(head.length);
      }),
    );
  });

  it('are followed by an end that fills a record', () => {
    for (const length of [512, 10_240 - 1024, 10_240 - 512, 10_240]) {
      const end = endOfArchive(length).length;
      expect((length + end) % 10_240).toBe(0);
      expect(end).toBeGreaterThanOrEqual(1024);
    }
  });
});
