/**
 * One file of the repository is damaged, cut short, unreadable or lost; the store is opened, takes new
 * points, retains, folds and collects; then the good file is put back. Nothing that was there before may be
 * missing then: no upkeep took away what the damaged file needs, or what stood in for it. And with the
 * damage in place the store opens, and every point that does not need the file reads right.
 */
import { describe, expect, it } from 'vitest';
import type { Disk } from '../../src/base/disk.ts';
import { UnderstudyError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import { MemoryCatalog } from '../../src/store/catalog/catalog-memory.ts';
import { openRepository } from '../../src/store/offline.ts';
import { openStore } from '../../src/store/open-store.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { isEncrypted, keys, keysOfOwn } from './support/key-mode.ts';
import { readableOf, StoreLife, tinySettings } from './support/store-life.ts';

const settings = { ...tinySettings, baseAfterDeltas: 3 };
/** One file in so many, others for each kind. */
const STEP = isEncrypted ? 7 : 3;

/** The disk cannot read this file. */
function unreadable(real: Disk, bad: string): Disk {
  const refuse = (path: string) => {
    if (path !== bad) return;
    throw new UnderstudyError('ERR_DISK_IO', `read of ${path}: EIO`, { path });
  };
  return {
    ...real,
    async readFile(path) {
      refuse(path);
      return real.readFile(path);
    },
    async open(path, mode) {
      const file = await real.open(path, mode);
      return {
        path,
        write: (buffers, offset) => file.write(buffers, offset),
        truncate: (size) => file.truncate(size),
        size: () => file.size(),
        sync: () => file.sync(),
        close: () => file.close(),
        async read(buffer, offset) {
          refuse(path);
          return file.read(buffer, offset);
        },
      };
    },
  };
}

async function makeLife(): Promise<StoreLife> {
  const life = new StoreLife(new FaultyDisk(), 11);
  await life.open(settings);
  const ingest = await life.connect();
  for (let i = 0; i < 7; i += 1) {
    const { id } = await life.writeAndCommit(ingest, 12);
    await life.store!.seal(id);
  }
  await life.store!.close();
  life.disk.reopen();
  return life;
}

const kinds = ['flipped', 'cut', 'unreadable', 'lost'] as const;

async function damageAndHeal(kind: (typeof kinds)[number], nth: number): Promise<boolean> {
  const life = await makeLife();
  const { disk } = life;
  const files = disk.files('/data/repo').filter((path) => !path.endsWith('format.json'));
  const path = files[nth];
  if (path === undefined) return false;
  // Whose file is gone has been removed on purpose: a point is its file.
  if (kind === 'lost' && path.endsWith('.point')) return true;
  const what = `${kind} ${path}`;
  const good = disk.peek(path).slice();
  if (kind === 'flipped') for (let at = 30; at < good.length; at += 97) disk.flip(path, at);
  if (kind === 'cut') disk.poke(path, good.slice(0, good.length >> 1));
  if (kind === 'lost') disk.lose(path);
  const seen = kind === 'unreadable' ? unreadable(disk.mount(), path) : disk.mount();

  const offline = await openRepository('/data', silentLog, seen, keys);
  const before = await readableOf(life, offline as never);
  const { findings } = await offline.check({ readData: true });
  const hurt = new Set(findings.flatMap(({ points }) => points));
  for (const { id } of life.acknowledged) {
    if (!before.includes(id)) expect(hurt, what).toContain(id);
  }
  if (/index$|base$/.test(path)) expect(before, what).toHaveLength(7);
  if (path.endsWith('.point')) expect(before, what).toHaveLength(6);
  await offline.close();

  life.store = await openStore({
    ...keysOfOwn(),
    ...{ disk: seen, clock: life.clock, root: '/data', catalog: new MemoryCatalog() },
    ...{ log: silentLog, settings, randomBytes: (count) => life.random.bytes(count) },
  });
  expect(await readableOf(life, life.store), what).toEqual(before);
  const ingest = await life.connect();
  const { id } = await life.writeAndCommit(ingest, 12);
  await life.store.seal(id);
  const drop = [1, 2, 4].map((i) => life.acknowledged[i]!.id);
  await life.store.applyRetention({ drop });
  for (let i = 0; i < 3; i += 1) {
    await life.store.collect().catch((error: unknown) => {
      // It refuses to free anything while it cannot read what is needed.
      if (!(error instanceof UnderstudyError)) throw error;
      expect(error.code, what).toMatch(/ERR_(OBJECT|PIECE)_|ERR_DISK_/);
    });
  }
  await life.store.close();
  disk.reopen();

  if (!disk.files().includes(path)) await (await disk.open(path, 'create')).close();
  disk.poke(path, good);
  const healed = await openRepository('/data', silentLog, disk.mount(), keys);
  const listed = (await healed.points({ order: 'oldest' })).map((point) => point.id);
  const kept = life.acknowledged.map((point) => point.id).filter((one) => !drop.includes(one));
  for (const one of kept) expect(listed, what).toContain(one);
  const reads = await readableOf(life, healed as never);
  for (const one of kept) expect(reads, what).toContain(one);
  const after = await healed.check({ readData: true });
  const hurtAfter = after.findings.flatMap(({ points }) => points).filter((p) => kept.includes(p));
  expect(hurtAfter, `${what}: ${JSON.stringify(after.findings)}`).toEqual([]);
  await healed.close();
  return true;
}

describe('a file that is damaged and put back', () => {
  for (const [i, kind] of kinds.entries()) {
    it(`has lost nothing meanwhile: ${kind}`, async () => {
      let nth = i % STEP;
      while (await damageAndHeal(kind, nth)) nth += STEP;
      expect(nth).toBeGreaterThan(20);
    });
  }
});
