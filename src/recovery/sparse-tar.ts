/**
 * The head of a tar archive with one sparse file, in the old GNU format (`tar --format=oldgnu -S`), the
 * one in which Google Compute Engine takes a disk: to bytes and back. Pure.
 *
 *   0 name 100 | 100 mode 8 | 108 uid 8 | 116 gid 8 | 124 bytes that follow 12 | 136 time 12
 *   148 checksum 8 | 156 type 'S' | 157 link 100 | 257 magic 8 "ustar  \0" | ... | 386 4 runs of 24
 *   482 1 where another block of 21 runs follows | 483 size of the file 12 | zeros to 512
 *
 * A run is its offset and its length, 12 bytes each: octal, or from 8 GiB on 0x80 and 88 bits. The bytes
 * of the runs follow back to back; each run but for a last empty one is a multiple of 512 long.
 */
import { assert, UnderstudyError } from '../base/errors.ts';

export const TAR_BLOCK_BYTES = 512;
/** GNU tar reads and writes records of so many bytes. */
const RECORD_BYTES = 20 * TAR_BLOCK_BYTES;
const RUNS_IN_HEAD = 4;
const RUNS_IN_EXTENSION = 21;
const RUN_BYTES = 24;
const MAX_OCTAL = 8 ** 11;
const MAGIC = 'ustar  \0';
const at = { size: 124, checksum: 148, type: 156, magic: 257, runs: 386, more: 482, realSize: 483 };

/** Bytes of the file that are not a hole. */
export interface TarRun {
  readonly offset: number;
  readonly length: number;
}
export interface SparseFile {
  readonly name: string;
  /** Of the file, holes included. */
  readonly sizeBytes: number;
  /** Ascending, apart, each a multiple of 512 bytes. */
  readonly runs: readonly TarRun[];
}

function putNumber(block: Buffer, value: number, offset: number): void {
  assert(Number.isSafeInteger(value) && value >= 0, `number ${value} in a tar head`);
  if (value < MAX_OCTAL) {
    block.write(`${value.toString(8).padStart(11, '0')}\0`, offset, 'latin1');
    return;
  }
  block[offset] = 0x80;
  block.writeBigUInt64BE(BigInt(value), offset + 4);
}

const bad = (detail: string): UnderstudyError =>
  new UnderstudyError('ERR_EXPORT_MISMATCH', `the written archive is damaged: ${detail}`);

function getNumber(block: Buffer, offset: number): number {
  if (block[offset] === 0x80) {
    const value = Number(block.readBigUInt64BE(offset + 4));
    if (!Number.isSafeInteger(value)) throw bad('a number is out of range');
    return value;
  }
  const text = block.toString('latin1', offset, offset + 11);
  if (!/^[0-7]{11}$/.test(text)) throw bad('a number is not octal');
  return Number.parseInt(text, 8);
}

/** Sum of all bytes, those of the checksum itself taken for spaces. */
function checksumOf(block: Buffer): number {
  let sum = 8 * 0x20;
  for (let i = 0; i < TAR_BLOCK_BYTES; i += 1) {
    if (i < at.checksum || i >= at.checksum + 8) sum += block[i]!;
  }
  return sum;
}

export const runsLength = (runs: readonly TarRun[]): number =>
  runs.reduce((sum, { length }) => sum + length, 0);

function putRuns(block: Buffer, runs: readonly TarRun[], offset: number): void {
  runs.forEach((run, i) => {
    putNumber(block, run.offset, offset + i * RUN_BYTES);
    putNumber(block, run.length, offset + i * RUN_BYTES + RUN_BYTES / 2);
  });
}

