/** What `plan apply` refuses by the launchers' own words, without a point, and what it only tells. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { createEc2Launcher } from '../../src/recovery/ec2/ec2-launcher.ts';
import { createExportLauncher } from '../../src/recovery/export-launcher.ts';
import { createQemuLauncher } from '../../src/recovery/qemu/launcher.ts';
import type { LaunchRequest } from '../../src/staging/jobs/jobs.ts';
import { Workers } from '../../src/staging/jobs/workers.ts';
import { checkFile } from '../../src/staging/plans/plan-check.ts';
import { parsePlan } from '../../src/staging/plans/plan-file.ts';
import { PlanWorld, shop } from './support/plan-world.ts';

const workers = new Workers(
  [createQemuLauncher(systemClock), createExportLauncher(), createEc2Launcher(systemClock)],
  [],
);
const real = {
  readOptions: ({ kind = 'drill', target, options }: LaunchRequest) =>
    workers.launcher(target).readOptions(options, kind),
};
const ofMember = (member: object) =>
  parsePlan({
    name: 'p',
    groups: [{ name: 'g', members: [{ server: 'a' }, { server: 'b', ...member }] }],
  });
const ec2 = { region: 'eu-central-1', subnetId: 'subnet-0a1b2c3d' };

describe('the launches of a plan', () => {
  it.each([
    [
      { options: { memory: 5 } },
      'groups[0].members[1] (b, as a drill): this target has no option `memory`',
    ],
    [
      { drill: { options: { cpus: 0 } } },
      'groups[0].members[1].drill (b, as a drill): `cpus` must be',
    ],
    [
      { failover: { options: { network: 'moon' } } },
      'groups[0].members[1].failover (b, as a failover): `network` must be',
    ],
    [{ target: 'moon' }, 'groups[0].members[1] (b, as a drill): no target "moon"; there are qemu'],
    [{ options: { vnc: '127.0.0.1:80' } }, '`vnc` must be HOST:PORT, port 5900 or above'],
    [{ options: { probe: 'ssh:22' } }, 'a probe by ssh needs `probeRun`'],
    [{ target: 'ec2' }, 'the target ec2 needs `plan`'],
    [{ target: 'ec2', plan: { ...ec2, colour: 'red' } }, 'colour'],
    [{ plan: ec2 }, 'this target has no option `plan`'],
    [{ failover: { target: 'export' } }, 'a failover runs; files are made by drill start'],
    [{ target: 'export', waitFor: 'check' }, 'this target has no option `check`'],
  ])('%j are refused in one line, with the place in the file', async (member, said) => {
    const refused = checkFile(real, ofMember(member));
    await expect(refused).rejects.toMatchObject({ code: 'ERR_PLAN_FILE' });
    await expect(refused).rejects.toThrow(said);
    await expect(refused).rejects.toThrow(/^groups\[0\]\.members\[1\][^\n]*$/);
  });

  it.each([
    [{ options: { memoryBytes: 2 ** 30, probe: 'http:/' }, waitFor: 'check' }],
    [{ drill: { options: { keepRunning: false } }, waitFor: 'check' }],
    [{ target: 'ec2', plan: ec2, waitFor: 'check' }],
    [{ target: 'ec2', plan: ec2, drill: { target: 'export', options: { format: 'qcow2' } } }],
    // As a drill, which may be all that it is for.
    [{ target: 'export' }],
  ])('%j are fine', async (member) => {
    await checkFile(real, ofMember(member));
  });
});

describe('plan apply', () => {
  let world: PlanWorld;
  beforeEach(() => {
    world = new PlanWorld(['db1', 'web1']);
  });
  afterEach(() => world.close());

  it('keeps nothing that is wrong, and the former plan stays', async () => {
    await world.open();
    world.script('here', 'exit 0');
    const members = [{ server: 'db1' }, { server: 'web1' }];
    const good = shop({ groups: [{ name: 'g', members, post: 'here' }] });
    expect(await world.runner.apply(good)).toMatchObject({ name: 'shop', missing: [] });
    const wrong = shop({
      groups: [{ name: 'g', members: [{ server: 'db1', options: { wrong: 1 } }] }],
    });
    await expect(world.runner.apply(wrong)).rejects.toThrow('no option wrong');
    expect((await world.plans.find('shop')).file).toEqual(good);
  });

  it('tells what is not here yet, and keeps the plan', async () => {
    await world.open();
    const groups = [{ name: 'g', pre: 'tell', members: [{ server: 'nobody' }] }];
    const { missing } = await world.runner.apply(shop({ groups }));
    expect(missing).toEqual([
      'group g: there is no server "nobody"',
      expect.stringMatching(/^group g: there is no script tell in /),
    ]);
    expect((await world.plans.find('shop')).servers).toEqual(['nobody']);
  });
});
