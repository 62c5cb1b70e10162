/**
 * Local copies of index objects. Whoever looks contents up asks for pages all over an object, one after the
 * other: from a bucket that would be a request each. A copy is made when the object is put, or whole when it
 * is first opened; it is worth nothing more than the time that it saves, and may go at any time.
 */
import { basename, dirname } from 'node:path';
import type { Disk, DiskFile } from '../../base/disk.ts';
import { inOrder } from '../../base/in-order.ts';
import { discard } from '../format/object-file.ts';
import type { ObjectStore } from './object-store.ts';

const COPY_BYTES = 4 * 2 ** 20;
/** So many parts are read at a time where that takes long. */
const FAR_PARTS = 4;

export class Mirror {
  private readonly local: Disk;
  private readonly folder: string;
  private readonly objects: ObjectStore;
  private readonly isFar: boolean;
  private readonly copying = new Map<string, Promise<void>>();

  constructor(local: Disk, folder: string, objects: ObjectStore, isFar: boolean) {
    this.local = local;
    this.isFar = isFar;
    this.folder = folder;
    this.objects = objects;
  }

  has(name: string): boolean {
    return dirname(name) === 'index';
  }

  /** The object was put from this synced file, which is not needed elsewhere. */
  async keep(name: string, file: string): Promise<void> {
    await this.local.makeDirectory(this.folder);
    await this.local.rename(file, this.path(name));
  }

  async open(name: string, bytes: number): Promise<DiskFile> {
    const path = this.path(name);
    if (!(await this.isWhole(path, bytes))) {
      const copy = this.copying.get(name) ?? this.copy(name, bytes);
      this.copying.set(name, copy);
      try {
        await copy;
      } finally {
        this.copying.delete(name);
      }
    }
    return this.local.open(path, 'read');
  }

  async forget(name: string): Promise<void> {
    await discard(this.local, this.path(name));
  }

  /** Removes copies of what is not there any more, and what a killed process has left. */
  async tidy(isThere: (name: string) => boolean): Promise<void> {
    for (const { name } of await this.local.list(this.folder)) {
      if (!isThere(`index/${name}`)) await discard(this.local, `${this.folder}/${name}`);
    }
  }

  private path(name: string): string {
    return `${this.folder}/${basename(name)}`;
  }

  private async isWhole(path: string, bytes: number): Promise<boolean> {
    if (!(await this.local.exists(path))) return false;
    const file = await this.local.open(path, 'read');
    try {
      return (await file.size()) === bytes;
    } finally {
      await file.close();
    }
  }

  private async copy(name: string, bytes: number): Promise<void> {
    const { local } = this;
    const path = this.path(name);
    const partial = `${path}.part`;
    await local.makeDirectory(this.folder);
    await discard(local, partial);
    const file = await local.open(partial, 'create');
    try {
      const starts = Array.from(
        { length: Math.ceil(bytes / COPY_BYTES) },
        (_, i) => i * COPY_BYTES,
      );
      const read = (at: number) => this.objects.read(name, at, COPY_BYTES);
      let written = 0;
      for await (const part of inOrder(starts, this.isFar ? FAR_PARTS : 1, read)) {
        await file.write([part], written);
        written += part.length;
      }
      await file.sync();
    } finally {
      await file.close();
    }
    await local.rename(partial, path);
  }
}
