/**
 * Failbacks over live sessions: the name changes hands, and no point of either machine is lost or slips in,
 * whenever staging is started again, and wherever it is given up.
 */
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { UnderstudyError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import { nodeDisk } from '../../src/base/node-disk.ts';
import type { Made, Runner, Work } from '../../src/recovery/runner.ts';
import type { ApiFailback } from '../../src/staging/api-types.ts';
import { Failbacks } from '../../src/staging/failbacks.ts';
import { ImageDoor } from '../../src/staging/jobs/image-door.ts';
import { Jobs } from '../../src/staging/jobs/jobs.ts';
import { beginFailback } from '../../src/staging/lineage-state.ts';
import { stepsOf } from '../../src/staging/plans/plan-steps.ts';
import type { Store } from '../../src/store/types.ts';
import { fakeJob } from './support/fake-backend.ts';
import { FakeStore } from './support/fake-store.ts';
import { createMemoryNetwork } from './support/memory-transport.ts';
import { helloOf, ScriptedAgent } from './support/scripted-agent.ts';
import { GENERATION, makeWorld, useFolder, volumes } from './support/servers-world.ts';

const folder = useFolder();
const UUID = '01234567-89ab-cdef-0123-456789abcdef';
const JOB = 'j1';
const NEW = 'cd'.repeat(16);

const original = helloOf('web', volumes, 'original');
const instance = helloOf(
  'web',
  volumes.map((volume) => ({ ...volume, generation: NEW })),
  'instance',
);

/** One life of staging with the failback's runner. */
async function life(fake: FakeStore, made: Made[] = []) {
  const world = await makeWorld(folder, systemClock, fake);
  const { servers, register } = world;
  const failbacks = new Failbacks({
    ...{ clock: systemClock, log: silentLog, store: fake.store, register, servers },
  });
  const jobs = { find: (id: string) => fakeJob({ id, server: 'web', access: { machine: UUID } }) };
  const runner: Runner = failbacks.runner(() => jobs);
  const network = createMemoryNetwork(systemClock);
  network.listen((connect) => servers.accept(connect, [UUID]));
  const stop = new AbortController();
  const leave = new AbortController();
  const said: string[] = [];
  const work = {
    ...{ jobId: JOB, kind: 'failback', server: 'web', options: { expected: UUID } },
    ...{ made, notes: {}, stop: stop.signal, leave: leave.signal, clock: systemClock },
    making: async (thing: Made) => void made.push(thing),
    say: (line: string) => void said.push(line),
    phase: async () => undefined,
    progress: () => undefined,
    up: async () => undefined,
  } as unknown as Work;
  return {
    ...{ ...world, failbacks, runner, work, stop, leave, made, said },
    /** The original's way, and the instance's. */
    home: world.network.dialer,
    away: network.dialer,
    phase: () => failbacks.find(JOB).phase,
    reaches: (phase: ApiFailback['phase']) =>
      expect.poll(() => failbacks.find(JOB).phase).toBe(phase),
  };
}
type Life = Awaited<ReturnType<typeof life>>;

const commitOf = (agent: ScriptedAgent, generation: string, epoch: number, requestId = '') =>
  agent.commit(
    Date.UTC(2026, 10, 21) + epoch * 1000,
    [0, 1].map((volume) => ({ volume, generation, epoch })),
    requestId,
  );

const continuous = volumes.map((_, volume) => ({
  ...{ volume, state: 'continuous' as const, backlogBytes: 0, syncedBytes: 1, totalBytes: 1 },
  ...{ reason: '', missedCompletions: 0, suspectBlocks: 0 },
}));

async function firstPoint({ home }: Life): Promise<ScriptedAgent> {
  const agent = await ScriptedAgent.connect(home, original);
  commitOf(agent, GENERATION, 1);
  await agent.next('committed');
  return agent;
}

/** As the agent of the instance does: it tries until it is let in; then a point. */
async function arrive(now: Life): Promise<ScriptedAgent> {
  expect(await ScriptedAgent.greet(now.away, instance).refusal()).toBe('ERR_OTHER_HARDWARE');
  await now.reaches('replicating');
  return begin(now);
}

async function begin({ away }: Life): Promise<ScriptedAgent> {
  const agent = await ScriptedAgent.connect(away, instance);
  agent.say({ type: 'status', volumes: continuous });
  commitOf(agent, NEW, 1);
  await agent.next('committed');
  return agent;
}

/** The original has a point, and the failback has begun. */
async function admitting(fake = new FakeStore()): Promise<{ now: Life; end: Promise<unknown> }> {
  const now = await life(fake);
  await firstPoint(now);
  const end = now.runner.run(now.work);
  await now.reaches('admitting');
  return { now, end };
}

async function left(now: Life, end: Promise<unknown>): Promise<void> {
  now.leave.abort();
  expect(await end).toBe('left');
  await now.servers.stop();
}

const written = (failbacks: Failbacks, volume: string, point: string) =>
  failbacks.written(JOB, {
    ...{ volume, point, chunks: 8, different: 1, writtenBytes: 65_536, words: ['home-words'] },
  });

const ids = (fake: FakeStore) => fake.listed.map(({ id }) => id);
const heldPoints = (fake: FakeStore) =>
  fake.listed.filter(({ hold }) => hold !== null).map(({ id }) => id);

describe('a failback', () => {
  it('goes from the original to the instance and back, losing and mixing nothing', async () => {
    const fake = new FakeStore();
    const now = await life(fake);
    const { failbacks, home, away, register } = now;
    const first = await firstPoint(now);
    const end = now.runner.run(now.work);
    await now.reaches('admitting');
    const agent = await arrive(now);
    expect(await first.refusal()).toBe('ERR_SESSION_REPLACED');
    expect(await ScriptedAgent.greet(home, original).refusal()).toBe('ERR_OTHER_HARDWARE');
    await now.reaches('ready');
    expect(failbacks.find(JOB)).toMatchObject({ fromPoint: 'point-1', newestPoint: 'point-2' });
    await written(failbacks, '/a', 'point-2');

    await failbacks.finish(JOB, false);
    const { requestId } = await agent.next('cut-request');
    commitOf(agent, NEW, 2, requestId);
    await now.reaches('fenced');
    expect(failbacks.find(JOB).lastPoint).toBe('point-3');
    for (const [way, hello] of [
      [away, instance],
      [home, original],
    ] as const) {
      expect(await ScriptedAgent.greet(way, hello).refusal()).toBe('ERR_OTHER_HARDWARE');
    }
    expect(ids(fake)).toEqual(['point-3', 'point-2', 'point-1']);
    expect(heldPoints(fake)).toEqual(['point-3', 'point-1']);

    await written(failbacks, '/a', 'point-3');
    expect(now.phase()).toBe('fenced');
    await expect(written(failbacks, '/x', 'point-3')).rejects.toThrow(/holds no \/x/);
    await written(failbacks, '/b', 'point-3');
    expect(await end).toBe('done');
    expect(register.get('web')).toMatchObject({ hardwareId: 'original' });
    expect(await ScriptedAgent.greet(away, instance).refusal()).toBe('ERR_OTHER_HARDWARE');
    await ScriptedAgent.connect(home, original);
    await now.runner.clean(now.made);
    expect(register.get('web')).toMatchObject({ hardwareId: 'original' });
    await now.servers.stop();
  });

  it('goes on where it was when staging is started again, in any of its states', async () => {
    const fake = new FakeStore();
    const made: Made[] = [];
    let now = await life(fake, made);
    let end = Promise.resolve<unknown>(undefined);
    const again = async (phase: ApiFailback['phase']) => {
      now.leave.abort();
      expect(await end).toBe('left');
      await now.servers.stop();
      now = await life(fake, made);
      end = now.runner.run(now.work);
      await now.reaches(phase);
    };
    await firstPoint(now);
    end = now.runner.run(now.work);
    await now.reaches('admitting');
    const agent = await arrive(now);
    agent.connection.abort();
    await again('replicating');
    const next = await ScriptedAgent.connect(now.away, instance);
    next.say({ type: 'status', volumes: continuous });
    await now.failbacks.finish(JOB, false);
    await next.next('cut-request');
    await again('finishing');
    const last = await ScriptedAgent.connect(now.away, instance);
    const { requestId } = await last.next('cut-request');
    commitOf(last, NEW, 2, requestId);
    await now.reaches('fenced');
    await again('fenced');
    expect(now.failbacks.find(JOB).lastPoint).toBe('point-3');
    await now.servers.stop();
    now.leave.abort();
  });

  it('that is given up gives the name back, and keeps the points of both', async () => {
    const fake = new FakeStore();
    const { now, end } = await admitting(fake);
    const agent = await arrive(now);
    now.stop.abort();
    await end;
    await now.runner.clean(now.made);
    await now.runner.clean(now.made);
    expect(now.phase()).toBe('cancelled');
    expect(await agent.refusal()).toBe('ERR_SESSION_REPLACED');
    expect(await ScriptedAgent.greet(now.away, instance).refusal()).toBe('ERR_OTHER_HARDWARE');
    await ScriptedAgent.connect(now.home, original);
    expect(heldPoints(fake)).toEqual(['point-2', 'point-1']);
    await now.servers.stop();
  });

  it('takes the newest point as the last where the instance is gone, if it is told to', async () => {
    const fake = new FakeStore();
    const { now, end } = await admitting(fake);
    const agent = await arrive(now);
    agent.connection.abort();
    await expect.poll(() => now.failbacks.find(JOB).connected).toBe(false);
    await now.failbacks.finish(JOB, false);
    await expect.poll(() => now.said.join()).toMatch(/ERR_SERVER_OFFLINE/);
    expect(now.phase()).toBe('finishing');
    await now.failbacks.finish(JOB, true);
    await now.reaches('fenced');
    expect(now.failbacks.find(JOB).lastPoint).toBe('point-2');
    await left(now, end);
  });

  it('does not end without a volume that the original had, nor without a point of the instance', async () => {
    const fake = new FakeStore();
    const { now, end } = await admitting(fake);
    await ScriptedAgent.greet(now.away, instance).refusal();
    await now.reaches('replicating');
    const said = (what: RegExp) => expect.poll(() => now.said.join()).toMatch(what);
    // Nothing has come of it: the newest point is the original's own.
    await now.failbacks.finish(JOB, true);
    await said(/has made no point/);
    const one = { ...instance, volumes: instance.volumes.slice(0, 1) };
    const agent = await ScriptedAgent.connect(now.away, one);
    agent.say({ type: 'status', volumes: continuous.slice(0, 1) });
    agent.commit(Date.UTC(2026, 10, 22), [{ volume: 0, generation: NEW, epoch: 1 }], '');
    await agent.next('committed');
    await said(/lacks \/b/);
    expect(now.failbacks.find(JOB).message).toMatch(/does not replicate \/b/);
    agent.connection.abort();
    await expect.poll(() => now.failbacks.find(JOB).connected).toBe(false);
    now.said.length = 0;
    await said(/point-2 lacks \/b/);
    expect(now.phase()).toBe('finishing');
    await left(now, end);
  });

  it('that begins while the original comes home on another board is not forgotten', async () => {
    const fake = new FakeStore();
    const now = await life(fake);
    await now.register.set({
      ...{ server: 'web', hardwareId: 'original', pendingHardwareId: null },
      failback: {
        ...{ job: 'j0', phase: 'done', original: 'original', instance: 'instance', expected: [] },
        ...{ fromPoint: null, volumes: [], lastPoint: null, written: {}, home: [UUID] },
      },
    });
    const hooked = fake as unknown as Pick<Store, 'beginIngest'>;
    const begin = hooked.beginIngest.bind(fake);
    hooked.beginIngest = async (...given) => {
      await now.register.update('web', (known) => beginFailback(known, JOB, []));
      return begin(...given);
    };
    await ScriptedAgent.greet(now.away, helloOf('web', volumes, 'board')).refusal();
    expect(now.phase()).toBe('admitting');
    expect(now.register.get('web')).toMatchObject({ hardwareId: 'original' });
    await now.servers.stop();
  });

  it('says what the instance lacks before it is ready', async () => {
    const { now, end } = await admitting();
    await ScriptedAgent.greet(now.away, instance).refusal();
    await now.reaches('replicating');
    expect(now.failbacks.find(JOB).message).toMatch(/waits for the recovery instance's agent/);
    const other = { ...instance, volumes: [{ ...instance.volumes[0]!, volume: '/dev/nvme0n1' }] };
    await ScriptedAgent.connect(now.away, other);
    expect(now.failbacks.find(JOB).message).toMatch(/does not replicate \/a, \/b .*nvme0n1/);
    await left(now, end);
  });

  it('is a job: goes on in its next life, and gives the name back when it is cancelled', async () => {
    const fake = new FakeStore();
    const jobsOf = (now: Life) => {
      const door = new ImageDoor({
        ...{ runFolder: join(folder.path, 'run'), clock: systemClock, log: silentLog, token: 't' },
      });
      return Jobs.open({
        stepsOf,
        ...{ disk: nodeDisk, dataDir: folder.path, clock: systemClock, log: silentLog, door },
        ...{ store: fake.store, launchers: [], newId: () => '01234567' },
        runners: (all) => [now.failbacks.runner(() => all)],
      });
    };
    let now = await life(fake);
    await firstPoint(now);
    let jobs = await jobsOf(now);
    const options = { hardwareId: 'instance' };
    await ScriptedAgent.greet(now.away, instance).refusal();
    const { id } = await jobs.startWork({ kind: 'failback', server: 'web', options });
    const reaches = (phase: string) => expect.poll(() => jobs.find(id).phase).toBe(phase);
    await reaches('replicating');
    const again = jobs.startWork({ kind: 'failback', server: 'web', options });
    await expect(again).rejects.toMatchObject({ code: 'ERR_FAILBACK_STATE' });
    await jobs.close();
    await now.servers.stop();
    now = await life(fake);
    jobs = await jobsOf(now);
    await begin(now);
    await reaches('ready');
    await jobs.cancel(id);
    await expect.poll(() => jobs.find(id).state).toBe('cleaned');
    expect(jobs.find(id).outcome).toBe('cancelled');
    expect(now.register.get('web')).toMatchObject({ hardwareId: 'original' });
    await ScriptedAgent.connect(now.home, original);
    expect(heldPoints(fake)).toEqual(['point-2', 'point-1']);
    await jobs.close();
    await now.servers.stop();
  });

  it('tells before it begins which machine loses the name to which, and changes nothing', async () => {
    const now = await life(new FakeStore());
    await firstPoint(now);
    const ended = { outcome: 'done' as const, state: 'cleaned' as const };
    let isPlanned = false;
    const jobs = {
      find: (id: string) => {
        const told = { id, server: 'web', kind: 'failover' as const, access: { machine: UUID } };
        return fakeJob({ ...told, ...(id === 'j8' && { ...ended, keeps: true }) });
      },
      refuseWork: (_kind: string, server: string) => {
        if (isPlanned) throw new UnderstudyError('ERR_FAILBACK_STATE', `a plan has ${server}`);
      },
    };
    const preview = (options: object, server = 'web') =>
      now.failbacks.preview(server, options as Record<string, unknown>, jobs);
    const known = { server: 'web', original: 'original', connected: true, job: 'j7' };
    expect(await preview({ job: 'j7' })).toMatchObject({
      ...{ ...known, jobPhase: 'up', instance: null, lastSeen: null },
      newestPoint: { id: 'point-1' },
    });
    await ScriptedAgent.greet(now.away, instance).refusal();
    const seen = { instance: 'instance', lastSeen: expect.stringMatching(/^20/) };
    expect(await preview({ job: 'j7' })).toMatchObject({ ...known, ...seen });
    const byHardware = { ...known, ...seen, job: null, jobPhase: null };
    expect(await preview({ hardwareId: 'instance' })).toMatchObject(byHardware);
    await expect(preview({ job: 'j8' })).rejects.toMatchObject({
      ...{ code: 'ERR_FAILBACK_STATE', message: expect.stringMatching(/start --again j8$/) },
    });
    await expect(preview({ job: 'j7' }, 'none')).rejects.toMatchObject({
      code: 'ERR_SERVER_NOT_FOUND',
    });
    // Before anybody is asked to confirm what the start would refuse.
    isPlanned = true;
    await expect(preview({ job: 'j7' })).rejects.toMatchObject({ message: 'a plan has web' });
    expect(now.register.get('web')?.failback).toBeUndefined();
    await now.servers.stop();
  });

  it('is refused where it cannot begin', async () => {
    const now = await life(new FakeStore());
    await firstPoint(now);
    const check = (options: object, server = 'web') =>
      now.runner.check(options as Record<string, unknown>, server);
    await expect(check({}, 'none')).rejects.toMatchObject({ code: 'ERR_SERVER_NOT_FOUND' });
    await expect(check({})).rejects.toMatchObject({ code: 'ERR_API_REQUEST' });
    await expect(check({ job: 1 })).rejects.toMatchObject({ code: 'ERR_API_REQUEST' });
    await expect(check({ hardwareId: 'original' })).rejects.toThrow(/already/);
    await expect(check({ hardwareId: 'instance' })).rejects.toThrow(/let its agent run first/);
    await ScriptedAgent.greet(now.away, instance).refusal();
    expect(await check({ hardwareId: 'instance' })).toEqual({ hardwareId: 'instance' });
    const short = check({ hardwareId: 'instanc' });
    await expect(short).rejects.toMatchObject({ code: 'ERR_HARDWARE_NOT_PENDING' });
    expect(await check({ job: 'drill' })).toEqual({ job: 'drill', expected: UUID });
    now.servers.recordOf('web').forgetRefused('instance');
    const end = now.runner.run(now.work);
    await now.reaches('admitting');
    await expect(check({ hardwareId: 'x' })).rejects.toThrow(/under way/);
    await expect(now.failbacks.finish(JOB, false)).rejects.toThrow(/is admitting/);
    await expect(now.failbacks.finish('j9', false)).rejects.toMatchObject({
      code: 'ERR_FAILBACK_NOT_FOUND',
    });
    now.stop.abort();
    await end;
    await now.servers.stop();
  });
});
