/**
 * The errors between two durable steps (P4): a sync that fails, a step that is done again, a file that is
 * closed while it is used. What is acknowledged is durable, what is published never changes, and whatever
 * an object names is published before it.
 */
import fs from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compressSync } from 'lz4-napi';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { UnderstudyError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import { nodeDisk } from '../../src/base/node-disk.ts';
import { CHUNK_BYTES } from '../../src/model/geometry.ts';
import { toHex } from '../../src/store/format/checksum.ts';
import { leafDigests } from '../../src/store/leaves/leaf.ts';
import { LeafFile } from '../../src/store/leaves/leaf-file.ts';
import { openRepository } from '../../src/store/offline.ts';
import { DigestTable } from '../../src/store/packs/digest-table.ts';
import { FileCache } from '../../src/store/packs/file-cache.ts';
import { entriesOf, readPack } from '../../src/store/packs/pack-entries.ts';
import type { CommitRequest } from '../../src/store/types.ts';
import { Random } from '../simulation/random.ts';
import { full, HookedDisk } from './support/hooked-disk.ts';
import { keys, readingFiles } from './support/key-mode.ts';
import { readsAs, StoreLife, tinySettings } from './support/store-life.ts';
import { commit, cut, drain, SourceVolume, sha256, sync } from './support/store-world.ts';

const codeOf = (run: Promise<unknown>): Promise<string> =>
  run.then(
    () => 'none',
    (error: unknown) => (error instanceof UnderstudyError ? error.code : String(error)),
  );

const ZEROS = '0'.repeat(64);

/** Large segments: everything of a short life is in the first one until it is sealed. */
const large = { ...tinySettings, segmentBytes: 64 * 1024 * 1024 };

let disk: HookedDisk;
let life: StoreLife;
beforeEach(() => {
  disk = new HookedDisk();
  life = new StoreLife(disk, 5);
  life.volumes[0]!.write(life.random, CHUNK_BYTES, 5 * CHUNK_BYTES);
});

async function expectPoints(): Promise<void> {
  for (const point of life.acknowledged) expect(await readsAs(life.store!, point)).toBe(true);
  expect((await life.store!.check({ readData: true })).findings).toEqual([]);
}

describe('a sync that fails', () => {
  it('for want of space stops the store too: nothing is synced or acknowledged after it', async () => {
    for (const meant of ['.segment', 'watermark']) {
      disk = new HookedDisk();
      life = new StoreLife(disk, 5);
      life.volumes[0]!.content.fill(1);
      await life.open({ ...large, segmentBytes: 300_000 });
      const ingest = await life.connect();
      const point = await life.writeAndCommit(ingest);
      let later = 0;
      disk.hook = (what, path, offset) => {
        if (what === 'sync' && path.endsWith(meant)) {
          later += 1;
          throw full(path);
        }
        // A watermark after the failed sync would cover what may be lost.
        expect(later > 0 && what === 'write' && path.endsWith('watermark'), offset).toBe(false);
      };
      life.volumes[0]!.content.set(life.random.bytes(9 * CHUNK_BYTES));
      // A segment is ended while these contents arrive, and nobody waits for them to be durable.
      expect(await codeOf(sync(ingest, 0, life.volumes[0]!))).toBe('ERR_STORE_FAILED');
      expect(later).toBe(1);
      disk.hook = () => undefined;
      expect(await codeOf(life.writeAndCommit(ingest))).toBe('ERR_STORE_FAILED');
      disk.restart(life.random);
      await life.open(large);
      expect(await readsAs(life.store!, point)).toBe(true);
    }
  });

  it('is made good by the next life: what was not acknowledged is written once more', async () => {
    await life.open(large);
    const ingest = await life.connect();
    await ingest.durable();
    const segment = '/data/journal/0000000000000001.segment';
    const acknowledged = disk.peek(segment).length;
    life.volumes[0]!.write(life.random, 0, 50_000);
    await drain(ingest, 0, life.volumes[0]!);
    const size = disk.peek(segment).length;
    disk.reopen();
    const written: number[] = [];
    disk.hook = (what, path, offset) => {
      if (what === 'write' && path === segment) written.push(Number(offset));
    };
    await life.open(large);
    expect(size).toBeGreaterThan(acknowledged);
    expect(written.slice(0, 2)).toEqual([acknowledged, size]); // the records, and the end record
    await life.store!.close();
  });

  it('is not followed by another one of the turn behind it', async () => {
    await life.open(large);
    const ingest = await life.connect();
    await life.writeAndCommit(ingest);
    life.volumes[0]!.write(life.random, 0, 50_000);
    const syncs: string[] = [];
    disk.hook = (what, path) => {
      if (what === 'sync') syncs.push(path);
      if (syncs.length === 1) throw full(path);
    };
    await sync(ingest, 0, life.volumes[0]!);
    const sealed = codeOf(life.store!.seal(life.acknowledged[0]!.id));
    expect(await codeOf(ingest.durable())).toBe('ERR_STORE_FAILED');
    expect(await sealed).toBe('ERR_STORE_FAILED');
    expect(syncs).toHaveLength(1);
  });
});

describe('the real disk', () => {
  let root = '';
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'understudy-write-'));
  });
  afterEach(async () => {
    vi.restoreAllMocks();
    await rm(root, { recursive: true });
  });

  it('closes a file once: its number may be that of another one by then', async () => {
    const close = vi.spyOn(fs, 'close');
    const file = await nodeDisk.open(`${root}/a`, 'create');
    await Promise.all([file.close(), file.close()]);
    await file.close();
    expect(close).toHaveBeenCalledTimes(1);
    const late = [file.write([new Uint8Array(1)], 0), file.read(new Uint8Array(1), 0), file.sync()];
    for (const call of late) expect(await codeOf(call)).toBe('ERR_DISK_IO');
    expect(await codeOf(file.truncate(0))).toBe('ERR_DISK_IO');
  });

  it('closes it after the calls that are under way', async () => {
    const file = await nodeDisk.open(`${root}/b`, 'create');
    const close = vi.spyOn(fs, 'close');
    let finish: () => unknown = () => null;
    vi.spyOn(fs, 'writev').mockImplementationOnce((_fd, _buffers, _at, end) => {
      finish = () => end(null, 3, []);
    });
    const write = file.write([new Uint8Array(3)], 0);
    const closed = file.close();
    await nodeDisk.exists(root);
    expect(close).not.toHaveBeenCalled();
    finish();
    await Promise.all([write, closed]);
    expect(close).toHaveBeenCalledTimes(1);
  });

  it('does not sync a file again whose sync has failed', async () => {
    const file = await nodeDisk.open(`${root}/c`, 'create');
    const sync = vi.spyOn(fs, 'fdatasync').mockImplementationOnce((_, end) => {
      end(Object.assign(new Error('full'), { code: 'ENOSPC', syscall: 'fdatasync' }));
    });
    expect(await codeOf(file.sync())).toBe('ERR_DISK_FULL');
    expect(await codeOf(file.sync())).toBe('ERR_DISK_FULL');
    expect(sync).toHaveBeenCalledTimes(1);
    await file.close();
  });
});

