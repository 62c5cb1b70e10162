/**
 * An image as Google Compute Engine imports it: a gzipped tar with the one file `disk.raw`, in the old GNU
 * format, sparse, its size rounded up to a whole GiB. Streamed from the source, without a raw copy on the
 * way; then read back, decompressed and compared with the digests that the source tells anew (P3).
 */
import { createReadStream } from 'node:fs';
import { Readable, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createGzip } from 'node:zlib';
import type { DiskFile } from '../base/disk.ts';
import { UnderstudyError } from '../base/errors.ts';
import { GIB, MIB } from '../base/units.ts';
import { digestOf, isZeroFilled, type PieceDigest } from '../store/images/image-digests.ts';
import type { ExportOptions, ExportReport, ExportStage } from './export.ts';
import { type ImageSource, imagePages, runsOf } from './pages.ts';
import {
  decodeSparseHead,
  encodeSparseHead,
  endOfArchive,
  runsLength,
  TAR_BLOCK_BYTES,
  type TarRun,
} from './sparse-tar.ts';

const FILE_NAME = 'disk.raw';
const READ_BYTES = 8 * MIB;
/** Time counts more than size while a server is down. */
const GZIP_LEVEL = 1;

export type ArchiveOptions = Pick<ExportOptions, 'disk' | 'out' | 'stop' | 'onProgress'> & {
  /** Wall clock, for the file's time in the archive. */
  readonly timeMs: number;
};

/** The next whole GiB: other sizes are refused at the import. */
export const gcpSizeOf = (sizeBytes: number): number =>
  Math.max(1, Math.ceil(sizeBytes / GIB)) * GIB;

/**
 * Writes and verifies `out`, which must not be there. Throws ERR_EXPORT_MISMATCH, and what source and disk
 * throw; what was written until then is left to the caller.
 */
export async function exportGcp(
  source: ImageSource,
  options: ArchiveOptions,
): Promise<ExportReport> {
  const { disk, out, timeMs } = options;
  const runs = await dataRuns(source, options);
  const diskBytes = gcpSizeOf(source.sizeBytes);
  const head = encodeSparseHead({ name: FILE_NAME, sizeBytes: diskBytes, runs }, timeMs);
  const file = await disk.open(out, 'create');
  try {
    const contents = archive(source, { head, length: head.length + runsLength(runs) }, options);
    const gzip = createGzip({ level: GZIP_LEVEL });
    await pipeline(Readable.from(contents), gzip, writer(file), { signal: options.stop });
    await file.sync();
  } finally {
    await file.close();
  }
  await verify(source, { diskBytes, runs }, options);
  const bytes = runsLength(runs);
  return { sizeBytes: source.sizeBytes, diskBytes, dataBytes: bytes, fetchedBytes: bytes };
}

const progress = (stage: ExportStage, { onProgress }: ArchiveOptions) => {
  return (done: number, total: number) => onProgress(stage, done, total);
};

/** Neighbouring pieces as one run; the last is filled up to a whole block. */
async function dataRuns(source: ImageSource, options: ArchiveOptions): Promise<TarRun[]> {
  const runs: { offset: number; length: number }[] = [];
  for await (const page of imagePages(source, options.stop, progress('planning', options))) {
    for (const { offset, length } of page.pieces) {
      const last = runs.at(-1);
      if (last !== undefined && last.offset + last.length === offset) last.length += length;
      else runs.push({ offset, length });
    }
  }
  const last = runs.at(-1);
  if (last !== undefined) last.length += blockRest(last.length);
  return runs;
}

const blockRest = (length: number): number =>
  (TAR_BLOCK_BYTES - (length % TAR_BLOCK_BYTES)) % TAR_BLOCK_BYTES;

/** The archive's bytes, of which `length` are head and data. The next read is under way meanwhile. */
async function* archive(
  source: ImageSource,
  { head, length }: { head: Buffer; length: number },
  options: ArchiveOptions,
): AsyncGenerator<Uint8Array> {
  yield head;
  let done = head.length;
  for await (const page of imagePages(source, options.stop, progress('writing', options))) {
    let next: Promise<Uint8Array> | null = null;
    const runs = runsOf(page.pieces, READ_BYTES);
    for (const [i, run] of runs.entries()) {
      const bytes: Uint8Array = await (next ?? fetchRun(source, run));
      const following = runs[i + 1];
      next = following === undefined ? null : fetchRun(source, following);
      // Awaited in the next round; until then a refusal is not unhandled.
      next?.catch(() => undefined);
      yield bytes;
      done += bytes.length;
    }
  }
  const rest = length - done;
  if (rest < 0 || rest >= TAR_BLOCK_BYTES) {
    throw new UnderstudyError('ERR_EXPORT_MISMATCH', 'the source told two different images');
  }
  yield Buffer.alloc(rest);
  yield endOfArchive(length);
}

