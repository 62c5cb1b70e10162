/**
 * What a failback overwrites, kept so that the disk can be put back: before a chunk of the target is
 * written, its old content is appended here and synced. A chunk is kept once, as it was before the first
 * run of that failback; a run that was killed is gone on with in the same file.
 *
 *   line 1    "understudy-undo 2 <length of line 2> <SHA-256 of line 2, hex>"
 *   line 2    JSON: {server, volume, target, sizeBytes (of the target), cause, time}
 *   records   0 "UUND" | 4 flags (1: the content is zero and not there; 2: the last of its append)
 *             | 8 offset (u64) | 16 length (u32; 0: a mark, written when a run ends) | 20 number of the
 *             append, from 1 (u32) | 24 SHA-256 of the content | 56 first 8 bytes of the SHA-256 of line 2
 *             and of bytes 0..55 | 64 content.  Numbers are little-endian.
 *
 * What is not whole at the end was being appended when the run was cut off: its chunks were not written.
 * Where records of a later append follow it, it is damage.
 */
import { hash } from 'node:crypto';
import type { Disk, DiskFile } from '../../base/disk.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { CHUNK_BYTES } from '../../model/geometry.ts';
import { isZeroFilled } from '../../store/image-digests.ts';
import { ChunkSet } from './chunk-set.ts';

const MAGIC = 'understudy-undo 2';
const RECORD_MAGIC = Buffer.from('UUND');
const HEAD_BYTES = 64;
const ZERO_FLAG = 1;
const LAST_FLAG = 2;
const MAX_TITLE_BYTES = 65_536;
const NOTHING = new Uint8Array(0);
/** Beyond what one call of `keep` may leave torn. */
const MAX_TORN_BYTES = 64 * 2 ** 20;

export interface UndoTitle {
  readonly server: string;
  readonly volume: string;
  /** Path of the target when the file was made. */
  readonly target: string;
  readonly sizeBytes: number;
  /** Which failback, or which point where there is none: what was kept for one is too old for another. */
  readonly cause: string;
  readonly time: string;
}

export interface UndoRecord {
  readonly offset: number;
  readonly content: Uint8Array;
}

const sha256 = (bytes: Uint8Array): Buffer => hash('sha256', bytes, 'buffer');
const broken = (path: string, what: string): UnderstudyError =>
  new UnderstudyError('ERR_UNDO_FILE', `${path} ${what}`, { path });

/** Line 2, and all. */
function encodeTitle(title: UndoTitle): { body: Buffer; bytes: Buffer } {
  const body = Buffer.from(`${JSON.stringify(title)}\n`);
  const first = Buffer.from(`${MAGIC} ${body.length} ${hash('sha256', body)}\n`);
  return { body, bytes: Buffer.concat([first, body]) };
}

/** Of one file alone: content of a disk may hold records of another. */
const headDigest = (salt: Uint8Array, head: Uint8Array): Buffer =>
  sha256(Buffer.concat([salt, head.subarray(0, 56)])).subarray(0, 8);

interface Place {
  readonly append: number;
  readonly isLast: boolean;
  readonly salt: Uint8Array;
}

function encodeRecord(
  { offset, content }: UndoRecord,
  { append, isLast, salt }: Place,
): Uint8Array[] {
  const isZero = isZeroFilled(content);
  const head = Buffer.alloc(HEAD_BYTES);
  RECORD_MAGIC.copy(head);
  head.writeUInt32LE((isZero ? ZERO_FLAG : 0) | (isLast ? LAST_FLAG : 0), 4);
  head.writeBigUInt64LE(BigInt(offset), 8);
  head.writeUInt32LE(content.length, 16);
  head.writeUInt32LE(append, 20);
  sha256(content).copy(head, 24);
  headDigest(salt, head).copy(head, 56);
  return isZero ? [head] : [head, content];
}

async function readAt(file: DiskFile, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  return bytes.subarray(0, await file.read(bytes, offset));
}

interface Title {
  readonly title: UndoTitle;
  readonly end: number;
  readonly salt: Uint8Array;
}

