/** What a wrong clock, staging's absence, or another member's trouble must not do to a member of a plan. */
import { afterEach, beforeEach, expect, it } from 'vitest';
import { nodeDisk } from '../../src/base/node-disk.ts';
import { isCleaned, isHalted, isUp, PlanWorld, states } from './support/plan-world.ts';

let world: PlanWorld;
beforeEach(() => {
  world = new PlanWorld(['db1']);
});
afterEach(() => world.close());

it('a plan gives no member up because the clock has leapt, or staging was away', async () => {
  world.launcher.acts.set('db1', 'hang');
  const id = await world.begin('failover', {
    groups: [{ name: 'data', members: [{ server: 'db1' }] }],
  });
  await expect.poll(() => world.eventsOf('launch')).toEqual(['db1']);
  world.leapMs = 7 * 86_400_000;
  await new Promise((resolve) => setTimeout(resolve, 600));
  expect(states(world.jobs.find(id))).toBe('running');
  await world.jobs.close();
  await world.open();
  await new Promise((resolve) => setTimeout(resolve, 600));
  expect(states(world.jobs.find(id))).toBe('running');
  expect(world.jobs.find(`${id}.1.1`).outcome).toBeNull();
});

it.each([
  ['first', 1],
  ['second', 2],
])(
  'a member that staging, as it stops, is writing down (%s record) is launched by its next life alone',
  async (_which, number) => {
    const [asked, open] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    let written = 0;
    world.disk = {
      ...nodeDisk,
      async open(path, mode) {
        if (path.endsWith('.1.1/job.json.new') && ++written === number) {
          asked.resolve();
          await open.promise;
        }
        return nodeDisk.open(path, mode);
      },
    };
    const groups = [{ name: 'data', members: [{ server: 'db1' }] }];
    const id = await world.begin('failover', { groups });
    await asked.promise;
    const closed = world.jobs.close();
    open.resolve();
    await closed;
    expect(world.launcher.events).toEqual([]);
    expect(world.openReaders).toBe(0);
    await world.open();
    await world.until(id, isCleaned);
    expect(world.launcher.events).toEqual(['launch db1']);
  },
);

it('a drill whose last member will not end ends the others all the same, and says so', async () => {
  await world.close();
  world = new PlanWorld(['db1', 'web1']);
  const groups = ['db1', 'web1'].map((server) => ({ name: server, members: [{ server }] }));
  const id = await world.begin('drill', { groups });
  await world.until(id, isUp);
  world.launcher.acts.set('web1', 'stuck');
  await world.jobs.stop(id);
  await world.until(id, ({ cleanError }) => cleanError !== null);
  expect(world.jobs.find(id).cleanError).toContain(`job ${id}.2.1 cannot be cleaned up`);
  expect(world.jobs.find(`${id}.1.1`).state).toBe('cleaned');
});

it('a failover that came up and is gone is not launched beside what it has kept', async () => {
  const id = await halted();
  await expect(world.runner.retry(id, 1, null)).rejects.toMatchObject({
    ...{ code: 'ERR_PLAN_STEP', message: expect.stringContaining(`--again ${id}.1.1`) },
  });
  await world.jobs.startAgain(`${id}.1.1`);
  await world.until(`${id}.1.1`, isUp);
  await world.runner.accept(id, 1);
  await world.until(id, isCleaned);
  expect(world.eventsOf('launch')).toEqual(['db1']);
});

it('one whose kept disks were discarded is launched anew', async () => {
  const id = await halted();
  await world.jobs.discard(`${id}.1.1`);
  await world.runner.retry(id, 1, null);
  await world.until(id, isCleaned);
  expect(world.jobs.find(`${id}.1.2`).phase).toBe('up');
});

/** A failover whose one member has come up, and has failed then. */
async function halted(): Promise<string> {
  world.launcher.acts.set('db1', 'gone');
  const id = await world.begin('failover', {
    groups: [{ name: 'data', members: [{ server: 'db1' }] }],
  });
  await world.until(id, isHalted);
  await world.until(`${id}.1.1`, isCleaned);
  world.launcher.acts.delete('db1');
  return id;
}
