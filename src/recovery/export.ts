/**
 * Writes an image into a file: sparse, resumable, verified (P3). The bytes go to OUT.partial; what an
 * earlier try left there is kept where its digests match. When all is written and synced, the file is
 * read back and every piece compared with the digests that the source tells anew, or, where nothing lies
 * between source and file, with those of what was read: then the source is read once. Only then it gets
 * its name. Where the source's bytes come from (a service, a repository) and the formats of other
 * hypervisors are left to others.
 */
import { dirname } from 'node:path';
import type { Disk, DiskFile } from '../base/disk.ts';
import { UnderstudyError } from '../base/errors.ts';
import { MIB } from '../base/units.ts';
import {
  digestOf,
  digestPieces,
  isZeroFilled,
  PIECE_BYTES,
  type PieceDigest,
} from '../store/images/image-digests.ts';
import type { ImageReader } from '../store/types.ts';
import { gapsOf, type ImageSource, imagePages, type Page, runsOf, type Span } from './pages.ts';
import { ToldPieces } from './told-pieces.ts';

export type { ImageSource } from './pages.ts';

export interface ExportReport {
  readonly sizeBytes: number;
  /** Of the disk in the file: the volume's, rounded up where the format's users demand it. */
  readonly diskBytes: number;
  /** Bytes in pieces that are not all zero. */
  readonly dataBytes: number;
  /** Bytes read from the source; the rest was there from an earlier try. */
  readonly fetchedBytes: number;
}

export type ExportStage = 'planning' | 'writing' | 'verifying';
export interface ExportOptions {
  readonly disk: Disk;
  readonly out: string;
  /** Replace a file that is there. */
  readonly replace: boolean;
  readonly stop: AbortSignal;
  readonly onProgress: (stage: ExportStage, done: number, total: number) => void;
}

const RUN_BYTES = 8 * MIB;
const RUNS_IN_FLIGHT = 3;
const SPARSE_BYTES = 65536;
/** Digests of so large an image are kept in memory: 40 MiB. */
const MAX_TOLD_BYTES = 2 ** 40;

export const imageSourceOf = (
  reader: Pick<ImageReader, 'sizeBytes' | 'read' | 'nextData'> & Partial<ImageReader>,
): ImageSource => ({
  sizeBytes: reader.sizeBytes,
  digests: (offset) => digestPieces(reader, offset),
  read: (offset, length) => reader.read(offset, length),
  nextData: (offset) => reader.nextData(offset),
});

/** Writes `source` to `out`. Throws ERR_EXPORT_EXISTS, ERR_EXPORT_MISMATCH and what source and disk throw. */
export async function exportImage(
  source: ImageSource,
  options: ExportOptions,
): Promise<ExportReport> {
  const { disk, out } = options;
  if (!options.replace && (await disk.exists(out))) {
    throw new UnderstudyError('ERR_EXPORT_EXISTS', `${out} exists`, { path: out });
  }
  const partial = `${out}.partial`;
  const file = await disk.open(partial, 'write');
  let report: ExportReport;
  try {
    const isResumed = (await file.size()) > 0;
    await file.truncate(source.sizeBytes);
    const copy = new ImageCopy(source, file, isResumed, options);
    report = await copy.write();
    await file.sync();
    await copy.verify();
  } finally {
    await file.close();
  }
  await disk.rename(partial, out);
  await disk.syncDirectory(dirname(out));
  return report;
}

/** One file being made equal to one image. A fresh file's holes are zero; a resumed one's are looked at. */
class ImageCopy {
  private readonly source: ImageSource;
  private readonly file: DiskFile;
  private readonly isResumed: boolean;
  private readonly options: ExportOptions;
  private dataBytes = 0;
  private fetchedBytes = 0;
  /** What was written, where the source is read once. */
  private told: ToldPieces | null = null;

  constructor(source: ImageSource, file: DiskFile, isResumed: boolean, options: ExportOptions) {
    this.source = source;
    this.file = file;
    this.isResumed = isResumed;
    this.options = options;
  }

  async write(): Promise<ExportReport> {
    const isOnce = this.source.nextData !== undefined && !this.isResumed;
    if (isOnce && this.source.sizeBytes <= MAX_TOLD_BYTES) await this.writeOnce();
    else await this.writeTold();
    const { dataBytes, fetchedBytes } = this;
    const { sizeBytes } = this.source;
    return { sizeBytes, diskBytes: sizeBytes, dataBytes, fetchedBytes };
  }

