/**
 * Damage of one file, and what it must not reach: the other points, the opening of the store, good copies
 * of the same content, other ways to the same epoch. Whatever collection and folds do, they take nothing
 * away that damage elsewhere has made the only one.
 */
import { beforeEach, describe, expect, it } from 'vitest';
import { UnderstudyError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import { CHUNK_BYTES } from '../../src/model/geometry.ts';
import type { Catalog } from '../../src/store/catalog.ts';
import { MemoryCatalog } from '../../src/store/catalog-memory.ts';
import { hasChecksum, sealChecksum } from '../../src/store/checksum.ts';
import { DigestTable, type TableEntry } from '../../src/store/digest-table.ts';
import { FileCache } from '../../src/store/file-cache.ts';
import { grantKey } from '../../src/store/grant.ts';
import { paths as pathsOf } from '../../src/store/layout.ts';
import { openRepository } from '../../src/store/offline.ts';
import { openStore } from '../../src/store/open-store.ts';
import { encodeFooter } from '../../src/store/pack-format.ts';
import { PackTable } from '../../src/store/pack-table.ts';
import { PieceIndex } from '../../src/store/piece-index.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { readsAs, StoreLife, tinySettings } from './support/store-life.ts';
import { sha256 } from './support/store-world.ts';

const paths = pathsOf('/data');
let disk: FaultyDisk;
beforeEach(() => {
  disk = new FaultyDisk();
});

describe('index', () => {
  const digestOf = (n: number): Uint8Array => sha256(Buffer.from(`piece ${n}`));
  const numbers = (first: number, count: number) =>
    Array.from({ length: count }, (_, i) => first + i);
  const entryOf = (n: number, pack: number, owner = 0): TableEntry => ({
    ...{ digest: digestOf(n), owner: new Uint8Array(8).fill(owner), offset: 100 + n * 10 },
    ...{ storedLength: 5, rawLength: 5, codec: 0, isGrant: false, pack },
  });
  let packs: PackTable;
  let index: PieceIndex;
  let temporary = 0;
  beforeEach(async () => {
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
    for (const n of pieces) table.add(entryOf(n, number, owner));
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
        expect(await index.owns(tag, digestOf(n)), `piece ${n} of ${owner}`).toBe(5);
      }
    }
    const key = grantKey(new Uint8Array(8).fill(9), digestOf(1));
    expect(await index.find(key)).toBeNull();
  });
});

let life: StoreLife;
beforeEach(() => {
  life = new StoreLife(disk, 5);
  life.volumes[0]!.write(life.random, CHUNK_BYTES, 5 * CHUNK_BYTES);
});

/** Some sealed points, the store closed. */
async function sealedLife(points = 3, settings = tinySettings, writes = 5): Promise<void> {
  await life.open(settings);
  const ingest = await life.connect();
  for (let i = 0; i < points; i += 1) {
    const { id } = await life.writeAndCommit(ingest, writes);
    await life.store!.seal(id);
  }
  await life.store!.close();
  disk.reopen();
}

const openOffline = () => openRepository('/data', silentLog, disk.mount());

/** Ids of the points that can be read whole; wrong bytes are never accepted. */
async function readable(from: Parameters<typeof readsAs>[0]): Promise<string[]> {
  const ids: string[] = [];
  for (const point of life.acknowledged) {
    try {
      expect(await readsAs(from, point)).toBe(true);
      ids.push(point.id);
    } catch (error) {
      if (!(error instanceof UnderstudyError)) throw error;
    }
  }
  return ids;
}