describe('a pack', () => {
  /** One sealed point; what makes the first base is still to come. */
  async function sealedPoint(): Promise<void> {
    await life.open({ ...large, baseAfterDeltas: 0 });
    const ingest = await life.connect();
    const { id } = await life.writeAndCommit(ingest);
    await life.store!.seal(id);
    await ingest.close();
  }

  it('that cannot get its name is closed once, and is not left lying about', async () => {
    const closed: string[] = [];
    let refused = 0;
    disk.hook = (what, path, to) => {
      if (what === 'close') closed.push(path);
      if (what !== 'rename' || !to.endsWith('.pack')) return;
      refused += 1;
      throw full(path);
    };
    await sealedPoint();
    await life.store!.check({ readData: false }); // after the base
    expect(refused).toBeGreaterThan(0);
    const writes = closed.filter((path) => path.includes('/temporary/'));
    expect(new Set(writes).size).toBe(writes.length);
    expect(disk.files('/data/journal/temporary')).toEqual([]);
    disk.hook = () => undefined;
    await life.store!.close();
  });

  it('has all that a base names, also what was in the journal only', async () => {
    const volume = new SourceVolume('/dev/a', 5 * CHUNK_BYTES, 'a'.repeat(32));
    volume.content.set(life.random.bytes(5 * CHUNK_BYTES));
    await life.open({ ...large, baseAfterDeltas: 0 });
    const ingest = await life.store!.beginIngest('web', [volume.description]);
    await sync(ingest, 0, volume);
    await life.store!.seal((await commit(ingest, [volume], 1000)).id);
    await life.store!.check({ readData: false });
    for (let chunk = 0; chunk < 5; chunk += 1) {
      volume.write(life.random, chunk * CHUNK_BYTES + 8192, 4096);
    }
    await drain(ingest, 0, volume);
    await life.store!.collect(); // counts anew what lies over the base
    const point = await commit(ingest, [volume], 2000);
    // Another server sends the patched chunks whole: written, not synced, not sealed.
    const other = new SourceVolume('/dev/b', 5 * CHUNK_BYTES, 'b'.repeat(32));
    other.content.set(volume.content);
    const second = await life.store!.beginIngest('db', [other.description]);
    await life.store!.seal(point.id);
    await sync(second, 0, other);
    await life.store!.check({ readData: false }); // after the base
    const bases = disk.files('/data/repo/bases');
    expect(bases.at(-1)).toMatch(/0000000002.base$/);
    disk.restart(life.random); // what was not synced may be gone
    const offline = await openRepository('/data/repo', silentLog, disk.mount(), keys);
    expect((await offline.check({ readData: true })).findings).toEqual([]);
    await offline.close();
  });
});