  async verify(): Promise<void> {
    for await (const { pieces } of this.told === null
      ? this.pages('verifying')
      : this.toldPages()) {
      for (const piece of pieces) {
        if (!(await this.isAsTold(piece))) throw this.mismatch(piece.offset, 'was written wrong');
      }
    }
  }

  private async writeOnce(): Promise<void> {
    const { source } = this;
    const { stop, onProgress } = this.options;
    const told = new ToldPieces();
    for (let at = 0; at < source.sizeBytes; ) {
      stop.throwIfAborted();
      const data = await source.nextData!(at);
      if (data === null) break;
      const start = data.offset - (data.offset % PIECE_BYTES);
      const end = Math.ceil((data.offset + data.length) / PIECE_BYTES) * PIECE_BYTES;
      const length = Math.min(end - start, source.sizeBytes - start, RUN_BYTES);
      const bytes = await source.read(start, length);
      this.fetchedBytes += length;
      for (let from = 0; from < length; from += PIECE_BYTES) {
        const content = bytes.subarray(from, from + PIECE_BYTES);
        if (isZeroFilled(content)) continue;
        const offset = start + from;
        told.add({ offset, length: content.length, digest: digestOf(content) });
        this.dataBytes += content.length;
        await this.writePiece(offset, content);
      }
      at = start + length;
      onProgress('writing', at, source.sizeBytes);
    }
    onProgress('writing', source.sizeBytes, source.sizeBytes);
    this.told = told;
  }

  private *toldPages(): Generator<{ pieces: readonly PieceDigest[] }> {
    const { stop, onProgress } = this.options;
    const { sizeBytes } = this.source;
    for (const piece of this.told!) {
      stop.throwIfAborted();
      yield { pieces: [piece] };
      onProgress('verifying', piece.offset + piece.length, sizeBytes);
    }
    onProgress('verifying', sizeBytes, sizeBytes);
  }

  private async writeTold(): Promise<void> {
    for await (const page of this.pages('writing')) {
      const wanted: PieceDigest[] = [];
      for (const piece of page.pieces) {
        this.dataBytes += piece.length;
        if (!(this.isResumed && (await this.isAsTold(piece)))) wanted.push(piece);
      }
      await inParallel(runsOf(wanted, RUN_BYTES), (run) => this.copyRun(run));
      for (const gap of this.isResumed ? gapsOf(page) : []) await this.clear(gap);
    }
  }

  private pages(stage: ExportStage): AsyncGenerator<Page> {
    const { stop, onProgress } = this.options;
    return imagePages(this.source, stop, (done, total) => onProgress(stage, done, total));
  }

  private async copyRun(run: readonly PieceDigest[]): Promise<void> {
    this.options.stop.throwIfAborted();
    const start = run[0]!.offset;
    const last = run.at(-1)!;
    const bytes = await this.source.read(start, last.offset + last.length - start);
    this.fetchedBytes += bytes.length;
    for (const piece of run) {
      const content = bytes.subarray(piece.offset - start, piece.offset - start + piece.length);
      if (digestOf(content) !== piece.digest) throw this.mismatch(piece.offset, 'arrived wrong');
      await this.writePiece(piece.offset, content);
    }
  }

  /** Leaves zero stretches unwritten where the file is known to have holes there. */
  private async writePiece(offset: number, content: Uint8Array): Promise<void> {
    if (this.isResumed) return this.file.write([content], offset);
    for (let at = 0; at < content.length; at += SPARSE_BYTES) {
      const part = content.subarray(at, at + SPARSE_BYTES);
      if (!isZeroFilled(part)) await this.file.write([part], offset + at);
    }
  }

  private async readBack(offset: number, length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    const count = await this.file.read(bytes, offset);
    return bytes.subarray(0, count);
  }

  private async isAsTold(piece: PieceDigest): Promise<boolean> {
    return digestOf(await this.readBack(piece.offset, piece.length)) === piece.digest;
  }

  private async clear(gap: Span): Promise<void> {
    const end = gap.offset + gap.length;
    for (let at = gap.offset; at < end; at += PIECE_BYTES) {
      const bytes = await this.readBack(at, Math.min(PIECE_BYTES, end - at));
      if (!isZeroFilled(bytes)) await this.file.write([bytes.fill(0)], at);
    }
  }

  private mismatch(offset: number, what: string): UnderstudyError {
    const message = `the piece at ${offset} of ${this.options.out} ${what}`;
    return new UnderstudyError('ERR_EXPORT_MISMATCH', message, { offset });
  }
}

async function inParallel<Item>(
  items: readonly Item[],
  work: (item: Item) => Promise<void>,
): Promise<void> {
  const queue = [...items];
  const worker = async () => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: RUNS_IN_FLIGHT }, worker));
}
