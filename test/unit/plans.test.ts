/** Plans as jobs: members through real jobs, scripts as real programs, restarts of staging, ends. */
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { UnderstudyError } from '../../src/base/errors.ts';
import { nodeDisk } from '../../src/base/node-disk.ts';
import { renderJob } from '../../src/cli/jobs.ts';
import { readPlanFile, renderPlanCheck } from '../../src/cli/plans.ts';
import type { ShownJob } from '../../src/staging/jobs/jobs.ts';
import { launchRequest } from '../../src/staging/plans/plan-check.ts';
import { parsePlan } from '../../src/staging/plans/plan-file.ts';
import { memberVerdict } from '../../src/staging/plans/plan-steps.ts';
import { pointOf } from './support/plan-store.ts';
import { isCleaned, isHalted, isUp, PlanWorld, shop, states } from './support/plan-world.ts';

let world: PlanWorld;
beforeEach(() => {
  world = new PlanWorld(['db1', 'db2', 'web1']);
});
afterEach(() => world.close());

const until = (id: string, isSo: (job: ShownJob) => boolean) => world.until(id, isSo);
const eventsOf = (word: string) => world.eventsOf(word);

describe('a plan as a drill', () => {
  it('brings its groups up in order, stays up, and ends its members, the last first', async () => {
    const id = await world.begin('drill');
    await until(id, isUp);
    const job = world.jobs.find(id);
    expect(states(job)).toBe('done done done');
    expect(job).toMatchObject({ kind: 'plan', state: 'running', progress: { done: 3, total: 3 } });
    expect(job.access).toEqual({
      ...{ db1: `job ${id}.1.1`, db2: `job ${id}.2.1`, web1: `job ${id}.3.1` },
    });
    expect(eventsOf('launch').slice(0, 2).sort()).toEqual(['db1', 'db2']);
    expect(eventsOf('launch')[2]).toBe('web1');
    expect(world.jobs.find(`${id}.3.1`)).toMatchObject({ kind: 'drill', point: 'web1-20' });
    await world.jobs.stop(id);
    await until(id, isCleaned);
    expect(eventsOf('clean')).toEqual(['web1', 'db2', 'db1']);
    expect(world.jobs.find(id).outcome).toBe('done');
    expect(world.openReaders).toBe(0);
    expect(await world.jobs.log(id)).toContain('step 3 (member web1) done');
  });

  it('launches no more members at once than it may', async () => {
    const id = await world.begin('drill', { parallel: 1 });
    await until(id, isUp);
    expect(world.launcher.mostRunning).toBe(1);
  });

  it('goes on past an optional member, is halted by a critical one, and by a retry goes on', async () => {
    world.launcher.acts.set('db2', 'fail');
    world.launcher.acts.set('web1', 'fail');
    const id = await world.begin('drill');
    await until(id, isHalted);
    expect(states(world.jobs.find(id))).toBe('done failed failed');
    expect(world.jobs.find(id).steps![2]!.error).toMatchObject({ message: 'web1 broke' });
    await expect(world.runner.retry(id, 1, null)).rejects.toMatchObject({ code: 'ERR_PLAN_STEP' });
    await expect(world.runner.retry(id, 9, null)).rejects.toMatchObject({ code: 'ERR_PLAN_STEP' });
    world.launcher.acts.delete('web1');
    world.points.unshift(pointOf('web1', 30));
    await world.runner.retry(id, 3, 'latest');
    await until(id, isUp);
    expect(eventsOf('launch').sort()).toEqual(['db1', 'db2', 'web1', 'web1']);
    expect(world.jobs.find(`${id}.3.2`).point).toBe('web1-30');
    await world.jobs.stop(id);
    await until(id, isCleaned);
    await expect(world.runner.retry(id, 2, null)).rejects.toMatchObject({ code: 'ERR_PLAN_STEP' });
  });

  it('ends by itself where its members end with their checks', async () => {
    for (const server of ['db1', 'db2', 'web1']) world.launcher.acts.set(server, 'pass');
    const members = ['db1', 'db2'].map((server) => ({ server, waitFor: 'check' }));
    const groups = [{ name: 'data', members }, shop().groups[1]];
    const id = await world.begin('drill', { groups });
    await until(id, isCleaned);
    expect(world.jobs.find(id)).toMatchObject({ outcome: 'done' });
    expect(world.jobs.find(`${id}.1.1`).options).toMatchObject({ check: true });
    expect((await world.verdicts.of(['db1-20', 'db1-10'])).get('db1-20')).toBe(true);
  });

  it('gives a member up that is not up in its time', async () => {
    world.launcher.acts.set('db1', 'hang');
    const members = [{ server: 'db1', timeout: '1s' }];
    const id = await world.begin('drill', { groups: [{ name: 'data', members }] });
    await until(id, isHalted);
    expect(world.jobs.find(id).steps![0]!.error!.code).toBe('ERR_PLAN_TIMEOUT');
    await until(`${id}.1.1`, isCleaned);
    expect(world.jobs.find(`${id}.1.1`).outcome).toBe('cancelled');
  });

  it('that is stopped while a member is being started leaves nothing behind', async () => {
    world.launcher.acts.set('db1', 'late');
    const id = await world.begin('drill');
    await until(id, ({ made }) => made.length > 0);
    await new Promise((resolve) => setTimeout(resolve, 100));
    await world.jobs.stop(id);
    await until(id, isCleaned);
    await new Promise((resolve) => setTimeout(resolve, 700));
    expect(world.jobs.list().filter(({ state }) => state !== 'cleaned')).toEqual([]);
  });

  it('takes all servers as of one instant, and holds the points of those whose turn has not come', async () => {
    world.launcher.acts.set('db1', 'hang');
    await world.open();
    await world.plans.apply(shop({ parallel: 1 }));
    const { id } = await world.start('drill', '2026-11-20T10:15:00Z');
    await expect.poll(() => eventsOf('launch')).toEqual(['db1']);
    const { steps } = world.jobs.find(id);
    expect(steps!.map(({ point }) => point)).toEqual(['db1-10', 'db2-10', 'web1-10']);
    expect(world.openReaders).toBe(4);
    await world.jobs.stop(id);
    await until(id, isCleaned);
    expect(world.jobs.find(id).outcome).toBe('cancelled');
    expect(world.openReaders).toBe(0);
  });
});