async function fetchRun(source: ImageSource, run: readonly PieceDigest[]): Promise<Uint8Array> {
  const start = run[0]!.offset;
  const last = run.at(-1)!;
  const bytes = await source.read(start, last.offset + last.length - start);
  for (const { offset, length, digest } of run) {
    if (digestOf(bytes.subarray(offset - start, offset - start + length)) === digest) continue;
    const message = `the piece at ${offset} arrived wrong`;
    throw new UnderstudyError('ERR_EXPORT_MISMATCH', message, { offset });
  }
  return bytes;
}

function writer(file: DiskFile): Writable {
  let at = 0;
  return new Writable({
    write(chunk: Buffer, _encoding, done) {
      const from = at;
      at += chunk.length;
      file.write([chunk], from).then(() => done(), done);
    },
  });
}

async function verify(
  source: ImageSource,
  wanted: { diskBytes: number; runs: readonly TarRun[] },
  options: ArchiveOptions,
): Promise<void> {
  const bytes = new ByteQueue(unpacked(options.out));
  try {
    await compare(source, { ...wanted, bytes }, options);
  } finally {
    await bytes.close();
  }
}

async function compare(
  source: ImageSource,
  { diskBytes, runs, bytes }: { diskBytes: number; runs: readonly TarRun[]; bytes: ByteQueue },
  options: ArchiveOptions,
): Promise<void> {
  const { out, stop } = options;
  const told = await decodeSparseHead((length) => bytes.take(length));
  const isAsWanted =
    told.name === FILE_NAME &&
    told.sizeBytes === diskBytes &&
    told.runs.length === runs.length &&
    told.runs.every(({ offset, length }, i) => {
      const run = runs[i]!;
      return offset === run.offset && length === run.length;
    });
  if (!isAsWanted) throw damaged(out, 'has another head');
  let left = runsLength(runs);
  for await (const page of imagePages(source, stop, progress('verifying', options))) {
    for (const { offset, length, digest } of page.pieces) {
      left -= length;
      if (digestOf(await bytes.take(length)) === digest) continue;
      throw damaged(out, `was written wrong at ${offset}`);
    }
  }
  const isEnded = left >= 0 && left < TAR_BLOCK_BYTES && isZeroFilled(await bytes.take(left));
  if (!isEnded || !(await bytes.isZeroToEnd())) throw damaged(out, 'has other bytes at its end');
}

const damaged = (path: string, what: string): UnderstudyError =>
  new UnderstudyError('ERR_EXPORT_MISMATCH', `${path} ${what}`, { path });

async function* unpacked(path: string): AsyncGenerator<Buffer> {
  const file = createReadStream(path, { highWaterMark: MIB });
  const gunzip = createGunzip({ chunkSize: 256 * 1024 });
  file.on('error', (error) => gunzip.destroy(error));
  try {
    yield* file.pipe(gunzip);
  } catch (cause) {
    if (cause instanceof UnderstudyError) throw cause;
    const message = `${path} cannot be read back: ${(cause as Error).message}`;
    throw new UnderstudyError('ERR_EXPORT_MISMATCH', message, { path }, cause);
  } finally {
    file.destroy();
  }
}

/** Bytes of a stream in pieces of any length. */
class ByteQueue {
  private readonly source: AsyncGenerator<Buffer>;
  private rest: Buffer = Buffer.alloc(0);

  constructor(source: AsyncGenerator<Buffer>) {
    this.source = source;
  }

  /** Throws ERR_EXPORT_MISMATCH where the stream has fewer. */
  async take(length: number): Promise<Buffer> {
    const parts: Buffer[] = [];
    let missing = length;
    while (missing > this.rest.length) {
      parts.push(this.rest);
      missing -= this.rest.length;
      const next = await this.source.next();
      if (next.done === true) {
        throw new UnderstudyError('ERR_EXPORT_MISMATCH', 'the written archive is cut short');
      }
      this.rest = next.value;
    }
    parts.push(this.rest.subarray(0, missing));
    this.rest = this.rest.subarray(missing);
    return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
  }

  async close(): Promise<void> {
    await this.source.return(undefined);
  }

  /** To the end of the stream, which also has its checksum compared; an end of two blocks is there. */
  async isZeroToEnd(): Promise<boolean> {
    let length = 0;
    let isZero = true;
    for (let part: Buffer | undefined = this.rest; part !== undefined; ) {
      length += part.length;
      isZero &&= part.every((byte) => byte === 0);
      part = (await this.source.next()).value as Buffer | undefined;
    }
    return isZero && length >= 2 * TAR_BLOCK_BYTES;
  }
}
