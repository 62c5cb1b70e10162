/** Failovers as jobs: what they keep, their point, starting again, throwing away. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Disk } from '../../src/base/disk.ts';
import { UnderstudyError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import { nodeDisk } from '../../src/base/node-disk.ts';
import type { Launch } from '../../src/recovery/launcher.ts';
import type { Jobs } from '../../src/staging/jobs/jobs.ts';
import type { FakeBackend } from './support/fake-backend.ts';
import {
  cleanedUp,
  drill,
  fullDisk,
  hastyClock,
  isUp,
  JobsWorld,
  OVERLAY,
  POINT,
  PRODUCT,
  type ScriptedLauncher,
  until,
  untilTold,
  untilWritten,
  upOf,
} from './support/jobs-world.ts';

let world: JobsWorld;
let launcher: ScriptedLauncher;
let backend: FakeBackend;
const start = (disk?: Disk): Promise<Jobs> => world.start(disk);
beforeEach(() => {
  world = new JobsWorld();
  ({ launcher, backend } = world);
});
afterEach(() => world.close());

describe('a failover', () => {
  const failover = (options = {}) => ({ ...drill(options), kind: 'failover' as const });
  const withProduct = async (launch: Launch) => {
    await launch.making(PRODUCT);
    return untilTold(launch);
  };
  beforeEach(() => {
    launcher.script = withProduct;
  });

  it('that is up is not cancelled; stopped it keeps its product and its point, and starts again', async () => {
    const before = await start();
    const id = await upOf(before, failover());
    await expect(before.cancel(id)).rejects.toMatchObject({ code: 'ERR_JOB_KEEPS' });
    await expect(before.startAgain(id)).rejects.toMatchObject({ code: 'ERR_JOB_STATE' });
    await expect(before.discard(id)).rejects.toMatchObject({ code: 'ERR_JOB_STATE' });
    await before.stop(id, 5000);
    await until(before, id, cleanedUp);
    expect(launcher.launches[0]!.stop.reason).toEqual({ timeoutMs: 5000 });
    expect(launcher.cleaned).toEqual([['overlay']]);
    expect(before.find(id)).toMatchObject({ outcome: 'done', keeps: true });
    await expect(before.remove(id)).rejects.toMatchObject({ code: 'ERR_JOB_KEEPS' });
    expect(backend.openReaders()).toBe(1);
    await before.close();

    const jobs = await start();
    expect(backend.openReaders()).toBe(1);
    expect(launcher.launches.length).toBe(1);
    await jobs.startAgain(id);
    await until(jobs, id, isUp);
    expect(launcher.launches[1]).toMatchObject({ starts: 2, made: [PRODUCT] });
    expect(launcher.launches[1]!.stop.aborted).toBe(false);
    await jobs.stop(id);
    await until(jobs, id, cleanedUp);
    await jobs.discard(id);
    expect(launcher.cleaned.at(-1)).toEqual(['product', 'overlay']);
    expect(jobs.find(id)).toMatchObject({ state: 'cleaned', isDiscarded: true });
    expect(backend.openReaders()).toBe(0);
    await expect(jobs.startAgain(id)).rejects.toMatchObject({ code: 'ERR_JOB_STATE' });
    await expect(jobs.discard(id)).rejects.toMatchObject({ code: 'ERR_JOB_STATE' });
    await jobs.remove(id);
  });

  it('is discarded when its product is gone, whatever an earlier cleanup says meanwhile', async () => {
    // None is tried again by itself, however slow the machine is.
    const jobs = await world.start(nodeDisk, silentLog, hastyClock(1 / 1000).clock);
    const id = await upOf(jobs, failover());
    launcher.cleanFails = true;
    await jobs.stop(id);
    await until(jobs, id, ({ cleanError }) => cleanError !== null);
    const tries: string[][] = [];
    launcher.clean = async (made) => {
      tries.push(made.map(({ name }) => name));
      await Promise.resolve();
      if (tries.length === 2) throw new UnderstudyError('ERR_DISK_IO', 'it will not go');
    };
    const again = jobs.startAgain(id).catch((error: Error) => error.message);
    const discarded = await jobs.discard(id);
    expect(tries).toEqual([['overlay'], ['product', 'overlay']]);
    expect(discarded).toMatchObject({ isDiscarded: true, cleanError: 'it will not go' });
    expect(discarded.state).not.toBe('cleaned');
    expect(await again).toMatch(/cannot be cleaned up/);
  });

  it('that serves is found again though its point cannot be opened; one that is not up has failed', async () => {
    const before = await start();
    const id = await upOf(before, failover());
    launcher.script = async (launch) => {
      await launch.making(OVERLAY);
      const { leave } = launch;
      while (!leave.aborted) await new Promise((done) => setTimeout(done, 10));
      return 'left';
    };
    const early = await before.start({ ...failover(), isBeside: true });
    await expect.poll(() => before.find(early.id).made.length).toBe(1);
    await before.close();
    launcher.script = withProduct;
    const damaged = async () => {
      throw new UnderstudyError('ERR_PIECE_DAMAGED', 'a content is damaged');
    };
    backend.store.openImage = damaged;
    backend.store.point = damaged;
    const jobs = await start();
    await expect.poll(() => launcher.launches.length).toBe(3);
    expect(jobs.find(id)).toMatchObject({ state: 'running', error: null });
    await until(jobs, early.id, cleanedUp);
    expect(jobs.find(early.id).error).toMatchObject({ code: 'ERR_PIECE_DAMAGED' });
  });

  it('cancelled before it is up leaves nothing', async () => {
    launcher.script = async (launch) => {
      await launch.making(PRODUCT);
      await new Promise((resolve) => launch.stop.addEventListener('abort', resolve));
      throw new UnderstudyError('ERR_LAUNCH_FAILED', 'ended');
    };
    const jobs = await start();
    const { id } = await jobs.start(failover());
    await expect.poll(() => jobs.find(id).made.length).toBe(1);
    await jobs.cancel(id);
    await until(jobs, id, cleanedUp);
    expect(launcher.cleaned).toEqual([['product']]);
    await expect(jobs.startAgain(id)).rejects.toMatchObject({ code: 'ERR_JOB_STATE' });
  });

  it('that stands alone lets its point go, and starts again without it', async () => {
    launcher.script = async (launch) => {
      if (launch.starts === 1) await launch.standsAlone();
      return withProduct(launch);
    };
    const before = await start();
    const id = await upOf(before, failover());
    expect(backend.openReaders()).toBe(0);
    expect(before.find(id).standsAlone).toBe(true);
    await before.stop(id);
    await until(before, id, cleanedUp);
    await before.close();
    backend.store.point = async () => {
      throw new UnderstudyError('ERR_POINT_NOT_FOUND', 'it went');
    };
    const jobs = await start();
    await jobs.startAgain(id);
    await until(jobs, id, isUp);
    expect(launcher.launches[1]!.point).toMatchObject({ id: POINT, server: 'web1' });
  });

  it('started again while nothing can be written down stays as it was', async () => {
    let isFull = false;
    const disk = fullDisk(() => isFull);
    const jobs = await start(disk);
    const id = await upOf(jobs, failover());
    await jobs.stop(id);
    await untilWritten(jobs, id, cleanedUp);
    isFull = true;
    await expect(jobs.startAgain(id)).rejects.toMatchObject({ code: 'ERR_DISK_FULL' });
    await expect(jobs.discard(id)).rejects.toMatchObject({ code: 'ERR_DISK_FULL' });
    expect(jobs.find(id)).toMatchObject({ state: 'cleaned', outcome: 'done', isDiscarded: false });
    expect(launcher.cleaned).toEqual([['overlay']]);
    isFull = false;
    await jobs.startAgain(id);
    await until(jobs, id, isUp);
  });
});
