/**
 * A disk in memory that does what a bad day does to a real one: a power cut forgets or reorders what was
 * not synced (contents by sectors, names one by one), a call fails, space runs out, a bit flips. Follows
 * the contract of `Disk` to the letter and grants nothing beyond it. Deterministic: chance comes from the
 * caller, and nothing here waits.
 *
 *   disk.mount()            the disk as one life of a program sees it: dead after the next restart
 *   disk.cutPowerAt(n)      the n-th call that changes something is the last: it and all later ones throw
 *   disk.restart(random)    what is there after the power is back; handles of before are dead
 *   disk.failAt(n, code)    that call fails once
 *   disk.capacityBytes      writes beyond it are cut short and throw ERR_DISK_FULL
 */
import type { Disk, DiskFile, OpenMode } from '../../../src/base/disk.ts';
import { type ErrorCode, UnderstudyError } from '../../../src/base/errors.ts';
import type { Random } from '../../simulation/random.ts';

const SECTOR_BYTES = 512;

interface Write {
  readonly offset: number;
  readonly before: Uint8Array;
  readonly after: Uint8Array;
  readonly sizeBefore: number;
  /** Set for a truncation; then `before` is what was cut off. */
  readonly truncatedTo: number | null;
}

class Inode {
  bytes = new Uint8Array(0);
  size = 0;
  /** Since the last sync, in order. */
  unsynced: Write[] = [];

  reserve(size: number): void {
    if (size <= this.bytes.length) return;
    const grown = new Uint8Array(Math.max(size, this.bytes.length * 2, 4096));
    grown.set(this.bytes.subarray(0, this.size));
    this.bytes = grown;
  }

  write(offset: number, after: Uint8Array): void {
    const end = offset + after.length;
    const before = this.bytes.slice(offset, Math.max(offset, Math.min(end, this.size)));
    this.unsynced.push({ offset, before, after, sizeBefore: this.size, truncatedTo: null });
    this.put(offset, after);
  }

  truncate(size: number): void {
    const before = this.bytes.slice(Math.min(size, this.size), this.size);
    const write = { offset: size, before, after: new Uint8Array(0), sizeBefore: this.size };
    this.unsynced.push({ ...write, truncatedTo: size });
    this.resize(size);
  }

  /** What a power cut leaves: each sector of each unsynced write is there or not. */
  cut(random: Random): void {
    const writes = this.unsynced;
    for (const write of [...writes].reverse()) this.undo(write);
    for (const write of writes) {
      if (write.truncatedTo !== null) {
        if (random.chance(0.5)) this.resize(write.truncatedTo);
        continue;
      }
      const fate = random.below(3);
      for (let at = 0; at < write.after.length; ) {
        const sectorEnd = (Math.floor((write.offset + at) / SECTOR_BYTES) + 1) * SECTOR_BYTES;
        const end = Math.min(write.after.length, sectorEnd - write.offset);
        const isKept = fate === 0 || (fate === 1 && random.chance(0.5));
        if (isKept) this.put(write.offset + at, write.after.subarray(at, end));
        at = end;
      }
    }
    this.unsynced = [];
  }

  private put(offset: number, bytes: Uint8Array): void {
    this.reserve(offset + bytes.length);
    this.bytes.set(bytes, offset);
    this.size = Math.max(this.size, offset + bytes.length);
  }

  private resize(size: number): void {
    this.reserve(size);
    if (size < this.size) this.bytes.fill(0, size, this.size);
    this.size = size;
  }

  private undo(write: Write): void {
    this.resize(write.sizeBefore);
    this.bytes.set(write.before, write.offset);
  }
}

/** A change of names that is not durable yet; `folder` is the one whose sync makes it so. */
interface NameChange {
  readonly folder: string;
  apply(names: Map<string, Inode | null>): void;
}

export class PowerCut extends Error {
  constructor() {
    super('the power is off');
    this.name = 'PowerCut';
  }
}