describe('a plan as a failover', () => {
  it('is done when all are up, and leaves them', async () => {
    const id = await world.begin('failover');
    await until(id, isCleaned);
    expect(world.jobs.find(id).outcome).toBe('done');
    expect(eventsOf('clean')).toEqual([]);
    expect(world.jobs.find(`${id}.3.1`)).toMatchObject({ kind: 'failover', state: 'running' });
  });
});

describe('a server', () => {
  it('is not brought up for real twice: by another plan, nor beside a failover', async () => {
    world.launcher.acts.set('db1', 'hang');
    const id = await world.begin('failover', { parallel: 1 });
    const checked = await world.runner.dryRun('shop', 'failover', null);
    expect(checked.members.map(({ problem }) => problem?.code)).toEqual(
      Array(3).fill('ERR_JOB_RUNNING'),
    );
    expect((await world.runner.dryRun('shop', 'drill', null)).isReady).toBe(true);
    await expect.poll(() => eventsOf('launch')).toEqual(['db1']);
    await world.jobs.stop(id);
    await until(id, isCleaned);
    // The plan is over, and nothing more was begun; the launch goes on.
    expect(eventsOf('launch')).toEqual(['db1']);
    expect(eventsOf('clean')).toEqual([]);
    const then = await world.runner.dryRun('shop', 'failover', null);
    expect(then.members.map(({ problem }) => problem?.code)).toEqual([
      ...['ERR_JOB_RUNNING', undefined, undefined],
    ]);
    await expect(world.start('failover')).rejects.toMatchObject({ code: 'ERR_PLAN_CHECK' });
  });
});

describe('a full disk', () => {
  it('is waited for: nothing is begun that is not written down, and the plan goes on', async () => {
    let isFull = false;
    world.disk = {
      ...nodeDisk,
      open: (path, mode) =>
        isFull && path.endsWith('job.json.new')
          ? Promise.reject(new UnderstudyError('ERR_DISK_FULL', 'no room'))
          : nodeDisk.open(path, mode),
    };
    world.script('slow', ': >../ran; while [ ! -e ../go ]; do sleep 0.02; done');
    const members = [{ server: 'db1' }];
    const id = await world.begin('drill', { groups: [{ name: 'g', pre: 'slow', members }] });
    await expect.poll(() => existsSync(join(world.root, 'ran'))).toBe(true);
    isFull = true;
    writeFileSync(join(world.root, 'go'), '');
    await expect.poll(() => world.jobs.log(id)).toContain('the plan waits: no room');
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(world.jobs.find(id)).toMatchObject({ state: 'running', outcome: null });
    expect(world.jobs.find(id)).toMatchObject({
      ...{ phase: 'the plan waits: no room', unwritten: 'no room' },
    });
    expect(eventsOf('launch')).toEqual([]);
    isFull = false;
    await until(id, isUp);
  });
});

