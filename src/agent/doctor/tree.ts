/**
 * Files of a machine below a root: `/` on the machine itself, a folder where one was recorded. Links are
 * followed inside of the root. What is not there, or may not be read, reads as nothing: whoever judges says
 * what it means. Reads only.
 */
import { lstat, open, readdir, readFile, readlink, stat, statfs } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

const MAX_LINKS = 40;
const MAX_TEXT_BYTES = 16 * 2 ** 20;
/** What sysfs, procfs and a strange machine answer for what is not there or not ours. */
const ABSENT = new Set([
  ...['ENOENT', 'ENOTDIR', 'EISDIR', 'ELOOP', 'EINVAL', 'ENODEV', 'ENXIO', 'EIO', 'ENOMEDIUM'],
  ...['EACCES', 'EPERM', 'EOPNOTSUPP', 'ENODATA', 'ETIMEDOUT', 'ESTALE', 'EHOSTDOWN'],
]);

async function orElse<T>(run: () => Promise<T>, otherwise: T): Promise<T> {
  try {
    return await run();
  } catch (error) {
    if (ABSENT.has((error as NodeJS.ErrnoException).code ?? '')) return otherwise;
    throw error;
  }
}

export class Tree {
  private readonly root: string;

  constructor(root = '/') {
    this.root = root;
  }

  /** Path for the system's calls. */
  async at(path: string): Promise<string> {
    return this.root === '/' ? path : join(this.root, await this.resolve(path));
  }

  /** Where `path` leads, seen from the root; what does not exist stays as it is. */
  async resolve(path: string): Promise<string> {
    let parts = path.split('/').filter(Boolean);
    let done = '/';
    for (let links = 0; parts.length > 0; ) {
      const [part, ...rest] = parts;
      parts = rest;
      if (part === '.') continue;
      if (part === '..') {
        done = dirname(done);
        continue;
      }
      const next = join(done, part!);
      const target = await orElse(() => this.linkAt(next), null);
      if (target === null) {
        done = next;
        continue;
      }
      links += 1;
      if (links > MAX_LINKS) return path;
      if (target.startsWith('/')) done = '/';
      parts = [...target.split('/').filter(Boolean), ...parts];
    }
    return done;
  }

  private async linkAt(path: string): Promise<string | null> {
    const own = join(this.root, path);
    return (await lstat(own)).isSymbolicLink() ? readlink(own) : null;
  }

  /** Name of the file that `path` leads to. */
  async nameOf(path: string): Promise<string> {
    return basename(await this.resolve(path));
  }

  bytes(path: string): Promise<Buffer | null> {
    return orElse(async () => {
      const bytes = await readFile(await this.at(path));
      return bytes.length > MAX_TEXT_BYTES ? null : bytes;
    }, null);
  }

  /** Trimmed; '' where there is none. */
  async text(path: string): Promise<string> {
    return ((await this.bytes(path))?.toString('utf8') ?? '').trim();
  }

  /** The first `length` bytes of a file or device, or what there is; null where it cannot be read. */
  head(path: string, length: number): Promise<Buffer | null> {
    return orElse(async () => {
      const file = await open(await this.at(path), 'r');
      try {
        const bytes = Buffer.alloc(length);
        const { bytesRead } = await file.read(bytes, 0, length, 0);
        return bytes.subarray(0, bytesRead);
      } finally {
        await file.close();
      }
    }, null);
  }

  /** Sorted. */
  async list(path: string): Promise<string[]> {
    return (await orElse(async () => readdir(await this.at(path)), [])).sort();
  }

  async exists(path: string): Promise<boolean> {
    return orElse(async () => {
      await stat(await this.at(path));
      return true;
    }, false);
  }

  async size(path: string): Promise<number> {
    return orElse(async () => (await stat(await this.at(path))).size, 0);
  }

  /** Bytes that are free to everyone in the file system of `path`. */
  async freeBytes(path: string): Promise<number | null> {
    return orElse(async () => {
      const { bavail, bsize } = await statfs(await this.at(path));
      return bavail * bsize;
    }, null);
  }

  /** Files of a folder whose names match, with their text. */
  async texts(folder: string, name: RegExp): Promise<{ path: string; text: string }[]> {
    const files: { path: string; text: string }[] = [];
    for (const own of await this.list(folder)) {
      if (!name.test(own)) continue;
      const path = join(folder, own);
      const bytes = await this.bytes(path);
      if (bytes !== null) files.push({ path, text: bytes.toString('utf8') });
    }
    return files;
  }
}
