/**
 * A disk in memory with the contract of `src/base/disk.ts` and the faults of real ones. What was written
 * and not synced, and names whose folder was not synced, are lost or kept by chance at a power cut, in any
 * order; it can be full; a chosen call can fail; after `kill` (of the process that uses it) nothing answers.
 *
 * The state belongs to the FaultyDisk; each run of a process mounts it anew by `mount`, so that the calls
 * of a killed one change nothing any more.
 */
import { dirname } from 'node:path';
import type { Clock } from '../../src/base/clock.ts';
import type { Disk, DiskFile, OpenMode } from '../../src/base/disk.ts';
import { type ErrorCode, UnderstudyError } from '../../src/base/errors.ts';

interface Change {
  readonly offset: number;
  /** Null: a truncation to `offset`. */
  readonly bytes: Uint8Array | null;
}

class Inode {
  content = new Uint8Array(0);
  durable = new Uint8Array(0);
  unsynced: Change[] = [];

  apply(change: Change): void {
    this.content = applied(this.content, change);
    this.unsynced.push(change);
  }

  sync(): void {
    if (this.unsynced.length > 0) this.durable = this.content.slice();
    this.unsynced = [];
  }
}

/** `content` after a change; bytes between the old end and a write beyond it are zero. */
function applied(content: Uint8Array<ArrayBuffer>, change: Change): Uint8Array<ArrayBuffer> {
  const { offset, bytes } = change;
  if (bytes === null) {
    const cut = new Uint8Array(offset);
    cut.set(content.subarray(0, Math.min(offset, content.length)));
    return cut;
  }
  const end = offset + bytes.length;
  let grown = content;
  if (end > content.length) {
    const capacity = Math.max(end, Math.min(2 * content.buffer.byteLength, end + 2 ** 20));
    const backing = end <= content.buffer.byteLength ? content.buffer : new ArrayBuffer(capacity);
    grown = new Uint8Array(backing, 0, end);
    if (backing !== content.buffer) grown.set(content);
    else grown.fill(0, content.length);
  }
  grown.set(bytes, offset);
  return grown;
}

interface NameChange {
  readonly path: string;
  /** Null: the name goes. */
  readonly inode: Inode | null;
}

export interface FaultyDiskOptions {
  readonly capacityBytes?: number;
  /** With a clock every call takes a moment of it. */
  readonly clock?: Clock;
  readonly latencyMs?: () => number;
}

export class FaultyDisk {
  capacityBytes: number;
  /** Calls that change something, counted from 1 over all mounts. */
  changes = 0;
  /** Called before each such call with its number and name; may throw, which fails the call. */
  beforeChange: (call: number, what: string, path: string) => void = () => undefined;
  /** A canary's lie: `sync` says that it has, and has not. */
  syncLies = false;
  private names = new Map<string, Inode>();
  private durableNames = new Map<string, Inode>();
  private folders = new Set<string>(['/']);
  private unsyncedNames: NameChange[] = [];
  private readonly options: FaultyDiskOptions;
  private mounted: { isAlive: boolean } = { isAlive: false };

  constructor(options: FaultyDiskOptions = {}) {
    this.options = options;
    this.capacityBytes = options.capacityBytes ?? Number.POSITIVE_INFINITY;
  }

  /** A new process's view; the former one's calls hang for ever from now on. */
  mount(): Disk {
    this.mounted.isAlive = false;
    const life = { isAlive: true };
    this.mounted = life;
    return this.view(life);
  }

  /** kill -9: what was written stays, in the page cache. */
  kill(): void {
    this.mounted.isAlive = false;
  }

  /** What was not synced is lost, or kept, write by write and name by name. */
  powerCut(random: () => number): void {
    this.kill();
    const survivors = new Map(this.durableNames);
    for (const { path, inode } of this.unsyncedNames) {
      if (random() < 0.5) continue;
      if (inode === null) survivors.delete(path);
      else survivors.set(path, inode);
    }
    this.names = survivors;
    this.durableNames = new Map(survivors);
    this.unsyncedNames = [];
    for (const inode of new Set(survivors.values())) settle(inode, random);
  }

  /** Flips one bit of a file, durably. */
  flipBit(path: string, offset: number, bit = 0): void {
    const inode = this.find(path);
    inode.content = inode.content.slice();
    inode.content[offset] = inode.content[offset]! ^ (1 << bit);
    inode.durable = inode.content.slice();
  }

  truncate(path: string, size: number): void {
    const inode = this.find(path);
    inode.content = applied(inode.content, { offset: size, bytes: null });
    inode.durable = inode.content.slice();
  }

  delete(path: string): void {
    this.names.delete(path);
    this.durableNames.delete(path);
  }

  paths(): string[] {
    return [...this.names.keys()].sort();
  }

  size(path: string): number {
    return this.find(path).content.length;
  }

  usedBytes(): number {
    let used = 0;
    for (const inode of new Set(this.names.values())) used += inode.content.length;
    return used;
  }

  private find(path: string): Inode {
    const inode = this.names.get(path);
    if (inode === undefined) throw fault('ERR_DISK_NOT_FOUND', path, 'open', 'ENOENT');
    return inode;
  }

  private setName(path: string, inode: Inode | null): void {
    if (inode === null) this.names.delete(path);
    else this.names.set(path, inode);
    this.unsyncedNames.push({ path, inode });
  }

  private changing(what: string, path: string): void {
    this.changes += 1;
    this.beforeChange(this.changes, what, path);
  }

