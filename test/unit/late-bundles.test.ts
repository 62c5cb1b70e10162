/**
 * Bundles of a process that has lost the repository (closed-terms.ts): it is stopped at any of its requests,
 * another one takes the lease over and goes on, and the first wakes up and finishes what it was at. What it
 * does then counts for nothing: nothing that was dropped comes back, nothing that is there goes, whether the
 * request had had its effect before, has it only now, or is sent once more. For the new holder, for a reader,
 * and for whoever comes after.
 */
import { describe, expect, it } from 'vitest';
import { UnderstudyError } from '../../src/base/errors.ts';
import { BundledObjects, type Confirm } from '../../src/store/objects/bundled-objects.ts';
import { bundleName, numberOf } from '../../src/store/objects/closed-terms.ts';
import { sourceOf } from '../../src/store/objects/object-store.ts';
import { Random } from '../simulation/random.ts';
import { MemoryObjects } from './support/memory-objects.ts';
import { Sleeper, type StopAt } from './support/sleeper.ts';

const told = { onDamage: () => undefined, onLeft: () => undefined };
const waysToStop: readonly StopAt[] = ['before', 'after', 'again'];

/** Who has the lease, in which term. */
interface Seat {
  term: number;
  holder: number;
  /** The last holder has ended and has nothing under way: the next one goes on in its term. */
  hasEnded: boolean;
}

const empty = (): Seat => ({ term: 0, holder: 0, hasEnded: false });

/** A process with a term of its own, that can be stopped. */
class Process {
  readonly view: Sleeper;
  readonly objects: BundledObjects;
  private readonly term: number;
  private readonly number: number;
  private readonly seat: Seat;

  constructor(memory: MemoryObjects, seat: Seat) {
    seat.term += seat.hasEnded ? 0 : 1;
    seat.holder += 1;
    seat.hasEnded = false;
    this.seat = seat;
    this.term = seat.term;
    this.number = seat.holder;
    this.view = new Sleeper(memory);
    this.objects = new BundledObjects(this.view, told);
  }

  get isHolder(): boolean {
    return this.seat.holder === this.number;
  }

  end(): void {
    this.seat.hasEnded = true;
  }

  begin(): Promise<void> {
    const confirm: Confirm = () =>
      this.view.step(async () => {
        if (this.isHolder) return;
        throw new UnderstudyError('ERR_LEASE_LOST', 'another has it');
      });
    return this.objects.beginTerm(this.term, confirm);
  }
}

async function begun(memory: MemoryObjects, seat: Seat): Promise<Process> {
  const process = new Process(memory, seat);
  await process.begin();
  return process;
}

const asText = (names: readonly string[]): string => [...names].sort().join(' ');

/** Names and contents: each content is its name and who has put it. */
async function contentsOf(objects: BundledObjects): Promise<string> {
  const found: string[] = [];
  for await (const { name, bytes } of objects.list('')) {
    if (name.startsWith('bundles/')) continue;
    const content = Buffer.from(await objects.read(name, 0, bytes)).toString();
    expect(content.startsWith(name)).toBe(true);
    found.push(content);
  }
  return asText(found);
}

async function readerOf(memory: MemoryObjects): Promise<string> {
  const reader = new BundledObjects(memory, told);
  await reader.refresh();
  return contentsOf(reader);
}

type Step = (objects: BundledObjects) => Promise<unknown>;

const putter =
  (objects: BundledObjects, by = '') =>
  (name: string) =>
    objects.put(name, sourceOf(Buffer.from(`${name}${by}`)));

const sealing =
  (names: readonly string[], by = ''): Step =>
  (objects) =>
    objects.together(async () => {
      for (const name of names) await putter(objects, by)(name);
    });

const dropping =
  (...names: string[]): Step =>
  (objects) =>
    objects.together(async () => {
      for (const name of names) {
        if ((await objects.bytes(name)) !== null) await objects.remove(name);
      }
    });

const folding: Step = (objects) =>
  objects.together(async () => {
    await putter(objects)('deltas/fold');
    for (const name of ['deltas/2', 'deltas/3', 'bases/1']) await objects.remove(name);
  });

/** What goes is no member. */
const standingIn: Step = (objects) =>
  objects.together(async () => {
    await putter(objects)('deltas/fold');
    await objects.remove('bases/1');
  });

const inTurn =
  (...steps: Step[]): Step =>
  async (objects) => {
    for (const step of steps) await step(objects);
  };

/** Both have asked for the lease before either is written. */
const atOnce =
  (...steps: Step[]): Step =>
  (objects) =>
    Promise.all(steps.map((step) => step(objects)));

const sleepers: Record<string, Step> = {
  'a seal': sealing(['points/4', 'deltas/4']),
  'a drop': dropping('points/1'),
  'a drop of all that a bundle has': dropping('points/3'),
  'a drop of its last bundle': dropping('points/2', 'points/3'),
  'a fold': folding,
  'a delta for an object by itself': standingIn,
  'a seal and a drop at once': atOnce(sealing(['points/4']), dropping('points/2')),
  'drops and seals in turn': inTurn(
    dropping('points/3'),
    sealing(['points/4']),
    dropping('points/1'),
  ),
};

