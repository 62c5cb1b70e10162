/** One conformance suite for the catalogs, and what only the one in SQLite must do. */
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DatabaseSync } from 'node:sqlite';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import type { Catalog } from '../../src/store/catalog/catalog.ts';
import { CatalogClient } from '../../src/store/catalog/catalog-client.ts';
import { MemoryCatalog } from '../../src/store/catalog/catalog-memory.ts';
import { SqliteCatalog } from '../../src/store/catalog/catalog-sqlite.ts';
import { openNodeStore } from '../../src/store/node-store.ts';
import type { PointRecord } from '../../src/store/points/point-format.ts';

const folders: string[] = [];
const makeFolder = async (): Promise<string> => {
  const folder = await mkdtemp(join(tmpdir(), 'understudy-catalog-'));
  folders.push(folder);
  return folder;
};
afterAll(async () => {
  for (const folder of folders) await rm(folder, { recursive: true, force: true });
});

const START = Date.UTC(2026, 0, 1);
const point = (server: string, n: number, volumes = ['/dev/a']): PointRecord => {
  const time = new Date(START + n * 1000).toISOString();
  return {
    id: `${time.replaceAll(/[-:]/g, '')}-${server}${n}`,
    server,
    time,
    timeMs: START + n * 1000,
    sequence: n,
    requestId: '',
    cut: { method: 'validated', passes: 1, durationMs: 2 },
    volumes: volumes.map((volume) => ({
      volume,
      sizeBytes: 1000,
      sectorBytes: 512,
      generation: 'a'.repeat(32),
      epoch: n,
      chainRoot: 'c'.repeat(64),
      previousRoot: 'd'.repeat(64),
      contentDigest: 'e'.repeat(64),
    })),
    missingVolumes: [],
  };
};

function suite(name: string, make: () => Promise<Catalog>): void {
  describe(`catalog: ${name}`, () => {
    let catalog: Catalog;
    afterEach(async () => {
      await catalog.close();
    });
    const start = async () => {
      catalog = await make();
      expect(await catalog.open()).toBeNull();
      await catalog.adopt('r'.repeat(32));
    };

    it('lists points by server and time, in pages, newest first', async () => {
      await start();
      const all = [1, 2, 3, 4].map((n) => point('web', n));
      for (const record of [...all].reverse()) await catalog.putPoint(record, 'staged');
      await catalog.putPoint(point('db', 5), 'sealed');
      const ids = async (filter: Parameters<Catalog['points']>[0]) =>
        (await catalog.points(filter)).map(({ record }) => record.sequence);
      expect(await ids({})).toEqual([5, 4, 3, 2, 1]);
      expect(await ids({ order: 'oldest', server: 'web' })).toEqual([1, 2, 3, 4]);
      expect(await ids({ server: 'web', limit: 2 })).toEqual([4, 3]);
      expect(await ids({ server: 'web', limit: 2, after: all[2]!.id })).toEqual([2, 1]);
      expect(await ids({ order: 'oldest', after: all[1]!.id, limit: 1 })).toEqual([3]);
      expect(await ids({ fromMs: START + 2000, toMs: START + 4000 })).toEqual([4, 3, 2]);
      expect(await ids({ server: 'none' })).toEqual([]);
    });

    it('knows states, and gives back what was put', async () => {
      await start();
      const record = point('web', 1, ['/dev/a', '/dev/b']);
      await catalog.putPoint(record, 'staged');
      await catalog.putPoint(record, 'staged');
      expect(await catalog.point(record.id)).toEqual({ record, state: 'staged' });
      expect(await catalog.counts()).toEqual({ points: 1, staged: 1, logicalBytes: 2000 });
      await catalog.setSealed([record.id]);
      expect(await catalog.pointNames()).toEqual([
        { server: 'web', id: record.id, state: 'sealed' },
      ]);
      await catalog.removePoints([record.id, 'none']);
      expect(await catalog.point(record.id)).toBeNull();
      expect(await catalog.counts()).toEqual({ points: 0, staged: 0, logicalBytes: 0 });
    });

    it('keeps the newest position of a volume, also without its point', async () => {
      await start();
      await catalog.putPoint(point('web', 7), 'sealed');
      await catalog.putPoint(point('web', 3, ['/dev/a', '/dev/b']), 'sealed');
      await catalog.removePoints([point('web', 7).id]);
      const heads = await catalog.heads();
      expect(heads.map(({ volume, epoch }) => [volume, epoch])).toEqual([
        ['/dev/a', 7],
        ['/dev/b', 3],
      ]);
      await catalog.putHead({ ...heads[1]!, sequence: 9, epoch: 9 });
      await catalog.putHead({ ...heads[1]!, sequence: 8, epoch: 8 });
      expect((await catalog.heads())[1]!.epoch).toBe(9);
      await catalog.adopt('s'.repeat(32));
      expect(await catalog.heads()).toEqual([]);
    });
  });
}

suite('memory', async () => new MemoryCatalog());
suite('sqlite', async () => new CatalogClient(join(await makeFolder(), 'catalog.sqlite')));

describe('catalog in SQLite', () => {
  it('outlives a restart, and is of one repository', async () => {
    const path = join(await makeFolder(), 'catalog.sqlite');
    const first = new CatalogClient(path);
    await first.open();
    await first.adopt('r'.repeat(32));
    await first.putPoint(point('web', 1), 'sealed');
    await first.close();
    const second = new CatalogClient(path);
    expect(await second.open()).toBe('r'.repeat(32));
    expect(await second.points({})).toHaveLength(1);
    await second.close();
  });

  it('is the lock of the data directory', async () => {
    const folder = await makeFolder();
    const store = await openNodeStore(folder, silentLog);
    await expect(openNodeStore(folder, silentLog)).rejects.toMatchObject({
      code: 'ERR_DATA_IN_USE',
    });
    await store.close();
    await (await openNodeStore(folder, silentLog)).close();
  });

  it('tells of a full disk, and not of the transaction that SQLite has rolled back by itself', async () => {
    const catalog = SqliteCatalog.open(join(await makeFolder(), 'catalog.sqlite'));
    catalog.adopt('r'.repeat(32));
    const db = Reflect.get(catalog, 'db') as DatabaseSync;
    const { page_count: pages } = db.prepare('PRAGMA page_count').get() as { page_count: number };
    db.exec(`PRAGMA max_page_count = ${pages + 4}`);
    let put = 0;
    const fill = () => {
      for (; put < 1000; put += 1) {
        catalog.putPoint({ ...point('web', put), requestId: 'x'.repeat(5000) }, 'staged');
      }
    };
    expect(fill).toThrow('database or disk is full');
    expect(put).toBeLessThan(100);
    // Nothing of it is there, and with room it goes on.
    expect(catalog.pointNames()).toHaveLength(put);
    db.exec('PRAGMA max_page_count = 1000000');
    catalog.putPoint(point('web', put), 'staged');
    expect(catalog.pointNames()).toHaveLength(put + 1);
    catalog.close();
  });

  it('is emptied where it is damaged, and made again where it is gone', async () => {
    const folder = await makeFolder();
    const path = join(folder, 'catalog.sqlite');
    await writeFile(path, 'this is no database, but it is long enough to look at'.repeat(200));
    const catalog = new CatalogClient(path);
    expect(await catalog.open()).toBeNull();
    await catalog.adopt('r'.repeat(32));
    await catalog.putPoint(point('web', 1), 'sealed');
    await catalog.close();
    await truncate(path, 5000);
    const again = new CatalogClient(path);
    expect(await again.open()).toBeNull();
    await again.close();
  });
});
