/**
 * An object store in which small objects share bundles: what is put within one call of `together` becomes
 * one object, and one request. Names, contents and the order of durable steps are as without it, but that
 * nothing put within `together` is durable before that resolves, and then everything is.
 *
 * A member cannot be removed alone. What stays of its bundle is put again, in a bundle that replaces the
 * old one: by being there, it says that the old one counts no more, before that goes. So an object that
 * was removed never comes back, at whatever instant the process ends.
 *
 * Bundles have ascending numbers; of two members of one name the one in the newer bundle counts.
 *
 * A process may be paused in the middle of a put and wake up when another one has the repository. What it
 * puts then is void: the first bundle of each term says so beforehand (closed-terms.ts). And nothing that a
 * bundle replaces goes before a renewal of the lease has shown that the bundle counts.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import { UnderstudyError } from '../../base/errors.ts';
import { equalBytes } from '../format/checksum.ts';
import { isDamage, isNotFound } from '../format/object-header.ts';
import { Mutex } from '../mutex.ts';
import { type BundleMember, encodeBundle, readDirectory } from './bundle-format.ts';
import { type Bundle, membersOf } from './bundle-members.ts';
import {
  bundleName,
  CLOSES,
  closeTerms,
  FOLDER,
  firstOfTerm,
  numberOf,
  termOf,
} from './closed-terms.ts';
import {
  type ListedObject,
  type ObjectSource,
  type ObjectStore,
  sourceOf,
} from './object-store.ts';

/** True for a folder below which names may lie in bundles; the root's name is empty. */
export const mayBeBundled = (folder: string): boolean =>
  /^(?:$|(?:deltas|points)(?:\/|$))/.test(folder);

/** Larger objects, and those of other folders, are put by themselves. */
const MAX_MEMBER_BYTES = 256 * 1024;
const BUNDLED = /^(?:deltas|points)\//;
/** So many directories are read at a time. */
const PARALLEL = 16;
/** The first read of a directory takes this much: as a rule all of it. */
const FIRST_READ_BYTES = 32 * 1024;
/** Of a renewal of the lease, for what can be undone no more; and one that begins now. */
const REMOVAL_AGE_MS = 5000;
const FROM_NOW_MS = -1;

/** Resolves while the repository is ours, by a renewal not older than `maxAgeMs`. ERR_LEASE_LOST. */
export type Confirm = (maxAgeMs: number) => Promise<void>;

const removalOf = (name: string): Batch => ({ ...emptyBatch(), removed: new Set([name]) });

const gone = (place: string, name: string): UnderstudyError =>
  new UnderstudyError('ERR_DISK_NOT_FOUND', `${place}/${name}: it was removed`, { path: name });

type Told = (name: string, error: UnderstudyError) => void;

/** What one `together` has put and removed so far: members of bundles, and objects by themselves. */
interface Batch {
  readonly put: Map<string, Uint8Array>;
  readonly removed: Set<string>;
  /** They go last: what is put may stand for them. */
  readonly alone: Set<string>;
}

const emptyBatch = (): Batch => ({ put: new Map(), removed: new Set(), alone: new Set() });

const isLost = (error: unknown): boolean =>
  error instanceof UnderstudyError && error.code === 'ERR_LEASE_LOST';

export class BundledObjects implements ObjectStore {
  readonly place: string;
  private readonly objects: ObjectStore;
  private readonly onDamage: Told;
  private readonly onLeft: Told;
  private readonly bundles = new Map<string, Bundle>();
  /** The bundle that has a name. */
  private readonly holders = new Map<string, Bundle>();
  /** Bundles that were read once and count no more, or cannot be read. */
  private readonly passed = new Set<string>();
  /** Bundles that cannot be read: what they hold is not known. */
  readonly damaged = new Set<string>();
  /** Its bundles have the numbers of this term; null: it has none, and goes on after all there are. */
  private term: number | null = null;
  /** The highest number so far, of the term. */
  private highest = 0;
  private confirm: Confirm = async () => undefined;
  /** Bundles without members, which stand for what they replace: they go when a newer one is there. */
  private empty: readonly Bundle[] = [];
  private readonly batches = new AsyncLocalStorage<Batch>();
  /** Bundles are written, and replaced, one after the other. */
  private readonly mutex = new Mutex();
  /** The bundle whose put failed last: it may be there, or may come to be there yet. */
  private tried: string | null = null;
  /** True until it was asked whether that bundle is there. */
  private isUnsure = false;

  /**
   * `onDamage` is told of a bundle that is damaged: what it held is not found. `onLeft` of one that is
   * replaced and could not be removed.
   */
  constructor(objects: ObjectStore, told: { readonly onDamage: Told; readonly onLeft: Told }) {
    this.objects = objects;
    this.onDamage = told.onDamage;
    this.onLeft = told.onLeft;
    this.place = objects.place;
  }