const holders: Record<string, Step> = {
  'does nothing': async () => undefined,
  seals: sealing(['points/5', 'deltas/5'], ' of the holder'),
  'drops what is there': dropping('points/1', 'points/2', 'points/3', 'points/4'),
  'drops and seals under the same names': inTurn(
    dropping('points/1', 'points/3', 'points/4', 'deltas/4'),
    sealing(['points/4', 'deltas/4'], ' of the holder'),
    dropping('deltas/2'),
  ),
  'drops the last and goes on': inTurn(
    dropping('points/3'),
    sealing(['points/7']),
    dropping('points/7'),
    sealing(['points/8']),
    dropping('points/8'),
  ),
  'empties all bundles': inTurn(
    ...['points/1', 'deltas/1', 'points/2', 'deltas/2', 'deltas/3', 'points/3', 'deltas/fold'].map(
      (name) => dropping(name),
    ),
  ),
};

async function baseline(objects: BundledObjects): Promise<void> {
  await objects.put('bases/1', sourceOf(Buffer.from('bases/1')));
  await sealing(['points/1', 'deltas/1'])(objects);
  await sealing(['points/2', 'deltas/2', 'deltas/3'])(objects);
  await sealing(['points/3'])(objects);
}

interface Stop {
  readonly at: number;
  readonly when: StopAt;
  /** Everybody who can goes on in the term of the one before. */
  readonly goesOn: boolean;
}

/** False where the step was over before request `at`. */
async function stopped({ at, when, goesOn }: Stop, step: Step, holds: Step): Promise<boolean> {
  const [memory, seat] = [new MemoryObjects(), empty()];
  const before = await begun(memory, seat);
  await baseline(before.objects);
  if (goesOn) before.end();
  const first = goesOn ? await begun(memory, seat) : before;
  first.view.sleepAt(at, when);
  const late = step(first.objects).then(
    () => null,
    (error: unknown) => error,
  );
  await Promise.race([late, first.view.asleep]);
  if (!first.view.isAsleep) return false;

  const second = await begun(memory, seat);
  const isFolded = (await contentsOf(second.objects)).includes('deltas/fold');
  await holds(second.objects);
  const expected = await contentsOf(second.objects);
  expect(await readerOf(memory)).toBe(expected);
  if (goesOn) {
    second.end();
    expect(await contentsOf((await begun(memory, seat)).objects)).toBe(expected);
  }
  first.view.wake();
  await late;
  // An object by itself may go late, where what stands for it was there when the holder came.
  const isGone = !memory.held.has('bases/1');
  if (isGone) expect(isFolded).toBe(true);
  const rest = isGone ? expected.replace(/bases\/1 ?/, '') : expected;
  expect(await readerOf(memory)).toBe(rest);
  if (!goesOn) {
    await second.objects.refresh();
    expect(await contentsOf(second.objects)).toBe(rest);
  }
  if (goesOn) seat.hasEnded = true;
  const third = await begun(memory, seat);
  expect(await contentsOf(third.objects)).toBe(rest);
  await dropping('points/1', 'points/2', 'points/3', 'points/4', 'points/5')(third.objects);
  expect(await readerOf(memory)).not.toContain('points');
  return true;
}

describe('a process that wakes up when another has the repository', () => {
  const cases = Object.keys(sleepers).flatMap((sleeper) =>
    Object.keys(holders).map((holder) => [sleeper, holder] as const),
  );
  it.each(cases)('at any request of %s, where the holder %s, changes nothing', async (a, b) => {
    for (const when of waysToStop) {
      for (const goesOn of [false, true]) {
        let at = 1;
        while (await stopped({ at, when, goesOn }, sleepers[a]!, holders[b]!)) at += 1;
        expect(at).toBeGreaterThan(2);
      }
    }
  });
});

/** The last bundle, and the name after it. */
function lastOf(memory: MemoryObjects): { last: string; next: string; bytes: Uint8Array } {
  const names = [...memory.held.keys()].filter((name) => name.startsWith('bundles/'));
  const last = names.sort().at(-1)!;
  return { last, next: bundleName(numberOf(last) + 1), bytes: memory.held.get(last)!.bytes };
}

