/** Which jobs may bring one server up, or home, beside each other: the table, and the instant. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Claimant, clashOf, clashOfMember } from '../../src/staging/jobs/job-claims.ts';
import type { Jobs, LaunchRequest } from '../../src/staging/jobs/jobs.ts';
import { cleanedUp, drill, isUp, JobsWorld, until } from './support/jobs-world.ts';

const base = { server: 'web1', options: {}, state: 'running', outcome: null } as const;
const over = { state: 'cleaned', outcome: 'done' } as const;
const points = JSON.stringify({ web1: { problem: null }, db1: { problem: { code: 'ERR_X' } } });
const aPlan = { kind: 'plan', server: '', options: { kind: 'failover', points } } as const;
const aDrill: Claimant = { ...base, id: 'd', kind: 'drill' };
const failover: Claimant = { ...base, id: 'f', kind: 'failover' };
const plan: Claimant = { ...base, ...aPlan, id: 'p' };
const member: Claimant = { ...failover, id: 'p.1.1' };
const failback: Claimant = { ...base, id: 'b', kind: 'failback' };
const failbackOf = (job: string): Claimant => ({ ...failback, options: { job } });
const drilled: Claimant = { ...plan, options: { kind: 'drill', points } };
const other = (job: Claimant): Claimant => ({ ...job, id: 'other' });

describe('beside', () => {
  it.each([
    ['a failover', failover, other(failover), 'ERR_FAILOVER_SOURCE asked'],
    ['a failover', failover, plan, 'ERR_FAILOVER_SOURCE asked'],
    ['a failover', failover, failback, 'ERR_FAILBACK_STATE'],
    ['a plan', plan, failover, 'ERR_JOB_RUNNING'],
    ['a plan', plan, other(plan), 'ERR_JOB_RUNNING'],
    ['a plan', plan, failback, 'ERR_FAILBACK_STATE'],
    ['a failback', failback, failover, 'goes'],
    ['a failback', failback, plan, 'ERR_FAILBACK_STATE'],
    ['a failback', failback, other(failback), 'ERR_FAILBACK_STATE'],
    ['a member', member, plan, 'goes'],
    ['a member', member, other(plan), 'ERR_JOB_RUNNING'],
    ['a member', member, failback, 'ERR_FAILBACK_STATE'],
    ['a member', member, { ...failover, id: 'p.2.1' }, 'ERR_JOB_RUNNING'],
    ['a drill', aDrill, failback, 'goes'],
    ['a failover', failover, aDrill, 'goes'],
    ['a failover', failover, drilled, 'goes'],
    ['the drill of a plan', drilled, failover, 'goes'],
    ['a failover', failover, { ...other(failover), ...over }, 'goes'],
    ['a failover', failover, { ...failback, ...over }, 'goes'],
    ['a failover', failover, { ...failback, state: 'done', outcome: 'done' }, 'ERR_FAILBACK_STATE'],
    ['a failover of another', { ...failover, server: 'db2' }, plan, 'goes'],
    // What cannot be launched is not claimed.
    ['a failover of another', { ...failover, server: 'db1' }, plan, 'goes'],
  ] as const)('%s: %j beside %j: %s', (_what, wanted, beside, said) => {
    const clash = clashOf(wanted, [aDrill, beside]);
    const words = clash === null ? 'goes' : `${clash.code}${clash.isAsked ? ' asked' : ''}`;
    expect(words).toBe(said);
    expect(clash?.message ?? beside.id).toContain(beside.id);
  });

  it('what is refused outweighs what may be asked for', () => {
    const clash = clashOf(failover, [other(failover), failback]);
    expect(clash).toMatchObject({ code: 'ERR_FAILBACK_STATE', isAsked: false });
  });

  it.each([
    [failbackOf('f'), null],
    [failbackOf('g'), 'ERR_FAILBACK_STATE'],
    [failback, 'ERR_FAILBACK_STATE'],
    [other(failover), 'ERR_FAILOVER_SOURCE'],
  ])('a failover that is started again beside %j: %s', (beside, code) => {
    const clash = clashOf(failover, [beside], true);
    expect(clash?.code ?? null).toBe(code);
    if (clash !== null) expect(clash.isAsked).toBe(true);
  });

  it('a dry run asks for one server', () => {
    expect(clashOfMember('web1', [failover])?.code).toBe('ERR_JOB_RUNNING');
    expect(clashOfMember('db1', [failover, plan])).toBe(null);
  });
});

describe('at the same instant', () => {
  let world: JobsWorld;
  let jobs: Jobs;
  beforeEach(async () => {
    world = new JobsWorld(['plan', 'failback']);
    jobs = await world.start();
  });
  afterEach(() => world.close());

  const asFailover: LaunchRequest = { ...drill(), kind: 'failover' };
  const start = {
    failover: () => jobs.start(asFailover),
    plan: () => jobs.startWork({ kind: 'plan', server: '', options: { kind: 'failover', points } }),
    failback: () => jobs.startWork({ kind: 'failback', server: 'web1', options: {} }),
  };
  type Kind = keyof typeof start;

  it.each<[Kind, Kind]>([
    ['failover', 'failover'],
    ['plan', 'plan'],
    ['plan', 'failover'],
    ['failback', 'failover'],
    ['failback', 'plan'],
    ['failback', 'failback'],
  ])('of a %s and a %s one is refused, and leaves nothing', async (one, two) => {
    const ends = await Promise.allSettled([start[one](), start[two]()]);
    expect(ends.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    expect(jobs.list()).toHaveLength(1);
    await until(jobs, jobs.list()[0]!.id, isUp);
    await jobs.close();
    jobs = await world.start();
    expect(jobs.list()).toHaveLength(1);
    // The next life knows it by the record alone.
    await expect(start[two]()).rejects.toMatchObject({
      code: expect.stringMatching(/^ERR_(?:FAILOVER_SOURCE|JOB_RUNNING|FAILBACK_STATE)$/),
    });
  });

  it('a second failover goes where both are wanted, and none beside a failback', async () => {
    const { id } = await start.failover();
    await jobs.start({ ...asFailover, isBeside: true });
    await jobs.stop(id);
    await until(jobs, id, cleanedUp);
    await expect(jobs.startAgain(id)).rejects.toMatchObject({ code: 'ERR_FAILOVER_SOURCE' });
    await jobs.startAgain(id, true);
    await start.failback();
    await expect(jobs.start({ ...asFailover, isBeside: true })).rejects.toMatchObject({
      code: 'ERR_FAILBACK_STATE',
    });
  });

  it('a failback is refused beforehand as its start would be', async () => {
    jobs.refuseWork('failback', 'web1');
    await start.plan();
    const told = await start.failback().catch((error: Error) => error.message);
    expect(() => jobs.refuseWork('failback', 'web1')).toThrow(told as string);
    expect(told).toMatch(/^plan .* brings web1 up for real: stop it first/);
  });

  it('two launches by one id are one', async () => {
    const ends = await Promise.allSettled([1, 2].map(() => jobs.start({ ...drill(), id: 'x' })));
    expect(ends.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    expect(world.launcher.launches).toHaveLength(1);
  });
});
