/**
 * A call for which there is no room, anywhere in a life of the store (P4): the caller is told, what was
 * acknowledged stays, and what may not last is not there. Then a kill, and then the power goes.
 */
import { describe, expect, it } from 'vitest';
import { UnderstudyError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import { publish, writeObject } from '../../src/store/format/object-file.ts';
import { openRepository } from '../../src/store/offline.ts';
import { Random } from '../simulation/random.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { full, HookedDisk } from './support/hooked-disk.ts';
import { keys } from './support/key-mode.ts';
import { expectAcknowledged, outcomeOf, StoreLife } from './support/store-life.ts';

const STRIDE = Number(process.env.STORE_CRASH_STRIDE ?? 37);
const SEEDS = (process.env.STORE_CRASH_SEEDS ?? '4,5').split(',').map(Number);

async function failAt(seed: number, call: number): Promise<void> {
  const disk = new FaultyDisk();
  const life = new StoreLife(disk, seed);
  disk.failAt(call, 'ERR_DISK_FULL');
  const error = await outcomeOf(life);
  const what = `seed ${seed}, call ${call}`;
  if (error !== undefined) {
    expect(error, what).toBeInstanceOf(UnderstudyError);
    expect((error as UnderstudyError).code, what).toMatch(/ERR_STORE_FAILED|ERR_DISK_FULL/);
  }
  disk.reopen();
  await life.open();
  await expectAcknowledged(life, what);
  disk.restart(new Random(seed * 100_000 + call));
  const offline = await openRepository('/data/repo', silentLog, disk.mount(), keys);
  expect((await offline.check({ readData: true })).findings, what).toEqual([]);
  await offline.close();
  await life.open();
  await expectAcknowledged(life, what);
}

describe('no room', () => {
  it('for any call costs nothing that was acknowledged', async () => {
    for (const seed of SEEDS) {
      const quiet = new StoreLife(new FaultyDisk(), seed);
      await quiet.run();
      for (let call = 20 + (seed % STRIDE); call < quiet.disk.calls; call += STRIDE) {
        await failAt(seed, call);
      }
    }
  });

  it('to seal when the store closes: nothing is tried or written any more', async () => {
    const disk = new HookedDisk();
    const life = new StoreLife(disk, 5);
    await life.open();
    await life.writeAndCommit(await life.connect());
    disk.hook = (what, path) => {
      if (what === 'link') throw full(path);
    };
    await expect(life.store!.close()).rejects.toMatchObject({ code: 'ERR_DISK_FULL' });
    const later: string[] = [];
    disk.hook = (what, path) => {
      later.push(`${what} ${path}`);
    };
    await life.clock.runUntil(life.clock.monotonicMs() + 60_000);
    expect(later).toEqual([]);
    disk.hook = () => undefined;
    disk.reopen();
    await life.open();
    await expectAcknowledged(life, 'after the close');
  });

  it('for the sync of a folder: a new name goes again, one that was there stays', async () => {
    const disk = new HookedDisk();
    const mounted = disk.mount();
    await mounted.makeDirectory('/a');
    await writeObject(mounted, '/t1', '/a/old', [Uint8Array.of(1)]);
    disk.hook = (what, path) => {
      if (what === 'syncDirectory') throw full(path);
    };
    for (const path of ['/a/old', '/a/new', '/a/b/new']) {
      await (await mounted.open('/t2', 'create')).close();
      await expect(publish(mounted, '/t2', path)).rejects.toMatchObject({ code: 'ERR_DISK_FULL' });
    }
    expect(disk.files('/')).toEqual(['/a/old']);
    // The folder is there, and its own name is still to be made durable.
    const synced: string[] = [];
    disk.hook = (what, path) => {
      if (what === 'syncDirectory') synced.push(path);
    };
    await writeObject(mounted, '/t3', '/a/b/new', [Uint8Array.of(2)]);
    expect(synced).toEqual(['/a', '/a/b']);
  });
});
