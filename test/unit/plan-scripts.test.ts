/** Scripts of plans as real programs: what they are told, how they fail, and which are refused. */
import { chmodSync, existsSync, mkdirSync, readFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ShownJob } from '../../src/staging/jobs/jobs.ts';
import { isHalted, isUp, PlanWorld, shop } from './support/plan-world.ts';

let world: PlanWorld;
beforeEach(() => {
  world = new PlanWorld(['db1', 'db2', 'web1']);
});
afterEach(() => world.close());

const until = (id: string, isSo: (job: ShownJob) => boolean) => world.until(id, isSo);

/** What has ended and was not waited for has no words any more. */
const isAlive = (pid: string) =>
  existsSync(`/proc/${pid}/cmdline`) && readFileSync(`/proc/${pid}/cmdline`).length > 0;

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
    const id = await world.begin('drill', { groups });
    await until(id, isUp);
    const log = await world.jobs.log(id);
    expect(log).toContain('before: got <a b>\n');
    expect(log).toContain('before: got <$HOME; id>\n');
    expect(log).toContain('after: done\n');
    const lines = readFileSync(join(world.root, 'env'), 'utf8').trim().split('\n');
    const own = lines.filter((line) => line.startsWith('UNDERSTUDY')).sort();
    expect(own).toEqual([
      ...['UNDERSTUDY_GROUP=data', `UNDERSTUDY_JOB=${id}`, 'UNDERSTUDY_KIND=drill'],
      'UNDERSTUDY_PLAN=shop',
      `UNDERSTUDY_RUN=${join(world.root, 'data/jobs', id, 'scripts/1.1')}`,
      'UNDERSTUDY_SERVERS=db1',
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

  it('that the system will not start halts the plan, with its reason', async () => {
    world.script('after', 'exit 0');
    const post = { script: 'after', arguments: ['x'.repeat(200_000)] };
    const id = await world.begin('drill', { groups: [{ name: 'g', members: [], post }] });
    await until(id, isHalted);
    expect(world.jobs.find(id).steps![0]!.error).toMatchObject({
      ...{ code: 'ERR_PLAN_SCRIPT', message: expect.stringContaining('cannot be started: E2BIG') },
    });
  });

  it.each([
    ['exit 3', '60s', 'exit code 3'],
    ['sleep 60 & echo $! >../child; wait', '1s', 'did not end within 1.0 s'],
    ['trap "" TERM; while :; do sleep 1; done', '1s', 'did not end within'],
    ['kill -9 $$', '60s', 'ended by SIGKILL'],
  ])('that fails halts the plan: %s', async (body, timeout, message) => {
    world.script('after', body);
    const post = { script: 'after', timeout };
    const id = await world.begin('drill', { groups: [{ name: 'g', members: [], post }] });
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