describe('opening', () => {
  it('comes through a flipped bit in the header of any object', async () => {
    await sealedLife();
    const ids = life.acknowledged.map(({ id }) => id);
    const files = disk.files('/data/repo').filter((path) => !path.endsWith('format.json'));
    for (const path of files) {
      for (const at of [0, 8, 10, 12, 20]) {
        disk.flip(path, at, 1);
        const offline = await openOffline();
        const read = await readable(offline as never);
        const others = path.endsWith('.point') ? ids.filter((id) => !path.includes(id)) : ids;
        if (!/delta$|base$/.test(path)) expect(read, `${path} at ${at}`).toEqual(others);
        await offline.close();
        disk.flip(path, at, 1);
      }
      const bytes = disk.peek(path).slice();
      disk.flip(path, 8, 1);
      await life.open();
      await life.store!.close();
      disk.reopen();
      if (disk.files().includes(path)) disk.poke(path, bytes);
    }
  });

  it('finds what a pack has by its records where its footer is damaged', async () => {
    await sealedLife();
    for (const path of disk.files('/data/repo/index')) disk.lose(path);
    for (const path of disk.files('/data/repo/packs')) disk.flip(path, disk.peek(path).length - 70);
    const offline = await openOffline();
    expect(await readable(offline as never)).toHaveLength(3);
    expect((await offline.check({ readData: true })).findings.length).toBeGreaterThan(0);
    await offline.close();
    await life.open();
    await life.retain();
    await life.store!.collect();
    expect(await readable(life.store!)).toHaveLength((await life.store!.points({})).length);
  });

  it('goes on where one object is of another version, with a right checksum', async () => {
    await sealedLife();
    const [path] = disk.files('/data/repo/points');
    const bytes = disk.peek(path!).slice();
    expect(hasChecksum(bytes, 0, 28)).toBe(true);
    bytes[8] = 2;
    sealChecksum(bytes, 0, 28);
    disk.poke(path!, bytes);
    const offline = await openOffline();
    expect(await readable(offline as never)).toHaveLength(2);
    await offline.close();
    await life.open();
    expect(await readable(life.store!)).toHaveLength(2);
  });

  it('takes the other slot of the watermark where the version of one is flipped', async () => {
    await life.open({ ...tinySettings, segmentBytes: 64 * 1024 * 1024 });
    const ingest = await life.connect();
    await life.writeAndCommit(ingest);
    disk.reopen();
    const journal = disk.files('/data/journal').map((path) => [path, disk.peek(path).slice()]);
    for (const slot of [0, 4096]) {
      disk.flip('/data/journal/watermark', slot + 8, 1);
      const offline = await openOffline();
      expect(await readable(offline as never)).toHaveLength(1);
      expect((await offline.check({ readData: true })).findings).toEqual([]);
      await offline.close();
      for (const [path, bytes] of journal) disk.poke(path as string, bytes as Uint8Array);
    }
    disk.flip('/data/journal/watermark', 8, 1);
    await life.open();
    expect(await readable(life.store!)).toHaveLength(1);
  });

  it('needs no mark of a condemned pack, and the pack outlives the damage', async () => {
    await sealedLife(9, { ...tinySettings, baseAfterDeltas: 1000 }, 40);
    await life.open({ ...tinySettings, graceMs: 3_600_000 });
    await life.retain();
    await life.store!.collect();
    await life.store!.close();
    disk.reopen();
    const marks = disk.files('/data/repo/condemned');
    expect(marks.length).toBeGreaterThan(0);
    const condemned = disk.files('/data/repo/packs');
    for (const mark of marks) disk.flip(mark, 18);
    const offline = await openOffline();
    expect((await readable(offline as never)).length).toBeGreaterThan(0);
    await offline.close();
    await life.open({ ...tinySettings, graceMs: 1000 });
    // When it was condemned is not known: the grace begins anew.
    await life.store!.collect();
    expect(disk.files('/data/repo/packs')).toEqual(expect.arrayContaining(condemned));
    expect((await life.store!.check({ readData: true })).findings).toEqual([]);
    await life.clock.runUntil(life.clock.monotonicMs() + 10_000);
    await life.store!.collect();
    expect(disk.files('/data/repo/condemned')).toEqual([]);
  });
});

/** A catalog that outlives its store, and that can be put back to what it was: a power cut may do so. */
class KeptCatalog extends MemoryCatalog {
  private repository: string | null = null;

  override async open(): Promise<string | null> {
    return this.repository;
  }

  override async adopt(repository = ''): Promise<void> {
    await super.adopt();
    this.repository = repository;
  }

  override async close(): Promise<void> {
    return;
  }

  async copy(): Promise<KeptCatalog> {
    const copy = new KeptCatalog();
    copy.repository = this.repository;
    for (const { record, state } of await this.points({})) await copy.putPoint(record, state);
    for (const head of await this.heads()) await copy.putHead(head);
    return copy;
  }
}

async function openWith(catalog: Catalog): Promise<void> {
  life.store = await openStore({
    ...{ disk: disk.mount(), clock: life.clock, root: '/data', catalog, log: silentLog },
    randomBytes: (count) => life.random.bytes(count),
    settings: { ...tinySettings, segmentBytes: 64 * 1024 * 1024 },
  });
}

