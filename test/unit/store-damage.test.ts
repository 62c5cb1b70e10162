/**
 * Damage of one file, and what it must not reach: the other points, the opening of the store, good copies
 * of the same content, other ways to the same epoch. Whatever collection and folds do, they take nothing
 * away that damage elsewhere has made the only one.
 */
import { beforeEach, describe, expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { CHUNK_BYTES } from '../../src/model/geometry.ts';
import type { Catalog } from '../../src/store/catalog/catalog.ts';
import { MemoryCatalog } from '../../src/store/catalog/catalog-memory.ts';
import { hasChecksum, sealChecksum, toHex } from '../../src/store/format/checksum.ts';
import { paths as pathsOf } from '../../src/store/format/layout.ts';
import { openRepository } from '../../src/store/offline.ts';
import { openStore } from '../../src/store/open-store.ts';
import { entriesOf, readPack } from '../../src/store/packs/pack-entries.ts';
import { copyPack } from './support/copy-pack.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { keys, readingFiles, withKeys } from './support/key-mode.ts';
import { readableOf, StoreLife, tinySettings } from './support/store-life.ts';

const paths = pathsOf('/data');
let disk: FaultyDisk;
beforeEach(() => {
  disk = new FaultyDisk();
});

let life: StoreLife;
beforeEach(() => {
  life = new StoreLife(disk, 5);
  life.volumes[0]!.write(life.random, CHUNK_BYTES, 5 * CHUNK_BYTES);
});

/** Some sealed points, the store closed. */
async function sealedLife(
  points = 3,
  settings = tinySettings,
  writes = 5,
  afterEach: () => Promise<void> = () => Promise.resolve(),
): Promise<void> {
  await life.open(settings);
  const ingest = await life.connect();
  for (let i = 0; i < points; i += 1) {
    const { id } = await life.writeAndCommit(ingest, writes);
    await life.store!.seal(id);
    await afterEach();
  }
  await life.store!.close();
  disk.reopen();
}

const entriesIn = async (path: string) => [
  ...entriesOf(await readPack(await readingFiles(disk.mount()), path)),
];

const openOffline = () => openRepository('/data', silentLog, disk.mount(), keys);

const readable = (from: Parameters<typeof readableOf>[1]) => readableOf(life, from);

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
        if (!/delta$/.test(path)) expect(read, `${path} at ${at}`).toEqual(others);
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
    const end = new DataView(bytes.buffer).getUint32(12, true) - 8;
    expect(hasChecksum(bytes, 0, end)).toBe(true);
    bytes[8] = 2;
    sealChecksum(bytes, 0, end);
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
    ...withKeys,
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

describe('another way', () => {
  const noFold = { ...tinySettings, baseAfterDeltas: 3 };

  /** Of every image of every point, by the service too: nothing may be hurt. */
  async function expectAllRead(count: number): Promise<void> {
    const offline = await openOffline();
    expect(await readable(offline as never)).toHaveLength(count);
    await offline.close();
    await life.open(noFold);
    expect(await readable(life.store!)).toHaveLength(count);
  }

  /** Damages every content of a pack, and not its footer. */
  async function spoil(path: string): Promise<void> {
    for (const { offset, storedLength } of await entriesIn(path)) {
      disk.flip(path, offset + storedLength - 1);
    }
  }

  it('leads around a damaged base: the older one and the deltas since', async () => {
    await sealedLife(10, noFold);
    const bases = disk.files('/data/repo/bases');
    expect(bases.length).toBeGreaterThan(4);
    for (const base of bases) disk.flip(base, disk.peek(base).length - 40);
    await expectAllRead(10);
    // Folds do not take the only good way to an epoch away.
    await life.store!.applyRetention({ drop: life.acknowledged.slice(0, 9).map(({ id }) => id) });
    expect(await readable(life.store!)).toHaveLength(1);
    const ingest = await life.connect();
    await life.writeAndCommit(ingest);
    await life.store!.seal(life.acknowledged.at(-1)!.id);
    expect(await readable(life.store!)).toHaveLength(2);
  });

  it('leads around packs that only bases need', async () => {
    await sealedLife(6, noFold);
    const ofBases = disk
      .files('/data/repo/packs')
      .filter((path) => new DataView(disk.peek(path).slice().buffer).getUint32(32, true) === 0);
    expect(ofBases.length).toBeGreaterThan(2);
    for (const path of ofBases) {
      await spoil(path);
    }
    await expectAllRead(6);
  });

  it('is another copy of the same content, which collection does not take away', async () => {
    const settings = { ...noFold, baseAfterDeltas: 1000 };
    for (const isFirstDamaged of [true, false]) {
      disk = new FaultyDisk();
      life = new StoreLife(disk, 5);
      life.volumes[0]!.write(life.random, CHUNK_BYTES, 5 * CHUNK_BYTES);
      await sealedLife(4, settings, 40);
      // A copy of each pack under another name, as an interrupted rewriting leaves it.
      const packs = disk.files('/data/repo/packs');
      const copies = packs.map(
        (path, i) => [path, paths.pack(String(i).padStart(32, 'e'))] as const,
      );
      for (const [path, copy] of copies) {
        await copyPack(disk, path, copy);
      }
      for (const path of disk.files('/data/repo/index')) disk.lose(path);
      for (const pair of copies) {
        const path = pair[isFirstDamaged ? 0 : 1];
        await spoil(path);
      }
      await expectAllRead(4);
      await life.store!.applyRetention({ drop: life.acknowledged.slice(0, 3).map((p) => p.id) });
      for (let i = 0; i < 3; i += 1) await life.store!.collect();
      expect(await readable(life.store!)).toHaveLength(1);
      await life.store!.close();
    }
  });

  it('is a copy in a condemned pack while the new one is damaged', async () => {
    await sealedLife(9, { ...tinySettings, baseAfterDeltas: 1000 }, 40);
    await life.open({ ...tinySettings, graceMs: 3_600_000 });
    await life.retain();
    const before = disk.files('/data/repo/packs');
    await life.store!.collect();
    await life.store!.close();
    disk.reopen();
    const made = disk.files('/data/repo/packs').filter((path) => !before.includes(path));
    expect(made.length).toBeGreaterThan(0);
    for (const path of made) {
      await spoil(path);
    }
    await life.open({ ...tinySettings, graceMs: 0 });
    const points = (await life.store!.points({})).length;
    expect(await readable(life.store!)).toHaveLength(points);
    for (let i = 0; i < 3; i += 1) await life.store!.collect();
    expect(await readable(life.store!)).toHaveLength(points);
  });
});

describe('bases', () => {
  it('come again and again, so that chains do not grow', async () => {
    const settings = { ...tinySettings, baseAfterDeltas: 5 };
    // They are made beside the commits, which do not wait for them: here the next one does.
    await sealedLife(15, settings, 5, async () => {
      for (let turn = 0; turn < 1000; turn += 1) await new Promise(setImmediate);
    });
    for (const { generation } of life.volumes) {
      const bases = disk.files('/data/repo/bases').filter((path) => path.includes(generation));
      const epochs = bases.map((path) => Number(path.slice(-15, -5)));
      // After more than five.
      expect(epochs).toEqual([1, 7, 13]);
    }
  });
});

describe('check', () => {
  const isPack = (path: string) => path.endsWith('.pack');
  /** A bit of a content that is the same in both packs. */
  const flip = (entry: { offset: number }, ...packs: string[]) => {
    for (const path of packs) disk.flip(path, entry.offset + 6);
  };

  it('tells of damage in both copies of a content, of one copy, and of what nothing needs', async () => {
    await sealedLife(2, { ...tinySettings, baseAfterDeltas: 1000 });
    const bySize = (a: string, b: string) => disk.peek(b).length - disk.peek(a).length;
    const [first] = disk.files('/data/repo/packs').sort(bySize);
    const copy = paths.pack('e'.repeat(32));
    await copyPack(disk, first!, copy);
    const findings = async () => {
      const offline = await openOffline();
      const report = await offline.check({ readData: true });
      const read = await readable(offline as never);
      await offline.close();
      const hurt = new Set(report.findings.flatMap(({ points }) => points));
      const ids = report.points === 0 ? [] : life.acknowledged.map(({ id }) => id);
      for (const id of ids) expect(hurt.has(id)).toBe(!read.includes(id));
      return report.findings.filter(({ kind }) => kind === 'damaged-piece');
    };
    const packs = [first!, copy];
    const pieces = (await entriesIn(first!)).filter(({ isGrant }) => !isGrant);
    const isNeeded = async (piece: (typeof pieces)[number]) => {
      flip(piece, ...packs);
      const found = await findings();
      flip(piece, ...packs);
      return found.some(({ points }) => points.length > 0);
    };
    let needed = pieces[0]!;
    for (const piece of pieces) {
      needed = piece;
      if (await isNeeded(piece)) break;
    }
    const name = toHex(needed.digest);
    flip(needed, first!);
    expect(await findings()).toMatchObject([{ object: first, points: [] }]);
    flip(needed, copy);
    const both = await findings();
    expect(both).toHaveLength(1);
    expect(both[0]!.points.length).toBeGreaterThan(0);
    for (const path of [first!, copy]) expect(both[0]!.detail).toContain(path);
    expect(both[0]!.detail).toContain(name);
    // Without points nothing needs it, and it is told all the same.
    for (const path of disk.files('/data/repo/points')) disk.lose(path);
    const unneeded = await findings();
    expect(
      unneeded
        .map(({ object }) => object)
        .filter(isPack)
        .sort(),
    ).toEqual([first, copy].sort());
  });

  it('hurts no point that another chain leads to', async () => {
    await sealedLife(8, { ...tinySettings, baseAfterDeltas: 3 });
    const bases = disk.files('/data/repo/bases');
    for (const base of bases) disk.flip(base, disk.peek(base).length - 40);
    const offline = await openOffline();
    const { findings } = await offline.check({ readData: false });
    expect(findings).toHaveLength(bases.length);
    for (const { points } of findings) expect(points).toEqual([]);
    await offline.close();
  });
});