  /** One call: takes its time, then happens at once, then takes time again. Dead processes wait for ever. */
  private async step<T>(life: { isAlive: boolean }, run: () => T): Promise<T> {
    await this.pause();
    if (!life.isAlive) return new Promise<never>(() => undefined);
    const result = run();
    await this.pause();
    return life.isAlive ? result : new Promise<never>(() => undefined);
  }

  private pause(): Promise<void> {
    const { clock, latencyMs } = this.options;
    if (clock === undefined) return Promise.resolve();
    const delay = latencyMs?.() ?? 0.05;
    return new Promise((resolve) => {
      clock.after(delay, resolve);
    });
  }

  private view(life: { isAlive: boolean }): Disk {
    const step = <T>(run: () => T) => this.step(life, run);
    return {
      open: (path, mode) => step(() => this.opened(life, path, mode)),
      readFile: (path) => step(() => this.find(path).content.slice()),
      list: (path) => step(() => this.listed(path)),
      exists: (path) => step(() => this.names.has(path) || this.folders.has(path)),
      makeDirectory: (path) => step(() => this.makeFolders(path)),
      rename: (from, to) =>
        step(() => {
          this.changing('rename', to);
          const inode = this.find(from);
          this.setName(to, inode);
          this.setName(from, null);
        }),
      link: (from, to) =>
        step(() => {
          this.changing('link', to);
          if (this.names.has(to)) throw fault('ERR_DISK_EXISTS', to, 'link', 'EEXIST');
          this.setName(to, this.find(from));
        }),
      remove: (path) =>
        step(() => {
          this.changing('remove', path);
          this.find(path);
          this.setName(path, null);
        }),
      syncDirectory: (path) => step(() => this.syncFolder(path)),
    };
  }

  private opened(life: { isAlive: boolean }, path: string, mode: OpenMode): DiskFile {
    if (mode === 'create' && this.names.has(path)) {
      throw fault('ERR_DISK_EXISTS', path, 'open', 'EEXIST');
    }
    if (mode !== 'read' && !this.names.has(path)) {
      this.changing('create', path);
      if (!this.folders.has(dirname(path)))
        throw fault('ERR_DISK_NOT_FOUND', path, 'open', 'ENOENT');
      this.setName(path, new Inode());
    }
    return this.file(life, path, this.find(path));
  }

  private file(life: { isAlive: boolean }, path: string, inode: Inode): DiskFile {
    const step = <T>(run: () => T) => this.step(life, run);
    return {
      path,
      read: (buffer, offset) =>
        step(() => {
          const part = inode.content.subarray(offset, offset + buffer.length);
          buffer.set(part);
          return part.length;
        }),
      write: (buffers, offset) =>
        step(() => {
          this.changing('write', path);
          this.write(path, inode, buffers, offset);
        }),
      truncate: (size) =>
        step(() => {
          this.changing('truncate', path);
          inode.apply({ offset: size, bytes: null });
        }),
      size: () => step(() => inode.content.length),
      sync: () =>
        step(() => {
          this.changing('sync', path);
          if (!this.syncLies) inode.sync();
        }),
      close: () => step(() => undefined),
    };
  }

  /** Writes as much as there is room for, as a full file system does, then says so. */
  private write(path: string, inode: Inode, buffers: readonly Uint8Array[], offset: number): void {
    const bytes = new Uint8Array(Buffer.concat(buffers));
    const growth = Math.max(0, offset + bytes.length - inode.content.length);
    const room = Math.max(0, this.capacityBytes - this.usedBytes());
    if (growth <= room) {
      inode.apply({ offset, bytes });
      return;
    }
    const fits = Math.max(0, bytes.length - growth + room);
    if (fits > 0) inode.apply({ offset, bytes: bytes.slice(0, fits) });
    throw fault('ERR_DISK_FULL', path, 'writev', 'ENOSPC');
  }

  private listed(path: string): { name: string; isDirectory: boolean }[] {
    const prefix = path === '/' ? '/' : `${path}/`;
    const inside = (name: string) =>
      name.startsWith(prefix) &&
      name.length > prefix.length &&
      !name.slice(prefix.length).includes('/');
    const files = [...this.names.keys()].filter(inside);
    const folders = [...this.folders].filter(inside);
    return [
      ...files.map((name) => ({ name: name.slice(prefix.length), isDirectory: false })),
      ...folders.map((name) => ({ name: name.slice(prefix.length), isDirectory: true })),
    ].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  private makeFolders(path: string): void {
    for (let at = path; !this.folders.has(at); at = dirname(at)) this.folders.add(at);
  }

  private syncFolder(path: string): void {
    this.changing('syncDirectory', path);
    if (this.syncLies) return;
    const rest: NameChange[] = [];
    for (const change of this.unsyncedNames) {
      if (dirname(change.path) !== path) rest.push(change);
      else if (change.inode === null) this.durableNames.delete(change.path);
      else this.durableNames.set(change.path, change.inode);
    }
    this.unsyncedNames = rest;
  }
}

/** Some of the unsynced writes reach the medium, each whole, torn, or not at all. */
function settle(inode: Inode, random: () => number): void {
  let content = inode.durable.slice();
  for (const change of inode.unsynced) {
    const luck = random();
    if (luck < 0.4) continue;
    const { offset, bytes } = change;
    const torn = luck < 0.6 && bytes !== null;
    const kept = torn ? bytes.slice(0, Math.floor(random() * bytes.length)) : bytes;
    content = applied(content, { offset, bytes: kept });
  }
  inode.content = content;
  inode.durable = content.slice();
  inode.unsynced = [];
}

const fault = (code: ErrorCode, path: string, syscall: string, errno: string): UnderstudyError =>
  new UnderstudyError(code, `${syscall} of ${path}: ${errno}`, { path, syscall, errno });