describe('catalog that is behind', () => {
  it('does not keep the store from starting: a point was sealed and dropped since', async () => {
    const catalog = new KeptCatalog();
    await openWith(catalog);
    const ingest = await life.connect();
    for (let i = 0; i < 3; i += 1) await life.writeAndCommit(ingest);
    const behind = await catalog.copy();
    expect((await behind.counts()).staged).toBe(3);
    await life.store!.applyRetention({ drop: [life.acknowledged[0]!.id] });
    await life.store!.close();
    disk.reopen();
    await openWith(behind);
    const listed = (await life.store!.points({ order: 'oldest' })).map(({ id }) => id);
    expect(listed).toEqual(life.acknowledged.slice(1).map(({ id }) => id));
    expect(await readable(life.store!)).toEqual(listed);
    expect((await life.store!.check({ readData: true })).findings).toEqual([]);
  });

  it('does not let an epoch be committed twice', async () => {
    const catalog = new KeptCatalog();
    await openWith(catalog);
    const ingest = await life.connect();
    await life.writeAndCommit(ingest);
    const behind = await catalog.copy();
    await life.writeAndCommit(ingest);
    await life.store!.seal(life.acknowledged[1]!.id);
    await life.store!.close();
    disk.reopen();
    disk.lose(disk.files('/data/repo/points').find((p) => p.includes(life.acknowledged[1]!.id))!);
    await openWith(behind);
    const { positions } = await life.store!.beginIngest(
      'web',
      life.volumes.map(({ description }) => description),
    );
    expect(positions.map(({ committed }) => committed?.epoch)).toEqual([2, 2]);
  });

  it('still tells that the journal was lost', async () => {
    const catalog = new KeptCatalog();
    await openWith(catalog);
    const ingest = await life.connect();
    await life.writeAndCommit(ingest);
    await life.store!.seal(life.acknowledged[0]!.id);
    disk.reopen();
    const journal = disk.files('/data/journal').map((path) => [path, disk.peek(path).slice()]);
    await openWith(catalog);
    const again = await life.connect();
    await life.writeAndCommit(again);
    disk.reopen();
    for (const path of disk.files('/data/journal')) disk.lose(path);
    for (const [path, bytes] of journal) {
      await (await disk.open(path as string, 'create')).close();
      disk.poke(path as string, bytes as Uint8Array);
    }
    await expect(openWith(catalog)).rejects.toMatchObject({ code: 'ERR_JOURNAL_DAMAGED' });
  });

  it('knows a damaged point that it has', async () => {
    const catalog = new KeptCatalog();
    await openWith(catalog);
    const ingest = await life.connect();
    await life.writeAndCommit(ingest);
    const behind = await catalog.copy();
    await life.store!.close();
    disk.reopen();
    const [path] = disk.files('/data/repo/points');
    disk.flip(path!, 60);
    await openWith(behind);
    expect((await life.store!.points({}))[0]).toMatchObject({ state: 'sealed' });
    expect(await readable(life.store!)).toHaveLength(1);
    const { findings } = await life.store!.check({ readData: false });
    expect(findings).toMatchObject([{ kind: 'damaged-object', object: path }]);
  });
});

describe('folds', () => {
  const pointFile = (i: number) =>
    disk.files('/data/repo/points').find((path) => path.includes(life.acknowledged[i]!.id))!;
  const dropAllBut = async (...kept: number[]) => {
    const drop = life.acknowledged.filter((_, i) => !kept.includes(i)).map(({ id }) => id);
    await life.store!.applyRetention({ drop });
  };
  const noBases = { ...tinySettings, baseAfterDeltas: 1000 };

  it('leave the epoch of a damaged point, until its file is good again or removed', async () => {
    for (const isRestored of [true, false]) {
      disk = new FaultyDisk();
      life = new StoreLife(disk, 5);
      await sealedLife(7, noBases);
      const path = pointFile(3);
      const good = disk.peek(path).slice();
      disk.flip(path, 50);
      // The catalog in memory is made anew: nobody knows the point but by its file.
      await life.open(noBases);
      expect(await readable(life.store!)).toHaveLength(6);
      await dropAllBut(0, 6);
      await life.store!.collect();
      expect((await life.store!.check({ readData: true })).findings).toMatchObject([
        { kind: 'damaged-object', object: path, points: [life.acknowledged[3]!.id] },
      ]);
      if (isRestored) disk.poke(path, good);
      else disk.lose(path);
      await life.store!.collect();
      const left = isRestored ? [0, 3, 6] : [0, 6];
      expect(await readable(life.store!)).toEqual(left.map((i) => life.acknowledged[i]!.id));
      expect((await life.store!.check({ readData: true })).findings).toEqual([]);
      const deltas = disk.files('/data/repo/deltas').map((name) => name.slice(-27, -6));
      expect(deltas.includes('0000000001-0000000007')).toBe(!isRestored);
      await life.store!.close();
    }
  });

  it('take no neighbours of a map that is missing', async () => {
    await sealedLife(7, noBases);
    const isOfA = (path: string) => path.includes('a'.repeat(32));
    const lost = disk
      .files('/data/repo/deltas')
      .find((p) => isOfA(p) && p.includes('-0000000004'))!;
    const bytes = disk.peek(lost).slice();
    disk.lose(lost);
    await life.open(noBases);
    await dropAllBut(0, 6);
    await (await disk.open(lost, 'create')).close();
    disk.poke(lost, bytes);
    expect(await readable(life.store!)).toHaveLength(2);
    await life.store!.close();
  });
});

describe('bases', () => {
  it('come again and again, so that chains do not grow', async () => {
    await sealedLife(15, { ...tinySettings, baseAfterDeltas: 5 });
    for (const { generation } of life.volumes) {
      const bases = disk.files('/data/repo/bases').filter((path) => path.includes(generation));
      const epochs = bases.map((path) => Number(path.slice(-15, -5)));
      expect(epochs.length, `${epochs}`).toBeGreaterThanOrEqual(3);
      for (const [i, epoch] of epochs.entries()) {
        expect(epoch - (epochs[i - 1] ?? 0)).toBeLessThanOrEqual(7);
      }
    }
  });
});