  /**
   * From now on bundles have the numbers of this term (lease.ts), so that those of a process which has lost
   * the lease, and does not know it yet, are older. Its first bundle closes the terms before it, and what was
   * put in this one: what such a process puts from now on is void.
   */
  async beginTerm(term: number, confirm?: Confirm): Promise<void> {
    this.confirm = confirm ?? this.confirm;
    await this.mutex.run(async () => {
      this.term = term;
      this.highest = firstOfTerm(term) - 1;
      for (const name of [...this.bundles.keys(), ...this.passed]) this.count(name);
      await this.relearn();
      if (confirm !== undefined) await this.closeBefore(term);
    });
  }

  /** Those of a later term are somebody else's: who has lost the lease must not go on after them. */
  private count(name: string): void {
    const number = numberOf(name);
    const isOwn = this.term === null || termOf(number) === this.term;
    if (isOwn) this.highest = Math.max(this.highest, number);
  }

  private async closeBefore(term: number): Promise<void> {
    const closer = this.holders.get(CLOSES);
    const names = [...this.bundles.keys(), ...this.passed];
    const former = closer && { term: termOf(numberOf(closer.name)), closes: closer.closes };
    const { last, closes: named, number } = closeTerms(names, term, former);
    // What a damaged one holds is not known: it is not void.
    const closes = named.filter((name) => !this.damaged.has(name));
    const ended = last.flatMap((name) => this.bundles.get(name) ?? []);
    const members = await membersOf(this.objects, ended);
    members.set(CLOSES, new Uint8Array(0));
    const gone = [...ended, ...this.empty].flatMap(({ name, replaces }) => [name, ...replaces]);
    await this.confirm(REMOVAL_AGE_MS);
    this.highest = number - 1;
    if ((await this.putBundle(members, gone, closes)) === null) return this.closeBefore(term);
    this.empty = [];
    await this.clear(gone);
  }

  /** Learns what the bundles hold; to be called again where somebody else may have changed them. */
  refresh(): Promise<void> {
    return this.mutex.run(() => this.relearn());
  }

  /** Lists anew as long as a bundle is replaced between its listing and its reading. */
  private async relearn(): Promise<void> {
    const missed = new Set<string>();
    for (let before = -1; missed.size > before; ) {
      before = missed.size;
      const listed: ListedObject[] = [];
      for await (const object of this.objects.list(FOLDER)) listed.push(object);
      const names = new Set(listed.map(({ name }) => name));
      for (const name of this.bundles.keys()) if (!names.has(name)) this.bundles.delete(name);
      const fresh = listed.filter(({ name }) => !this.bundles.has(name) && !this.passed.has(name));
      for (let at = 0; at < fresh.length; at += PARALLEL) {
        const some = fresh.slice(at, at + PARALLEL);
        await Promise.all(some.map((object) => this.learn(object, missed)));
      }
      this.settle();
      for (const bundle of this.bundles.values()) {
        bundle.replaces = bundle.replaces.filter((name) => names.has(name));
      }
    }
    this.empty = [...this.bundles.values()].filter(({ alive }) => alive.size === 0);
    this.isUnsure = false;
  }

  /**
   * All that `step` puts and removes is durable once this resolves. If it rejects, nothing of it is, or,
   * where an answer was lost, all that it puts: `bytes` tells. `onDurable` is called before anything goes.
   */
  async together<T>(step: () => Promise<T>, onDurable?: () => void): Promise<T> {
    if (this.batches.getStore() !== undefined) return step();
    const batch = emptyBatch();
    const result = await this.batches.run(batch, step);
    await this.mutex.run(() => this.write(batch, onDurable));
    if (batch.alone.size > 0) await this.confirm(FROM_NOW_MS);
    for (const name of batch.alone) await this.objects.remove(name);
    return result;
  }

  /** Within `together` the caller knows that no object by itself has the name: nobody is asked. */
  async put(name: string, source: ObjectSource): Promise<'stored' | 'exists'> {
    const batch = this.batches.getStore();
    // A point is never there before what it names, so it is put with that, however large it is.
    const isSmall = source.bytes <= MAX_MEMBER_BYTES || name.startsWith('points/');
    const held = await this.held(name);
    if (held === null && (batch === undefined || !isSmall || !BUNDLED.test(name))) {
      if (batch?.alone.has(name) === true) {
        if ((await this.objects.remove(name)) === 'locked') return 'exists';
        batch.alone.delete(name);
      }
      return this.objects.put(name, source);
    }
    const bytes = await source.read(0, source.bytes);
    if (held !== null) return equalBytes(held, bytes) ? 'stored' : 'exists';
    batch!.put.set(name, bytes.slice());
    return 'stored';
  }

