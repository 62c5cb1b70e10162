/** Where pieces lie: tables in memory, filters, index objects, and the whole index against a plain map. */

import { beforeEach, describe, expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { toHex } from '../../src/store/format/checksum.ts';
import { paths as pathsOf } from '../../src/store/format/layout.ts';
import { plainNames } from '../../src/store/format/names.ts';
import { Bloom } from '../../src/store/packs/bloom.ts';
import {
  DigestTable,
  readTableEntry,
  TABLE_ENTRY_BYTES,
  type TableEntry,
} from '../../src/store/packs/digest-table.ts';
import { FileCache } from '../../src/store/packs/file-cache.ts';
import { encodeFooter } from '../../src/store/packs/pack-format.ts';
import { PackTable } from '../../src/store/packs/pack-table.ts';
import { PieceIndex } from '../../src/store/packs/piece-index.ts';
import { Random } from '../simulation/random.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import fc from './support/properties.ts';
import { sha256 } from './support/store-world.ts';

const digestOf = (n: number): Uint8Array => sha256(Buffer.from(`piece ${n}`));
const entryOf = (n: number, pack = 0): TableEntry => ({
  digest: digestOf(n),
  owner: Uint8Array.of(1, 2, 3, 4, 5, 6, 7, n & 255),
  offset: n * 10,
  storedLength: 1 + (n % 65540),
  rawLength: 1 + (n % 65536),
  codec: n % 2,
  isGrant: n % 7 === 0,
  pack,
});

describe('digest table', () => {
  it('finds what was added, keeps the first, and sorts into a footer', () => {
    const table = new DigestTable(12345);
    for (let n = 0; n < 3000; n += 1) expect(table.add(entryOf(n))).toBe(true);
    expect(table.add({ ...entryOf(5), offset: 1 })).toBe(false);
    for (let n = 0; n < 3000; n += 1) expect(table.get(digestOf(n))).toEqual(entryOf(n));
    expect(table.get(digestOf(3001))).toBeNull();
    table.set({ ...entryOf(5), offset: 1 });
    expect(table.get(digestOf(5))?.offset).toBe(1);
    const footer = table.sorted();
    let last = '';
    for (let at = 0; at < footer.length; at += TABLE_ENTRY_BYTES) {
      const name = toHex(readTableEntry(footer, at).digest);
      expect(name > last).toBe(true);
      last = name;
    }
  });

  it('stays quick where digests are chosen to begin alike', () => {
    const table = new DigestTable(99);
    for (let n = 0; n < 4000; n += 1) {
      const digest = digestOf(n);
      digest.fill(7, 0, 4);
      table.add({ ...entryOf(n), digest });
    }
    expect(table.count).toBe(4000);
  });
});

describe('filter', () => {
  it('never forgets, and is seldom wrong', () => {
    const filter = Bloom.sized(5000);
    for (let n = 0; n < 5000; n += 1) filter.add(digestOf(n));
    for (let n = 0; n < 5000; n += 1) expect(filter.mayHave(digestOf(n))).toBe(true);
    let wrong = 0;
    for (let n = 5000; n < 15_000; n += 1) if (filter.mayHave(digestOf(n))) wrong += 1;
    expect(wrong).toBeLessThan(300);
  });
});

async function makeIndex(): Promise<{
  disk: FaultyDisk;
  packs: PackTable;
  index: PieceIndex;
  addPack: () => number;
}> {
  const disk = new FaultyDisk();
  const paths = pathsOf('/data');
  await disk.makeDirectory(paths.index);
  const packs = new PackTable();
  const files = new FileCache(disk);
  const index = new PieceIndex({ disk, log: silentLog, paths, files, packs, isReadOnly: false }, 7);
  let id = 0;
  const addPack = () => {
    id += 1;
    const name = String(id).padStart(32, '0');
    const sums = { pieces: 1, rawBytes: 1, storedBytes: 1, fileBytes: 1 };
    return packs.add({ id: name, path: paths.pack(name), isPublished: true, ...sums }).number;
  };
  return { disk, packs, index, addPack };
}

describe('index', () => {
  it('finds every piece of every standing pack, whatever was flushed and merged', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat({ max: 4 }), fc.nat({ max: 400 })), {
          minLength: 5,
          maxLength: 40,
        }),
        async (steps) => {
          const { index, packs, addPack } = await makeIndex();
          const where = new Map<number, number>();
          let temporary = 0;
          for (const [kind, n] of steps) {
            if (kind <= 2) {
              const pack = addPack();
              const pieces = Array.from({ length: 60 }, (_, i) => n * 3 + i);
              index.addPublished(
                pack,
                pieces.map((piece) => entryOf(piece, pack)),
              );
              for (const piece of pieces) if (!where.has(piece)) where.set(piece, pack);
            } else if (kind === 3) {
              temporary += 1;
              await index.flush(`/data/t${temporary}`);
              temporary += 1;
              while (await index.merge(`/data/t${temporary}`)) temporary += 1;
            } else {
              const [first] = [...packs.all()].filter(({ isCondemned }) => !isCondemned);
              if (first === undefined) continue;
              // Rewritten: what was found there is found in the new pack.
              const pack = addPack();
              const moved = [...where]
                .filter(([, at]) => at === first.number)
                .map(([piece]) => piece);
              index.moveTo(
                pack,
                moved.map((piece) => entryOf(piece, pack)),
              );
              for (const piece of moved) where.set(piece, pack);
              packs.update(first.number, { isCondemned: true });
              if (n % 2 === 0) packs.remove(first.number);
            }
          }
          for (const piece of where.keys()) {
            const found = await index.find(digestOf(piece));
            expect(found?.offset).toBe(entryOf(piece).offset);
            expect(packs.byNumber(found!.pack)?.isCondemned).toBe(false);
          }
          expect(await index.find(digestOf(99_999))).toBeNull();
        },
      ),
      { numRuns: 30 },
    );
  });

  it('is opened again as it was, without what no longer stands', async () => {
    const { disk, index, addPack, packs } = await makeIndex();
    for (let round = 0; round < 9; round += 1) {
      const pack = addPack();
      const pieces = Array.from({ length: 700 }, (_, i) => round * 700 + i);
      index.addPublished(
        pack,
        pieces.map((piece) => entryOf(piece, pack)),
      );
      await index.flush(`/data/f${round}`);
      while (await index.merge(`/data/m${round}`));
    }
    expect(disk.files('/data/repo/index').length).toBeLessThan(5);
    const ids = [...packs.all()].map(({ id }) => id);
    const later = new PackTable();
    const paths = pathsOf('/data');
    const own = { files: new FileCache(disk), packs: later, isReadOnly: false };
    const world = { disk, log: silentLog, paths, ...own };
    const again = new PieceIndex(world, 8);
    const uncovered = await again.objects.open(new Set([...ids.slice(1), 'f'.repeat(32)]));
    expect(uncovered).toEqual(['f'.repeat(32)]);
    expect(await again.find(digestOf(3))).toBeNull();
    for (const piece of [700, 3333, 6299]) {
      const found = await again.find(digestOf(piece));
      expect(later.byNumber(found!.pack)?.id).toBe(ids[Math.floor(piece / 700)]);
    }
  });

  it('gives a damaged object up: footers say the same', async () => {
    const random = new Random(1);
    for (let i = 0; i < 30; i += 1) {
      const { disk, index, addPack, packs } = await makeIndex();
      const pack = addPack();
      const table = new DigestTable(0);
      for (let n = 0; n < 700; n += 1) table.add(entryOf(n, pack));
      index.addPublished(pack, table.entries());
      await index.flush('/data/f');
      const [info] = [...packs.all()];
      await disk.makeDirectory(info!.path.slice(0, info!.path.lastIndexOf('/')));
      const file = await disk.open(info!.path, 'create');
      await file.write([new Uint8Array(56), ...encodeFooter(table.sorted(), 56)], 0);
      const [path] = disk.files('/data/repo/index');
      disk.flip(path!, random.below(disk.peek(path!).length));
      const later = new PackTable();
      const paths = pathsOf('/data');
      const own = { files: new FileCache(disk), packs: later, isReadOnly: false };
      const world = { disk, log: silentLog, paths, ...own };
      const again = new PieceIndex(world, 8);
      const uncovered = await again.objects.open(new Set([info!.id]));
      // Damage of the tables is found at the opening, damage of a page when the page is read.
      if (uncovered.length > 0) continue;
      const all = Array.from({ length: 700 }, (_, n) => again.find(digestOf(n)));
      for (const [n, found] of (await Promise.all(all)).entries()) {
        expect(found?.offset).toBe(entryOf(n).offset);
      }
    }
  });
});

