/**
 * Encrypted repositories (P8): what is detected, each with one clear error; that nothing lies in clear; and
 * that keys rotate and are shared among masters without anything being written anew.
 */
import { beforeEach, describe, expect, it } from 'vitest';
import { UnderstudyError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import { MemoryCatalog } from '../../src/store/catalog/catalog-memory.ts';
import { sealChecksum, toHex } from '../../src/store/format/checksum.ts';
import { openKeys } from '../../src/store/keys/key-place.ts';
import { fileMaster, passphraseMaster } from '../../src/store/keys/master.ts';
import type { KeyOptions } from '../../src/store/keys/open-vault.ts';
import { openRepository } from '../../src/store/offline.ts';
import { openStore } from '../../src/store/open-store.ts';
import { encodePointObject } from '../../src/store/points/point-format.ts';
import { Random } from '../simulation/random.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { NonceWatch, testMaster } from './support/key-mode.ts';
import { readableOf, readsAs, StoreLife, tinySettings } from './support/store-life.ts';

let disk: FaultyDisk;
let life: StoreLife;
let watch: NonceWatch;
let keys: KeyOptions;
beforeEach(() => {
  disk = new FaultyDisk();
  life = new StoreLife(disk, 5);
  watch = new NonceWatch();
  keys = { master: testMaster, aead: watch };
});

const quiet = { ...tinySettings, baseAfterDeltas: 1000, segmentBytes: 8_000_000 };

async function sealedLife(points = 3, settings = quiet): Promise<void> {
  life.volumes[0]!.write(life.random, 65_536, 5 * 65_536);
  await life.open(settings, { keys });
  const ingest = await life.connect();
  for (let i = 0; i < points; i += 1) {
    const { id } = await life.writeAndCommit(ingest, 12);
    await life.store!.seal(id);
  }
  await ingest.close();
  await life.store!.close();
  disk.reopen();
}

const open = (options: KeyOptions | undefined = keys) =>
  openRepository('/data', silentLog, disk.mount(), options);

const codeOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'none',
    (error: unknown) => (error instanceof UnderstudyError ? error.code : String(error)),
  );

/** Points that read right; any other error than an honest one, and any wrong byte, fails the test. */
async function readable(options = keys): Promise<string[]> {
  const offline = await open(options);
  const ids = await readableOf(life, offline as never);
  await offline.close();
  return ids;
}

async function findings(): Promise<string[]> {
  const offline = await open();
  const report = await offline.check({ readData: true });
  await offline.close();
  return report.findings.map(({ object, kind }) => `${kind} ${object}`);
}

const filesOf = (pattern: RegExp): string[] => disk.files('/data').filter((f) => pattern.test(f));

