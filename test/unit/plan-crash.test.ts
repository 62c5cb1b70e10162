/**
 * Staging dies at a durable write of a plan's drill, whichever: after the next start the plan comes up, and no
 * member has two jobs. TEST_FULL=1 takes every write, the test command some.
 */
import { describe, expect, it } from 'vitest';
import type { Disk } from '../../src/base/disk.ts';
import { UnderstudyError } from '../../src/base/errors.ts';
import { nodeDisk } from '../../src/base/node-disk.ts';
import { ActingLauncher, isUp, PlanWorld, shop } from './support/plan-world.ts';

const STRIDE = process.env.TEST_FULL === '1' ? 1 : 4;
const MOST_WRITES = 200;
const SERVERS = ['db1', 'db2', 'web1'];

/** A disk that takes so many renames, and then nothing more: what lies there is what a crash leaves. */
function dyingDisk(renames: number): { disk: Disk; isDead: () => boolean } {
  let left = renames;
  const refuse = () => Promise.reject(new UnderstudyError('ERR_DISK_IO', 'the machine is off'));
  const disk: Disk = {
    ...nodeDisk,
    open: (path, mode) => (left === 0 && mode !== 'read' ? refuse() : nodeDisk.open(path, mode)),
    rename(from, to) {
      if (left === 0) return refuse();
      left -= 1;
      return nodeDisk.rename(from, to);
    },
  };
  return { disk, isDead: () => left === 0 };
}

/** False: the disk outlived the run. */
async function dieAfter(renames: number): Promise<boolean> {
  const world = new PlanWorld(SERVERS);
  try {
    await world.open();
    await world.plans.apply(shop());
    await world.jobs.close();
    const { disk, isDead } = dyingDisk(renames);
    world.disk = disk;
    await world.open();
    const begun = await world.start('drill').catch(() => null);
    const isOver = () => isDead() || (begun !== null && isUp(world.jobs.find(begun.id)));
    await expect.poll(isOver, { interval: 5 }).toBe(true);
    const died = isDead();
    await world.jobs.close();
    world.disk = nodeDisk;
    world.launcher = new ActingLauncher();
    await world.open();
    await expectWhole(world);
    return died;
  } finally {
    await world.close();
  }
}

async function expectWhole(world: PlanWorld): Promise<void> {
  const plan = world.jobs.list().find(({ kind }) => kind === 'plan');
  if (plan === undefined) {
    expect(world.jobs.list()).toEqual([]);
    return;
  }
  await world.until(plan.id, isUp);
  const members = world.jobs.list().filter(({ kind }) => kind === 'drill');
  expect(members.map(({ server }) => server).sort()).toEqual(SERVERS);
  expect(members.map(({ phase }) => phase)).toEqual(['up', 'up', 'up']);
}

describe('a crash', () => {
  it('at any durable write leaves a plan that goes on, and launches nothing twice', async () => {
    let cuts = 0;
    for (let renames = 0; renames < MOST_WRITES; renames += STRIDE) {
      if (!(await dieAfter(renames))) break;
      cuts += 1;
    }
    expect(cuts * STRIDE).toBeGreaterThan(20);
    expect(cuts * STRIDE).toBeLessThan(MOST_WRITES);
  });
});