describe('index that is damaged', () => {
  const paths = pathsOf('/data');
  let disk: FaultyDisk;
  const numbers = (first: number, count: number) =>
    Array.from({ length: count }, (_, i) => first + i);
  const placeOf = (n: number, pack: number, owner = 0): TableEntry => ({
    ...{ digest: digestOf(n), owner: new Uint8Array(8).fill(owner), offset: 100 + n * 10 },
    ...{ storedLength: 5, rawLength: 5, codec: 0, isGrant: false, pack },
  });
  let packs: PackTable;
  let index: PieceIndex;
  let temporary = 0;
  beforeEach(async () => {
    disk = new FaultyDisk();
    await disk.makeDirectory(paths.index);
    packs = new PackTable();
    const files = new FileCache(disk);
    index = new PieceIndex({ disk, log: silentLog, paths, files, packs, isReadOnly: false }, 7);
  });
  const temporaryPath = () => {
    temporary += 1;
    return `/data/t${temporary}`;
  };
  const flush = () => index.flush(temporaryPath());

  /** A pack with a footer of these pieces (and nothing else), published. */
  async function addPack(pieces: readonly number[], owner = 0): Promise<number> {
    const id = String([...packs.all()].length + 1).padStart(32, '0');
    const path = paths.pack(id);
    const sums = { pieces: pieces.length, rawBytes: 1, storedBytes: 1, fileBytes: 1 };
    const { number } = packs.add({ id, path, isPublished: true, ...sums });
    const table = new DigestTable(0);
    for (const n of pieces) table.add(placeOf(n, number, owner));
    await disk.makeDirectory(paths.packFolder(id));
    const file = await disk.open(path, 'create');
    await file.write([new Uint8Array(56), ...encodeFooter(table.sorted(), 56)], 0);
    await file.close();
    index.addPublished(number, table.entries());
    return number;
  }

  async function expectFound(pieces: readonly number[], pack: number): Promise<void> {
    for (const n of pieces) {
      const found = await index.find(digestOf(n));
      expect([found?.pack, found?.offset], `piece ${n}`).toEqual([pack, 100 + n * 10]);
    }
  }

  const last = (path: string) => disk.peek(path).length - 20;

  it('does not take pages of an object that healed for those of the next one', async () => {
    for (const isAddedFirst of [false, true]) {
      const first = (isAddedFirst ? 1 : 0) * 100_000;
      const a = await addPack(numbers(first, 700));
      await flush();
      for (const n of numbers(first, 700)) await index.find(digestOf(n));
      const path = disk.files(paths.index).at(-1)!;
      // A page that is not in the cache any more.
      for (const n of numbers(first, 700)) await index.find(digestOf(n));
      let b = isAddedFirst ? await addPack(numbers(first + 10_000, 700)) : -1;
      const object = index.objects.all.find((candidate) => candidate.path === path)!;
      object.close();
      disk.flip(path, last(path));
      await expectFound(numbers(first, 700), a);
      expect(disk.files(paths.index)).not.toContain(path);
      if (b < 0) b = await addPack(numbers(first + 10_000, 700));
      await flush();
      expect(disk.files(paths.index), 'its number is not used again').not.toContain(path);
      await expectFound(numbers(first, 700), a);
      await expectFound(numbers(first + 10_000, 700), b);
    }
  });

  it('heals in a merge too, and goes on without a footer that is damaged', async () => {
    const made: number[] = [];
    for (let i = 0; i < 4; i += 1) {
      made.push(await addPack(numbers(i * 1000, 600)));
      await flush();
    }
    const objects = disk.files(paths.index);
    disk.flip(objects[1]!, last(objects[1]!));
    const pack = packs.byNumber(made[1]!)!;
    disk.flip(pack.path, disk.peek(pack.path).length - 10);
    expect(await index.merge(temporaryPath())).toBe(true);
    expect(disk.files(paths.index)).not.toContain(objects[1]);
    while (await index.merge(temporaryPath()));
    for (const i of [0, 2, 3]) await expectFound(numbers(i * 1000, 600), made[i]!);
    // Of the pack that says nothing any more, the pages that were whole still did.
    let found = 0;
    for (const n of numbers(1000, 600)) if ((await index.find(digestOf(n))) !== null) found += 1;
    expect(found).toBeGreaterThanOrEqual(512);
  });

  it('does without an object that is gone: merged or removed by somebody else', async () => {
    const files = new FileCache(disk, 0);
    index = new PieceIndex({ disk, log: silentLog, paths, files, packs, isReadOnly: false }, 7);
    const pack = await addPack(numbers(0, 700));
    await flush();
    for (const path of disk.files(paths.index)) disk.lose(path);
    await expectFound(numbers(0, 700), pack);
  });

  it('keeps the grants that a merge makes of second copies', async () => {
    for (let i = 0; i < 4; i += 1) {
      await addPack([...numbers(0, 50), ...numbers(1000 * (i + 1), 300)], i + 1);
      await flush();
    }
    expect(await index.merge(temporaryPath())).toBe(true);
    await addPack(numbers(9000, 10));
    await flush();
    for (let owner = 1; owner <= 4; owner += 1) {
      const tag = new Uint8Array(8).fill(owner);
      for (const n of numbers(0, 50)) {
        expect(await index.owns([tag], digestOf(n)), `piece ${n} of ${owner}`).toBe(5);
      }
    }
    const key = plainNames.grant(new Uint8Array(8).fill(9), digestOf(1));
    expect(await index.find(key)).toBeNull();
  });
});
