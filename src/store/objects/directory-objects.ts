/**
 * Objects in a directory, over `Disk`: each a file, written whole under a temporary name, synced, linked to
 * its name (which fails where it is taken) and made durable with the names of the folders above it.
 * Temporary names begin with a dot and are not listed.
 */
import { dirname } from 'node:path';
import type { Disk } from '../../base/disk.ts';
import { type ErrorCode, UnderstudyError } from '../../base/errors.ts';
import { discard, makeFolder } from '../format/object-file.ts';
import type { ListedObject, ObjectSource, ObjectStore } from './object-store.ts';

const COPY_BYTES = 1024 * 1024;
const TEMPORARY = '.temporary';

const isCode = (error: unknown, code: ErrorCode): boolean =>
  error instanceof UnderstudyError && error.code === code;

export class DirectoryObjects implements ObjectStore {
  readonly place: string;
  private readonly disk: Disk;
  private readonly unique: () => string;

  /** `unique`: a name that no other process uses here. */
  constructor(disk: Disk, root: string, unique: () => string) {
    this.disk = disk;
    this.place = root;
    this.unique = unique;
  }

  async put(name: string, source: ObjectSource): Promise<'stored' | 'exists'> {
    const { disk } = this;
    const path = this.path(name);
    const temporary = `${this.place}/${TEMPORARY}/${this.unique()}`;
    await makeFolder(disk, dirname(temporary));
    try {
      await this.write(temporary, source);
      await makeFolder(disk, dirname(path));
      const isStored = await this.name(temporary, path, source);
      // Also where it was there: whoever put it may have failed before its name was durable.
      if (isStored) await disk.syncDirectory(dirname(path));
      return isStored ? 'stored' : 'exists';
    } finally {
      await discard(disk, temporary);
    }
  }

  async read(name: string, offset: number, length: number): Promise<Uint8Array> {
    const file = await this.disk.open(this.path(name), 'read');
    try {
      const size = await file.size();
      const bytes = new Uint8Array(Math.max(0, Math.min(length, size - offset)));
      return bytes.subarray(0, await file.read(bytes, offset));
    } finally {
      await file.close();
    }
  }

  async bytes(name: string): Promise<number | null> {
    try {
      const file = await this.disk.open(this.path(name), 'read');
      try {
        return await file.size();
      } finally {
        await file.close();
      }
    } catch (error) {
      if (isCode(error, 'ERR_DISK_NOT_FOUND')) return null;
      throw error;
    }
  }

  async *list(prefix: string): AsyncGenerator<ListedObject> {
    const names: string[] = [];
    await this.collect('', prefix, names);
    for (const name of names.sort()) {
      const bytes = await this.bytes(name);
      if (bytes !== null) yield { name, bytes, modifiedMs: 0, storageClass: '' };
    }
  }

  async remove(name: string): Promise<'removed' | 'locked'> {
    const path = this.path(name);
    try {
      await this.disk.remove(path);
    } catch (error) {
      if (!isCode(error, 'ERR_DISK_NOT_FOUND')) throw error;
      if (!(await this.disk.exists(dirname(path)))) return 'removed';
    }
    await this.disk.syncDirectory(dirname(path));
    return 'removed';
  }

  async isLocked(): Promise<boolean> {
    return false;
  }

  async reclass(): Promise<'unchanged'> {
    return 'unchanged';
  }

  async clean(): Promise<number> {
    const folder = `${this.place}/${TEMPORARY}`;
    const left = await this.disk.list(folder);
    for (const { name } of left) await this.disk.remove(`${folder}/${name}`);
    return left.length;
  }

  async close(): Promise<void> {
    return;
  }

  private path(name: string): string {
    return `${this.place}/${name}`;
  }

  private async write(path: string, source: ObjectSource): Promise<void> {
    const file = await this.disk.open(path, 'create');
    try {
      for (let at = 0; at < source.bytes; at += COPY_BYTES) {
        const bytes = await source.read(at, Math.min(COPY_BYTES, source.bytes - at));
        await file.write([bytes], at);
      }
      await file.sync();
    } finally {
      await file.close();
    }
  }

  /** False where the name is taken by other bytes. */
  private async name(temporary: string, path: string, source: ObjectSource): Promise<boolean> {
    try {
      await this.disk.link(temporary, path);
      return true;
    } catch (error) {
      if (!isCode(error, 'ERR_DISK_EXISTS')) throw error;
      return this.isSame(path, source);
    }
  }

  private async isSame(path: string, source: ObjectSource): Promise<boolean> {
    const file = await this.disk.open(path, 'read');
    try {
      if ((await file.size()) !== source.bytes) return false;
      const there = new Uint8Array(Math.min(COPY_BYTES, source.bytes));
      for (let at = 0; at < source.bytes; at += COPY_BYTES) {
        const bytes = await source.read(at, Math.min(COPY_BYTES, source.bytes - at));
        await file.read(there.subarray(0, bytes.length), at);
        if (Buffer.compare(bytes, there.subarray(0, bytes.length)) !== 0) return false;
      }
      return true;
    } finally {
      await file.close();
    }
  }

  /** Names below a folder that begin with `prefix`; folders that cannot have any are not looked at. */
  private async collect(folder: string, prefix: string, names: string[]): Promise<void> {
    const path = folder === '' ? this.place : this.path(folder.slice(0, -1));
    for (const { name, isDirectory } of await this.disk.list(path)) {
      if (name.startsWith('.')) continue;
      const full = folder + name;
      if (!isDirectory && full.startsWith(prefix)) names.push(full);
      const below = `${full}/`;
      if (isDirectory && (below.startsWith(prefix) || prefix.startsWith(below))) {
        await this.collect(below, prefix, names);
      }
    }
  }
}
