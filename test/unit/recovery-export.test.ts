/** Images as files: equal to the byte, sparse, resumed, and refused where source and file differ. */
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { nodeDisk } from '../../src/base/node-disk.ts';
import { checkFormat, convertImage } from '../../src/recovery/convert.ts';
import { exportImage, type ImageSource, imageSourceOf } from '../../src/recovery/export.ts';
import { digestPieces, PIECE_BYTES } from '../../src/store/images/image-digests.ts';
import fc from './support/properties.ts';

let folder: string;
let out: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'understudy-export-'));
  out = join(folder, 'image.raw');
});
afterEach(() => rmSync(folder, { recursive: true }));

/** An image in memory; its manifest knows data at a granularity of 64 KiB, as the real one does. */
function sourceOf(content: Buffer): ImageSource & { bytesRead: number } {
  const source = {
    bytesRead: 0,
    ...imageSourceOf({
      sizeBytes: content.length,
      etag: 'e',
      read: async (offset, length) => content.subarray(offset, offset + length),
      nextData: async (offset) => {
        for (let at = offset - (offset % 65536); at < content.length; at += 65536) {
          const part = content.subarray(at, at + 65536);
          const start = Math.max(at, offset);
          if (part.some((byte) => byte !== 0)) return { offset: start, length: at + 65536 - start };
        }
        return null;
      },
      close: () => undefined,
    }),
  };
  const read = source.read;
  source.read = async (offset, length) => {
    source.bytesRead += length;
    return read(offset, length);
  };
  return source;
}

const write = (source: ImageSource, over: Partial<Parameters<typeof exportImage>[1]> = {}) =>
  exportImage(source, {
    disk: nodeDisk,
    out,
    replace: false,
    stop: new AbortController().signal,
    onProgress: () => undefined,
    ...over,
  });

/** As a service gives it: on its way something may happen to the bytes. */
function remoteOf(content: Buffer): ImageSource & { bytesRead: number } {
  const source = sourceOf(content);
  delete source.nextData;
  return source;
}

/** 5 MiB and a bit: data, a hole of 2 MiB, data at the very end. */
function sample(): Buffer {
  const content = Buffer.alloc(5 * PIECE_BYTES + 4096 * 3 + 512);
  randomBytes(PIECE_BYTES + 70_000).copy(content, 0);
  randomBytes(4096).copy(content, 4 * PIECE_BYTES - 1000);
  randomBytes(600).copy(content, content.length - 600);
  return content;
}

describe('exportImage', () => {
  it.each([
    ['here', sourceOf],
    ['at a service', remoteOf],
  ])(
    'writes an equal, sparse file and leaves nothing beside it, the source being %s',
    async (_, of) => {
      const content = sample();
      const report = await write(of(content));
      expect(readFileSync(out).equals(content)).toBe(true);
      expect(statSync(out).blocks * 512).toBeLessThan(2 * PIECE_BYTES);
      expect(existsSync(`${out}.partial`)).toBe(false);
      expect(report).toMatchObject({ sizeBytes: content.length, fetchedBytes: report.dataBytes });
    },
  );

  it('equals any image', async () => {
    const piece = fc.constantFrom('zero', 'random', 'edge');
    await fc.assert(
      fc.asyncProperty(fc.array(piece, { maxLength: 6 }), fc.nat(5000), async (kinds, tail) => {
        const parts = kinds.map((kind) => {
          const part = Buffer.alloc(PIECE_BYTES / 4 + 12_345);
          if (kind === 'random') randomBytes(part.length).copy(part);
          if (kind === 'edge') part[part.length - 1] = 1;
          return part;
        });
        const content = Buffer.concat([...parts, Buffer.alloc(tail + 1, 7)]);
        for (const of of [sourceOf, remoteOf]) {
          await write(of(content), { replace: true });
          if (!readFileSync(out).equals(content)) return false;
        }
        return true;
      }),
      { numRuns: 25 },
    );
  });

  it('resumes: fetches only what an earlier try did not leave right', async () => {
    const content = sample();
    const partial = Buffer.from(content);
    partial.fill(1, PIECE_BYTES, PIECE_BYTES + 10);
    partial.fill(2, 2 * PIECE_BYTES + 5, 2 * PIECE_BYTES + 50);
    writeFileSync(`${out}.partial`, partial.subarray(0, 3 * PIECE_BYTES));
    const source = sourceOf(content);
    const report = await write(source);
    expect(readFileSync(out).equals(content)).toBe(true);
    expect(report.fetchedBytes).toBe(source.bytesRead);
    expect(report.dataBytes - report.fetchedBytes).toBe(PIECE_BYTES);
  });

  it('reads a source that is here once, and proves the file by what was read', async () => {
    const content = sample();
    const source = sourceOf(content);
    let asked = 0;
    source.digests = () => {
      asked += 1;
      throw new Error('not asked for');
    };
    const stages: string[] = [];
    const report = await write(source, {
      onProgress: (stage, done, total) => {
        if (done === total) stages.push(stage);
      },
    });
    expect(readFileSync(out).equals(content)).toBe(true);
    expect(source.bytesRead).toBe(report.dataBytes);
    expect(asked).toBe(0);
    expect(stages).toEqual(expect.arrayContaining(['writing', 'verifying']));
  });

  it('refuses to replace a file unless told to', async () => {
    writeFileSync(out, 'precious');
    await expect(write(sourceOf(sample()))).rejects.toMatchObject({ code: 'ERR_EXPORT_EXISTS' });
    expect(readFileSync(out, 'utf8')).toBe('precious');
    await write(sourceOf(sample()), { replace: true });
    expect(statSync(out).size).toBe(sample().length);
  });

  it('never names a file whose bytes arrived wrong', async () => {
    const source = remoteOf(sample());
    const read = source.read;
    source.read = async (offset, length) => {
      const bytes = Buffer.from(await read(offset, length));
      bytes[0]! ^= 1;
      return bytes;
    };
    await expect(write(source)).rejects.toMatchObject({ code: 'ERR_EXPORT_MISMATCH' });
    expect(existsSync(out)).toBe(false);
  });

  it('never names a file that the disk gave back otherwise than it was written', async () => {
    const disk = {
      ...nodeDisk,
      open: async (path: string, mode: 'read' | 'create' | 'write') => {
        const file = await nodeDisk.open(path, mode);
        const sync = file.sync.bind(file);
        file.sync = async () => {
          await sync();
          const fd = openSync(path, 'r+');
          writeSync(fd, 'rot', 70_000);
          closeSync(fd);
        };
        return file;
      },
    };
    for (const of of [sourceOf, remoteOf]) {
      await expect(write(of(sample()), { disk })).rejects.toMatchObject({
        code: 'ERR_EXPORT_MISMATCH',
      });
      expect(existsSync(out)).toBe(false);
      rmSync(`${out}.partial`);
    }
  });

  it('stops when told, keeping what it has for the next try', async () => {
    const stop = new AbortController();
    stop.abort();
    await expect(write(sourceOf(sample()), { stop: stop.signal })).rejects.toThrow();
    expect(existsSync(out)).toBe(false);
    expect(existsSync(`${out}.partial`)).toBe(true);
  });
});