  async read(name: string, offset: number, length: number): Promise<Uint8Array> {
    const pending = this.batches.getStore()?.put.get(name);
    if (pending !== undefined) return pending.subarray(offset, offset + length);
    await this.sure();
    const found = this.find(name);
    if (found === null) {
      if (this.isGoing(name)) throw gone(this.place, name);
      return this.objects.read(name, offset, length);
    }
    const { bundle, member } = found;
    const end = Math.min(offset + length, member.bytes);
    if (end <= offset) return new Uint8Array(0);
    try {
      return await this.objects.read(bundle.name, member.offset + offset, end - offset);
    } catch (error) {
      if (!isNotFound(error)) throw error;
      await this.refresh(); // the bundle was replaced meanwhile
      if (this.find(name)?.bundle === bundle) throw error;
      return this.read(name, offset, length);
    }
  }

  async bytes(name: string): Promise<number | null> {
    const pending = this.batches.getStore()?.put.get(name);
    await this.sure();
    const known = pending?.length ?? this.find(name)?.member.bytes;
    if (known !== undefined) return known;
    return this.isGoing(name) ? null : this.objects.bytes(name);
  }

  async *list(prefix: string): AsyncGenerator<ListedObject> {
    await this.sure();
    const own: ListedObject[] = [];
    const seen = new Set<string>();
    for (const [name, { length }] of this.batches.getStore()?.put ?? []) {
      if (!name.startsWith(prefix)) continue;
      seen.add(name);
      own.push({ name, bytes: length, modifiedMs: 0, storageClass: '' });
    }
    for (const { alive, modifiedMs, storageClass } of this.bundles.values()) {
      for (const { name, bytes } of alive.values()) {
        if (!name.startsWith(prefix) || seen.has(name) || this.isGoing(name)) continue;
        if (name === CLOSES) continue;
        seen.add(name);
        own.push({ name, bytes, modifiedMs, storageClass });
      }
    }
    own.sort((a, b) => (a.name < b.name ? -1 : 1));
    let next = 0;
    for await (const object of this.objects.list(prefix)) {
      const { name } = object;
      if (seen.has(name) || this.isGoing(name)) continue;
      for (; next < own.length && own[next]!.name < object.name; next += 1) yield own[next]!;
      yield object;
    }
    for (; next < own.length; next += 1) yield own[next]!;
  }

  async remove(name: string): Promise<'removed' | 'locked'> {
    const batch = this.batches.getStore();
    if (batch?.put.delete(name) === true) return 'removed';
    await this.sure();
    const found = this.find(name);
    if (found === null && batch === undefined) {
      const result = await this.objects.remove(name);
      if (result === 'removed') this.damaged.delete(name);
      return result;
    }
    if (await this.objects.isLocked(found?.bundle.name ?? name)) return 'locked';
    if (batch === undefined) await this.mutex.run(() => this.write(removalOf(name)));
    else if (found === null) batch.alone.add(name);
    else batch.removed.add(name);
    return 'removed';
  }

  reclass(name: string, storageClass: string): Promise<'moved' | 'unchanged'> {
    return this.objects.reclass(name, storageClass);
  }

  clean(): Promise<number> {
    return this.objects.clean();
  }

  async isLocked(name: string): Promise<boolean> {
    return this.objects.isLocked(this.find(name)?.bundle.name ?? name);
  }

  close(): Promise<void> {
    return this.objects.close();
  }

  /** True for what the `together` that asks has removed. */
  private isGoing(name: string): boolean {
    const batch = this.batches.getStore();
    return batch?.alone.has(name) === true || batch?.removed.has(name) === true;
  }

  /** Asks what there is, where a put has failed: it may have had its effect. */
  private async sure(): Promise<void> {
    if (!this.isUnsure) return;
    await this.mutex.run(async () => {
      if (this.isUnsure) await this.relearn();
    });
  }

  private async learn(object: ListedObject, missed: Set<string>): Promise<void> {
    const { name, bytes, modifiedMs, storageClass } = object;
    this.count(name);
    try {
      const start = await this.objects.read(name, 0, Math.min(bytes, FIRST_READ_BYTES));
      const directory = await readDirectory(name, async (offset, length) => {
        const end = offset + length;
        return end <= start.length
          ? start.subarray(offset, end)
          : this.objects.read(name, offset, length);
      });
      const alive = new Map(directory.members.map((member) => [member.name, member]));
      const { replaces } = directory;
      const closes = alive.has(CLOSES) ? replaces : [];
      this.bundles.set(name, { name, modifiedMs, storageClass, alive, replaces, closes });
    } catch (error) {
      if (isNotFound(error)) {
        missed.add(name); // replaced since it was listed
        return;
      }
      if (!isDamage(error)) throw error;
      this.passed.add(name);
      this.damaged.add(name);
      this.onDamage(name, error);
    }
  }

