/**
 * The names in an initramfs: one cpio archive after another (newc), the last of them compressed as a rule;
 * microcode comes first, in clear. gzip and zstd are read here, other compressions by their programs. The
 * contents of files are skipped. Reads the image once, and keeps names only.
 */
import { spawn } from 'node:child_process';
import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import type { Readable } from 'node:stream';
import { createGunzip, createZstdDecompress } from 'node:zlib';

const HEADER_BYTES = 110;
const TRAILER = 'TRAILER!!!';
/** Beyond these it is no initramfs that anyone makes. */
const MAX_NAMES = 200_000;
const MAX_NAME_BYTES = 4096;

/** First bytes in hex, and the way to read what follows. */
const compressions: readonly { magic: string; program: string; args?: readonly string[] }[] = [
  { magic: '1f8b', program: 'gzip' },
  { magic: '28b52ffd', program: 'zstd' },
  { magic: 'fd377a585a00', program: 'xz' },
  { magic: '02214c18', program: 'lz4' },
  { magic: '04224d18', program: 'lz4' },
  { magic: '425a68', program: 'bzip2' },
  { magic: '5d0000', program: 'xz', args: ['--format=lzma'] },
  { magic: '894c5a4f', program: 'lzop' },
];

/** Walks through archives piece by piece. */
class CpioWalker {
  readonly names: string[] = [];
  /** Bytes up to the end of what is known to be archive. */
  consumed = 0;
  /** What follows is no cpio archive. */
  isEnded = false;
  /** Between two archives, or behind the last. */
  isWhole = false;
  private rest: Buffer = Buffer.alloc(0);
  private skip = 0;

  push(bytes: Buffer): void {
    this.rest = this.rest.length === 0 ? bytes : Buffer.concat([this.rest, bytes]);
    while (!this.isEnded && this.step());
  }

  private take(length: number): void {
    this.rest = this.rest.subarray(length);
    this.consumed += length;
  }

  /** False where more bytes are needed. */
  private step(): boolean {
    if (this.skip > 0) {
      const length = Math.min(this.skip, this.rest.length);
      this.skip -= length;
      this.take(length);
      return this.skip === 0;
    }
    const zeros = this.rest.findIndex((byte) => byte !== 0);
    // Archives are filled up with zeros, to 512 bytes or more.
    if (zeros !== 0) {
      this.take(zeros === -1 ? this.rest.length : zeros);
      if (zeros === -1) return false;
    }
    if (this.rest.length < HEADER_BYTES) {
      const magic = this.rest.toString('latin1', 0, 6);
      this.isEnded = this.rest.length >= 6 && !/^07070[12]$/.test(magic);
      return false;
    }
    return this.entry();
  }

  private entry(): boolean {
    const header = this.rest.toString('latin1', 0, HEADER_BYTES);
    if (!/^07070[12][0-9a-f]{104}$/i.test(header)) {
      this.isEnded = true;
      return false;
    }
    const field = (index: number) => Number.parseInt(header.substr(6 + 8 * index, 8), 16);
    const fileBytes = field(6);
    const nameBytes = field(11);
    if (nameBytes === 0 || nameBytes > MAX_NAME_BYTES) throw new Error('a name of no sense');
    const headBytes = padded(HEADER_BYTES + nameBytes);
    if (this.rest.length < headBytes) return false;
    const name = this.rest.toString('utf8', HEADER_BYTES, HEADER_BYTES + nameBytes - 1);
    this.take(headBytes);
    this.skip = padded(fileBytes);
    this.isWhole = name === TRAILER;
    if (!this.isWhole) this.names.push(name);
    if (this.names.length > MAX_NAMES) throw new Error('more files than any initramfs has');
    return true;
  }
}
const padded = (length: number): number => Math.ceil(length / 4) * 4;

/** Names of all files. Throws where the image is of a kind that cannot be read here, or damaged. */
export async function listInitramfs(path: string): Promise<string[]> {
  const names: string[] = [];
  for (let at = 0; ; ) {
    const magic = await bytesAt(path, at, 6);
    const isPlain = /^07070[12]$/.test(magic.toString('latin1'));
    if (magic.length === 0 && names.length > 0) return names;
    const walker = new CpioWalker();
    if (!isPlain) {
      await walk(walker, unpacked(path, at, magic.toString('hex')));
      for (const name of walker.names) names.push(name);
      return names;
    }
    await walk(walker, createReadStream(path, { start: at }));
    for (const name of walker.names) names.push(name);
    at += walker.consumed;
  }
}

async function bytesAt(path: string, at: number, length: number): Promise<Buffer> {
  const file = await open(path, 'r');
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, at);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

/** What is wrong behind a whole archive is none of ours; before its end the list would be wrong. */
async function walk(walker: CpioWalker, stream: Readable): Promise<void> {
  try {
    for await (const chunk of stream) {
      walker.push(chunk as Buffer);
      // Leaving the loop destroys the stream.
      if (walker.isEnded) break;
    }
  } catch (error) {
    if (!walker.isWhole) throw error;
  }
  if (!walker.isWhole) throw new Error('it is cut short, or no cpio archive');
}

function unpacked(path: string, start: number, magic: string): Readable {
  const found = compressions.find((each) => magic.startsWith(each.magic));
  if (found === undefined) throw new Error(`unknown compression (${magic})`);
  const { program, args = [] } = found;
  const packed = createReadStream(path, { start });
  if (program === 'gzip' || program === 'zstd') {
    const through = program === 'gzip' ? createGunzip() : createZstdDecompress();
    packed.on('error', (error) => through.destroy(error));
    through.on('close', () => packed.destroy());
    return packed.pipe(through);
  }
  const child = spawn(program, ['-dc', ...args], { stdio: ['pipe', 'pipe', 'ignore'] });
  const fail = (error: Error) => child.stdout.destroy(error);
  child.on('error', (error: NodeJS.ErrnoException) =>
    fail(error.code === 'ENOENT' ? new Error(`${program} is not installed`) : error),
  );
  packed.on('error', fail);
  // The program ends first where the rest of the image is not its own.
  child.stdin.on('error', () => packed.destroy());
  child.stdout.on('close', () => {
    packed.destroy();
    child.kill();
  });
  packed.pipe(child.stdin);
  return child.stdout;
}
