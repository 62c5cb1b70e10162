/**
 * Small objects in bundles (bundled-objects.ts): whatever is put, removed and read, alone and together, a
 * store with bundles is as one without; at whatever request the process ends, all of a `together` is there
 * or nothing of it, and what was removed does not come back.
 */
import { describe, expect, it } from 'vitest';
import { UnderstudyError } from '../../src/base/errors.ts';
import { BundledObjects } from '../../src/store/objects/bundled-objects.ts';
import { sourceOf } from '../../src/store/objects/object-store.ts';
import { Random } from '../simulation/random.ts';
import { MemoryObjects } from './support/memory-objects.ts';

type Contents = Map<string, Uint8Array>;

const told = { onDamage: () => undefined, onLeft: () => undefined };

async function open(memory: MemoryObjects): Promise<BundledObjects> {
  const objects = new BundledObjects(memory, told);
  await objects.refresh();
  return objects;
}

async function contentsOf(objects: BundledObjects): Promise<Contents> {
  const found: Contents = new Map();
  for await (const { name, bytes } of objects.list('')) {
    if (name.startsWith('bundles/')) continue;
    const content = await objects.read(name, 0, bytes + 5);
    expect(content.length).toBe(bytes);
    expect(await objects.bytes(name)).toBe(bytes);
    found.set(name, content.slice());
  }
  return found;
}

const text = (contents: Contents): string =>
  JSON.stringify([...contents].sort().map(([name, bytes]) => [name, [...bytes]]));

const folders = ['deltas/web/v', 'points/web', 'bases/web', 'packs/3f'];

/** One step of a random life; `model` is what must be there when it has resolved. */
async function step(objects: BundledObjects, model: Contents, random: Random): Promise<void> {
  const put = async (isTogether: boolean) => {
    const name = `${random.pick(isTogether ? folders.slice(0, 2) : folders)}/${random.below(40)}`;
    // Who puts together knows the names that are taken.
    if (isTogether && model.has(name)) return;
    const bytes = random.bytes(random.below(300));
    const there = model.get(name);
    const same = there !== undefined && Buffer.compare(there, bytes) === 0;
    if (there === undefined) model.set(name, bytes);
    const result = await objects.put(name, sourceOf(bytes));
    expect(result).toBe(there === undefined || same ? 'stored' : 'exists');
  };
  const remove = async () => {
    const names = [...model.keys()];
    if (names.length === 0) return;
    const name = random.pick(names);
    model.delete(name);
    expect(await objects.remove(name)).toBe('removed');
    expect(await objects.bytes(name)).toBeNull();
  };
  const some = async () => {
    for (let calls = 1 + random.below(5); calls > 0; calls -= 1) {
      await (random.chance(0.6) ? put(true) : remove());
    }
  };
  const kind = random.below(4);
  if (kind === 0) await put(false);
  else if (kind === 1) await remove();
  else await objects.together(some);
}