async function readTitle(file: DiskFile): Promise<Title> {
  const bytes = await readAt(file, 0, MAX_TITLE_BYTES);
  const first = bytes.indexOf(0x0a);
  const [, length = '', digest = ''] =
    /^understudy-undo 2 (\d+) ([0-9a-f]{64})$/.exec(
      bytes.toString('latin1', 0, Math.max(0, first)),
    ) ?? [];
  const end = first + 1 + Number(length);
  const body = bytes.subarray(first + 1, end);
  if (length === '' || hash('sha256', body) !== digest) {
    throw broken(file.path, 'is no undo file, or of another version');
  }
  return { title: JSON.parse(body.toString('utf8')) as UndoTitle, end, salt: sha256(body) };
}

interface Found {
  /** Null: a mark. */
  readonly record: UndoRecord | null;
  readonly append: number;
  readonly isLast: boolean;
  readonly next: number;
}

/** The head at `at` of `bytes`; null where there is none of this file. */
function headAt(bytes: Buffer, at: number, salt: Uint8Array): Buffer | null {
  const head = bytes.subarray(at, at + HEAD_BYTES);
  const isHead =
    head.length === HEAD_BYTES &&
    head.subarray(0, 4).equals(RECORD_MAGIC) &&
    headDigest(salt, head).equals(head.subarray(56)) &&
    head.readUInt32LE(16) <= CHUNK_BYTES;
  return isHead ? head : null;
}

/** The record at `at` and where the next begins; null where there is no whole one. */
async function readRecord(file: DiskFile, at: number, salt: Uint8Array): Promise<Found | null> {
  const head = headAt(await readAt(file, at, HEAD_BYTES), 0, salt);
  if (head === null) return null;
  const length = head.readUInt32LE(16);
  const flags = head.readUInt32LE(4);
  const isZero = (flags & ZERO_FLAG) !== 0;
  const start = at + HEAD_BYTES;
  const content = isZero ? Buffer.alloc(length) : await readAt(file, start, length);
  const isWhole = content.length === length && sha256(content).equals(head.subarray(24, 56));
  if (!isWhole) return null;
  return {
    record: length === 0 ? null : { offset: Number(head.readBigUInt64LE(8)), content },
    append: head.readUInt32LE(20),
    isLast: (flags & LAST_FLAG) !== 0,
    next: isZero ? start : start + length,
  };
}

/** An undo file that is being filled. */
export class UndoFile {
  /** Bytes appended by this run. */
  keptBytes = 0;
  private readonly file: DiskFile;
  private readonly kept: ChunkSet;
  private readonly salt: Uint8Array;
  private end: number;
  private append = 0;
  /** All that lies in the file is whole, and ends at `end`. */
  private isWhole = true;

  private constructor(file: DiskFile, { sizeBytes }: UndoTitle, end: number, salt: Uint8Array) {
    this.file = file;
    this.kept = new ChunkSet(sizeBytes);
    this.end = end;
    this.salt = salt;
  }