describe('open files', () => {
  it('are closed by their last user, once, when the store closes', async () => {
    await disk.makeDirectory('/f');
    for (const name of ['/f/a', '/f/b']) await (await disk.open(name, 'create')).close();
    const closed: string[] = [];
    disk.hook = (what, path) => {
      if (what === 'close') closed.push(path);
    };
    const cache = new FileCache(disk.mount());
    await cache.with('/f/b', (file) => file.size());
    let finish: () => unknown = () => null;
    const using = cache.with('/f/a', async (file) => {
      await new Promise<void>((resolve) => {
        finish = resolve;
      });
      return file.size();
    });
    while ((await cache.with('/f/b', (file) => file.size())) > 0);
    await cache.close();
    expect(closed).toEqual(['/f/b']);
    finish();
    expect(await using).toBe(0);
    expect(closed).toEqual(['/f/b', '/f/a']);
    expect(await codeOf(cache.with('/f/a', (file) => file.size()))).toBe('ERR_STORE_CLOSED');
  });
});

/** What the repository's packs hold, and what its deltas name, as hex digests. */
async function heldAndNamed(): Promise<{ held: Set<string>; named: Set<string> }> {
  const held = new Set<string>();
  const named = new Set<string>();
  const files = await readingFiles(disk.mount());
  for (const path of disk.files('/data/repo/packs')) {
    for (const entry of entriesOf(await readPack(files, path))) held.add(toHex(entry.digest));
  }
  for (const path of disk.files('/data/repo/deltas')) {
    const delta = await LeafFile.open(files, path, 'US-DELTA');
    for (const leaf of Array.from(delta.leafNumbers())) {
      for (const digest of leafDigests((await delta.read(leaf))!)) named.add(toHex(digest));
    }
  }
  return { held, named };
}

