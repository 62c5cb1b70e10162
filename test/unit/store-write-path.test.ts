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
import { nodeDisk } from '../../src/base/node-disk.ts';
import { CHUNK_BYTES } from '../../src/model/geometry.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { readsAs, StoreLife, tinySettings } from './support/store-life.ts';
import { sync } from './support/store-world.ts';

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
