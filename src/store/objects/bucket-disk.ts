/**
 * A `Disk` on which everything below one path lies in an object store, and the rest on the local disk: the
 * store works on it unchanged. It writes each object under a temporary name on the local disk; to rename or
 * link that to a path in the repository is to put it. Nothing below that path is ever changed in place.
 *
 * Names come from listings. A reader lists anew whenever it is asked, for a service may change things
 * beside it. A service that is alone lists once (`keepListing`) and then follows its own puts and removals;
 * what others write beside it (leases, terms, keys), and bundles, is listed anew each time. A put or removal
 * that failed may have had its effect all the same: its name is in doubt, and asked for before it is next
 * relied on.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import { dirname } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import type { Disk, DiskFile, FarReads, OpenMode } from '../../base/disk.ts';
import { type ErrorCode, UnderstudyError } from '../../base/errors.ts';
import { freeBytes } from '../../base/memory.ts';
import { BlockCache, readingOf } from './block-cache.ts';
import { BucketListing, type Child } from './bucket-listing.ts';
import { type BundledObjects, type Confirm, mayBeBundled } from './bundled-objects.ts';
import { ListingChanges } from './listing-changes.ts';
import { Mirror } from './mirror.ts';
import type { ObjectSource, ObjectStore } from './object-store.ts';

interface BucketDiskOptions {
  readonly local: Disk;
  /** The path whose below is in the object store: `s3://bucket/prefix`, or any. */
  readonly root: string;
  readonly objects: ObjectStore;
  readonly clock: Clock;
  /** Local folder for copies of index objects. */
  readonly mirror: string;
  /** The same objects, where small ones share bundles. */
  readonly bundles?: BundledObjects;
  /** Where requests take long: how many there may be. */
  readonly far?: FarReads;
}

/** What one `together` has done so far. */
interface Batch {
  readonly changes: ListingChanges;
  /** Done once all of it is durable. */
  readonly after: (() => Promise<void>)[];
}

const READ_BYTES = 8 * 2 ** 20;
/** A listing of a folder tells of the folders below it too, for so long and once for each. */
const BELOW_MS = 5000;
const shared: ReadonlySet<string> = new Set(['lease', 'terms', 'bundles', 'keys']);

interface Below {
  readonly folder: string;
  readonly listing: BucketListing;
  readonly atMs: number;
  readonly told: Set<string>;
}

const failed = (code: ErrorCode, path: string, syscall: string, detail: string) =>
  new UnderstudyError(code, `${syscall} of ${path}: ${detail}`, { path, syscall, errno: detail });

export class BucketDisk implements Disk {
  readonly objects: ObjectStore;
  readonly together?: <T>(step: () => Promise<T>) => Promise<T>;
  readonly far?: FarReads;
  private readonly bundles: BundledObjects | null;
  private readonly batches = new AsyncLocalStorage<Batch>();
  private readonly local: Disk;
  private readonly root: string;
  private readonly clock: Clock;
  private readonly cache: BlockCache;
  private readonly mirror: Mirror;
  /** Set once this process is the only writer. */
  private kept: BucketListing | null = null;
  private readonly doubtful = new Set<string>();
  private readonly made = new Set<string>();
  private below: Below | null = null;
  /** Sizes of all that was listed. */
  private seen = new BucketListing();

  constructor({ local, root, objects, clock, mirror, bundles, far }: BucketDiskOptions) {
    this.bundles = bundles ?? null;
    if (far !== undefined) this.far = far;
    if (bundles !== undefined) this.together = (step) => this.run(bundles, step);
    this.local = local;
    this.root = root;
    this.objects = objects;
    this.clock = clock;
    this.cache = new BlockCache(objects);
    this.mirror = new Mirror(local, mirror, objects, far !== undefined);
  }

  /**
   * From now on nobody else writes here, until a later `term`: lists everything, once. `confirm` asks for the
   * lease, where there is one.
   */
  async keepListing(term = 0, confirm?: Confirm): Promise<void> {
    await this.bundles?.beginTerm(term, confirm);
    const listing = new BucketListing();
    for await (const { name, bytes } of this.objects.list('')) listing.add(name, bytes);
    for (const folder of this.made) listing.addFolder(folder);
    this.kept = listing;
    this.below = null;
    this.seen = new BucketListing();
    await this.mirror.tidy((name) => listing.bytes(name) !== null);
  }