describe('a failover whose check fails', () => {
  const web = [{ name: 'web', members: [{ server: 'web1', waitFor: 'check' }], post: 'after' }];

  it('runs on and is not launched beside itself; an operator accepts it, and the plan goes on', async () => {
    world.launcher.acts.set('web1', 'bad');
    world.script('after', 'exit 0');
    const id = await world.begin('failover', { groups: web });
    await until(id, isHalted);
    const job = world.jobs.find(`${id}.1.1`);
    expect(job).toMatchObject({ state: 'running', options: { check: true, keepRunning: true } });
    expect(world.jobs.find(id).steps![0]!.error).toMatchObject({ code: 'ERR_BOOT_CHECK' });
    await expect(world.runner.retry(id, 1, null)).rejects.toThrow(/runs on: failover stop it/);
    await world.runner.accept(id, 1);
    await until(id, isCleaned);
    expect(states(world.jobs.find(id))).toBe('done done');
    expect(world.jobs.find(`${id}.1.1`).state).toBe('running');
    expect(eventsOf('launch')).toEqual(['web1']);
    await expect(world.runner.accept(id, 1)).rejects.toMatchObject({ code: 'ERR_PLAN_STEP' });
  });

  it('is launched again when it was stopped', async () => {
    world.launcher.acts.set('web1', 'bad');
    world.script('after', 'exit 0');
    const id = await world.begin('failover', { groups: web });
    await until(id, isHalted);
    await world.jobs.stop(`${id}.1.1`);
    await until(`${id}.1.1`, isCleaned);
    world.launcher.acts.set('web1', 'pass');
    await world.runner.retry(id, 1, null);
    await until(id, isCleaned);
    expect(world.jobs.find(id).steps![0]).toMatchObject({ state: 'done', job: `${id}.1.2` });
  });

  it('is left running where it takes too long, and that is said', async () => {
    world.launcher.acts.set('web1', 'slow');
    const members = [{ server: 'web1', waitFor: 'check', timeout: '1h' }];
    const id = await world.begin('failover', { groups: [{ name: 'web', members }] });
    await until(`${id}.1.1`, ({ keeps }) => keeps);
    world.passedMs = 3_600_001;
    await until(id, isHalted);
    expect(world.jobs.find(id).steps![0]!.error).toMatchObject({
      ...{ code: 'ERR_PLAN_TIMEOUT' },
      message: `web1 was not through its check within 1h; job ${id}.1.1 runs on`,
    });
    expect(world.jobs.find(`${id}.1.1`)).toMatchObject({ state: 'running', outcome: null });
  });
});

describe('what the job of a member says of its step', () => {
  const job = { id: 'j', state: 'running', phase: 'x', outcome: null, check: null, error: null };
  const check = { passed: true, probe: 'console', bootMs: 1, detail: 'login:' };
  const error = { code: 'ERR_X', message: 'it broke', hint: '' };
  it.each([
    ['up', {}, null],
    ['up', { phase: 'up' }, 'done'],
    ['up', { state: 'done', outcome: 'done' }, 'done'],
    ['up', { outcome: 'failed', error }, 'ERR_X'],
    ['up', { outcome: 'cancelled' }, 'ERR_JOB_CANCELLED'],
    ['check', { phase: 'up' }, null],
    ['check', { phase: 'checking', check }, 'done'],
    ['check', { phase: 'up', check: { ...check, passed: false } }, 'ERR_BOOT_CHECK'],
    ['check', { outcome: 'done' }, 'ERR_LAUNCH_GONE'],
    ['check', { outcome: 'done', check }, 'done'],
    ['check', { outcome: 'cancelled' }, 'ERR_JOB_CANCELLED'],
    ['check', { outcome: 'failed', error }, 'ERR_X'],
  ] as const)('waits for %s: %j is %s', (waitFor, changes, said) => {
    const verdict = memberVerdict(
      { ...job, ...changes } as Parameters<typeof memberVerdict>[0],
      waitFor,
    );
    expect(typeof verdict === 'object' ? (verdict?.code ?? null) : verdict).toBe(said);
  });

  it('an EC2 launch plan goes with its member as text', () => {
    const member = parsePlan(
      shop({
        groups: [
          {
            name: 'g',
            members: [
              { server: 'web1', failover: { target: 'ec2', plan: { region: 'eu-west-1' } } },
            ],
          },
        ],
      }),
    ).groups[0]!.members[0]!;
    expect(launchRequest(member, 'failover', 'p')).toEqual({
      ...{ kind: 'failover', point: 'p', target: 'ec2' },
      options: { plan: '{"region":"eu-west-1"}' },
    });
    expect(launchRequest(member, 'drill', 'p')).toMatchObject({ target: 'qemu', options: {} });
  });
});