describe('a process that goes on in the term of one that has ended', () => {
  /** What the first has put last, as it may come once more; the names that are free again by then. */
  async function cameTwice(holds: Step): Promise<void> {
    const [memory, seat] = [new MemoryObjects(), empty()];
    const first = await begun(memory, seat);
    await baseline(first.objects);
    const { last, next, bytes } = lastOf(memory);
    first.end();
    const second = await begun(memory, seat);
    expect(await contentsOf(second.objects)).toBe(await readerOf(memory));
    await holds(second.objects);
    const expected = await contentsOf(second.objects);
    for (const name of [last, next]) {
      await memory.put(name, sourceOf(bytes));
      expect(await readerOf(memory)).toBe(expected);
    }
    await second.objects.refresh();
    expect(await contentsOf(second.objects)).toBe(expected);
    second.end();
    for (let run = 0; run < 3; run += 1) {
      const third = await begun(memory, seat);
      expect(await contentsOf(third.objects)).toBe(expected);
      third.end();
    }
    expect(await readerOf(memory)).toBe(expected);
    expect(seat.term).toBe(1);
  }

  it.each(Object.keys(holders))('and %s: what comes twice of that one is void', (holder) =>
    cameTwice(holders[holder]!),
  );

  it('is not stopped by a bundle of that one that comes while it begins: that is void', async () => {
    const [memory, seat] = [new MemoryObjects(), empty()];
    const first = await begun(memory, seat);
    await baseline(first.objects);
    const expected = await readerOf(memory);
    first.end();
    const { last, next } = lastOf(memory);
    const late = memory.held.get(last)!;
    memory.before = (kind) => {
      if (kind === 'put') memory.held.set(next, late);
    };
    const second = await begun(memory, seat);
    expect(memory.held.has(next)).toBe(true);
    expect(await contentsOf(second.objects)).toBe(expected);
    expect(await readerOf(memory)).toBe(expected);
  });

  it('keeps few bundles, and few names closed, however many go on', async () => {
    const [memory, seat] = [new MemoryObjects(), empty()];
    await baseline((await begun(memory, seat)).objects);
    for (let run = 0; run < 400; run += 1) {
      seat.hasEnded = true;
      await begun(memory, seat);
    }
    const bundles = [...memory.held].filter(([name]) => name.startsWith('bundles/'));
    expect(seat.term).toBe(1);
    expect(bundles.length).toBeLessThan(6);
    expect(Math.max(...bundles.map(([, { bytes }]) => bytes.length))).toBeLessThan(20 * 1024);
  });
});

/** A life of several holders, each of which falls asleep at some request and wakes up at some other's. */
async function manyLives(seed: number): Promise<number> {
  const random = new Random(seed);
  const [memory, seat] = [new MemoryObjects(), empty()];
  const asleep: Process[] = [];
  const ends: Promise<unknown>[] = [];
  let woken = 0;
  const wakeOne = () => {
    const late = asleep.filter(({ isHolder }) => !isHolder);
    if (late.length === 0 || !random.chance(0.1)) return;
    const process = random.pick(late);
    asleep.splice(asleep.indexOf(process), 1);
    process.view.wake();
    woken += 1;
  };
  let may: string[] = [''];
  let made = 0;
  for (let life = 0; life < 6; life += 1) {
    const process = new Process(memory, seat);
    process.view.onRequest = wakeOne;
    const isShort = random.chance(0.3);
    if (isShort) process.view.sleepAt(1 + random.below(8), random.pick(waysToStop));
    let names: string[] = [];
    const live = async () => {
      await process.begin();
      const found = await contentsOf(process.objects);
      if (!process.isHolder) return;
      expect(may).toContain(found);
      may = [found];
      names = found.split(' ').filter((name) => name !== '');
      process.view.sleepAt(20 + random.below(60), random.pick(waysToStop));
      for (let i = 0; i < 20; i += 1) {
        const gone = names.filter(() => random.chance(0.2));
        const fresh = random.chance(0.6) ? [`points/${++made}`, `deltas/${made}`] : [];
        const next = [...names.filter((name) => !gone.includes(name)), ...fresh];
        if (gone.length + fresh.length === 0) continue;
        if (!process.isHolder) return;
        may = [asText(names), asText(next)];
        await process.objects.together(async () => {
          for (const name of fresh) await putter(process.objects)(name);
          for (const name of gone) await process.objects.remove(name);
        });
        if (!process.isHolder) return;
        names = next;
        may = [asText(names)];
        expect(await contentsOf(process.objects)).toBe(asText(names));
      }
      if (process.isHolder) process.end();
    };
    const over = live();
    const ended = over.then(
      () => null,
      (error: unknown) => error,
    );
    await Promise.race([over, process.view.asleep]);
    if (process.view.isAsleep) asleep.push(process);
    ends.push(ended);
    expect(may).toContain(await readerOf(memory));
  }
  const last = await readerOf(memory);
  expect(may).toContain(last);
  for (const { view } of asleep.splice(0)) view.wake();
  for (const error of await Promise.all(ends)) {
    if (error === null) continue;
    // Its bundles may be gone when it wakes up, and the lease is.
    const codes = ['ERR_LEASE_LOST', 'ERR_DISK_NOT_FOUND'];
    if (!(error instanceof UnderstudyError && codes.includes(error.code))) throw error;
  }
  // The last holder may have been one of them.
  expect(may).toContain(await readerOf(memory));
  return woken;
}

it('so also where many sleep, and wake up in any order', async () => {
  let woken = 0;
  for (let seed = 0; seed < 100; seed += 1) {
    woken += await manyLives(seed).catch((cause: unknown) => {
      throw new Error(`seed ${seed}`, { cause });
    });
  }
  expect(woken).toBeGreaterThan(100);
});