  /** Made, or gone on with where it is of the same failback, volume and target. ERR_UNDO_FILE. */
  static async open(disk: Disk, path: string, folder: string, title: UndoTitle): Promise<UndoFile> {
    const isNew = !(await disk.exists(path));
    const file = await disk.open(path, 'write');
    try {
      if (!isNew && (await file.size()) > 0) return await UndoFile.goOn(disk, file, folder, title);
      const { body, bytes } = encodeTitle(title);
      await file.write([bytes], 0);
      await file.sync();
      await disk.syncDirectory(folder);
      return new UndoFile(file, title, bytes.length, sha256(body));
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  private static async goOn(
    disk: Disk,
    file: DiskFile,
    folder: string,
    wanted: UndoTitle,
  ): Promise<UndoFile> {
    const { title, end, salt } = await readTitle(file);
    const isSame = (['server', 'volume', 'target', 'sizeBytes', 'cause'] as const).every(
      (key) => title[key] === wanted[key],
    );
    if (!isSame) {
      const of = `${title.volume} of ${title.server} on ${title.target} (${title.sizeBytes} bytes)`;
      throw broken(file.path, `keeps ${of} as before ${title.cause}: give another --undo`);
    }
    const undo = new UndoFile(file, title, end, salt);
    for await (const { record, append, next } of recordsFrom(file, end, salt)) {
      if (record !== null) undo.kept.add({ offset: record.offset, length: 1 });
      undo.append = append;
      undo.end = next;
    }
    await file.truncate(undo.end);
    // What was read may never have reached the disk: the run before was killed, not this machine.
    await file.sync();
    await disk.syncDirectory(folder);
    return undo;
  }

  /** Durable once it resolves; chunks that were kept before are left as they were then. */
  async keep(records: readonly UndoRecord[]): Promise<void> {
    const fresh = records.filter(({ offset }) => !this.kept.has(offset));
    const length = await this.put(fresh);
    for (const { offset } of fresh) this.kept.add({ offset, length: 1 });
    this.keptBytes += length;
  }

  private async put(records: readonly UndoRecord[]): Promise<number> {
    const append = this.append + 1;
    const { salt } = this;
    const parts = records.flatMap((record, i) =>
      encodeRecord(record, { append, isLast: i === records.length - 1, salt }),
    );
    const length = parts.reduce((sum, part) => sum + part.length, 0);
    if (length === 0) return 0;
    this.isWhole = false;
    await this.file.write(parts, this.end);
    await this.file.sync();
    this.isWhole = true;
    this.append = append;
    this.end += length;
    return length;
  }

  /** Marks that all before was durable. Without the mark the file is read as after a kill. */
  async close(): Promise<void> {
    try {
      if (this.isWhole && this.keptBytes > 0) await this.put([{ offset: 0, content: NOTHING }]);
    } catch (error) {
      if (!(error instanceof UnderstudyError) || error.code !== 'ERR_DISK_FULL') throw error;
    } finally {
      await this.file.close();
    }
  }
}

/** ERR_UNDO_FILE where damage lies before the end: what was torn can only be the last append. */
async function* recordsFrom(
  file: DiskFile,
  start: number,
  salt: Uint8Array,
): AsyncGenerator<Found> {
  const size = await file.size();
  let last: Pick<Found, 'append' | 'isLast'> = { append: 0, isLast: true };
  for (let at = start; at < size; ) {
    const found = await readRecord(file, at, salt);
    if (found === null) {
      const torn = last.isLast ? last.append + 1 : last.append;
      if (size - at <= MAX_TORN_BYTES && !(await hasLater(file, at, torn, salt))) return;
      throw broken(file.path, `is damaged at byte ${at} of ${size}`);
    }
    yield found;
    last = found;
    at = found.next;
  }
}

/** A head of a later append than `torn` lies behind `at`. */
async function hasLater(
  file: DiskFile,
  at: number,
  torn: number,
  salt: Uint8Array,
): Promise<boolean> {
  const rest = await readAt(file, at, (await file.size()) - at);
  for (let i = rest.indexOf(RECORD_MAGIC); i >= 0; i = rest.indexOf(RECORD_MAGIC, i + 1)) {
    const head = headAt(rest, i, salt);
    if (head !== null && head.readUInt32LE(20) > torn) return true;
  }
  return false;
}

export interface OpenUndo {
  readonly title: UndoTitle;
  /** Each chunk once; may be read again. */
  records(): AsyncGenerator<UndoRecord>;
  /** After the records were read: bytes at the end that belong to a write that had not begun. */
  tornBytes(): Promise<number>;
  close(): Promise<void>;
}

/** To put a disk back. ERR_UNDO_FILE, ERR_DISK_NOT_FOUND. */
export async function readUndoFile(disk: Disk, path: string): Promise<OpenUndo> {
  const file = await disk.open(path, 'read');
  try {
    const { title, end, salt } = await readTitle(file);
    let last = end;
    return {
      title,
      async *records() {
        for await (const { record, next } of recordsFrom(file, end, salt)) {
          last = next;
          if (record !== null) yield record;
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