const parent = (path: string): string => path.slice(0, Math.max(1, path.lastIndexOf('/')));

export class FaultyDisk implements Disk {
  /** Bytes that fit, over all files. */
  capacityBytes = Number.POSITIVE_INFINITY;
  /** Calls so far that change something. */
  calls = 0;
  /** What each of them was, for messages of tests. */
  lastCall = '';
  /** Called before every call; the simulator waits here. */
  delay: (() => Promise<void>) | null = null;
  /** Path -> file, or null for a folder. */
  private names = new Map<string, Inode | null>([['/', null]]);
  private durableNames = new Map<string, Inode | null>([['/', null]]);
  private pending: NameChange[] = [];
  private cutAt = Number.POSITIVE_INFINITY;
  private readonly failures = new Map<number, ErrorCode>();
  private isOff = false;
  /** Handles of an earlier life are dead. */
  private life = 0;

  cutPowerAt(call: number): void {
    this.cutAt = call;
  }

  failAt(call: number, code: ErrorCode): void {
    this.failures.set(call, code);
  }

  get usedBytes(): number {
    let used = 0;
    for (const inode of new Set(this.names.values())) used += inode?.size ?? 0;
    return used;
  }

  /** Power goes and comes back: what was not synced is there, or in part, or not. */
  restart(random: Random): void {
    const names = this.durableNames;
    for (const change of this.pending) if (random.chance(0.5)) change.apply(names);
    for (const [path] of [...names]) if (!hasFolders(names, path)) names.delete(path);
    const inodes = new Set([...names.values()].filter((inode) => inode !== null));
    for (const inode of inodes) inode.cut(random);
    this.names = names;
    this.durableNames = new Map(names);
    this.pending = [];
    this.reset();
  }

  /** The process is killed and another begins: the disk forgets nothing, until the power goes. */
  reopen(): void {
    this.reset();
  }

  /** For one life of a program: what it still tries after a restart fails. */
  mount(): Disk {
    const { life } = this;
    return {
      open: (path, mode) => this.open(path, mode, life),
      readFile: (path) => this.readFile(path, life),
      list: (path) => this.list(path, life),
      exists: (path) => this.exists(path, life),
      makeDirectory: (path) => this.makeDirectory(path, life),
      rename: (from, to) => this.rename(from, to, life),
      link: (from, to) => this.link(from, to, life),
      remove: (path) => this.remove(path, life),
      syncDirectory: (path) => this.syncDirectory(path, life),
    };
  }

  /** Flips one bit of a file, as it is and as it is stored. */
  flip(path: string, offset: number, bit = 0): void {
    const inode = this.inode(path);
    if (offset >= inode.size) throw new Error(`${path} has ${inode.size} bytes`);
    inode.bytes[offset]! ^= 1 << bit;
  }

  /** Content of a file as it is, for tests. */
  peek(path: string): Uint8Array {
    const inode = this.inode(path);
    return inode.bytes.subarray(0, inode.size);
  }

  /** Replaces a file's content, durably. */
  poke(path: string, bytes: Uint8Array): void {
    const inode = this.inode(path);
    inode.bytes = bytes.slice();
    inode.size = bytes.length;
    inode.unsynced = [];
  }

  /** Removes a name at once and durably. */
  lose(path: string): void {
    for (const name of [...this.names.keys()]) {
      if (name === path || name.startsWith(`${path}/`)) {
        this.names.delete(name);
        this.durableNames.delete(name);
      }
    }
  }

  /** All files below a folder. */
  files(folder = '/'): string[] {
    const prefix = folder.endsWith('/') ? folder : `${folder}/`;
    return [...this.names]
      .filter(([p, i]) => i !== null && p.startsWith(prefix))
      .map(([p]) => p)
      .sort();
  }