describe('sealing', () => {
  it('writes no delta before the contents that it names are published', async () => {
    await life.open(large);
    const ingest = await life.connect();
    await life.writeAndCommit(ingest);
    const [volume] = life.volumes;
    volume!.content.set(life.random.bytes(CHUNK_BYTES));
    await sync(ingest, 0, volume!); // begun in the first segment ...
    disk.hook = (what, path) => {
      if (what === 'link') throw full(path);
    };
    expect(await codeOf(life.store!.seal(life.acknowledged[0]!.id))).toBe('ERR_DISK_FULL');
    volume!.content.set(life.random.bytes(CHUNK_BYTES), CHUNK_BYTES);
    await sync(ingest, 0, volume!);
    await life.writeAndCommit(ingest); // ... and committed in the second
    disk.hook = () => undefined;
    await life.clock.runUntil(life.clock.monotonicMs() + 6000);
    const segments = disk.files('/data/journal').filter((path) => path.endsWith('.segment'));
    expect(segments).toEqual(['/data/journal/0000000000000002.segment']);
    const { held, named } = await heldAndNamed();
    expect([...named].filter((digest) => !held.has(digest))).toEqual([]);
    disk.restart(life.random);
    await life.open(large);
    await expectPoints();
    await life.store!.seal(life.acknowledged[1]!.id);
    await expectPoints();
    expect(disk.files('/data/journal/open')).toEqual([]);
  });

  it('is done again from the first step after any step for which there was no room', async () => {
    let isOver = false;
    for (let step = 1; !isOver; step += 1) {
      disk = new HookedDisk();
      life = new StoreLife(disk, 5);
      await life.open(large);
      const ingest = await life.connect();
      for (let i = 0; i < 3; i += 1) await life.writeAndCommit(ingest);
      let count = 0;
      let failed = '';
      disk.hook = (what, path, to) => {
        count += 1;
        if (count !== step || what === 'close') return;
        failed = `${what} ${path} ${to}`;
        throw full(path);
      };
      const { id } = life.acknowledged[2]!;
      let code = await codeOf(life.store!.seal(id));
      isOver = count < step;
      disk.hook = () => undefined;
      await life.clock.runUntil(life.clock.monotonicMs() + 6000);
      if (code === 'ERR_DISK_FULL') code = await codeOf(life.store!.seal(id));
      const isFatal = /^sync .*(segment|watermark)|^write .*watermark/.test(failed);
      if (isFatal) expect(code, failed).toBe('ERR_STORE_FAILED');
      else expect(code, failed).toBe('none');
      if (!isFatal) await expectPoints();
      disk.restart(life.random);
      await life.open(large);
      await expectPoints();
      await life.store!.close();
      expect(disk.files('/data/journal')).toEqual([
        '/data/journal/repository',
        '/data/journal/watermark',
      ]);
    }
  });

  it('writes nothing into a pack that is published, and the same bytes in any run', async () => {
    await life.open(large);
    let ingest = await life.connect();
    await life.writeAndCommit(ingest);
    await life.store!.seal(life.acknowledged[0]!.id);
    await ingest.close();
    ingest = await life.connect();
    await life.writeAndCommit(ingest);
    await life.store!.check({ readData: false });
    // Killed after the link, before the segment's name goes.
    disk.hook = (what, path) => {
      if (what === 'remove' && path.endsWith('.segment')) throw new Error('killed');
    };
    expect(await codeOf(life.store!.seal(life.acknowledged[1]!.id))).toBe('ERR_STORE_FAILED');
    disk.reopen();
    const packs = new Map(
      disk.files('/data/repo/packs').map((path) => [path, disk.peek(path).slice()]),
    );
    const written: string[] = [];
    disk.hook = (what, path, to) => {
      if (what === 'truncate' || what === 'write') written.push(`${path} ${to}`);
    };
    await life.open(large);
    await life.store!.seal(life.acknowledged[1]!.id);
    expect(written.filter((path) => path.includes('0002.segment'))).toEqual([]);
    for (const [path, bytes] of packs) {
      expect(Buffer.compare(disk.peek(path), bytes), path).toBe(0);
      const footer = entriesOf(await readPack(await readingFiles(disk.mount()), path));
      for (const { pack } of footer) expect(pack).toBe(0);
    }
    await expectPoints();
  });

  it('cuts off what lies behind the end record', async () => {
    await life.open(large);
    const ingest = await life.connect();
    await life.writeAndCommit(ingest);
    disk.hook = (what, path) => {
      if (what === 'link') throw new Error(`killed before ${path}`);
    };
    expect(await codeOf(life.store!.seal(life.acknowledged[0]!.id))).toBe('ERR_STORE_FAILED');
    disk.hook = () => undefined;
    disk.reopen();
    const segment = '/data/journal/0000000000000001.segment';
    // A batch for which there was no room was cut off, and the power has brought its tail back.
    disk.poke(segment, Buffer.concat([disk.peek(segment), life.random.bytes(100_000)]));
    await life.open(large);
    await life.store!.seal(life.acknowledged[0]!.id);
    await expectPoints();
    disk.reopen();
    await life.open(large);
    await expectPoints();
  });
});

