/**
 * An object store in memory, for tests: counts its requests, can be cut off, and can fail a chosen request
 * before or after it has had its effect. Outlives the program that uses it: `connect` gives a new one's view.
 */
import { type ErrorCode, UnderstudyError } from '../../../src/base/errors.ts';
import type {
  ListedObject,
  ObjectSource,
  ObjectStore,
} from '../../../src/store/objects/object-store.ts';

export type Request = 'put' | 'read' | 'bytes' | 'list' | 'remove' | 'reclass' | 'clean' | 'locked';

const unavailable = (name: string, code: ErrorCode = 'ERR_OBJECTS_UNAVAILABLE'): UnderstudyError =>
  new UnderstudyError(code, `memory: ${name}: cut off`, { path: name });

interface Held {
  readonly bytes: Uint8Array;
  readonly modifiedMs: number;
  storageClass: string;
}

export class MemoryObjects implements ObjectStore {
  readonly place = 'memory';
  readonly held = new Map<string, Held>();
  /** Names that cannot be removed. */
  readonly locked = new Set<string>();
  readonly requests: { kind: Request; name: string }[] = [];
  /** While set, every request fails so. */
  cutOff: ErrorCode | null = null;
  nowMs = 0;
  /** Before each request and after it: others may come in between. */
  delay: () => Promise<void> = async () => undefined;
  /** Called before each request; may throw. */
  before: (kind: Request, name: string, count: number) => void = () => undefined;
  /** Called after each request has had its effect; may throw: the answer is lost. */
  after: (kind: Request, name: string, count: number) => void = () => undefined;

  count(kind: Request): number {
    return this.requests.filter((request) => request.kind === kind).length;
  }

  put(name: string, source: ObjectSource): Promise<'stored' | 'exists'> {
    return this.ask('put', name, async () => {
      const bytes = (await source.read(0, source.bytes)).slice();
      const there = this.held.get(name);
      if (there !== undefined) {
        return Buffer.compare(there.bytes, bytes) === 0 ? 'stored' : 'exists';
      }
      this.held.set(name, { bytes, modifiedMs: this.nowMs, storageClass: 'STANDARD' });
      return 'stored';
    });
  }

  read(name: string, offset: number, length: number): Promise<Uint8Array> {
    return this.ask('read', name, async () => {
      const there = this.held.get(name);
      if (there === undefined) throw unavailable(name, 'ERR_DISK_NOT_FOUND');
      return there.bytes.slice(offset, offset + length);
    });
  }

  bytes(name: string): Promise<number | null> {
    return this.ask('bytes', name, async () => this.held.get(name)?.bytes.length ?? null);
  }

  async *list(prefix: string): AsyncGenerator<ListedObject> {
    const names = await this.ask('list', prefix, async () => [...this.held.keys()].sort());
    for (const name of names) {
      const there = this.held.get(name);
      if (there === undefined || !name.startsWith(prefix)) continue;
      const { bytes, modifiedMs, storageClass } = there;
      yield { name, bytes: bytes.length, modifiedMs, storageClass };
    }
  }

  remove(name: string): Promise<'removed' | 'locked'> {
    return this.ask('remove', name, async () => {
      if (this.locked.has(name)) return 'locked';
      this.held.delete(name);
      return 'removed';
    });
  }

  reclass(name: string, storageClass: string): Promise<'moved' | 'unchanged'> {
    return this.ask('reclass', name, async () => {
      const there = this.held.get(name);
      if (there === undefined || this.locked.has(name)) return 'unchanged';
      there.storageClass = storageClass;
      return 'moved';
    });
  }

  clean(): Promise<number> {
    return this.ask('clean', '', async () => 0);
  }

  isLocked(name: string): Promise<boolean> {
    return this.ask('locked', name, async () => this.locked.has(name));
  }

  async close(): Promise<void> {
    return;
  }

  private async ask<T>(kind: Request, name: string, run: () => Promise<T>): Promise<T> {
    this.requests.push({ kind, name });
    const count = this.requests.length;
    if (this.cutOff !== null) throw unavailable(name, this.cutOff);
    this.before(kind, name, count);
    await this.delay();
    const result = await run();
    await this.delay();
    this.after(kind, name, count);
    return result;
  }
}
