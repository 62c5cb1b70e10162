/**
 * The files of an initramfs in memory: cpio archives one after another ("newc"), the last ones packed as a
 * rule. gzip and zstd are unpacked here, others by their programs of this machine. It comes from a source's
 * disk: sizes are bounded before anything is unpacked, and what is of no sense is an error, never a guess.
 */
import { spawn } from 'node:child_process';
import { promisify } from 'node:util';
import { gunzip, zstdDecompress } from 'node:zlib';
import { MIB } from '../../base/units.ts';

export interface InitramfsFile {
  readonly name: string;
  readonly isLink: boolean;
  readonly content: Buffer;
}

/** Where it cannot be read; the message says why. */
export class InitramfsError extends Error {}

/** Of all parts of an image together: what is unpacked stays in memory until the end. */
const MAX_UNPACKED_BYTES = 512 * MIB;
const MAX_FILES = 200_000;
const MAX_PARTS = 256;
const HEADER_BYTES = 110;
const TRAILER = 'TRAILER!!!';

const packings: readonly { magic: string; program: string; words: readonly string[] }[] = [
  { magic: '1f8b', program: 'gzip', words: [] },
  { magic: '28b52ffd', program: 'zstd', words: [] },
  { magic: 'fd377a585a00', program: 'xz', words: ['-dc'] },
  { magic: '02214c18', program: 'lz4', words: ['-dc'] },
  { magic: '04224d18', program: 'lz4', words: ['-dc'] },
  { magic: '425a68', program: 'bzip2', words: ['-dc'] },
  { magic: '5d0000', program: 'xz', words: ['--format=lzma', '-dc'] },
  { magic: '894c5a4f', program: 'lzop', words: ['-dc'] },
];

export interface Initramfs {
  readonly files: ReadonlyMap<string, InitramfsFile>;
}

/** What was read so far. */
interface Reading {
  readonly files: Map<string, InitramfsFile>;
  /** Entries, those that replace another counted too. */
  entries: number;
  /** That may still be unpacked. */
  roomBytes: number;
}

/**
 * A later file replaces an earlier one of its name, as for the kernel. `mostBytes`: of what is unpacked.
 * InitramfsError.
 */
export async function readInitramfs(
  image: Buffer,
  mostBytes = MAX_UNPACKED_BYTES,
): Promise<Initramfs> {
  const reading: Reading = { files: new Map(), entries: 0, roomBytes: mostBytes };
  const { files } = reading;
  let rest = image;
  for (let part = 0; ; part += 1) {
    rest = withoutZeros(rest);
    if (rest.length === 0) break;
    if (part === MAX_PARTS) throw new InitramfsError('more parts than any initramfs has');
    if (isArchive(rest)) {
      rest = readArchive(rest, reading);
      continue;
    }
    const { plain, used } = await unpacked(rest, reading.roomBytes);
    reading.roomBytes -= plain.length;
    readArchives(plain, reading);
    rest = used === null ? tailArchive(rest) : rest.subarray(used);
  }
  if (files.size === 0) throw new InitramfsError('it is empty');
  return { files };
}

const isArchive = (bytes: Buffer): boolean => /^07070[12]$/.test(bytes.toString('latin1', 0, 6));

function withoutZeros(bytes: Buffer): Buffer {
  let at = 0;
  while (at < bytes.length && bytes[at] === 0) at += 1;
  return bytes.subarray(at);
}

function readArchives(bytes: Buffer, reading: Reading): void {
  let rest = withoutZeros(bytes);
  while (rest.length > 0 && isArchive(rest)) rest = withoutZeros(readArchive(rest, reading));
}

/** What follows the archive. */
function readArchive(bytes: Buffer, reading: Reading): Buffer {
  let at = 0;
  for (;;) {
    const header = bytes.toString('latin1', at, at + HEADER_BYTES);
    if (!/^07070[12][0-9a-f]{104}$/i.test(header)) throw new InitramfsError('it is cut short');
    const field = (index: number) =>
      Number.parseInt(header.slice(6 + 8 * index, 14 + 8 * index), 16);
    const [mode, size, nameSize] = [field(1), field(6), field(11)];
    const start = padded(at + HEADER_BYTES + nameSize);
    const end = start + size;
    if (nameSize === 0 || nameSize > 4096 || end > bytes.length) {
      throw new InitramfsError('it is cut short');
    }
    const nameAt = at + HEADER_BYTES;
    const name = bytes.toString('utf8', nameAt, nameAt + nameSize - 1).replace(/^\.?\/+/, '');
    at = padded(end);
    if (name === TRAILER) return bytes.subarray(Math.min(at, bytes.length));
    const isLink = (mode & 0o170000) === 0o120000;
    reading.entries += 1;
    if (reading.entries > MAX_FILES) {
      throw new InitramfsError('more files than any initramfs has');
    }
    reading.files.set(name, { name, isLink, content: bytes.subarray(start, end) });
  }
}