describe('a kill, and then a power cut', () => {
  const stride = Number(process.env.STORE_CRASH_STRIDE ?? 29);
  const seeds = (process.env.STORE_CRASH_SEEDS ?? '1,2').split(',').map(Number);

  it('between a name and the sync of its folder costs nothing that was acknowledged', async () => {
    for (const seed of seeds) {
      const quiet = new StoreLife(new HookedDisk(), seed);
      await quiet.run();
      for (let call = 1 + (seed % stride); call < quiet.disk.calls; call += stride) {
        disk = new HookedDisk();
        life = new StoreLife(disk, seed);
        disk.cutPowerAt(call);
        await expect(life.run()).rejects.toThrow();
        const killedIn = disk.lastCall;
        disk.reopen();
        const random = new Random(seed * 100_000 + call);
        // The next life seals what it finds, makes bases, folds and collects; then the power goes.
        await life.open();
        const ids = new Set((await life.store!.points({})).map(({ id }) => id));
        for (const id of ids) await life.store!.seal(id);
        await life.store!.collect();
        disk.restart(random);
        await life.open();
        const listed = new Set((await life.store!.points({})).map(({ id }) => id));
        for (const point of life.acknowledged) {
          if (life.dropping.has(point.id) && !listed.has(point.id)) continue;
          const what = `seed ${seed}, killed in call ${call} (${killedIn})`;
          expect(await readsAs(life.store!, point), what).toBe(true);
        }
        expect((await life.store!.check({ readData: true })).findings, killedIn).toEqual([]);
      }
    }
  });
});

describe('what comes in', () => {
  it('is refused where it could not be read again', async () => {
    const [volume] = life.volumes;
    const { description } = volume!;
    const requests: [Partial<CommitRequest>, string][] = [
      [{ timeMs: 8.64e15 + 1 }, 'ERR_COMMIT_INVALID'],
      [{ timeMs: -1 }, 'ERR_COMMIT_INVALID'],
      [{ cut: { method: 'scan', passes: 1, durationMs: Number.NaN } }, 'ERR_COMMIT_INVALID'],
      [{}, 'none'],
    ];
    await life.open(large);
    for (const [change, code] of requests) {
      const ingest = await life.store!.beginIngest('web', [description]);
      await sync(ingest, 0, volume!);
      const part = { volume: 0, generation: volume!.generation, epoch: 1, contentDigest: ZEROS };
      const request = { timeMs: 8.64e15, cut, requestId: '', volumes: [part], missingVolumes: [] };
      expect(await codeOf(ingest.commit({ ...request, ...change }))).toBe(code);
      await ingest.close();
    }
    disk.reopen();
    await life.open(large);
    expect(await life.store!.points({})).toHaveLength(1);
  });

  it('is no LZ4 that is longer than its content', async () => {
    await life.open(large);
    const ingest = await life.store!.beginIngest('web', [life.volumes[0]!.description]);
    const raw = new Uint8Array(life.random.bytes(4096));
    const stored = new Uint8Array(compressSync(Buffer.from(raw)));
    expect(stored.length).toBeGreaterThan(raw.length);
    const piece = { digest: sha256(raw), codec: 1 as const, rawLength: raw.length, stored };
    expect(await codeOf(ingest.pieces([piece]))).toBe('ERR_ENTRIES_INVALID');
  });

  it('goes into segments whose offsets fit', async () => {
    const settings = { ...large, segmentBytes: 2 ** 32 };
    expect(await codeOf(life.open(settings))).toBe('ERR_USAGE');
    const table = new DigestTable(0);
    const entry = { digest: sha256(new Uint8Array(1)), owner: new Uint8Array(8), pack: 0 };
    const rest = { storedLength: 1, rawLength: 1, codec: 0, isGrant: false };
    expect(() => table.add({ ...entry, ...rest, offset: 2 ** 32 })).toThrow('32 bits');
  });

  it('of another generation drops what is open in the journal before it does in memory', async () => {
    await life.open(large);
    const [volume] = life.volumes;
    const begin = (generation: string) =>
      life.store!.beginIngest('web', [{ ...volume!.description, generation }]);
    let ingest = await begin(volume!.generation);
    await sync(ingest, 0, volume!);
    await commit(ingest, [volume!], 1000);
    volume!.write(life.random, 0, 3 * CHUNK_BYTES);
    await drain(ingest, 0, volume!); // open in the second epoch
    await ingest.close();
    disk.hook = (what, path) => {
      if (what === 'write' && path.endsWith('.segment')) throw full(path);
    };
    expect(await codeOf(begin('c'.repeat(32)))).toBe('ERR_DISK_FULL');
    disk.hook = () => undefined;
    ingest = await begin(volume!.generation);
    volume!.write(life.random, 5 * CHUNK_BYTES, 100);
    await drain(ingest, 0, volume!);
    const point = await commit(ingest, [volume!], 2000);
    expect(await readsAs(life.store!, point)).toBe(true);
    disk.reopen();
    await life.open(large);
    expect(await readsAs(life.store!, point)).toBe(true);
  });
});