  async open(path: string, mode: OpenMode): Promise<DiskFile> {
    const name = this.nameOf(path);
    if (name === null) return this.local.open(path, mode);
    if (mode !== 'read') throw failed('ERR_BUG', path, 'open', 'objects are put whole');
    const bytes = await this.bytesOf(name);
    if (bytes === null) throw failed('ERR_DISK_NOT_FOUND', path, 'open', 'ENOENT');
    if (this.mirror.has(name)) return named(await this.mirror.open(name, bytes), path);
    const reading = readingOf(name, bytes);
    const readOnly = async () => {
      throw failed('ERR_DISK_PERMISSION', path, 'write', 'objects do not change');
    };
    return {
      path,
      read: (buffer, offset) => this.cache.read(reading, buffer, offset),
      write: readOnly,
      truncate: readOnly,
      size: async () => bytes,
      sync: readOnly,
      close: async () => undefined,
    };
  }

  async readFile(path: string): Promise<Uint8Array> {
    const name = this.nameOf(path);
    if (name === null) return this.local.readFile(path);
    const parts: Uint8Array[] = [];
    for (let at = 0; ; at += READ_BYTES) {
      const part = await this.objects.read(name, at, READ_BYTES);
      parts.push(part);
      if (part.length < READ_BYTES) break;
    }
    return parts.length === 1 ? parts[0]! : new Uint8Array(Buffer.concat(parts));
  }

  async list(path: string): Promise<Child[]> {
    const name = this.nameOf(path);
    if (name === null) return this.local.list(path);
    if (this.isKept(name)) {
      await this.settle(name);
      return this.changes?.children(this.kept!, name) ?? this.kept!.children(name);
    }
    const told = this.toldBefore(name);
    if (told !== null) return told;
    const listing = await this.listBelow(name);
    this.below = { folder: name, listing, atMs: this.clock.monotonicMs(), told: new Set([name]) };
    return listing.children(name);
  }

  async exists(path: string): Promise<boolean> {
    const name = this.nameOf(path);
    if (name === null) return this.local.exists(path);
    if (name === '' || this.made.has(name)) return true;
    if (this.isKept(name)) {
      const isThere = (await this.bytesOf(name)) !== null;
      return isThere || (this.changes?.hasFolder(this.kept!, name) ?? this.kept!.hasFolder(name));
    }
    if ((await this.objects.bytes(name)) !== null) return true;
    const first = await this.objects.list(`${name}/`).next();
    return first.done !== true;
  }

  async makeDirectory(path: string): Promise<void> {
    const name = this.nameOf(path);
    if (name === null) return this.local.makeDirectory(path);
    this.made.add(name);
    this.kept?.addFolder(name);
  }

  /** ERR_OBJECTS_CONFLICT where the name is taken by other bytes: objects do not change. */
  async rename(from: string, to: string): Promise<void> {
    const name = this.target(from, to);
    if (name === null) return this.local.rename(from, to);
    const result = await this.put(from, name);
    if (result === 'exists') {
      throw failed('ERR_OBJECTS_CONFLICT', to, 'put', 'there are other bytes under this name');
    }
    if (this.mirror.has(name)) await this.mirror.keep(name, from);
    // Until then it may be the only copy.
    else await this.whenDurable(() => this.local.remove(from));
  }

  async link(from: string, to: string): Promise<void> {
    const name = this.target(from, to);
    if (name === null) return this.local.link(from, to);
    const result = await this.put(from, name);
    if (result === 'exists') throw failed('ERR_DISK_EXISTS', to, 'put', 'EEXIST');
  }

  /** ERR_OBJECTS_LOCKED where the object store keeps it for a time. */
  async remove(path: string): Promise<void> {
    const name = this.nameOf(path);
    if (name === null) return this.local.remove(path);
    if (this.isKept(name) && (await this.bytesOf(name)) === null) {
      throw failed('ERR_DISK_NOT_FOUND', path, 'remove', 'ENOENT');
    }
    const result = await this.doubting(name, () => this.objects.remove(name));
    if (result === 'locked') throw failed('ERR_OBJECTS_LOCKED', path, 'remove', 'it is locked');
    (this.changes ?? this.kept)?.remove(name);
    this.seen.remove(name);
    this.cache.forget(name);
    if (this.mirror.has(name)) await this.mirror.forget(name);
  }

  async syncDirectory(path: string): Promise<void> {
    if (this.nameOf(path) === null) await this.local.syncDirectory(path);
  }

  /** What the step that asks has done and nobody else may see; null outside of `together`. */
  private get changes(): ListingChanges | null {
    return this.batches.getStore()?.changes ?? null;
  }

  /** Bundles that cannot be read. */
  hidden(): string[] {
    return [...(this.bundles?.damaged ?? [])].map((name) => `${this.root}/${name}`);
  }