  /**
   * What is replaced does not count, nor what a newer bundle has under the same name. What one that does not
   * count itself names as replaced stays: it may have come late.
   */
  private settle(): void {
    const newestFirst = [...this.bundles.values()].sort((a, b) => (a.name < b.name ? 1 : -1));
    for (const { name: own, replaces, closes } of newestFirst) {
      if (!this.bundles.has(own)) continue;
      for (const name of [...replaces, ...closes]) {
        this.bundles.delete(name);
        this.passed.add(name);
        this.damaged.delete(name);
      }
    }
    this.holders.clear();
    for (const bundle of newestFirst) {
      if (!this.bundles.has(bundle.name)) continue;
      for (const name of [...bundle.alive.keys()]) {
        if (this.holders.has(name)) bundle.alive.delete(name);
        else this.holders.set(name, bundle);
      }
    }
  }

  /** One bundle, or none, for what a batch has done; then those that it replaces go. */
  private async write(batch: Batch, onDurable?: () => void): Promise<void> {
    const { put, removed } = batch;
    if (this.isUnsure) await this.relearn();
    const replaced = new Set([...removed].flatMap((name) => this.holders.get(name) ?? []));
    if (put.size === 0 && replaced.size === 0) return onDurable?.();
    const stays = await membersOf(this.objects, [...replaced], removed);
    const closes = [...replaced].flatMap((bundle) =>
      this.holders.get(CLOSES) === bundle ? bundle.closes : [],
    );
    const formerly = [...replaced, ...this.empty];
    const gone = formerly.flatMap(({ name, replaces }) => [name, ...replaces]);
    // Batches that were written before this one may have taken long.
    await this.confirm(REMOVAL_AGE_MS);
    const successor = await this.putBundle(new Map([...put, ...stays]), gone, closes);
    if (successor === null) return this.write(batch, onDurable);
    // Without members it stands only for what it replaces, and for the number that it has.
    this.empty = successor.alive.size === 0 ? [successor] : [];
    onDurable?.();
    if (await this.clear(gone)) successor.replaces = [];
  }

  /**
   * Removes bundles that count no more. What cannot go now is named in its successor while that stands.
   * ERR_LEASE_LOST: then the successor may be void, and nothing goes.
   */
  private async clear(names: readonly string[]): Promise<boolean> {
    let isCleared = true;
    for (const [i, name] of names.entries()) {
      try {
        // By a renewal that comes after the successor, whoever has the repository next has seen it.
        if (i === 0) await this.confirm(FROM_NOW_MS);
        if ((await this.objects.remove(name)) === 'locked') isCleared = false;
      } catch (error) {
        if (!(error instanceof UnderstudyError) || isLost(error)) throw error;
        isCleared = false;
        this.onLeft(name, error);
        if (i === 0) return false;
      }
    }
    return isCleared;
  }

  /** Null where an earlier try has turned up meanwhile, which is known from now on. */
  private async putBundle(
    members: ReadonlyMap<string, Uint8Array>,
    replaces: readonly string[],
    closes: readonly string[],
  ): Promise<Bundle | null> {
    const bytes = encodeBundle(members, [...new Set([...replaces, ...closes])]);
    const name = bundleName(this.highest + 1);
    const wasTried = this.tried === name;
    let result: 'stored' | 'exists';
    try {
      result = await this.objects.put(name, sourceOf(bytes));
    } catch (error) {
      this.tried = name;
      this.isUnsure = true;
      throw error;
    }
    this.tried = null;
    if (result === 'exists' && wasTried) {
      await this.relearn();
      if (name !== bundleName(this.highest + 1)) return null;
    }
    if (result === 'exists') {
      const message = `${this.place}/${name}: another process writes to this repository`;
      throw new UnderstudyError('ERR_OBJECTS_CONFLICT', message, { path: name });
    }
    this.highest += 1;
    const { members: entered } = await readDirectory(name, async (offset, length) =>
      bytes.subarray(offset, offset + length),
    );
    const alive = new Map(entered.map((member) => [member.name, member]));
    const bundle = { name, modifiedMs: 0, storageClass: '', alive, replaces, closes };
    this.bundles.set(name, bundle);
    this.settle();
    return bundle;
  }

  private find(name: string): { bundle: Bundle; member: BundleMember } | null {
    if (!BUNDLED.test(name) || this.isGoing(name)) return null;
    const bundle = this.holders.get(name);
    const member = bundle?.alive.get(name);
    return bundle === undefined || member === undefined ? null : { bundle, member };
  }

  /** The bytes of a member or of what is put with others; null where the name is free in bundles. */
  private async held(name: string): Promise<Uint8Array | null> {
    const pending = this.batches.getStore()?.put.get(name);
    if (pending !== undefined) return pending;
    await this.sure();
    const found = this.find(name);
    return found === null ? null : this.read(name, 0, found.member.bytes);
  }
}
