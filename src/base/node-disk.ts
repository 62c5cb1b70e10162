/**
 * The durable-file module: `Disk` over the real file system. The only place in the project that calls
 * fsync, rename or link (STYLE, layers). Every error leaves as an UnderstudyError of the ERR_DISK_* codes.
 *
 * Promises: `write` writes everything or throws; `read` is short only at the end of the file; `sync` is
 * fdatasync and is never retried (a failed one leaves the kernel's pages clean and the data lost: the
 * caller must give the file up). A file is closed once, and not used afterwards. Files are made 0600 and
 * folders 0700: content of servers lies in them.
 */
import fs from 'node:fs';
import { dirname } from 'node:path';
import type { Disk, DiskFile, OpenMode } from './disk.ts';
import { type ErrorCode, UnderstudyError } from './errors.ts';
import { claimFile, type Release } from './file-claim.ts';

/** writev takes at most IOV_MAX (1024) buffers a call. */
const MAX_BUFFERS = 1024;

const codes: Record<string, ErrorCode> = {
  ENOENT: 'ERR_DISK_NOT_FOUND',
  ENOTDIR: 'ERR_DISK_NOT_FOUND',
  EEXIST: 'ERR_DISK_EXISTS',
  ENOTEMPTY: 'ERR_DISK_EXISTS',
  EISDIR: 'ERR_DISK_EXISTS',
  ENOSPC: 'ERR_DISK_FULL',
  EDQUOT: 'ERR_DISK_FULL',
  EFBIG: 'ERR_DISK_FULL',
  EACCES: 'ERR_DISK_PERMISSION',
  EPERM: 'ERR_DISK_PERMISSION',
  EROFS: 'ERR_DISK_PERMISSION',
  EBUSY: 'ERR_DISK_PERMISSION',
};

/** A system call's error as one of ours. */
export function diskError(cause: unknown, path: string): UnderstudyError {
  if (cause instanceof UnderstudyError) return cause;
  const { code = 'EIO', syscall = 'unknown' } = cause as NodeJS.ErrnoException;
  const message = `${syscall} of ${path}: ${code}`;
  return new UnderstudyError(
    codes[code] ?? 'ERR_DISK_IO',
    message,
    { path, syscall, errno: code },
    cause,
  );
}

/** Runs a callback-style call of node:fs as a promise. The callback API costs less than FileHandle's. */
function call<T>(
  path: string,
  run: (done: (error: NodeJS.ErrnoException | null, value?: T) => void) => void,
): Promise<T> {
  return new Promise((resolve, reject) => {
    run((error, value) => {
      if (error) reject(diskError(error, path));
      else resolve(value as T);
    });
  });
}

/** The part of `buffers` from byte `skip` on, at most MAX_BUFFERS of them. */
function remaining(buffers: readonly Uint8Array[], skip: number): Uint8Array[] {
  const rest: Uint8Array[] = [];
  let at = 0;
  for (const buffer of buffers) {
    const end = at + buffer.length;
    if (end > skip) rest.push(skip > at ? buffer.subarray(skip - at) : buffer);
    if (rest.length === MAX_BUFFERS) break;
    at = end;
  }
  return rest;
}

/**
 * The number of a closed descriptor is given to the next file that is opened: a call that came late, or a
 * second close, would hit that one. So nothing reaches the system after `close`, and `close` waits.
 */
class NodeFile implements DiskFile {
  readonly path: string;
  private readonly fd: number;
  private readonly release: Release | null;
  private calls = 0;
  private onIdle: (() => void) | null = null;
  private closing: Promise<void> | null = null;
  private failedSync: Promise<void> | null = null;

  /** `release`: to be called once it is closed. */
  constructor(path: string, fd: number, release: Release | null = null) {
    this.path = path;
    this.fd = fd;
    this.release = release;
  }

  read(buffer: Uint8Array, offset: number): Promise<number> {
    return this.use(async () => {
      let done = 0;
      while (done < buffer.length) {
        const at = done;
        const count = await call<number>(this.path, (end) =>
          fs.read(this.fd, buffer, at, buffer.length - at, offset + at, end),
        );
        if (count === 0) break;
        done += count;
      }
      return done;
    });
  }

  write(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    return this.use(async () => {
      const total = buffers.reduce((sum, buffer) => sum + buffer.length, 0);
      let done = 0;
      while (done < total) {
        const part = remaining(buffers, done);
        const at = offset + done;
        const count = await call<number>(this.path, (end) => fs.writev(this.fd, part, at, end));
        if (count === 0) throw diskError({ code: 'ENOSPC', syscall: 'writev' }, this.path);
        done += count;
      }
    });
  }

  truncate(size: number): Promise<void> {
    return this.use(() => call(this.path, (end) => fs.ftruncate(this.fd, size, end)));
  }

  async size(): Promise<number> {
    const stats = () => call<fs.Stats>(this.path, (end) => fs.fstat(this.fd, end));
    return (await this.use(stats)).size;
  }

  sync(): Promise<void> {
    if (this.failedSync !== null) return this.failedSync;
    return this.use(async () => {
      const attempt = call<void>(this.path, (end) => fs.fdatasync(this.fd, end));
      try {
        await attempt;
      } catch (error) {
        this.failedSync = attempt;
        throw error;
      }
    });
  }