  private async run<T>(bundles: BundledObjects, step: () => Promise<T>): Promise<T> {
    if (this.changes !== null) return step();
    const batch: Batch = { changes: new ListingChanges(), after: [] };
    let result: T;
    try {
      // What is listed can be read: the listing changes in the same instant as the bundles do.
      result = await bundles.together(
        () => this.batches.run(batch, step),
        () => {
          if (this.kept !== null) batch.changes.applyTo(this.kept);
        },
      );
    } catch (error) {
      // Some of it may be there: whoever relies on a name asks.
      for (const name of batch.changes.names) {
        this.doubtful.add(name);
        this.cache.forget(name);
      }
      throw error;
    }
    for (const finish of batch.after) await finish();
    return result;
  }

  private async whenDurable(finish: () => Promise<void>): Promise<void> {
    const batch = this.batches.getStore();
    if (batch === undefined) await finish();
    else batch.after.push(finish);
  }

  /** Relative to the root; null for a local path. */
  private nameOf(path: string): string | null {
    if (path === this.root) return '';
    if (!path.startsWith(`${this.root}/`)) return null;
    return path.slice(this.root.length + 1).replace(/\/+$/, '');
  }

  private target(from: string, to: string): string | null {
    if (this.nameOf(from) === null) return this.nameOf(to);
    throw failed('ERR_BUG', from, 'rename', 'objects keep their names');
  }

  private isKept(name: string): boolean {
    return this.kept !== null && !shared.has(name.split('/', 1)[0]!);
  }

  private async bytesOf(name: string): Promise<number | null> {
    if (this.isKept(name)) {
      await this.settle(name);
      return this.changes === null ? this.kept!.bytes(name) : this.changes.bytes(this.kept!, name);
    }
    // What was listed once need not be asked for: it does not change, and a read tells where it has gone.
    return this.seen.bytes(name) ?? this.objects.bytes(name);
  }

  private async put(from: string, name: string): Promise<'stored' | 'exists'> {
    const file = await this.local.open(from, 'read');
    try {
      const source = sourceFrom(file, await file.size());
      const result = await this.doubting(name, () => this.objects.put(name, source));
      this.cache.forget(name);
      if (result === 'stored') (this.changes ?? this.kept)?.add(name, source.bytes);
      else this.doubtful.add(name); // somebody else's: how long is it?
      return result;
    } finally {
      await file.close();
    }
  }

  private async doubting<T>(name: string, run: () => Promise<T>): Promise<T> {
    try {
      const result = await run();
      this.doubtful.delete(name);
      return result;
    } catch (error) {
      this.doubtful.add(name);
      throw error;
    }
  }

  /** Asks for what is in doubt at or directly below `name`. */
  private async settle(name: string): Promise<void> {
    if (this.doubtful.size === 0) return;
    for (const other of [...this.doubtful]) {
      const isNear = other === name || other.startsWith(`${name}/`) || dirname(other) === name;
      if (!isNear || !this.isKept(other)) continue;
      const bytes = await this.objects.bytes(other);
      // What was put or removed meanwhile is newer than the answer.
      if (!this.doubtful.has(other)) continue;
      if (bytes === null) this.kept!.remove(other);
      else this.kept!.add(other, bytes);
      this.doubtful.delete(other);
    }
  }

  private async listBelow(name: string): Promise<BucketListing> {
    if (mayBeBundled(name)) await this.bundles?.refresh();
    const listing = new BucketListing();
    const prefix = name === '' ? '' : `${name}/`;
    for await (const object of this.objects.list(prefix)) {
      listing.add(object.name, object.bytes);
      this.seen.add(object.name, object.bytes);
    }
    for (const folder of this.made) listing.addFolder(folder);
    return listing;
  }

  /** What the last listing, of a folder above, has said of this one: once, and only for a moment. */
  private toldBefore(name: string): Child[] | null {
    const { below } = this;
    if (below === null || below.told.has(name)) return null;
    const isBelow = below.folder === '' || name.startsWith(`${below.folder}/`);
    if (!isBelow || this.clock.monotonicMs() - below.atMs > BELOW_MS) return null;
    below.told.add(name);
    return below.listing.children(name);
  }
}

/** A copy of an object is called what the object is: what is wrong with it is told of that. */
const named = (file: DiskFile, path: string): DiskFile => ({
  path,
  read: (buffer, offset) => file.read(buffer, offset),
  write: (buffers, offset) => file.write(buffers, offset),
  truncate: (size) => file.truncate(size),
  size: () => file.size(),
  sync: () => file.sync(),
  close: () => file.close(),
});

const sourceFrom = (file: DiskFile, bytes: number): ObjectSource => ({
  bytes,
  async read(offset, length) {
    const buffer = new Uint8Array(length);
    const count = await file.read(buffer, offset);
    if (count === length) return buffer;
    throw failed('ERR_DISK_IO', file.path, 'read', `${count} of ${length} bytes`);
  },
  release: freeBytes,
});
