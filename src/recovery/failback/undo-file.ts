/**
 * What a failback overwrites, kept so that the disk can be put back: before a chunk of the target is
 * written, its old content is appended here and synced. A chunk is kept once, as it was before the first
 * run; a run that was killed is gone on with in the same file.
 *
 *   line 1    "understudy-undo 1 <length of line 2> <SHA-256 of line 2, hex>"
 *   line 2    JSON: {server, volume, target, sizeBytes (of the target), time}
 *   records   0 "UUND" | 4 flags (1: the content is zero and not there) | 8 offset (u64) | 16 length (u32)
 *             | 20 zero (u32) | 24 SHA-256 of the content | 56 first 8 bytes of the SHA-256 of bytes 0..55
 *             | 64 content.  Numbers are little-endian.
 *
 * A record at the end that is not whole was being appended when the run ended: its chunk was not written.
 */
import { hash } from 'node:crypto';
import type { Disk, DiskFile } from '../../base/disk.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { CHUNK_BYTES } from '../../model/geometry.ts';
import { isZeroFilled } from '../../store/image-digests.ts';

const MAGIC = 'understudy-undo 1';
const RECORD_MAGIC = Buffer.from('UUND');
const HEAD_BYTES = 64;
const ZERO_FLAG = 1;
const MAX_TITLE_BYTES = 65_536;
/** Beyond what one call of `keep` may leave torn. */
const MAX_TORN_BYTES = 64 * 2 ** 20;

export interface UndoTitle {
  readonly server: string;
  readonly volume: string;
  /** Path of the target when the file was made. */
  readonly target: string;
  readonly sizeBytes: number;
  readonly time: string;
}

export interface UndoRecord {
  readonly offset: number;
  readonly content: Uint8Array;
}

const sha256 = (bytes: Uint8Array): Buffer => hash('sha256', bytes, 'buffer');
const broken = (path: string, what: string): UnderstudyError =>
  new UnderstudyError('ERR_UNDO_FILE', `${path} ${what}`, { path });

function encodeTitle(title: UndoTitle): Buffer {
  const body = Buffer.from(`${JSON.stringify(title)}\n`);
  return Buffer.concat([Buffer.from(`${MAGIC} ${body.length} ${hash('sha256', body)}\n`), body]);
}

function encodeRecord({ offset, content }: UndoRecord): Uint8Array[] {
  const isZero = isZeroFilled(content);
  const head = Buffer.alloc(HEAD_BYTES);
  RECORD_MAGIC.copy(head);
  head.writeUInt32LE(isZero ? ZERO_FLAG : 0, 4);
  head.writeBigUInt64LE(BigInt(offset), 8);
  head.writeUInt32LE(content.length, 16);
  sha256(content).copy(head, 24);
  sha256(head.subarray(0, 56)).copy(head, 56, 0, 8);
  return isZero ? [head] : [head, content];
}

async function readAt(file: DiskFile, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  return bytes.subarray(0, await file.read(bytes, offset));
}

async function readTitle(file: DiskFile): Promise<{ title: UndoTitle; end: number }> {
  const bytes = await readAt(file, 0, MAX_TITLE_BYTES);
  const first = bytes.indexOf(0x0a);
  const [, length = '', digest = ''] =
    /^understudy-undo 1 (\d+) ([0-9a-f]{64})$/.exec(
      bytes.toString('latin1', 0, Math.max(0, first)),
    ) ?? [];
  const end = first + 1 + Number(length);
  const body = bytes.subarray(first + 1, end);
  if (length === '' || hash('sha256', body) !== digest) {
    throw broken(file.path, 'is no undo file, or of another version');
  }
  return { title: JSON.parse(body.toString('utf8')) as UndoTitle, end };
}

