/**
 * The errors between two durable steps (P4): a sync that fails, a step that is done again, a file that is
 * closed while it is used. What is acknowledged is durable, what is published never changes, and whatever
 * an object names is published before it.
 */
import fs from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Disk, DiskFile } from '../../src/base/disk.ts';
import { UnderstudyError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import { nodeDisk } from '../../src/base/node-disk.ts';
import { CHUNK_BYTES } from '../../src/model/geometry.ts';
import { FileCache } from '../../src/store/file-cache.ts';
import { openRepository } from '../../src/store/offline.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { readsAs, StoreLife, tinySettings } from './support/store-life.ts';
import { commit, drain, SourceVolume, sync } from './support/store-world.ts';

const codeOf = (run: Promise<unknown>): Promise<string> =>
  run.then(
    () => 'none',
    (error: unknown) => (error instanceof UnderstudyError ? error.code : String(error)),
  );

const full = (path: string): UnderstudyError =>
  new UnderstudyError('ERR_DISK_FULL', `${path}: ENOSPC`, { path, errno: 'ENOSPC' });

/** Large segments: everything of a short life is in the first one until it is sealed. */
const large = { ...tinySettings, segmentBytes: 64 * 1024 * 1024 };

/** The faulty disk; calls that the hook throws at fail, and every call is told to it. */
class HookedDisk extends FaultyDisk {
  hook: (what: string, path: string, to: string) => void = () => undefined;

  override mount(): Disk {
    const disk = super.mount();
    const told =
      <A extends unknown[], R>(what: string, run: (...given: A) => Promise<R>) =>
      async (...given: A): Promise<R> => {
        this.hook(what, String(given[0]), String(given[1] ?? ''));
        return run(...given);
      };
    return {
      ...disk,
      rename: told('rename', disk.rename),
      link: told('link', disk.link),
      remove: told('remove', disk.remove),
      syncDirectory: told('syncDirectory', disk.syncDirectory),
      open: async (path, mode) => this.hooked(await disk.open(path, mode)),
    };
  }

  private hooked(file: DiskFile): DiskFile {
    const { path } = file;
    return {
      path,
      read: (buffer, offset) => file.read(buffer, offset),
      size: () => file.size(),
      write: async (buffers, offset) => {
        this.hook('write', path, String(offset));
        return file.write(buffers, offset);
      },
      truncate: async (size) => {
        this.hook('truncate', path, String(size));
        return file.truncate(size);
      },
      sync: async () => {
        this.hook('sync', path, '');
        return file.sync();
      },
      close: async () => {
        this.hook('close', path, '');
        return file.close();
      },
    };
  }

  /** The next call that `isMeant` fails for want of space, once; then the hook is gone. */
  failOnce(isMeant: (what: string, path: string, to: string) => boolean): void {
    this.hook = (what, path, to) => {
      if (!isMeant(what, path, to)) return;
      this.hook = () => undefined;
      throw full(path);
    };
  }
}

let disk: HookedDisk;
let life: StoreLife;
beforeEach(() => {
  disk = new HookedDisk();
  life = new StoreLife(disk, 5);
  life.volumes[0]!.write(life.random, CHUNK_BYTES, 5 * CHUNK_BYTES);
});

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
  afterEach(() => vi.restoreAllMocks());
  afterAll(() => rm(root, { recursive: true, force: true }));

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
    const offline = await openRepository('/data/repo', silentLog, disk.mount());
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