const padded = (length: number): number => Math.ceil(length / 4) * 4;

interface Unpacked {
  readonly plain: Buffer;
  /** Null: the program does not tell where its own bytes end. */
  readonly used: number | null;
}

/** More than `mostBytes` is an InitramfsError. */
async function unpacked(bytes: Buffer, mostBytes: number): Promise<Unpacked> {
  const magic = bytes.toString('hex', 0, 6);
  const packing = packings.find((each) => magic.startsWith(each.magic));
  if (packing === undefined) throw new InitramfsError(`of an unknown packing (${magic})`);
  const { program, words } = packing;
  // An archive of our own may lie behind; the programs would take it for damage.
  const own = bytes.subarray(0, bytes.length - tailArchive(bytes).length);
  try {
    if (program === 'gzip') return { plain: await unzipped(own, mostBytes), used: null };
    if (program === 'zstd') {
      const used = zstdLength(bytes);
      return { plain: await unzstd(bytes.subarray(0, used), mostBytes), used };
    }
    return { plain: await byProgram(program, words, own, mostBytes), used: null };
  } catch (cause) {
    if (cause instanceof InitramfsError) throw cause;
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new InitramfsError(`it cannot be unpacked: ${why}`);
  }
}

const limit = (mostBytes: number) => ({ maxOutputLength: Math.max(1, mostBytes) });
const unzipped = (bytes: Buffer, mostBytes: number): Promise<Buffer> =>
  promisify(gunzip)(bytes, limit(mostBytes));
const unzstd = (bytes: Buffer, mostBytes: number): Promise<Buffer> =>
  promisify(zstdDecompress)(bytes, limit(mostBytes));

/** The first file in an archive of ours; see initramfs-archive.ts. */
export const APPENDED_MARK = 'understudy-prepared';

/** From the first archive that was appended, told by its first file; empty where there is none. */
function tailArchive(bytes: Buffer): Buffer {
  for (let from = HEADER_BYTES; ; ) {
    const at = bytes.indexOf(`${APPENDED_MARK}\0`, from, 'latin1');
    if (at === -1) return bytes.subarray(bytes.length);
    const tail = bytes.subarray(at - HEADER_BYTES);
    if (isArchive(tail)) return tail;
    from = at + 1;
  }
}

/** Length of the first frame (RFC 8878, 3.1.1): behind it the format allows no padding. */
function zstdLength(bytes: Buffer): number {
  const descriptor = bytes[4] ?? 0;
  const isSingle = (descriptor & 0x20) !== 0;
  const dictionary = [0, 1, 2, 4][descriptor & 3]!;
  const size = [isSingle ? 1 : 0, 2, 4, 8][descriptor >> 6]!;
  let at = 5 + (isSingle ? 0 : 1) + dictionary + size;
  for (;;) {
    if (at + 3 > bytes.length) throw new InitramfsError('it is cut short');
    const block = bytes.readUIntLE(at, 3);
    const isRepeated = ((block >> 1) & 3) === 1;
    at += 3 + (isRepeated ? 1 : block >> 3);
    if ((block & 1) === 1) break;
  }
  return at + ((descriptor & 4) === 0 ? 0 : 4);
}

function byProgram(
  program: string,
  words: readonly string[],
  input: Buffer,
  mostBytes: number,
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, words, { stdio: ['pipe', 'pipe', 'ignore'] });
    const parts: Buffer[] = [];
    let length = 0;
    child.stdout.on('data', (part: Buffer) => {
      parts.push(part);
      length += part.length;
      if (length > mostBytes) child.kill('SIGKILL');
    });
    child.on('error', (error: NodeJS.ErrnoException) => {
      const isAbsent = error.code === 'ENOENT';
      reject(isAbsent ? new InitramfsError(`${program} is not installed here`) : error);
    });
    // It ends first where it has had enough.
    child.stdin.on('error', () => child.stdin.destroy());
    child.on('close', (code) => {
      // What follows its own bytes may be an error to it; what came out is looked at anyway.
      const isBounded = length <= mostBytes;
      if (isBounded && (code === 0 || length > 0)) resolve(Buffer.concat(parts));
      else reject(new InitramfsError(`${program} cannot unpack it`));
    });
    child.stdin.end(input);
  });
}