/** The record at `at` and where the next begins; null where there is no whole one. */
async function readRecord(
  file: DiskFile,
  at: number,
): Promise<{ record: UndoRecord; next: number } | null> {
  const head = await readAt(file, at, HEAD_BYTES);
  const isHead =
    head.length === HEAD_BYTES &&
    head.subarray(0, 4).equals(RECORD_MAGIC) &&
    sha256(head.subarray(0, 56)).subarray(0, 8).equals(head.subarray(56));
  const length = isHead ? head.readUInt32LE(16) : 0;
  if (!isHead || length === 0 || length > CHUNK_BYTES) return null;
  const isZero = head.readUInt32LE(4) === ZERO_FLAG;
  const start = at + HEAD_BYTES;
  const content = isZero ? Buffer.alloc(length) : await readAt(file, start, length);
  const isWhole = content.length === length && sha256(content).equals(head.subarray(24, 56));
  if (!isWhole) return null;
  const record = { offset: Number(head.readBigUInt64LE(8)), content };
  return { record, next: isZero ? start : start + length };
}

/** An undo file that is being filled. */
export class UndoFile {
  /** Bytes appended by this run. */
  keptBytes = 0;
  private readonly file: DiskFile;
  private readonly kept = new Set<number>();
  private end: number;

  private constructor(file: DiskFile, end: number) {
    this.file = file;
    this.end = end;
  }

  /** Made, or gone on with where it is of the same server, volume and target. ERR_UNDO_FILE. */
  static async open(disk: Disk, path: string, folder: string, title: UndoTitle): Promise<UndoFile> {
    const isNew = !(await disk.exists(path));
    const file = await disk.open(path, 'write');
    try {
      if (isNew || (await file.size()) === 0) {
        const bytes = encodeTitle(title);
        await file.write([bytes], 0);
        await file.sync();
        await disk.syncDirectory(folder);
        return new UndoFile(file, bytes.length);
      }
      return await UndoFile.goOn(file, title);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  private static async goOn(file: DiskFile, wanted: UndoTitle): Promise<UndoFile> {
    const { title, end } = await readTitle(file);
    const isSame = (['server', 'volume', 'target', 'sizeBytes'] as const).every(
      (key) => title[key] === wanted[key],
    );
    if (!isSame) {
      const of = `${title.volume} of ${title.server} on ${title.target} (${title.sizeBytes} bytes)`;
      throw broken(file.path, `keeps ${of}: give another --undo`);
    }
    const undo = new UndoFile(file, end);
    for await (const { record, next } of recordsFrom(file, end)) {
      undo.kept.add(record.offset);
      undo.end = next;
    }
    await file.truncate(undo.end);
    return undo;
  }

  /** Durable once it resolves; chunks that were kept before are left as they were then. */
  async keep(records: readonly UndoRecord[]): Promise<void> {
    const fresh = records.filter(({ offset }) => !this.kept.has(offset));
    const parts = fresh.flatMap(encodeRecord);
    const length = parts.reduce((sum, part) => sum + part.length, 0);
    if (length === 0) return;
    await this.file.write(parts, this.end);
    await this.file.sync();
    for (const { offset } of fresh) this.kept.add(offset);
    this.end += length;
    this.keptBytes += length;
  }

  close(): Promise<void> {
    return this.file.close();
  }
}

/** ERR_UNDO_FILE where damage lies before the end: what was torn can only be the last append. */
async function* recordsFrom(
  file: DiskFile,
  start: number,
): AsyncGenerator<{ record: UndoRecord; next: number }> {
  const size = await file.size();
  for (let at = start; at < size; ) {
    const found = await readRecord(file, at);
    if (found === null) {
      if (size - at <= MAX_TORN_BYTES) return;
      throw broken(file.path, `is damaged at byte ${at} of ${size}`);
    }
    yield found;
    at = found.next;
  }
}

export interface OpenUndo {
  readonly title: UndoTitle;
  /** Each chunk once. */
  records(): AsyncGenerator<UndoRecord>;
  /** After the records were read: bytes at the end that belong to a write that had not begun. */
  tornBytes(): Promise<number>;
  close(): Promise<void>;
}

/** To put a disk back. ERR_UNDO_FILE, ERR_DISK_NOT_FOUND. */
export async function readUndoFile(disk: Disk, path: string): Promise<OpenUndo> {
  const file = await disk.open(path, 'read');
  try {
    const { title, end } = await readTitle(file);
    let last = end;
    return {
      title,
      async *records() {
        for await (const { record, next } of recordsFrom(file, end)) {
          last = next;
          yield record;
        }
      },
      tornBytes: async () => (await file.size()) - last,
      close: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}