describe('digestPieces', () => {
  it('pages through an image without leaving out or repeating a piece', async () => {
    const content = sample();
    const image = sourceOf(content);
    const whole = await image.digests(0);
    expect(whole.next).toBeNull();
    expect(whole.pieces.map((piece) => piece.offset / PIECE_BYTES)).toEqual([0, 1, 3, 4, 5]);
    const from = await image.digests(3 * PIECE_BYTES + 17);
    expect(from.pieces).toEqual(whole.pieces.slice(2));
  });

  it('gives nothing for an image of zeros and beyond its end', async () => {
    const image = {
      sizeBytes: 10 * PIECE_BYTES,
      nextData: async () => null,
      read: async () => Buffer.alloc(0),
    };
    expect(await digestPieces(image, 0)).toEqual({ pieces: [], next: null });
    expect(await digestPieces(image, 99 * PIECE_BYTES)).toEqual({ pieces: [], next: null });
  });
});

describe('convertImage', () => {
  const stop = new AbortController().signal;
  const convert = (format: 'qcow2' | 'vmdk' | 'vhd', sizeBytes: number, rawPath = out) => {
    const converted = join(folder, `image.${format}`);
    return convertImage({ rawPath, sizeBytes, out: converted, format, disk: nodeDisk, stop });
  };

  it.each(['qcow2', 'vmdk', 'vhd'] as const)(
    'makes %s that qemu-img finds identical',
    async (format) => {
      const raw = sample().subarray(0, 5 * PIECE_BYTES);
      writeFileSync(out, raw);
      expect(await convert(format, raw.length)).toBe(raw.length);
      const made = statSync(join(folder, `image.${format}`));
      expect(made.size).toBeGreaterThan(0);
      expect(made.mode & 0o777).toBe(0o600);
    },
  );

  it('makes a vhd a whole number of MiB, as Azure demands, and fixed', async () => {
    const raw = sample();
    writeFileSync(out, raw);
    expect(await convert('vhd', raw.length)).toBe(6 * PIECE_BYTES);
    const vhd = readFileSync(join(folder, 'image.vhd'));
    expect(vhd.length).toBe(6 * PIECE_BYTES + 512);
    expect(vhd.subarray(0, raw.length).equals(raw)).toBe(true);
    expect(vhd.subarray(raw.length, -512).every((byte) => byte === 0)).toBe(true);
    expect(vhd.subarray(-512).toString('latin1', 0, 8)).toBe('conectix');
    expect(Number(vhd.subarray(-512).readBigUInt64BE(48))).toBe(6 * PIECE_BYTES);
  });

  it('refuses what a vhd cannot hold, before anything is written', () => {
    expect(() => checkFormat('vhd', 2040 * 2 ** 30)).not.toThrow();
    expect(() => checkFormat('qcow2', 2 ** 44)).not.toThrow();
    expect(() => checkFormat('vhd', 2040 * 2 ** 30 + 512)).toThrow(
      expect.objectContaining({ code: 'ERR_EXPORT_REFUSED' }),
    );
  });

  it('says why where qemu-img fails', async () => {
    await expect(convert('qcow2', PIECE_BYTES, join(folder, 'none'))).rejects.toMatchObject({
      code: 'ERR_EXPORT_CONVERT',
      message: expect.stringContaining('Could not open'),
    });
  });
});