/** What stands before the bytes of the runs. `timeMs` is the file's time. */
export function encodeSparseHead(file: SparseFile, timeMs: number): Buffer {
  const last = file.runs.at(-1);
  const end = last === undefined ? 0 : last.offset + last.length;
  assert(end <= file.sizeBytes, 'runs lie inside of the file');
  assert(
    file.runs.every(({ length }) => length % TAR_BLOCK_BYTES === 0),
    'runs are whole blocks',
  );
  // An empty run at the end says that a hole is there.
  const runs =
    end < file.sizeBytes ? [...file.runs, { offset: file.sizeBytes, length: 0 }] : file.runs;
  const extensions: Buffer[] = [];
  for (let from = RUNS_IN_HEAD; from < runs.length; from += RUNS_IN_EXTENSION) {
    const block = Buffer.alloc(TAR_BLOCK_BYTES);
    putRuns(block, runs.slice(from, from + RUNS_IN_EXTENSION), 0);
    block[RUNS_IN_EXTENSION * RUN_BYTES] = from + RUNS_IN_EXTENSION < runs.length ? 1 : 0;
    extensions.push(block);
  }
  const head = Buffer.alloc(TAR_BLOCK_BYTES);
  head.write(file.name, 0, 100, 'utf8');
  head.write(`0000644\0${'0000000\0'.repeat(2)}`, 100, 'latin1');
  putNumber(head, runsLength(file.runs), at.size);
  putNumber(head, Math.floor(timeMs / 1000), 136);
  head.write('S', at.type, 'latin1');
  head.write(MAGIC, at.magic, 'latin1');
  putRuns(head, runs.slice(0, RUNS_IN_HEAD), at.runs);
  head[at.more] = extensions.length > 0 ? 1 : 0;
  putNumber(head, file.sizeBytes, at.realSize);
  head.write(`${checksumOf(head).toString(8).padStart(6, '0')}\0 `, at.checksum, 'latin1');
  return Buffer.concat([head, ...extensions]);
}

/** Zeros after `length` bytes of archive: its end, and what fills the record. */
export function endOfArchive(length: number): Buffer {
  const end = length + 2 * TAR_BLOCK_BYTES;
  return Buffer.alloc(Math.ceil(end / RECORD_BYTES) * RECORD_BYTES - length);
}

/**
 * Reads a head through `take`, which gives the next so many bytes. Throws ERR_EXPORT_MISMATCH where it is
 * not one that `encodeSparseHead` makes, but for its time.
 */
export async function decodeSparseHead(
  take: (length: number) => Promise<Buffer>,
): Promise<SparseFile> {
  const head = await take(TAR_BLOCK_BYTES);
  const told = head.toString('latin1', at.checksum, at.checksum + 6);
  if (Number.parseInt(told, 8) !== checksumOf(head)) throw bad('its head has another checksum');
  const isOurs =
    head.toString('latin1', at.magic, at.magic + 8) === MAGIC && head[at.type] === 0x53;
  if (!isOurs) throw bad('not a sparse file of the old GNU format');
  const runs = getRuns(head, at.runs, RUNS_IN_HEAD);
  let isMore = head[at.more] === 1;
  while (isMore) {
    const block = await take(TAR_BLOCK_BYTES);
    for (const run of getRuns(block, 0, RUNS_IN_EXTENSION)) runs.push(run);
    isMore = block[RUNS_IN_EXTENSION * RUN_BYTES] === 1;
  }
  const sizeBytes = getNumber(head, at.realSize);
  const data = runs.filter(({ length }) => length > 0);
  if (runsLength(data) !== getNumber(head, at.size)) throw bad('its runs do not add up');
  const name = head.toString('utf8', 0, head.indexOf(0));
  return { name, sizeBytes, runs: data };
}

/** Up to `count` runs; a place that is all zero ends the list. */
function getRuns(block: Buffer, offset: number, count: number): TarRun[] {
  const runs: TarRun[] = [];
  for (let i = 0; i < count; i += 1) {
    const from = offset + i * RUN_BYTES;
    if (block[from] === 0) break;
    runs.push({ offset: getNumber(block, from), length: getNumber(block, from + RUN_BYTES / 2) });
  }
  return runs;
}