describe('the command line', () => {
  it('reads a plan, and puts the EC2 launch plans that it names in', async () => {
    const path = join(world.root, 'shop.json');
    const groups = [
      {
        name: 'g',
        members: [
          { server: 'a', plan: 'ec2.json' },
          { server: 'b', drill: { plan: {} } },
        ],
      },
    ];
    writeFileSync(path, JSON.stringify(shop({ groups })));
    await expect(readPlanFile(path)).rejects.toMatchObject({ code: 'ERR_USAGE' });
    writeFileSync(join(world.root, 'ec2.json'), '{"region":"eu-west-1"}');
    const read = await readPlanFile(path);
    expect(parsePlan(read).groups[0]!.members[0]!.launches.drill.plan).toEqual({
      region: 'eu-west-1',
    });
    writeFileSync(path, '{"name": ');
    await expect(readPlanFile(path)).rejects.toMatchObject({ code: 'ERR_PLAN_FILE' });
  });

  it('shows what a dry run has found, and the steps of a job', async () => {
    world.launcher.acts.set('db2', 'unfit');
    await world.open();
    await world.plans.apply(shop());
    const text = renderPlanCheck(await world.runner.dryRun('shop', 'drill', null));
    expect(text).toContain('it can be run; 1 optional will fail');
    expect(text).toMatch(
      /^data +db2, optional +qemu +db2-20 .* ERR_LAUNCH_NOT_BOOTABLE|does not boot/m,
    );
    const { id } = await world.start('drill');
    await until(id, isUp);
    const shown = renderJob(world.jobs.find(id));
    expect(shown).toMatch(/^plan: +shop, as a drill$/m);
    expect(shown).toMatch(/^ +2 +data +member db2 +failed, optional +1 .*db2 does not boot$/m);
    expect(shown).toMatch(
      new RegExp(`^ +3 +web +member web1 +done +1 .* ${id}.3.1 +web1-20$`, 'm'),
    );
  });
});

describe('staging is started again', () => {
  it('while members are launched: each is followed, none is launched twice', async () => {
    world.launcher.acts.set('db1', 'hang');
    const id = await world.begin('drill');
    await until(`${id}.2.1`, isUp);
    await expect.poll(() => eventsOf('launch').sort()).toEqual(['db1', 'db2']);
    await world.jobs.close();
    world.launcher.acts.delete('db1');
    await world.open();
    await until(id, isUp);
    expect(eventsOf('launch').sort()).toEqual(['db1', 'db2', 'web1']);
    expect(eventsOf('again').sort()).toEqual(['db1', 'db2']);
    await world.jobs.close();
    await world.open();
    await until(id, isUp);
    await world.jobs.stop(id);
    await until(id, isCleaned);
    expect(eventsOf('clean')).toEqual(['web1', 'db2', 'db1']);
  });

  it('after a member was remembered and before it was launched: it is launched', async () => {
    world.launcher.acts.set('db1', 'hang');
    const id = await world.begin('drill');
    await until(`${id}.2.1`, isUp);
    await expect.poll(() => eventsOf('launch').sort()).toEqual(['db1', 'db2']);
    await world.jobs.close();
    // As a crash leaves it between the two: the plan knows the job, nothing else does.
    rmSync(join(world.root, 'data/jobs', `${id}.1.1`), { recursive: true });
    world.launcher.acts.delete('db1');
    await world.open();
    await until(id, isUp);
    expect(world.jobs.find(`${id}.1.1`).phase).toBe('up');
  });

  it('while a plan is being stopped: what its members run is ended all the same', async () => {
    const id = await world.begin('drill');
    await until(id, isUp);
    void world.jobs.stop(id);
    await world.jobs.close();
    await world.open();
    await until(id, isCleaned);
    expect(new Set(eventsOf('clean'))).toEqual(new Set(['web1', 'db2', 'db1']));
  });
});

