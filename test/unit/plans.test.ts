/** Plans as jobs: members through real jobs, scripts as real programs, restarts of staging, ends. */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ShownJob } from '../../src/staging/jobs/jobs.ts';
import { PlanWorld, pointOf } from './support/plan-world.ts';

let world: PlanWorld;
beforeEach(() => {
  world = new PlanWorld(['db1', 'db2', 'web1']);
});
afterEach(() => world.close());

const shop = (changes: Record<string, unknown> = {}) => ({
  name: 'shop',
  groups: [
    { name: 'data', members: [{ server: 'db1' }, { server: 'db2', isCritical: false }] },
    { name: 'web', members: [{ server: 'web1' }] },
  ],
  ...changes,
});
const until = (id: string, isSo: (job: ShownJob) => boolean) =>
  expect.poll(() => isSo(world.jobs.find(id)), { timeout: 8000, interval: 20 }).toBe(true);
const isUp = ({ phase }: ShownJob) => phase === 'up';
const isHalted = ({ phase }: ShownJob) => phase.startsWith('halted');
const isCleaned = ({ state }: ShownJob) => state === 'cleaned';
const states = (job: ShownJob) => job.steps!.map(({ state }) => state).join(' ');
const eventsOf = (word: string) =>
  world.launcher.events.filter((each) => each.startsWith(word)).map((each) => each.split(' ')[1]);

/** What has ended and was not waited for has no words any more. */
const isAlive = (pid: string) =>
  existsSync(`/proc/${pid}/cmdline`) && readFileSync(`/proc/${pid}/cmdline`).length > 0;

