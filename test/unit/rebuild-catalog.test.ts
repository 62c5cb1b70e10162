/** The catalog made anew: whatever it was, afterwards it knows what repository and journal have. */
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { CHUNK_BYTES } from '../../src/model/geometry.ts';
import { SqliteCatalog } from '../../src/store/catalog/catalog-sqlite.ts';
import { openNodeStore } from '../../src/store/node-store.ts';
import { rebuildCatalog } from '../../src/store/rebuild-catalog.ts';
import type { Store } from '../../src/store/types.ts';
import { Random } from '../simulation/random.ts';
import { commit, drain, SourceVolume, sync } from './support/store-world.ts';

let folder: string;
let data: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'understudy-rebuild-'));
  data = join(folder, 'data');
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const volume = () => new SourceVolume('/dev/a', 3 * CHUNK_BYTES, 'a'.repeat(32));

/** Commits `count` points, sealed or left in the journal; `copy` is called before the store closes. */
async function live(store: Store, count: number, isSealed: boolean): Promise<string[]> {
  const source = volume();
  const random = new Random(4);
  const ingest = await store.beginIngest('web', [source.description]);
  source.epoch = ingest.positions[0]!.committed?.epoch ?? 0;
  const ids: string[] = [];
  for (let i = 0; i < count; i += 1) {
    source.write(random, i * 5000, 6000);
    if (source.epoch === 0) await sync(ingest, 0, source);
    await drain(ingest, 0, source);
    ids.push((await commit(ingest, [source], 1_700_000_000_000 + source.epoch * 1000)).id);
  }
  if (isSealed) await store.seal(ids.at(-1)!);
  await ingest.close();
  return ids;
}

async function listed(): Promise<string[]> {
  const store = await openNodeStore(data, silentLog);
  const ids = (await store.points({ order: 'oldest' })).map(({ id }) => id);
  await store.close();
  return ids;
}

describe('rebuild-catalog', () => {
  it('knows sealed points and those that only the journal has', async () => {
    const store = await openNodeStore(data, silentLog);
    const ids = [...(await live(store, 2, true)), ...(await live(store, 2, false))];
    // As a crash leaves it: the copy has two points in the journal only, and no catalog at all.
    cpSync(data, join(folder, 'crashed'), { recursive: true });
    await store.close();
    data = join(folder, 'crashed');
    for (const suffix of ['', '-wal', '-shm'])
      rmSync(`${data}/catalog.sqlite${suffix}`, { force: true });
    const rebuilt = await rebuildCatalog(data, silentLog);
    expect(rebuilt).toEqual({ points: 4, servers: 1, volumes: 1, forgotten: [], found: 4 });
    expect(await listed()).toEqual(ids);
  });

  it('makes a stale one right, and tells what only it knew', async () => {
    const store = await openNodeStore(data, silentLog);
    const ids = await live(store, 2, true);
    await store.close();
    cpSync(`${data}/catalog.sqlite`, join(folder, 'old'));
    const later = await openNodeStore(data, silentLog);
    ids.push(...(await live(later, 2, true)));
    await later.close();
    cpSync(join(folder, 'old'), `${data}/catalog.sqlite`);
    const catalog = SqliteCatalog.open(`${data}/catalog.sqlite`);
    const { record } = catalog.points({ limit: 1 })[0]!;
    catalog.putPoint({ ...record, id: `${record.id}x` }, 'staged');
    catalog.close();
    const rebuilt = await rebuildCatalog(data, silentLog);
    expect(rebuilt).toMatchObject({ points: 4, found: 2, forgotten: [`${record.id}x`] });
    expect(await listed()).toEqual(ids);
  });

  it('makes one of another repository, and one that is no database, right', async () => {
    const store = await openNodeStore(data, silentLog);
    const ids = await live(store, 2, true);
    await store.close();
    const catalog = SqliteCatalog.open(`${data}/catalog.sqlite`);
    catalog.adopt('f0'.repeat(16));
    catalog.close();
    expect(await rebuildCatalog(data, silentLog)).toMatchObject({ points: 2, found: 2 });
    writeFileSync(
      `${data}/catalog.sqlite`,
      'nothing that SQLite would know, and long enough to be read',
    );
    expect(await rebuildCatalog(data, silentLog)).toMatchObject({ points: 2, found: 2 });
    expect(await listed()).toEqual(ids);
  });

  it('refuses while a service runs, and where there is no data directory, and changes nothing', async () => {
    const store = await openNodeStore(data, silentLog);
    const ids = await live(store, 1, true);
    await expect(rebuildCatalog(data, silentLog)).rejects.toMatchObject({
      code: 'ERR_DATA_IN_USE',
    });
    expect((await store.points({})).map(({ id }) => id)).toEqual(ids);
    await store.close();
    const other = join(folder, 'none');
    await expect(rebuildCatalog(other, silentLog)).rejects.toMatchObject({
      code: 'ERR_DATA_FORMAT',
    });
  });
});
