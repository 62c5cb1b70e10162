/**
 * The files of a disk as a folder of this machine, for tests of boot preparation: the same interface as the
 * virtual machine's, refusals included. Absolute links are not followed: tests make none.
 */
import {
  appendFileSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import type { DiskTree, Entry, FileKind } from '../../../src/recovery/prepare/disk-tree.ts';
import { Refusal } from '../../../src/recovery/prepare/guest.ts';

export class FolderTree implements DiskTree {
  readonly root: string;
  /** Told by freeBytes. */
  free = 2 ** 30;
  /** Paths to which nothing can be written. */
  readonly full = new Set<string>();
  readonly labels = new Map<string, string>();
  /** Everything that was changed, in order. */
  readonly written: string[] = [];

  constructor(root: string) {
    this.root = root;
  }

  put(path: string, content: string | Buffer): void {
    mkdirSync(dirname(this.at(path)), { recursive: true });
    writeFileSync(this.at(path), content);
  }

  text(path: string): string {
    return readFileSync(this.at(path), 'latin1');
  }

  async read(path: string, mostBytes = 2 ** 20): Promise<Buffer> {
    if ((await this.stat(path)).kind !== 'f') throw new Refusal('no such file');
    const bytes = readFileSync(this.at(path));
    if (bytes.length > mostBytes) throw new Refusal('too large');
    return bytes;
  }

  async stat(path: string): Promise<{ kind: FileKind | null; sizeBytes: number }> {
    const stat = statSync(this.at(path), { throwIfNoEntry: false });
    if (stat?.isDirectory()) return { kind: 'd', sizeBytes: 0 };
    if (stat?.isFile()) return { kind: 'f', sizeBytes: stat.size };
    if (stat !== undefined) return { kind: 'o', sizeBytes: 0 };
    const isLink = lstatSync(this.at(path), { throwIfNoEntry: false }) !== undefined;
    return { kind: isLink ? 'l' : null, sizeBytes: 0 };
  }

  async list(path: string): Promise<Entry[]> {
    if (!existsSync(this.at(path))) return [];
    const entries: Entry[] = [];
    for (const name of readdirSync(this.at(path))) {
      entries.push({ name, kind: (await this.stat(`${path}/${name}`)).kind! });
    }
    return entries;
  }

  async freeBytes(): Promise<number> {
    return this.free;
  }

  async write(path: string, content: Uint8Array): Promise<void> {
    this.change(path);
    this.put(path, Buffer.from(content));
  }

  async append(path: string, content: Uint8Array): Promise<void> {
    this.change(path);
    appendFileSync(this.at(path), content);
  }

  async copy(from: string, to: string): Promise<void> {
    if (existsSync(this.at(to))) return;
    this.change(to);
    copyFileSync(this.at(from), this.at(to));
  }

  async move(from: string, to: string): Promise<void> {
    this.change(to);
    renameSync(this.at(from), this.at(to));
  }

  async link(target: string, path: string): Promise<void> {
    this.change(path);
    mkdirSync(dirname(this.at(path)), { recursive: true });
    symlinkSync(target, this.at(path));
  }

  async label(context: string, path: string): Promise<void> {
    if (this.full.has(path)) throw new Refusal('Operation not supported');
    this.labels.set(path, context);
  }

  private at(path: string): string {
    return join(this.root, path);
  }

  private change(path: string): void {
    if (this.full.has(path)) throw new Refusal('No space left on device');
    this.written.push(path);
  }
}