describe('a plan as a drill', () => {
  it('brings its groups up in order, stays up, and ends its members, the last first', async () => {
    await world.open();
    await world.plans.apply(shop());
    const { id } = await world.start('drill');
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
    await world.open();
    await world.plans.apply(shop({ parallel: 1 }));
    const { id } = await world.start('drill');
    await until(id, isUp);
    expect(world.launcher.mostRunning).toBe(1);
  });

  it('goes on past an optional member, is halted by a critical one, and by a retry goes on', async () => {
    world.launcher.acts.set('db2', 'fail');
    world.launcher.acts.set('web1', 'fail');
    await world.open();
    await world.plans.apply(shop());
    const { id } = await world.start('drill');
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
    await world.open();
    const members = ['db1', 'db2'].map((server) => ({ server, waitFor: 'check' }));
    const groups = [{ name: 'data', members }, shop().groups[1]];
    await world.plans.apply(shop({ groups }));
    const { id } = await world.start('drill');
    await until(id, isCleaned);
    expect(world.jobs.find(id)).toMatchObject({ outcome: 'done' });
    expect(world.jobs.find(`${id}.1.1`).options).toMatchObject({ check: true });
    expect((await world.verdicts.of(['db1-20', 'db1-10'])).get('db1-20')).toBe(true);
  });

  it('gives a member up that is not up in its time', async () => {
    world.launcher.acts.set('db1', 'hang');
    await world.open();
    const members = [{ server: 'db1', timeout: '1s' }];
    await world.plans.apply(shop({ groups: [{ name: 'data', members }] }));
    const { id } = await world.start('drill');
    await until(id, isHalted);
    expect(world.jobs.find(id).steps![0]!.error!.code).toBe('ERR_PLAN_TIMEOUT');
    await until(`${id}.1.1`, isCleaned);
    expect(world.jobs.find(`${id}.1.1`).outcome).toBe('cancelled');
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
  it('is done when all are up, and leaves them, however it ends', async () => {
    await world.open();
    await world.plans.apply(shop());
    const { id } = await world.start('failover');
    await until(id, isCleaned);
    expect(world.jobs.find(id).outcome).toBe('done');
    const other = await world.start('failover');
    await until(`${other.id}.1.1`, isUp);
    await world.jobs.cancel(other.id).catch(() => undefined); // may have ended already
    await until(other.id, isCleaned);
    expect(eventsOf('clean')).toEqual([]);
    expect(world.jobs.find(`${id}.3.1`)).toMatchObject({ kind: 'failover', state: 'running' });
  });
});

describe('staging is started again', () => {
  it('while members are launched: each is followed, none is launched twice', async () => {
    world.launcher.acts.set('db1', 'hang');
    await world.open();
    await world.plans.apply(shop());
    const { id } = await world.start('drill');
    await until(`${id}.2.1`, isUp);
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
    await world.open();
    await world.plans.apply(shop());
    const { id } = await world.start('drill');
    await until(`${id}.2.1`, isUp);
    await world.jobs.close();
    // As a crash leaves it between the two: the plan knows the job, nothing else does.
    rmSync(join(world.root, 'data/jobs', `${id}.1.1`), { recursive: true });
    world.launcher.acts.delete('db1');
    await world.open();
    await until(id, isUp);
    expect(world.jobs.find(`${id}.1.1`).phase).toBe('up');
  });

  it('while a script runs: it has failed, and only an operator runs it again', async () => {
    world.script('slow', 'echo ran >>../ran; [ -e ../go ] || sleep 60');
    await world.open();
    await world.plans.apply(shop({ groups: [{ name: 'g', pre: 'slow', members: [] }] }));
    const { id } = await world.start('drill');
    const ran = join(world.root, 'ran');
    await expect.poll(() => existsSync(ran), { timeout: 5000 }).toBe(true);
    await world.jobs.close();
    await world.open();
    await until(id, isHalted);
    expect(world.jobs.find(id).steps![0]!.error).toMatchObject({ code: 'ERR_PLAN_SCRIPT' });
    expect(readFileSync(ran, 'utf8')).toBe('ran\n');
    writeFileSync(join(world.root, 'go'), '');
    await world.runner.retry(id, 1, null);
    await until(id, isCleaned);
    expect(readFileSync(ran, 'utf8')).toBe('ran\nran\n');
  });

  it('while a plan is being stopped: what its members run is ended all the same', async () => {
    await world.open();
    await world.plans.apply(shop());
    const { id } = await world.start('drill');
    await until(id, isUp);
    void world.jobs.stop(id);
    await world.jobs.close();
    await world.open();
    await until(id, isCleaned);
    expect(new Set(eventsOf('clean'))).toEqual(new Set(['web1', 'db2', 'db1']));
  });
});

describe('a script', () => {
  const groups = [
    {
      name: 'data',
      pre: { script: 'before', arguments: ['a b', '$HOME; id'] },
      members: [{ server: 'db1' }],
      post: 'after',
    },
  ];

  it('gets its arguments as they are, an environment of its own, and the members on its input', async () => {
    process.env.UNDERSTUDY_CANARY = 'secret';
    world.script('before', 'for each; do echo "got <$each>"; done; env >../env; cat >../in1');
    world.script('after', 'cat >../in2; echo done >&2');
    await world.open();
    await world.plans.apply(shop({ groups }));
    const { id } = await world.start('drill');
    await until(id, isUp);
    const log = await world.jobs.log(id);
    expect(log).toContain('before: got <a b>\n');
    expect(log).toContain('before: got <$HOME; id>\n');
    expect(log).toContain('after: done\n');
    const lines = readFileSync(join(world.root, 'env'), 'utf8').trim().split('\n');
    const own = lines.filter((line) => line.startsWith('UNDERSTUDY')).sort();
    expect(own).toEqual([
      ...['UNDERSTUDY_GROUP=data', `UNDERSTUDY_JOB=${id}`, 'UNDERSTUDY_KIND=drill'],
      ...['UNDERSTUDY_PLAN=shop', 'UNDERSTUDY_SERVERS=db1'],
    ]);
    const inputs = ['in1', 'in2'].map((name) =>
      JSON.parse(readFileSync(join(world.root, name), 'utf8')),
    );
    expect(inputs[0]).toMatchObject({ members: [{ state: 'waiting', access: null }] });
    expect(inputs[1]).toMatchObject({
      ...{ plan: 'shop', kind: 'drill', job: id, group: 'data' },
      members: [{ server: 'db1', state: 'done', access: { serial: 'to db1' }, point: 'db1-20' }],
    });
    delete process.env.UNDERSTUDY_CANARY;
  });

  it.each([
    ['exit 3', '5s', 'exit code 3'],
    ['sleep 60 & echo $! >../child; wait', '1s', 'did not end within 1.0 s'],
    ['trap "" TERM; while :; do sleep 1; done', '1s', 'did not end within'],
    ['kill -9 $$', '5s', 'ended by SIGKILL'],
  ])('that fails halts the plan: %s', async (body, timeout, message) => {
    world.script('after', body);
    await world.open();
    const post = { script: 'after', timeout };
    await world.plans.apply(shop({ groups: [{ name: 'g', members: [], post }] }));
    const { id } = await world.start('drill');
    await until(id, isHalted);
    const { error } = world.jobs.find(id).steps![0]!;
    expect(error).toMatchObject({
      code: 'ERR_PLAN_SCRIPT',
      message: expect.stringContaining(message),
    });
    const child = join(world.root, 'child');
    if (!existsSync(child)) return;
    const pid = readFileSync(child, 'utf8').trim();
    await expect.poll(() => isAlive(pid)).toBe(false);
  });

  const spoilings: readonly [string, () => unknown, string, string?][] = [
    ['no folder of scripts', () => world.open(null), 'ERR_PLAN_SCRIPTS_DIR'],
    ['a folder that is not there', () => world.open('/nowhere'), 'ERR_PLAN_SCRIPTS_DIR'],
    ['a folder that others write', () => chmodSync(world.scripts, 0o777), 'ERR_PLAN_SCRIPTS_DIR'],
    [
      'a folder above that others write',
      () => chmodSync(world.root, 0o777),
      'ERR_PLAN_SCRIPTS_DIR',
    ],
    [
      'a script that its group writes',
      () => world.script('after', '', 0o775),
      'ERR_PLAN_SCRIPTS_DIR',
    ],
    ['a script that is not executable', () => world.script('after', '', 0o644), 'ERR_PLAN_SCRIPT'],
    [
      'a link',
      () => symlinkSync('/bin/true', join(world.scripts, 'other')),
      'ERR_PLAN_SCRIPTS_DIR',
      'other',
    ],
    ['a folder', () => mkdirSync(join(world.scripts, 'other')), 'ERR_PLAN_SCRIPTS_DIR', 'other'],
    ['a script that is missing', () => undefined, 'ERR_PLAN_SCRIPT', 'other'],
  ];
  it.each(spoilings)('is refused at once: %s', async (_what, spoil, code, name = 'after') => {
    world.script('after', 'exit 0');
    await world.open();
    await spoil();
    const post = [name];
    await world.plans.apply(shop({ groups: [{ name: 'g', members: [{ server: 'db1' }], post }] }));
    const checked = await world.runner.dryRun('shop', 'drill', null);
    expect(checked).toMatchObject({ isReady: false, scripts: [{ problem: { code } }] });
    await expect(world.start('drill')).rejects.toMatchObject({ code: 'ERR_PLAN_CHECK' });
    expect(world.jobs.list()).toEqual([]);
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
    await world.open();
    await world.plans.apply(shop());
    const { id } = await world.start('drill');
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
