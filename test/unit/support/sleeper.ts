/**
 * A process that writes to an object store and is stopped (SIGSTOP) at one of its requests, until it is woken:
 * before the request has its effect, after it, or after it with the answer lost, so that it is sent again.
 */
import type {
  ListedObject,
  ObjectSource,
  ObjectStore,
} from '../../../src/store/objects/object-store.ts';

export type StopAt = 'before' | 'after' | 'again';

export class Sleeper implements ObjectStore {
  readonly place: string;
  isAsleep = false;
  /** Resolves once it sleeps. */
  readonly asleep: Promise<void>;
  private readonly objects: ObjectStore;
  private readonly gate = Promise.withResolvers<void>();
  private readonly fell = Promise.withResolvers<void>();
  private stop: { at: number; when: StopAt } | null = null;
  private requests = 0;
  /** Called before each request: others may be woken in between. */
  onRequest: () => void = () => undefined;

  constructor(objects: ObjectStore) {
    this.objects = objects;
    this.place = objects.place;
    this.asleep = this.fell.promise;
  }

  /** It falls asleep at the n-th request from now on. */
  sleepAt(n: number, when: StopAt): void {
    this.stop = { at: this.requests + n, when };
  }

  wake(): void {
    this.isAsleep = false;
    this.gate.resolve();
  }

  /** One request, or anything else at which it may be stopped. */
  async step<T>(run: () => Promise<T>): Promise<T> {
    this.onRequest();
    this.requests += 1;
    if (this.stop === null || this.requests !== this.stop.at) return run();
    const { when } = this.stop;
    const first = when === 'before' ? null : await run();
    this.isAsleep = true;
    this.fell.resolve();
    await this.gate.promise;
    return when === 'after' ? first! : run();
  }

  put(name: string, source: ObjectSource): Promise<'stored' | 'exists'> {
    return this.step(() => this.objects.put(name, source));
  }

  read(name: string, offset: number, length: number): Promise<Uint8Array> {
    return this.step(() => this.objects.read(name, offset, length));
  }

  bytes(name: string): Promise<number | null> {
    return this.step(() => this.objects.bytes(name));
  }

  async *list(prefix: string): AsyncGenerator<ListedObject> {
    yield* await this.step(async () => {
      const found: ListedObject[] = [];
      for await (const object of this.objects.list(prefix)) found.push(object);
      return found;
    });
  }

  remove(name: string): Promise<'removed' | 'locked'> {
    return this.step(() => this.objects.remove(name));
  }

  reclass(name: string, storageClass: string): Promise<'moved' | 'unchanged'> {
    return this.step(() => this.objects.reclass(name, storageClass));
  }

  clean(): Promise<number> {
    return this.step(() => this.objects.clean());
  }

  isLocked(name: string): Promise<boolean> {
    return this.step(() => this.objects.isLocked(name));
  }

  close(): Promise<void> {
    return this.objects.close();
  }
}
