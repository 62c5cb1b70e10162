/** What a wrong clock, staging's absence, or another member's trouble must not do to a member of a plan. */
import { afterEach, beforeEach, expect, it } from 'vitest';
import { isUp, PlanWorld, shop, states } from './support/plan-world.ts';

let world: PlanWorld;
beforeEach(() => {
  world = new PlanWorld(['db1']);
});
afterEach(() => world.close());

it('a plan gives no member up because the clock has leapt, or staging was away', async () => {
  world.launcher.acts.set('db1', 'hang');
  await world.open();
  await world.plans.apply(shop({ groups: [{ name: 'data', members: [{ server: 'db1' }] }] }));
  const { id } = await world.start('failover');
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

it('a drill whose last member will not end ends the others all the same, and says so', async () => {
  await world.close();
  world = new PlanWorld(['db1', 'web1']);
  await world.open();
  const groups = ['db1', 'web1'].map((server) => ({ name: server, members: [{ server }] }));
  await world.plans.apply(shop({ groups }));
  const { id } = await world.start('drill');
  await world.until(id, isUp);
  world.launcher.acts.set('web1', 'stuck');
  await world.jobs.stop(id);
  await world.until(id, ({ cleanError }) => cleanError !== null);
  expect(world.jobs.find(id).cleanError).toContain(`job ${id}.2.1 cannot be cleaned up`);
  expect(world.jobs.find(`${id}.1.1`).state).toBe('cleaned');
});