  close(): Promise<void> {
    this.closing ??= this.closeOnce();
    return this.closing;
  }

  private async use<T>(run: () => Promise<T>): Promise<T> {
    if (this.closing !== null) throw diskError({ code: 'EBADF', syscall: 'use' }, this.path);
    this.calls += 1;
    try {
      return await run();
    } finally {
      this.calls -= 1;
      if (this.calls === 0) this.onIdle?.();
    }
  }

  private async closeOnce(): Promise<void> {
    if (this.calls > 0) {
      await new Promise<void>((resolve) => {
        this.onIdle = resolve;
      });
    }
    try {
      await call(this.path, (end) => fs.close(this.fd, end));
    } finally {
      await this.release?.();
    }
  }
}

const flags: Record<OpenMode, number> = {
  read: fs.constants.O_RDONLY,
  create: fs.constants.O_RDWR | fs.constants.O_CREAT | fs.constants.O_EXCL,
  write: fs.constants.O_RDWR | fs.constants.O_CREAT,
};

/**
 * A disk (or a file that stands for one) to be read and written past the page cache, where its driver or
 * file system can: buffers must then be aligned (aligned.ts), and offsets and lengths whole sectors. Nothing
 * else may have it: ERR_DISK_PERMISSION with errno EBUSY where something has the block device mounted, as
 * swap, or in an array, and where the file is open in this way already.
 */
export async function openRawDisk(path: string, kind: 'block' | 'file'): Promise<DiskFile> {
  const { O_RDWR, O_EXCL, O_DIRECT } = fs.constants;
  const open = (mode: number) => call<number>(path, (end) => fs.open(path, mode, end));
  if (kind === 'file') {
    const fd = await open(O_RDWR);
    // By what is open: the name may be another file's by now.
    const release = await claimFile(`/proc/self/fd/${fd}`).catch(async (cause: unknown) => {
      await call(path, (end) => fs.close(fd, end));
      throw diskError(cause, path);
    });
    return new NodeFile(path, fd, release);
  }
  try {
    return new NodeFile(path, await open(O_RDWR | O_EXCL | O_DIRECT));
  } catch (error) {
    if (!(error instanceof UnderstudyError) || error.context.errno !== 'EINVAL') throw error;
    return new NodeFile(path, await open(O_RDWR | O_EXCL));
  }
}

async function list(path: string): Promise<{ name: string; isDirectory: boolean }[]> {
  try {
    const found = await call<fs.Dirent[]>(path, (end) =>
      fs.readdir(path, { withFileTypes: true }, end),
    );
    return found
      .map((entry) => ({ name: entry.name, isDirectory: entry.isDirectory() }))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  } catch (error) {
    if (error instanceof UnderstudyError && error.code === 'ERR_DISK_NOT_FOUND') return [];
    throw error;
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await call(path, (end) => fs.lstat(path, end));
    return true;
  } catch (error) {
    if (error instanceof UnderstudyError && error.code === 'ERR_DISK_NOT_FOUND') return false;
    throw error;
  }
}

/** The folder of a path and what is above it, outermost first, as far as they are missing. */
async function missingFolders(path: string): Promise<string[]> {
  const missing: string[] = [];
  for (let at = path; !(await exists(at)); at = dirname(at)) missing.unshift(at);
  return missing;
}

/**
 * Not `recursive`: where a file system takes no folder and says so by ENOENT (/proc), Node goes on for ever.
 * Somebody else may have made it meanwhile.
 */
async function makeOne(path: string): Promise<void> {
  try {
    await call(path, (end) => fs.mkdir(path, 0o700, end));
  } catch (error) {
    if (!(error instanceof UnderstudyError) || error.code !== 'ERR_DISK_EXISTS') throw error;
    const stats = await call<fs.Stats>(path, (end) => fs.stat(path, end));
    if (!stats.isDirectory()) throw error;
  }
}

async function syncDirectory(path: string): Promise<void> {
  const fd = await call<number>(path, (end) => fs.open(path, fs.constants.O_RDONLY, end));
  try {
    await call(path, (end) => fs.fsync(fd, end));
  } finally {
    await call(path, (end) => fs.close(fd, end));
  }
}

export const nodeDisk: Disk = {
  async open(path, mode) {
    const fd = await call<number>(path, (end) => fs.open(path, flags[mode], 0o600, end));
    return new NodeFile(path, fd);
  },
  readFile: (path) => call<Uint8Array>(path, (end) => fs.readFile(path, end)),
  list,
  exists,
  /** Makes what is missing above it too, and makes those names durable. */
  async makeDirectory(path) {
    for (const folder of await missingFolders(path)) {
      await makeOne(folder);
      await syncDirectory(dirname(folder));
    }
  },
  rename: (from, to) => call(from, (end) => fs.rename(from, to, end)),
  link: (from, to) => call(from, (end) => fs.link(from, to, end)),
  remove: (path) => call(path, (end) => fs.unlink(path, end)),
  syncDirectory,
};