  async open(path: string, mode: OpenMode, life = this.life): Promise<DiskFile> {
    await this.look(life);
    const known = this.names.get(path);
    if (known === null) throw this.error('ERR_DISK_IO', path, 'open', 'EISDIR');
    if (known !== undefined) {
      if (mode === 'create') throw this.error('ERR_DISK_EXISTS', path, 'open', 'EEXIST');
      return new FaultyFile(this, path, known, mode !== 'read', this.life);
    }
    if (mode === 'read') throw this.error('ERR_DISK_NOT_FOUND', path, 'open', 'ENOENT');
    this.needFolder(parent(path));
    await this.change(`create ${path}`, path, life);
    const inode = new Inode();
    this.rename_(parent(path), (names) => names.set(path, inode));
    return new FaultyFile(this, path, inode, true, this.life);
  }

  async readFile(path: string, life = this.life): Promise<Uint8Array> {
    await this.look(life);
    return this.inode(path).bytes.slice(0, this.inode(path).size);
  }

  async list(path: string, life = this.life): Promise<{ name: string; isDirectory: boolean }[]> {
    await this.look(life);
    const prefix = path.endsWith('/') ? path : `${path}/`;
    const found: { name: string; isDirectory: boolean }[] = [];
    for (const [other, inode] of this.names) {
      const name = other.slice(prefix.length);
      if (!other.startsWith(prefix) || name === '' || name.includes('/')) continue;
      found.push({ name, isDirectory: inode === null });
    }
    return found.sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  async exists(path: string, life = this.life): Promise<boolean> {
    await this.look(life);
    return this.names.has(path);
  }

  async makeDirectory(path: string, life = this.life): Promise<void> {
    await this.look(life);
    if (this.names.has(path)) return;
    if (parent(path) !== path) await this.makeDirectory(parent(path), life);
    await this.change(`mkdir ${path}`, path, life);
    this.rename_(parent(path), (names) => names.set(path, null));
  }

  async rename(from: string, to: string, life = this.life): Promise<void> {
    await this.look(life);
    const inode = this.inode(from);
    this.needFolder(parent(to));
    await this.change(`rename ${from} ${to}`, from, life);
    this.rename_(parent(to), (names) => {
      names.delete(from);
      names.set(to, inode);
    });
  }

  async link(from: string, to: string, life = this.life): Promise<void> {
    await this.look(life);
    const inode = this.inode(from);
    this.needFolder(parent(to));
    const free = () => {
      if (this.names.has(to)) throw this.error('ERR_DISK_EXISTS', to, 'link', 'EEXIST');
    };
    free();
    await this.change(`link ${from} ${to}`, to, life);
    free(); // of two at the same time one comes too late
    this.rename_(parent(to), (names) => names.set(to, inode));
  }

  async remove(path: string, life = this.life): Promise<void> {
    await this.look(life);
    this.inode(path);
    await this.change(`remove ${path}`, path, life);
    this.rename_(parent(path), (names) => names.delete(path));
  }

  async syncDirectory(path: string, life = this.life): Promise<void> {
    await this.look(life);
    this.needFolder(path);
    await this.change(`sync folder ${path}`, path, life);
    for (const { folder, apply } of this.pending) if (folder === path) apply(this.durableNames);
    this.pending = this.pending.filter(({ folder }) => folder !== path);
  }

  /** Before every call. */
  async look(life = this.life): Promise<void> {
    if (this.delay !== null) await this.delay();
    if (this.isOff || life !== this.life) throw new PowerCut();
  }

  /** Before a call that changes something: counts it; it may be the one that fails. */
  async change(what: string, path: string, life = this.life): Promise<void> {
    if (life !== this.life) throw new PowerCut();
    this.calls += 1;
    this.lastCall = what;
    if (this.calls >= this.cutAt) {
      this.isOff = true;
      throw new PowerCut();
    }
    const code = this.failures.get(this.calls);
    if (code === undefined) return;
    this.failures.delete(this.calls);
    throw this.error(code, path, what.split(' ')[0]!, code === 'ERR_DISK_FULL' ? 'ENOSPC' : 'EIO');
  }

  error(code: ErrorCode, path: string, syscall: string, errno: string): UnderstudyError {
    return new UnderstudyError(code, `${syscall} of ${path}: ${errno}`, { path, syscall, errno });
  }

  private reset(): void {
    this.cutAt = Number.POSITIVE_INFINITY;
    this.failures.clear();
    this.isOff = false;
    this.life += 1;
  }

  private rename_(folder: string, apply: (names: Map<string, Inode | null>) => void): void {
    apply(this.names);
    this.pending.push({ folder, apply });
  }

  private inode(path: string): Inode {
    const inode = this.names.get(path);
    if (inode == null) throw this.error('ERR_DISK_NOT_FOUND', path, 'open', 'ENOENT');
    return inode;
  }

  private needFolder(path: string): void {
    if (this.names.get(path) === null) return;
    throw this.error('ERR_DISK_NOT_FOUND', path, 'open', 'ENOENT');
  }
}

function hasFolders(names: ReadonlyMap<string, Inode | null>, path: string): boolean {
  for (let at = path; at !== '/'; at = parent(at)) if (!names.has(parent(at))) return false;
  return true;
}

class FaultyFile implements DiskFile {
  readonly path: string;
  private readonly disk: FaultyDisk;
  private readonly inode: Inode;
  private readonly isWritable: boolean;
  private readonly life: number;
  private isClosed = false;
  private failedSync: unknown = null;

