/**
 * What a failback overwrites, kept so that the disk can be put back: before a chunk of the target is
 * written, its old content is appended here and synced. A chunk is kept once, as it was before the first
 * run of that failback; a run that was killed is gone on with in the same file. Once the disk was put back
 * it may be used again, and then what is kept is too old for it: the next run begins the file anew, as the
 * next round. Between begin and end of putting back no run may use it (put-back-mark.ts).
 *
 *   line 1    "understudy-undo 3 <length of line 2> <SHA-256 of line 2, hex>"
 *   line 2    JSON: {server, volume, target, sizeBytes (of the target), cause, time, round (from 1)}
 *   marks     1024 bytes: whether it was put back; see put-back-mark.ts
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
import { isZeroFilled } from '../../store/images/image-digests.ts';
import { ChunkSet } from './chunk-set.ts';
import { MARKS_BYTES, type PutBack, type PutBackEvent, PutBackMarks } from './put-back-mark.ts';

const MAGIC = 'understudy-undo 3';
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

/** As the file has it. */
export interface KeptTitle extends UndoTitle {
  /** From 1: how often a run has begun the file anew, after the disk was put back. */
  readonly round: number;
}

export interface UndoRecord {
  readonly offset: number;
  readonly content: Uint8Array;
}

const sha256 = (bytes: Uint8Array): Buffer => hash('sha256', bytes, 'buffer');
const broken = (path: string, what: string): UnderstudyError =>
  new UnderstudyError('ERR_UNDO_FILE', `${path} ${what}`, { path });

/** All in front of the records. */
function encodeTitle(title: KeptTitle): Buffer {
  const body = Buffer.from(`${JSON.stringify(title)}\n`);
  const first = Buffer.from(`${MAGIC} ${body.length} ${hash('sha256', body)}\n`);
  return Buffer.concat([first, body, Buffer.alloc(MARKS_BYTES)]);
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
  readonly title: KeptTitle;
  readonly marks: PutBackMarks;
  /** Where the records begin. */
  readonly end: number;
  readonly salt: Uint8Array;
}

async function readTitle(file: DiskFile): Promise<Title> {
  const bytes = await readAt(file, 0, MAX_TITLE_BYTES);
  const first = bytes.indexOf(0x0a);
  const [, length = '', digest = ''] =
    /^understudy-undo 3 (\d+) ([0-9a-f]{64})$/.exec(
      bytes.toString('latin1', 0, Math.max(0, first)),
    ) ?? [];
  const end = first + 1 + Number(length);
  const body = bytes.subarray(first + 1, end);
  if (length === '' || hash('sha256', body) !== digest) {
    throw broken(file.path, 'is no undo file, or of another version');
  }
  const salt = sha256(body);
  const marks = new PutBackMarks(salt, end, await readAt(file, end, MARKS_BYTES));
  const title = JSON.parse(body.toString('utf8')) as KeptTitle;
  return { title, marks, end: end + MARKS_BYTES, salt };
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

  /**
   * Made, or gone on with where it is of the same failback, volume and target; begun anew where the disk was
   * put back from it. ERR_UNDO_FILE.
   */
  static async open(disk: Disk, path: string, folder: string, title: UndoTitle): Promise<UndoFile> {
    const before = await UndoFile.openKept(disk, path, folder, title);
    if (before instanceof UndoFile) return before;
    const part = `${path}.new`;
    const file = await disk.open(part, 'write');
    try {
      await file.truncate(0);
      await file.write([encodeTitle({ ...title, round: before.round })], 0);
      await file.sync();
    } finally {
      await file.close();
    }
    await disk.rename(part, path);
    await disk.syncDirectory(folder);
    const made = await UndoFile.openKept(disk, path, folder, title);
    if (made instanceof UndoFile) return made;
    throw broken(path, 'was taken away while it was made');
  }

  /** The one that is there; else of which round one is to be made. */
  private static async openKept(
    disk: Disk,
    path: string,
    folder: string,
    wanted: UndoTitle,
  ): Promise<UndoFile | { round: number }> {
    if (!(await disk.exists(path))) return { round: 1 };
    const file = await disk.open(path, 'write');
    try {
      if ((await file.size()) > 0) {
        const { title, marks, end, salt } = await readTitle(file);
        refuseOther(file.path, title, wanted);
        if (marks.last === null)
          return await UndoFile.goOn(disk, file, folder, { title, end, salt });
        refuseUndone(file.path, title, marks.last);
        await file.close();
        return { round: title.round + 1 };
      }
      await file.close();
      return { round: 1 };
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  private static async goOn(
    disk: Disk,
    file: DiskFile,
    folder: string,
    { title, end, salt }: Omit<Title, 'marks'>,
  ): Promise<UndoFile> {
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

/** ERR_UNDO_FILE where it is of another failback, volume or target. */
function refuseOther(path: string, title: UndoTitle, wanted: UndoTitle): void {
  const isSame = (['server', 'volume', 'target', 'sizeBytes', 'cause'] as const).every(
    (key) => title[key] === wanted[key],
  );
  if (isSame) return;
  const of = `${title.volume} of ${title.server} on ${title.target} (${title.sizeBytes} bytes)`;
  throw broken(path, `keeps ${of} as before ${title.cause}: give another --undo`);
}

/** ERR_UNDO_FILE where what it keeps may still be needed. */
function refuseUndone(path: string, { target }: UndoTitle, last: PutBack): void {
  if (last.event === 'begun') {
    const what = `began to be put back on ${last.target || target}, and that has not ended`;
    throw broken(path, `${what}: run failback undo again, or give another --undo`);
  }
  if (!last.isElsewhere) return;
  throw broken(path, `was put back on ${last.target}, not on ${target}: give another --undo`);
}

export interface OpenUndo {
  readonly title: KeptTitle;
  /** What was done with it last; null: nothing was put back since the run that filled it. */
  readonly last: PutBack | null;
  /** Each chunk once; may be read again. */
  records(): AsyncGenerator<UndoRecord>;
  /** After the records were read: bytes at the end that belong to a write that had not begun. */
  tornBytes(): Promise<number>;
  /** Notes that putting back on `target` begins or has ended. Durable once it resolves. */
  mark(event: PutBackEvent, target: string, time: string): Promise<void>;
  close(): Promise<void>;
}

/** To put a disk back. ERR_UNDO_FILE, ERR_DISK_NOT_FOUND. */
export async function readUndoFile(disk: Disk, path: string): Promise<OpenUndo> {
  const file = await disk.open(path, 'read');
  try {
    const { title, marks, end, salt } = await readTitle(file);
    let last = end;
    return {
      title,
      last: marks.last,
      async *records() {
        for await (const { record, next } of recordsFrom(file, end, salt)) {
          last = next;
          if (record !== null) yield record;
        }
      },
      tornBytes: async () => (await file.size()) - last,
      async mark(event, target, time) {
        const { bytes, at } = marks.next({ event, target, time, of: title.target });
        const writing = await disk.open(path, 'write');
        try {
          await writing.write([bytes], at);
          await writing.sync();
        } finally {
          await writing.close();
        }
      },
      close: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}