describe('bundled objects', () => {
  it('are as objects without bundles, over many lives', async () => {
    for (let seed = 0; seed < 40; seed += 1) {
      const random = new Random(seed);
      const memory = new MemoryObjects();
      const model: Contents = new Map();
      for (let life = 0; life < 4; life += 1) {
        const objects = await open(memory);
        await objects.beginTerm(life);
        for (let i = 0; i < 15; i += 1) await step(objects, model, random);
        expect(text(await contentsOf(objects))).toBe(text(model));
        expect(text(await contentsOf(await open(memory)))).toBe(text(model));
      }
    }
  });

  it.each(['before', 'after'] as const)(
    'hold all of a together or nothing, where the process ends %s any request',
    async (when) => {
      let ends = 0;
      for (let seed = 0; seed < 60; seed += 1) {
        const random = new Random(seed);
        const memory = new MemoryObjects();
        const model: Contents = new Map();
        const objects = await open(memory);
        for (let i = 0; i < 6; i += 1) await step(objects, model, random);
        const last = memory.requests.length + 1 + random.below(12);
        let isDead = false;
        memory[when] = (_kind, _name, count) => {
          if (count < last && !isDead) return;
          isDead = true;
          throw new Error('the process has ended');
        };
        let after: Contents = new Map(model);
        for (let i = 0; i < 6 && !isDead; i += 1) {
          const next = new Map(model);
          try {
            const copy = new Random(seed * 100 + i);
            await step(objects, next, copy);
          } catch (error) {
            expect(String(error)).toContain('the process has ended');
            after = next;
            ends += 1;
            break;
          }
          model.clear();
          for (const [name, bytes] of next) model.set(name, bytes);
          after = next;
        }
        memory[when] = () => undefined;
        const found = await contentsOf(await open(memory));
        // Objects by themselves go one by one, when what is put is there.
        const mayStay = [...model.keys()].filter(
          (name) => !after.has(name) && memory.held.has(name),
        );
        const rest = new Map([...found].filter(([name]) => !mayStay.includes(name)));
        expect([text(model), text(after)]).toContain(
          text(found) === text(model) ? text(found) : text(rest),
        );
      }
      expect(ends).toBeGreaterThan(20);
    },
  );

  it('cost one request for all that is put together', async () => {
    const memory = new MemoryObjects();
    const objects = await open(memory);
    await objects.together(async () => {
      for (let i = 0; i < 50; i += 1) {
        await objects.put(`deltas/web/v/${i}`, sourceOf(new Uint8Array(i)));
        await objects.put(`points/web/${i}`, sourceOf(new Uint8Array(i)));
      }
    });
    expect(memory.requests.filter(({ kind }) => kind !== 'list')).toEqual([
      { kind: 'put', name: 'bundles/0000000000000001.bundle' },
    ]);
    expect((await contentsOf(await open(memory))).size).toBe(100);
  });

  it('do not mix what goes on at the same time outside of the together', async () => {
    const memory = new MemoryObjects();
    const objects = await open(memory);
    const { promise: waiting, resolve: release } = Promise.withResolvers<void>();
    const together = objects.together(async () => {
      await objects.put('points/a', sourceOf(Uint8Array.of(1)));
      await waiting;
    });
    expect(await objects.put('points/b', sourceOf(Uint8Array.of(2)))).toBe('stored');
    expect([...memory.held.keys()]).toEqual(['points/b']);
    expect(await objects.bytes('points/a')).toBeNull();
    release();
    await together;
    expect(await objects.bytes('points/a')).toBe(1);
  });

  it('keep what a locked bundle holds', async () => {
    const memory = new MemoryObjects();
    const objects = await open(memory);
    await objects.together(async () => {
      await objects.put('points/a', sourceOf(Uint8Array.of(1)));
    });
    memory.locked.add('bundles/0000000000000001.bundle');
    expect(await objects.remove('points/a')).toBe('locked');
    expect(await objects.bytes('points/a')).toBe(1);
  });

  it('tell of a damaged bundle, and go on with the others', async () => {
    const memory = new MemoryObjects();
    const objects = await open(memory);
    for (const name of ['points/a', 'points/b']) {
      await objects.together(() => objects.put(name, sourceOf(Uint8Array.of(1))));
    }
    const first = memory.held.get('bundles/0000000000000001.bundle')!;
    first.bytes[20]! ^= 1;
    const damaged: string[] = [];
    const again = new BundledObjects(memory, {
      ...told,
      onDamage: (name: string, error: UnderstudyError) => {
        expect(error).toBeInstanceOf(UnderstudyError);
        damaged.push(name);
      },
    });
    await again.refresh();
    expect(damaged).toEqual(['bundles/0000000000000001.bundle']);
    expect([...(await contentsOf(again)).keys()]).toEqual(['points/b']);
  });

  it('are followed by a reader beside the service', async () => {
    const memory = new MemoryObjects();
    const service = await open(memory);
    await service.together(async () => {
      await service.put('points/a', sourceOf(Uint8Array.of(1)));
      await service.put('points/b', sourceOf(Uint8Array.of(2)));
    });
    const reader = await open(memory);
    await service.remove('points/a');
    expect([...(await reader.read('points/b', 0, 9))]).toEqual([2]);
    await expect(reader.read('points/a', 0, 9)).rejects.toMatchObject({
      code: 'ERR_DISK_NOT_FOUND',
    });
  });

  it('count those of the term that has the lease', async () => {
    const memory = new MemoryObjects();
    const paused = await open(memory);
    await paused.beginTerm(1);
    const holder = await open(memory);
    await holder.beginTerm(2);
    await holder.together(() => holder.put('deltas/x', sourceOf(Uint8Array.of(2))));
    await paused.together(() => paused.put('deltas/x', sourceOf(Uint8Array.of(1))));
    expect([...(await (await open(memory)).read('deltas/x', 0, 9))]).toEqual([2]);
  });
});
