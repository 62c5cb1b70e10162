/** What a plan's drill leaves up for those that come after, and what is shown of a plan that is over. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { renderJob } from '../../src/cli/jobs.ts';
import { launchRequest } from '../../src/staging/plans/plan-check.ts';
import { parsePlan } from '../../src/staging/plans/plan-file.ts';
import { isCleaned, isHalted, isUp, PlanWorld, states } from './support/plan-world.ts';

const memberOf = (member: object) =>
  parsePlan({ name: 'p', groups: [{ name: 'g', members: [{ server: 'a', ...member }] }] })
    .groups[0]!.members[0]!;

describe('behind its check a member', () => {
  it.each([
    ['stays in a drill', 'drill', { waitFor: 'check' }, true],
    ['stays where it has a probe', 'drill', { options: { probe: 'tcp:5432' } }, true],
    ['stays where its options ask for a check', 'drill', { options: { check: true } }, true],
    [
      'ends in a drill that says so',
      'drill',
      { waitFor: 'check', options: { keepRunning: false } },
      false,
    ],
    ['is not told of without a check', 'drill', {}, undefined],
    ['stays in a failover', 'failover', { waitFor: 'check' }, true],
    [
      'stays in a failover whatever it says',
      'failover',
      { waitFor: 'check', options: { keepRunning: false } },
      true,
    ],
  ] as const)('%s', (_what, kind, member, stays) => {
    expect(launchRequest(memberOf(member), kind, 'p').options.keepRunning).toBe(stays);
  });
});

describe('the drill of a plan', () => {
  let world: PlanWorld;
  beforeEach(() => {
    world = new PlanWorld(['db1', 'db2', 'web1']);
  });
  afterEach(() => world.close());

  it('ends what a former try has left up before it tries a member again', async () => {
    world.launcher.acts.set('web1', 'bad');
    const members = [{ server: 'web1', waitFor: 'check' }];
    const id = await world.begin('drill', { groups: [{ name: 'web', members }] });
    await world.until(id, isHalted);
    await world.until(`${id}.1.1`, isUp);
    expect(world.jobs.find(`${id}.1.1`).outcome).toBeNull();
    world.launcher.acts.set('web1', 'pass');
    await world.runner.retry(id, 1, null);
    await world.until(id, isCleaned);
    expect(world.launcher.events).toEqual([
      ...['launch web1', 'clean web1', 'launch web1', 'clean web1'],
    ]);
    expect(world.jobs.find(id).steps![0]).toMatchObject({ state: 'done', job: `${id}.1.2` });
  });

  it.each([
    ['cancel', 'cancelled'],
    ['stop', 'cancelled'],
  ] as const)('shows no step as running after a %s', async (how, outcome) => {
    world.launcher.acts.set('db2', 'hang');
    const id = await world.begin('drill');
    await world.until(`${id}.1.1`, isUp);
    await world.until(id, (job) => states(job) === 'done running waiting');
    await world.jobs[how](id);
    await world.until(id, isCleaned);
    const job = world.jobs.find(id);
    expect(job.outcome).toBe(outcome);
    expect(states(job)).toBe('done stopped skipped');
    expect(job.steps![1]!.endedAt).toBe(job.endedAt);
    expect(renderJob(job)).not.toContain('running');
    await world.jobs.close();
    await world.open();
    expect(states(world.jobs.find(id))).toBe('done stopped skipped');
  });
});