  constructor(disk: FaultyDisk, path: string, inode: Inode, isWritable: boolean, life: number) {
    this.disk = disk;
    this.path = path;
    this.inode = inode;
    this.isWritable = isWritable;
    this.life = life;
  }

  async read(buffer: Uint8Array, offset: number): Promise<number> {
    await this.use();
    const { bytes, size } = this.inode;
    const found = bytes.subarray(Math.min(offset, size), Math.min(offset + buffer.length, size));
    buffer.set(found);
    return found.length;
  }

  async write(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    await this.use();
    this.needWritable('write');
    const bytes = Buffer.concat(buffers);
    const growth = Math.max(0, offset + bytes.length - this.inode.size);
    const room = this.disk.capacityBytes - this.disk.usedBytes;
    if (growth > room) {
      // A real disk writes what fits, then fails.
      const fits = Math.max(0, bytes.length - growth + Math.max(0, room));
      this.inode.write(offset, new Uint8Array(bytes.subarray(0, fits)));
      throw this.disk.error('ERR_DISK_FULL', this.path, 'write', 'ENOSPC');
    }
    try {
      await this.disk.change(`write ${this.path}`, this.path, this.life);
    } catch (error) {
      // Cut in the middle: any part of the bytes may have gone to the disk.
      this.inode.write(offset, new Uint8Array(bytes));
      throw error;
    }
    this.inode.write(offset, new Uint8Array(bytes));
  }

  async truncate(size: number): Promise<void> {
    await this.use();
    this.needWritable('truncate');
    await this.disk.change(`truncate ${this.path}`, this.path, this.life);
    this.inode.truncate(size);
  }

  async size(): Promise<number> {
    await this.use();
    return this.inode.size;
  }

  async sync(): Promise<void> {
    await this.use();
    if (this.failedSync !== null) throw this.failedSync;
    try {
      await this.disk.change(`sync ${this.path}`, this.path, this.life);
    } catch (error) {
      this.failedSync = error;
      throw error;
    }
    this.inode.unsynced = [];
  }

  async close(): Promise<void> {
    if (this.isClosed) return;
    await this.use();
    this.isClosed = true;
  }

  private async use(): Promise<void> {
    if (this.isClosed) throw this.disk.error('ERR_DISK_IO', this.path, 'use', 'EBADF');
    await this.disk.look(this.life);
  }

  private needWritable(syscall: string): void {
    if (!this.isWritable) throw this.disk.error('ERR_DISK_PERMISSION', this.path, syscall, 'EBADF');
  }
}