describe('the key', () => {
  it('must be there, be the right one, and be given to an encrypted repository only', async () => {
    await sealedLife(1);
    expect(await codeOf(openRepository('/data', silentLog, disk.mount()))).toBe('ERR_KEY_REQUIRED');
    const other = { master: fileMaster(new Uint8Array(32).fill(8), 'another key') };
    expect(await codeOf(open(other))).toBe('ERR_KEY_WRONG');
    const phrase = { master: passphraseMaster('guess', 'a guess', { n: 2, r: 1, p: 1 }) };
    expect(await codeOf(open(phrase))).toBe('ERR_KEY_WRONG');
    const before = disk.files('/data').map((path) => [path, toHex(disk.peek(path))]);
    expect(await codeOf(life.open(quiet, { keys: other }))).toBe('ERR_KEY_WRONG');
    expect(await codeOf(life.open(quiet))).toBe('ERR_KEY_REQUIRED');
    expect(disk.files('/data').map((path) => [path, toHex(disk.peek(path))])).toEqual(before);
    disk = new FaultyDisk();
    life = new StoreLife(disk, 5);
    await life.open(quiet);
    await life.store!.close();
    disk.reopen();
    expect(await codeOf(life.open(quiet, { keys }))).toBe('ERR_KEY_NOT_ENCRYPTED');
  });

  it('is refused where format.json was replaced by that of a plain repository', async () => {
    await sealedLife(1);
    const text = Buffer.from(disk.peek('/data/repo/format.json')).toString('utf8');
    const { encryption, ...plain } = JSON.parse(text);
    expect(encryption).toEqual({ cipher: 'aes-256-gcm', names: 'hmac-sha-256' });
    disk.poke('/data/repo/format.json', Buffer.from(JSON.stringify({ ...plain, version: 1 })));
    expect(await codeOf(open())).toBe('ERR_KEY_NOT_ENCRYPTED');
    const renamed = { ...plain, encryption: { ...encryption, names: 'sha-256' } };
    disk.poke('/data/repo/format.json', Buffer.from(JSON.stringify(renamed)));
    expect(await codeOf(open())).toBe('ERR_OBJECT_DAMAGED');
  });

  it('stays where format.json is gone: nothing is made over what lies there', async () => {
    await sealedLife(1);
    const format = disk.peek('/data/repo/format.json').slice();
    await disk.remove('/data/repo/format.json');
    const before = filesOf(/\/repo\//);
    const anew = openStore({
      ...{ disk: disk.mount(), clock: life.clock, randomBytes: (n) => life.random.bytes(n), keys },
      ...{ root: '/other', repo: '/data/repo', catalog: new MemoryCatalog(), log: silentLog },
    });
    expect(await codeOf(anew)).toBe('ERR_DATA_FORMAT');
    expect(filesOf(/\/repo\//)).toEqual(before);
    const file = await disk.mount().open('/data/repo/format.json', 'create');
    await file.write([format], 0);
    await file.sync();
    await file.close();
    expect(await readable()).toHaveLength(1);
  });

  it('rotates, and is joined by a passphrase, while nothing is written anew', async () => {
    await sealedLife(2);
    const before = disk.files('/data/repo').map((path) => [path, toHex(disk.peek(path))]);
    const random = new Random(77);
    const bytes = (count: number) => random.bytes(count);
    const place = { disk: disk.mount(), repo: '/data', objects: null };
    const old = await (await openKeys(place, testMaster, bytes, 1)).open();
    const former = old.current.id;
    const phrase = passphraseMaster('correct horse', 'a passphrase', { n: 16, r: 1, p: 1 });
    await old.add(phrase);
    const fresh = await old.rotate();
    const after = new Map(disk.files('/data/repo').map((path) => [path, toHex(disk.peek(path))]));
    for (const [path, content] of before) expect(after.get(path!), path).toBe(content);
    expect(await readable({ master: phrase })).toHaveLength(2);
    await life.open(quiet, { keys });
    const ingest = await life.connect();
    const { id } = await life.writeAndCommit(ingest);
    await life.store!.seal(id);
    await life.store!.close();
    disk.reopen();
    const keyOf = (path: string) => toHex(disk.peek(path).subarray(16, 24));
    const used = new Set(filesOf(/\.point$/).map(keyOf));
    expect(used).toEqual(new Set([former, fresh.id]));
    expect(await readable()).toHaveLength(3);
    // Also by the master that was not at hand when the key was rotated.
    expect(await readable({ master: phrase })).toHaveLength(3);
    expect(await findings()).toEqual([]);
  });
});

describe('a key that is made beside a service', () => {
  const random = new Random(78);
  const rotate = async () => {
    const place = { disk: disk.mount(), repo: '/data', objects: null };
    const beside = await openKeys(place, testMaster, (count) => random.bytes(count), 1);
    return (await beside.open()).rotate();
  };
  const keysOf = (pattern: RegExp, at: number) =>
    new Set(filesOf(pattern).map((path) => toHex(disk.peek(path).subarray(at, at + 8))));

  it('is used from the next look on, for whatever is written, and no key is asked for', async () => {
    await life.open(quiet, { keys });
    const { store } = life;
    const ingest = await life.connect();
    const commit = async () => store!.seal((await life.writeAndCommit(ingest)).id);
    await commit();
    const [former] = keysOf(/\.point$/, 16);
    const { id } = await rotate();
    await commit();
    expect([...keysOf(/\.point$/, 16)]).toEqual([former]);
    expect(await store!.refreshKeys()).toBe(id);
    expect(await store!.refreshKeys()).toBeNull();
    await commit();
    await commit(); // in a segment that was begun since
    expect(keysOf(/\.point$/, 16)).toEqual(new Set([former, id]));
    expect(keysOf(/\.pack$/, 48)).toEqual(new Set([former, id]));
    expect((await store!.check({ readData: true })).findings).toEqual([]);
    await store!.close();
    disk.reopen();
    expect(await readable()).toHaveLength(4);
  });

  it('is not used before both its files are there, and their names are durable', async () => {
    await sealedLife(1);
    const synced: string[] = [];
    const mount = disk.mount();
    const watched = {
      ...mount,
      syncDirectory: async (path: string) => {
        synced.push(path);
        await mount.syncDirectory(path);
      },
    };
    const store = await life.open(quiet, { keys, disk: watched });
    // Names that a process has given which was killed since.
    expect(synced).toContain('/data/repo/keys');
    const before = disk.files('/data/repo/keys');
    const { id } = await rotate();
    const [file] = disk.files('/data/repo/keys').filter((path) => !before.includes(path));
    const bytes = disk.peek(file!).slice();
    disk.lose(file!);
    expect(await store.refreshKeys()).toBeNull();
    const again = await disk.mount().open(file!, 'create');
    await again.write([bytes], 0);
    await again.close();
    synced.length = 0;
    expect(await store.refreshKeys()).toBe(id);
    expect(synced).toEqual(['/data/repo/keys']);
    await store.close();
  });
});

describe('a writer of the bucket', () => {
  it('cannot move a record within its pack, or to another one', async () => {
    await sealedLife(3);
    const packs = filesOf(/\.pack$/);
    const recordsOf = (path: string) => {
      const bytes = disk.peek(path);
      const found: { at: number; length: number }[] = [];
      for (let at = 64; bytes[at] !== 7; ) {
        const stored = new DataView(bytes.slice(at + 4, at + 8).buffer).getUint32(0, true);
        const length = stored + (bytes[at]! <= 2 ? 64 : 24);
        if (bytes[at] === 1) found.push({ at, length });
        at += length;
      }
      return found;
    };
    const swap = (a: string, from: number, b: string, to: number, length: number) => {
      const one = disk.peek(a).slice(from, from + length);
      const other = disk.peek(b).slice(to, to + length);
      const put = (path: string, at: number, bytes: Uint8Array) => {
        const all = disk.peek(path).slice();
        all.set(bytes, at);
        disk.poke(path, all);
      };
      put(a, from, other);
      put(b, to, one);
    };
    const all = packs.flatMap((path) => recordsOf(path).map((record) => ({ path, ...record })));
    let swaps = 0;
    for (const [i, one] of all.entries()) {
      const same = all.slice(i + 1).find(({ length }) => length === one.length);
      if (same === undefined || swaps === 4) continue;
      const exchange = () => swap(one.path, one.at, same.path, same.at, one.length);
      exchange();
      expect((await findings()).some((text) => text.includes('damaged'))).toBe(true);
      await readable();
      exchange();
      swaps += 1;
    }
    expect(swaps).toBeGreaterThan(0);
    expect(await findings()).toEqual([]);
  });

  it('cannot put one object in the place of another, or cut one at a block', async () => {
    await sealedLife(3);
    const kinds = [/\.delta$/, /\.point$/, /\.base$/];
    let swapped = 0;
    for (const kind of kinds) {
      const [a, b] = filesOf(kind);
      if (a === undefined || b === undefined) continue;
      const [one, other] = [disk.peek(a).slice(), disk.peek(b).slice()];
      disk.poke(a, other);
      disk.poke(b, one);
      const found = await findings();
      expect(
        found.some((text) => text.includes(a)),
        a,
      ).toBe(true);
      expect(
        found.some((text) => text.includes(b)),
        b,
      ).toBe(true);
      await readable();
      disk.poke(a, one);
      disk.poke(b, other);
      swapped += 1;
    }
    expect(swapped).toBeGreaterThan(1);
    for (const path of filesOf(/\.(?:delta|point|base)$/)) {
      const bytes = disk.peek(path).slice();
      disk.poke(path, bytes.slice(0, 64 + 16));
      expect((await findings()).some((text) => text.includes(path))).toBe(true);
      disk.poke(path, bytes);
    }
  });

  it('cannot put a former policy in the place of the one that counts', async () => {
    await sealedLife(2);
    await life.open(quiet, { keys });
    await life.store!.setPolicy('web', 'all=1d');
    const [former] = filesOf(/\.policy$/);
    const bytes = disk.peek(former!).slice();
    await life.store!.setPolicy('web', 'all=9d');
    await life.store!.close();
    const [newest] = filesOf(/\.policy$/);
    disk.poke(newest!, bytes);
    expect((await findings()).some((text) => text.includes(newest!))).toBe(true);
    await life.open(quiet, { keys });
    expect(life.store!.policies()).toMatchObject([{ isDamaged: true }]);
    await life.store!.close();
  });

  it('cannot pass a plain object off, whatever its name and checksums', async () => {
    await sealedLife(2);
    const [path] = filesOf(/\.point$/);
    const offline = await open();
    const [point] = await offline.points({ order: 'oldest' });
    await offline.close();
    const volumes = point!.volumes.map((volume) => ({
      ...{ ...volume, previousRoot: '0'.repeat(64), contentDigest: '' },
    }));
    const forged = { ...point!, volumes, timeMs: 1, sequence: 1, receivedMs: 1, requestId: '' };
    const good = disk.peek(path!).slice();
    disk.poke(path!, encodePointObject(forged as never));
    expect(await findings()).toContain(`damaged-object ${path}`);
    expect(await readable()).toHaveLength(1);
    disk.poke(path!, good);
    // A pack whose header says that it is plain.
    const [pack] = filesOf(/\.pack$/);
    const bytes = disk.peek(pack!).slice();
    bytes[8] = 1;
    sealChecksum(bytes, 0, 56);
    disk.poke(pack!, bytes);
    expect(await findings()).toContain(`damaged-object ${pack}`);
  });

  it('cannot take a newer map away, or the newest points', async () => {
    const catalog = new MemoryCatalog();
    const kept = Object.assign(catalog, {
      known: null as string | null,
      open: async () => kept.known,
      adopt: async (id: string) => {
        await MemoryCatalog.prototype.adopt.call(catalog);
        kept.known = id;
      },
      close: async () => undefined,
    });
    life.volumes[0]!.write(life.random, 65_536, 5 * 65_536);
    await life.open(quiet, { keys, catalog });
    const ingest = await life.connect();
    for (let i = 0; i < 3; i += 1) {
      const { id } = await life.writeAndCommit(ingest);
      await life.store!.seal(id);
    }
    await ingest.close();
    await life.store!.close();
    disk.reopen();
    const newest = filesOf(/0000000003\.delta$/);
    expect(newest).toHaveLength(2);
    const bytes = disk.peek(newest[0]!).slice();
    disk.lose(newest[0]!);
    expect(await readable()).toHaveLength(2);
    await (await disk.open(newest[0]!, 'create')).close();
    disk.poke(newest[0]!, bytes);
    const points = filesOf(/\.point$/).sort();
    disk.lose(points.at(-1)!);
    for (const path of newest) disk.lose(path);
    expect(await codeOf(life.open(quiet, { keys, catalog }))).toBe('ERR_REPOSITORY_BEHIND');
    disk.reopen();
    await life.open(quiet, { keys, catalog, acceptRollback: true });
    expect(await life.store!.points({})).toHaveLength(2);
    await life.store!.close();
    disk.reopen();
    await life.open(quiet, { keys, catalog });
  });
});

describe('a reader of the bucket', () => {
  it('finds no content, no name and no digest in clear, in the journal neither', async () => {
    const marker = Buffer.from('MARKER-OF-A-SECRET-CONTENT-0123456789'.repeat(200)).subarray(
      0,
      4096,
    );
    life.volumes[0]!.content.set(marker, 65_536);
    await life.open({ ...tinySettings, baseAfterDeltas: 2 }, { keys });
    let ingest = await life.connect();
    const { id } = await life.writeAndCommit(ingest);
    for (let i = 0; i < 4; i += 1) await life.writeAndCommit(ingest);
    await life.store!.seal(id);
    await life.writeAndCommit(ingest);
    await ingest.close();
    ingest = await life.connect();
    await life.writeAndCommit(ingest);
    const { sha256 } = await import('../../src/store/format/checksum.ts');
    const digests = [marker, life.volumes[0]!.chunk(1)].map((bytes) => sha256(bytes));
    const secrets = [
      ...[marker.subarray(0, 24), Buffer.from('/dev/a'), Buffer.from('"web"'), ...digests],
      ...digests.map((digest) => Buffer.from(toHex(digest))),
    ];
    const files = [...disk.files('/data/repo'), ...disk.files('/data/journal')];
    expect(files.length).toBeGreaterThan(20);
    for (const path of files) {
      const bytes = Buffer.from(disk.peek(path));
      for (const secret of secrets) {
        expect(
          bytes.includes(Buffer.from(secret)),
          `${path}: ${Buffer.from(secret).toString()}`,
        ).toBe(false);
      }
      expect(path).not.toMatch(/\/web(?:\/|$)/);
    }
  });
});

describe('nonces', () => {
  it('do not repeat where a copy of the data directory goes on beside the original', async () => {
    await life.open(quiet, { keys });
    const ingest = await life.connect();
    await life.writeAndCommit(ingest);
    await life.writeAndCommit(ingest);
    const twin = new StoreLife(new FaultyDisk(), 5);
    for (const path of disk.files('/data')) {
      await twin.disk.makeDirectory(path.slice(0, path.lastIndexOf('/')));
      await (await twin.disk.open(path, 'create')).close();
      twin.disk.poke(path, disk.peek(path).slice());
    }
    await life.writeAndCommit(ingest, 30);
    await life.store!.seal(life.acknowledged.at(-1)!.id);
    // Chance is another one in another process.
    const random = new Random(4711);
    const other = { keys, randomBytes: (count: number) => random.bytes(count) };
    await twin.open(quiet, other);
    for (const point of life.acknowledged.slice(0, 2)) {
      expect(await readsAs(twin.store!, point)).toBe(true);
    }
    twin.volumes[0]!.write(random, 0, 300_000);
    const again = await twin.connect();
    await twin.writeAndCommit(again, 30);
    await twin.store!.seal(twin.acknowledged.at(-1)!.id);
    await twin.store!.collect();
    expect(watch.seals).toBeGreaterThan(100);
  });
});