describe('the dry run', () => {
  it('tells of each member its point and what is in the way, and makes nothing', async () => {
    world.launcher.acts.set('db2', 'unfit');
    await world.open();
    const members = [
      { server: 'db1', maxAge: '1h' },
      { server: 'db2', isCritical: false },
      { server: 'web1', at: 'latest-verified' },
      { server: 'nobody', isCritical: false },
      { server: 'cache', point: 'db1-10', isCritical: false },
    ];
    await world.plans.apply(shop({ groups: [{ name: 'g', members }] }));
    const checked = await world.runner.dryRun('shop', 'failover', null);
    expect(checked.isReady).toBe(false);
    expect(checked.members.map(({ server, problem }) => [server, problem?.code])).toEqual([
      ['db1', 'ERR_PLAN_POINT'],
      ['db2', 'ERR_LAUNCH_NOT_BOOTABLE'],
      ['web1', 'ERR_PLAN_POINT'],
      ['nobody', 'ERR_SERVER_NOT_FOUND'],
      ['cache', 'ERR_PLAN_POINT'],
    ]);
    expect(checked.members[1]).toMatchObject({ point: 'db2-20', isVerified: null });
    // As of that time db1 was young.
    const then = await world.runner.dryRun('shop', 'drill', Date.UTC(2026, 10, 20, 10, 15));
    expect(then.members[0]).toMatchObject({ point: 'db1-10', problem: null });
    expect(world.jobs.list()).toEqual([]);
    expect(world.openReaders).toBe(0);
    const refused = world.start('failover');
    await expect(refused).rejects.toMatchObject({ code: 'ERR_PLAN_CHECK' });
    await expect(refused).rejects.toThrow(/db1: point db1-20 of db1 is .* old/);
  });

  it('an optional member that cannot be launched fails at its turn, alone', async () => {
    world.launcher.acts.set('db2', 'unfit');
    const id = await world.begin('drill');
    await until(id, isUp);
    expect(states(world.jobs.find(id))).toBe('done failed done');
    expect(eventsOf('launch')).toEqual(['db1', 'web1']);
  });

  it('takes the newest point that has booted where the plan says so', async () => {
    await world.open();
    const drill = { point: 'web1-10', target: 'qemu', options: {} };
    world.launcher.acts.set('web1', 'pass');
    await until((await world.jobs.start(drill)).id, isCleaned);
    const members = [{ server: 'web1', at: 'latest-verified' }];
    await world.plans.apply(shop({ groups: [{ name: 'g', members }] }));
    const checked = await world.runner.dryRun('shop', 'drill', null);
    expect(checked.members[0]).toMatchObject({ point: 'web1-10', isVerified: true, problem: null });
  });
});

describe('plans on disk', () => {
  it('are kept over a restart, replaced whole, and removed', async () => {
    await world.open();
    expect(await world.plans.list()).toEqual([]);
    await world.plans.apply(shop({ description: 'one' }));
    await world.plans.apply(shop({ description: 'two' }));
    await world.jobs.close();
    await world.open();
    expect(await world.plans.list()).toMatchObject([
      {
        name: 'shop',
        description: 'two',
        groups: ['data', 'web'],
        file: shop({ description: 'two' }),
      },
    ]);
    await world.plans.remove('shop');
    for (const name of ['shop', '../jobs', '']) {
      await expect(world.plans.find(name)).rejects.toMatchObject({ code: 'ERR_PLAN_NOT_FOUND' });
    }
    await expect(world.start('drill')).rejects.toMatchObject({ code: 'ERR_PLAN_NOT_FOUND' });
  });

  it('that are damaged are told as that, and can be replaced', async () => {
    await world.open();
    await world.plans.apply(shop());
    const path = join(world.root, 'data/plans/shop.json');
    writeFileSync(path, readFileSync(path, 'utf8').replace('web1', 'web2'));
    await expect(world.plans.find('shop')).rejects.toMatchObject({ code: 'ERR_PLAN_DAMAGED' });
    await world.plans.apply(shop());
    expect((await world.plans.find('shop')).servers).toEqual(['db1', 'db2', 'web1']);
  });
});
