/** Plans and time: what a wrong clock, or staging's absence, must not do to a member. */
import { afterEach, beforeEach, expect, it } from 'vitest';
import { PlanWorld, shop, states } from './support/plan-world.ts';

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
