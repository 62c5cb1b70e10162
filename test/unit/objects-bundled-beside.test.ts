/**
 * Bundles (bundled-objects.ts) where things happen beside each other: a reader that lists while a bundle is
 * replaced, one store that is refreshed while it writes, a put whose answer was lost and that is tried again
 * with other bytes, and what must be there in what order within one `together`.
 */
import { describe, expect, it } from 'vitest';
import { BundledObjects } from '../../src/store/objects/bundled-objects.ts';
import { sourceOf } from '../../src/store/objects/object-store.ts';
import { MemoryObjects } from './support/memory-objects.ts';

const told = { onDamage: () => undefined, onLeft: () => undefined };
const KIB = 1024;

async function open(memory: MemoryObjects): Promise<BundledObjects> {
  const objects = new BundledObjects(memory, told);
  await objects.refresh();
  return objects;
}

const put = (objects: BundledObjects, name: string, ...bytes: number[]) =>
  objects.put(name, sourceOf(Uint8Array.from(bytes)));

async function namesOf(objects: BundledObjects): Promise<string[]> {
  const found: string[] = [];
  for await (const { name } of objects.list('')) {
    if (!name.startsWith('bundles/')) found.push(name);
  }
  return found;
}

describe('bundles beside each other', () => {
  it('are found by a reader that lists while one of them is replaced', async () => {
    const memory = new MemoryObjects();
    const service = await open(memory);
    await service.together(async () => {
      await put(service, 'points/a', 1);
      await put(service, 'points/b', 2);
    });
    // Between the listing and the read of the directory the service puts a successor.
    const stale = new MemoryObjects();
    for (const [name, held] of memory.held) stale.held.set(name, held);
    await service.remove('points/a');
    let isFirst = true;
    const list = memory.list.bind(memory);
    memory.list = (prefix) => {
      const from = isFirst ? stale.list(prefix) : list(prefix);
      isFirst = false;
      return from;
    };
    const reader = await open(memory);
    expect(await namesOf(reader)).toEqual(['points/b']);
  });

  it('stay known where the store is refreshed while it writes', async () => {
    const memory = new MemoryObjects();
    const objects = await open(memory);
    await objects.together(() => put(objects, 'points/a', 1));
    const { promise: waiting, resolve: release } = Promise.withResolvers<void>();
    const list = memory.list.bind(memory);
    memory.list = async function* (prefix) {
      const found = [];
      for await (const object of list(prefix)) found.push(object);
      await waiting;
      yield* found;
    };
    const refreshed = objects.refresh();
    await new Promise((go) => setImmediate(go));
    const written = objects.together(() => put(objects, 'points/b', 2));
    await new Promise((go) => setImmediate(go));
    release();
    await Promise.all([refreshed, written]);
    memory.list = list;
    expect(await objects.bytes('points/b')).toBe(1);
    expect(await namesOf(objects)).toEqual(['points/a', 'points/b']);
  });

  it('take a second try with other bytes, where the answer to the first was lost', async () => {
    const memory = new MemoryObjects();
    const objects = await open(memory);
    memory.after = (kind) => {
      if (kind === 'put') throw new Error('the answer was lost');
    };
    await expect(objects.together(() => put(objects, 'points/a', 1))).rejects.toThrow('lost');
    memory.after = () => undefined;
    // Of an encrypted repository no second try has the bytes of the first.
    await objects.together(() => put(objects, 'deltas/b', 2, 3));
    expect(await objects.bytes('deltas/b')).toBe(2);
    expect(await objects.bytes('points/a')).toBe(1);
    expect(await namesOf(await open(memory))).toEqual(['deltas/b', 'points/a']);
  });

  it('take a large object in the place of one that the same step removes', async () => {
    const memory = new MemoryObjects();
    const objects = await open(memory);
    await put(objects, 'deltas/a', 1);
    const large = new Uint8Array(300 * KIB);
    await objects.together(async () => {
      await objects.remove('deltas/a');
      expect(await objects.put('deltas/a', sourceOf(large))).toBe('stored');
    });
    expect(await objects.bytes('deltas/a')).toBe(large.length);
    expect(await (await open(memory)).bytes('deltas/a')).toBe(large.length);
  });

  it('have no point before what it names, however large it is', async () => {
    const memory = new MemoryObjects();
    const objects = await open(memory);
    memory.before = (kind, name) => {
      if (kind === 'put' && name.startsWith('bundles/')) throw new Error('the process has ended');
    };
    const step = objects.together(async () => {
      await put(objects, 'deltas/a', 1);
      await objects.put('points/a', sourceOf(new Uint8Array(300 * KIB)));
    });
    await expect(step).rejects.toThrow('ended');
    memory.before = () => undefined;
    expect(await namesOf(await open(memory))).toEqual([]);
  });

  it('ask for each that was replaced once, not again with each that follows', async () => {
    const memory = new MemoryObjects();
    const objects = await open(memory);
    await objects.together(async () => {
      for (let i = 10; i < 60; i += 1) await put(objects, `points/${i}`, i);
    });
    for (let i = 10; i < 59; i += 1) await objects.remove(`points/${i}`);
    expect(memory.count('remove')).toBeLessThanOrEqual(60);
    expect(await namesOf(await open(memory))).toEqual(['points/59']);
  });

  it('are not damaged where a damaged one was replaced already', async () => {
    const memory = new MemoryObjects();
    const objects = await open(memory);
    await objects.together(async () => {
      await put(objects, 'points/a', 1);
      await put(objects, 'points/b', 2);
    });
    const [name, held] = [...memory.held].find(([key]) => key.startsWith('bundles/'))!;
    await objects.remove('points/a');
    const bytes = held.bytes.slice();
    bytes[20]! ^= 1;
    memory.held.set(name, { ...held, bytes }); // kept by a lock, say
    const again = await open(memory);
    expect(await namesOf(again)).toEqual(['points/b']);
    expect([...again.damaged]).toEqual([]);
  });
});
