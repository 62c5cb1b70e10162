/**
 * Reads of objects by blocks, a bounded number of them kept: a header and what follows it come with one
 * request, and whoever reads on is given more at a time, up to a bound. Objects do not change while they
 * have their name. Large reads go past it, as they are.
 */
import type { ObjectStore } from './object-store.ts';

const BLOCK_BYTES = 64 * 1024;
/** Of one request for a reader that goes on and on. */
const MAX_WINDOW = 64;
const SMALL_BYTES = 2 * 2 ** 20;
/** A read of so much is made as it is. */
const DIRECT_BYTES = 1024 * 1024;
/** Blocks kept: 32 MiB. */
const KEPT_BLOCKS = 512;

/** What is known of an object, and how far it was read. */
export interface Reading {
  readonly name: string;
  /** Null: not known yet. */
  bytes: number | null;
  /** The block after the last one that was asked for. */
  next: number;
  window: number;
}

export const readingOf = (name: string, bytes: number | null): Reading => ({
  ...{ name, bytes },
  ...{ next: -1, window: 1 },
});

export class BlockCache {
  private readonly objects: ObjectStore;
  /** Least recently used first. */
  private readonly blocks = new Map<string, Uint8Array>();
  private readonly underWay = new Map<string, Promise<void>>();

  constructor(objects: ObjectStore) {
    this.objects = objects;
  }

  /** Fills the buffer from `offset` on; returns the count, short only at the end. ERR_DISK_NOT_FOUND. */
  async read(reading: Reading, buffer: Uint8Array, offset: number): Promise<number> {
    if (buffer.length >= DIRECT_BYTES) return this.readDirect(reading, buffer, offset);
    let done = 0;
    while (done < buffer.length) {
      const at = offset + done;
      if (reading.bytes !== null && at >= reading.bytes) break;
      const index = Math.floor(at / BLOCK_BYTES);
      const last = Math.floor((offset + buffer.length - 1) / BLOCK_BYTES);
      const block = await this.block(reading, index, last);
      const part = block.subarray(at - index * BLOCK_BYTES).subarray(0, buffer.length - done);
      buffer.set(part, done);
      done += part.length;
      if (block.length < BLOCK_BYTES) break;
    }
    return done;
  }

  /** The name is given to other bytes, or to none. */
  forget(name: string): void {
    const prefix = `${name}\n`;
    for (const key of [...this.blocks.keys()]) if (key.startsWith(prefix)) this.blocks.delete(key);
  }

  private async readDirect(
    { name, bytes }: Reading,
    buffer: Uint8Array,
    offset: number,
  ): Promise<number> {
    const end = Math.min(offset + buffer.length, bytes ?? Number.POSITIVE_INFINITY);
    if (end <= offset) return 0;
    const found = await this.objects.read(name, offset, end - offset);
    buffer.set(found);
    return found.length;
  }

  private async block(reading: Reading, index: number, last: number): Promise<Uint8Array> {
    const key = keyOf(reading.name, index);
    for (;;) {
      const known = this.blocks.get(key);
      if (known !== undefined) {
        this.blocks.delete(key);
        this.blocks.set(key, known);
        return known;
      }
      const other = this.underWay.get(key);
      if (other === undefined) return this.fetch(reading, index, last);
      // Whoever asked for it tells of a failure; here it is asked for anew.
      await other.catch(() => undefined);
    }
  }

  private async fetch(reading: Reading, index: number, last: number): Promise<Uint8Array> {
    const count = this.plan(reading, index, last);
    const keys = Array.from({ length: count }, (_, i) => keyOf(reading.name, index + i));
    const fetched = this.load(reading, index, keys);
    const settled = fetched.then(() => undefined);
    settled.catch(() => undefined); // told to whoever awaits `fetched`
    for (const key of keys) this.underWay.set(key, settled);
    try {
      return await fetched;
    } finally {
      for (const key of keys) this.underWay.delete(key);
    }
  }

  /** How many blocks to ask for: what is wanted, and more for one who reads on. */
  private plan(reading: Reading, index: number, last: number): number {
    const { next, window, bytes } = reading;
    // Some of it may be passed over: contents that were written anew lie elsewhere.
    const goesOn = next >= 0 && index >= next && index <= next + window;
    reading.window = goesOn ? Math.min(2 * window, MAX_WINDOW) : 1;
    // Of a small object that is asked for again the rest is worth no further requests.
    if (next >= 0 && bytes !== null && bytes <= SMALL_BYTES) reading.window = MAX_WINDOW;
    const end = reading.bytes === null ? Number.POSITIVE_INFINITY : reading.bytes / BLOCK_BYTES;
    const most = Math.min(Math.max(last - index + 1, reading.window), Math.ceil(end) - index);
    let count = 1;
    const isFree = (key: string) => !this.blocks.has(key) && !this.underWay.has(key);
    while (count < most && isFree(keyOf(reading.name, index + count))) count += 1;
    reading.next = index + count;
    return count;
  }

  private async load(
    reading: Reading,
    index: number,
    keys: readonly string[],
  ): Promise<Uint8Array> {
    const start = index * BLOCK_BYTES;
    const wanted = keys.length * BLOCK_BYTES;
    const length = reading.bytes === null ? wanted : Math.min(wanted, reading.bytes - start);
    const bytes = await this.objects.read(reading.name, start, length);
    if (bytes.length < wanted && bytes.length > 0) reading.bytes ??= start + bytes.length;
    for (const [i, key] of keys.entries()) {
      this.keep(key, bytes.slice(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES));
    }
    return bytes.subarray(0, BLOCK_BYTES);
  }

  private keep(key: string, block: Uint8Array): void {
    this.blocks.set(key, block);
    if (this.blocks.size > KEPT_BLOCKS) this.blocks.delete(this.blocks.keys().next().value!);
  }
}

const keyOf = (name: string, block: number): string => `${name}\n${block}`;
