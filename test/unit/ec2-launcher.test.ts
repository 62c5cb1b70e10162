/** The target `ec2` as a job's launcher: the contract of launchers, its checks, its ends. */
import { hash, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { createEc2Launcher } from '../../src/recovery/ec2/ec2-launcher.ts';
import type { SourceMachine } from '../../src/recovery/ec2/launch-choices.ts';
import type { Launch, LaunchOptions } from '../../src/recovery/launcher.ts';
import type { ImageReader } from '../../src/store/types.ts';
import { type AwsDouble, startAwsDouble } from '../tools/aws-double.ts';
import { BLOCK_BYTES } from '../tools/ebs-double.ts';
import { hurriedClock, imageOf, patientClock, useKey } from './support/aws-world.ts';
import { bootDisk } from './support/boot-disk.ts';
import { fakePoint } from './support/fake-backend.ts';
import {
  LaunchRecord,
  type LaunchWorld,
  launcherSuite,
  launchOf,
} from './support/launcher-suite.ts';

const disk = bootDisk({ table: 'mbr' }, 2 * BLOCK_BYTES);
randomBytes(1000).copy(disk, BLOCK_BYTES);
const readerOf = (bytes: Buffer): ImageReader => ({
  ...imageOf(bytes),
  etag: hash('sha256', bytes),
  close: () => undefined,
});

/** Of a launch. Where a limit is waited for it is the hurried one. */
let clock = patientClock;
beforeEach(() => {
  clock = patientClock;
});

interface Ec2World extends LaunchWorld {
  readonly double: AwsDouble;
}

async function createWorld(
  options: Record<string, unknown> = {},
  machine: SourceMachine | null = null,
): Promise<Ec2World> {
  const root = mkdtempSync(join(tmpdir(), 'understudy-ec2-'));
  const double = await startAwsDouble();
  double.ec2.patience = 0;
  useKey();
  process.env.AWS_ENDPOINT_URL = double.endpoint;
  const plan = { instanceType: 'm6i.large', subnetId: 'subnet-0a' };
  return {
    ...{
      launcher: createEc2Launcher(patientClock, { machine: () => machine }),
      root,
      point: fakePoint('p'),
      double,
    },
    ...{ options: { plan, ...options }, isLasting: true },
    openImage: async () => readerOf(disk),
    imageAddress: () => Promise.reject(new Error('not asked for')),
    async close() {
      delete process.env.AWS_ENDPOINT_URL;
      await double.stop();
      rmSync(root, { recursive: true, force: true });
    },
  };
}

launcherSuite('ec2', createWorld);

describe('a launch to EC2 as a job', () => {
  let world: Ec2World;
  let record: LaunchRecord;
  beforeEach(async () => {
    world = await createWorld();
    record = new LaunchRecord();
  });
  afterEach(() => world.close());

  const checked = (options: Record<string, unknown> = {}): Promise<LaunchOptions> =>
    world.launcher.check({ ...world.options, ...options }, world.point, world.openImage, 'drill');
  const jobOf = async (options: Record<string, unknown> = {}, over: Partial<Launch> = {}) => ({
    ...launchOf(world, record, await checked(options)),
    clock,
    ...over,
  });
  const left = () => [world.double.ec2.images.size, world.double.ebs.snapshots.size];
  const states = () => [...world.double.ec2.instances.values()].map(({ state }) => state);

  it('with a check tells the verdict, and ends', async () => {
    expect(await world.launcher.run(await jobOf({ check: true }))).toBe('done');
    expect(record.check).toMatchObject({ passed: true, probe: 'ec2-status' });
    expect(record.access).toMatchObject({ type: 'm6i.large', privateAddress: '10.0.0.7' });
    await world.launcher.clean(record.made);
    expect(left()).toEqual([0, 0]);
    expect(states()).toEqual(['shutting-down']);
  });

  it('that does not pass the check says so', async () => {
    world.double.ec2.checks = 'impaired';
    clock = hurriedClock;
    const launch = await jobOf({ check: true });
    await expect(world.launcher.run(launch)).rejects.toMatchObject({
      code: 'ERR_EC2_INSTANCE_FAILED',
    });
    expect(record.check).toMatchObject({ passed: false });
    await world.launcher.clean(record.made);
    expect(left()).toEqual([0, 0]);
  });

  it('left in the middle of its upload, goes on in another life and is cleaned up whole', async () => {
    const leave = new AbortController();
    world.double.fault = (call) => {
      if (call === 'PutSnapshotBlock') leave.abort();
      return undefined;
    };
    expect(await world.launcher.run(await jobOf({}, { leave: leave.signal }))).toBe('left');
    world.double.fault = () => undefined;
    const stop = new AbortController();
    const next = await jobOf({}, { stop: stop.signal });
    const up = async () => stop.abort();
    expect(await world.launcher.run({ ...next, up })).toBe('done');
    expect(world.double.calls.filter((call) => call === 'StartSnapshot')).toHaveLength(1);
    await world.launcher.clean(record.made);
    expect(left()).toEqual([0, 0]);
  });

  it('goes on after AWS was away for minutes', async () => {
    let away = 40;
    world.double.fault = (call) => {
      if (call !== 'PutSnapshotBlock' || away === 0) return undefined;
      away -= 1;
      return { kind: 'refuse', status: 503, type: 'ServiceUnavailable' };
    };
    const stop = new AbortController();
    const launch = await jobOf({}, { stop: stop.signal });
    const up = async () => stop.abort();
    expect(await world.launcher.run({ ...launch, up })).toBe('done');
    expect(away).toBe(0);
    expect(world.double.calls.filter((call) => call === 'StartSnapshot')).toHaveLength(1);
  });

  it('whose instance was terminated by others is over', async () => {
    const launch = await jobOf();
    const up = async () => {
      for (const instance of world.double.ec2.instances.values()) instance.state = 'terminated';
    };
    expect(await world.launcher.run({ ...launch, up })).toBe('done');
    expect(record.said.at(-1)).toContain('has ended by itself');
  });

  it('is refused before anything is made: plan, disk, type, credentials', async () => {
    const refused = (options: Record<string, unknown>, code: string) =>
      expect(checked(options)).rejects.toMatchObject({ code });
    await refused({ plan: undefined }, 'ERR_LAUNCH_OPTIONS');
    await refused({ plan: { subnetId: 'x' } }, 'ERR_EC2_PLAN');
    await refused(
      { plan: { instanceType: 'x9.huge', subnetId: 'subnet-0a' } },
      'ERR_EC2_INSTANCE_TYPE',
    );
    await refused({ memoryBytes: 1 }, 'ERR_LAUNCH_OPTIONS');
    useKey('AKIAOTHER');
    await refused({}, 'ERR_AWS_CREDENTIALS');
    useKey();
    const empty = async () => readerOf(Buffer.alloc(65_536));
    await expect(
      world.launcher.check(world.options, world.point, empty, 'drill'),
    ).rejects.toMatchObject({
      code: 'ERR_EC2_DISK',
    });
    expect(left()).toEqual([0, 0]);
  });

  it('a cleanup that AWS refuses fails, and is made good by the next one', async () => {
    await world.launcher.run(await jobOf({ check: true }));
    world.double.fault = (call) =>
      call === 'DeregisterImage'
        ? { kind: 'refuse', status: 403, type: 'UnauthorizedOperation' }
        : undefined;
    await expect(world.launcher.clean(record.made)).rejects.toMatchObject({
      code: 'ERR_AWS_DENIED',
    });
    world.double.fault = () => undefined;
    await createEc2Launcher(systemClock).clean(record.made);
    expect(left()).toEqual([0, 0]);
  });
});

describe('a failover to EC2', () => {
  let world: Ec2World;
  let record: LaunchRecord;
  beforeEach(async () => {
    world = await createWorld();
    record = new LaunchRecord();
  });
  afterEach(() => world.close());

  /** A life of the job that ends as told once it is up. */
  async function life(end: 'stop' | 'leave', over: Partial<Launch> = {}): Promise<string> {
    const { launcher, options: given, point, openImage } = world;
    const options = await launcher.check(given, point, openImage, 'failover');
    const signals = { stop: new AbortController(), leave: new AbortController() };
    const at = { stop: signals.stop.signal, leave: signals.leave.signal };
    const launch = { ...launchOf(world, record, options, at), clock };
    const phase = async (name: string) => {
      if (name === 'up') signals[end].abort(end === 'stop' ? { timeoutMs: 60_000 } : undefined);
    };
    return launcher.run({ ...launch, kind: 'failover', phase, ...over });
  }
  const instance = () => [...world.double.ec2.instances.values()][0]!;
  const volumes = () => [...world.double.ec2.volumes.values()];
  const isProduct = ({ isProduct: is }: { isProduct?: boolean }) => is === true;

  it('stopped, keeps its instance and its volumes, and is started again on them', async () => {
    expect(await life('stop')).toBe('done');
    expect(instance()).toMatchObject({ state: 'stopped', tags: { 'understudy-kind': 'failover' } });
    expect(record.standsAlone).toBe(true);
    expect(record.made.every(isProduct)).toBe(true);
    expect(volumes()).toMatchObject([{ deletes: false, tags: { 'understudy-kind': 'failover' } }]);
    const calls = world.double.calls.length;
    const openImage = () => Promise.reject(new Error('the point is gone'));
    expect(await life('leave', { starts: 2, openImage })).toBe('left');
    expect(instance().state).toBe('running');
    // Found again as it runs, it is not started once more.
    expect(await life('stop', { starts: 2, openImage })).toBe('done');
    const made = world.double.calls.slice(calls);
    expect(made.filter((call) => call === 'StartInstances')).toHaveLength(1);
    expect(made).not.toContain('RunInstances');
    expect(world.double.ec2.instances.size).toBe(1);
  });

  it('discarded, leaves nothing: instance, volumes, image, snapshots', async () => {
    await life('stop');
    await world.launcher.clean(record.made);
    expect(instance().state).toBe('terminated');
    expect(volumes()).toEqual([]);
    expect([world.double.ec2.images.size, world.double.ebs.snapshots.size]).toEqual([0, 0]);
  });

  it('that does not shut down in order is cut off', async () => {
    world.double.ec2.isStubborn = true;
    expect(await life('stop')).toBe('done');
    expect(instance().state).toBe('stopped');
    expect(record.said.join()).toContain('it is cut off');
    expect(world.double.calls.filter((call) => call === 'StopInstances')).toHaveLength(2);
  });

  it('whose guest was shut down from within has ended by itself, and is kept', async () => {
    const phase = async (name: string) => {
      if (name === 'up') instance().state = 'stopped';
    };
    expect(await life('leave', { phase })).toBe('done');
    expect(record.said.at(-1)).toContain('ended by itself');
    expect(await life('leave', { starts: 2 })).toBe('left');
    expect(instance().state).toBe('running');
  });

  it('whose checks do not pass is up all the same: its job fails, its instance is kept', async () => {
    world.double.ec2.checks = 'impaired';
    clock = hurriedClock;
    world = Object.assign(world, { options: { ...world.options, check: true, keepRunning: true } });
    let access: object | null = null;
    const up = async (told: object) => {
      access = told;
    };
    await expect(life('leave', { up })).rejects.toMatchObject({ code: 'ERR_EC2_INSTANCE_FAILED' });
    expect(access).toMatchObject({ type: 'm6i.large' });
    expect(record.check).toMatchObject({ passed: false });
    expect(instance().state).toBe('running');
  });

  it('that nobody could see come up is kept all the same: it may run', async () => {
    const refused = { kind: 'refuse', status: 403, type: 'UnauthorizedOperation' } as const;
    const hasRun = () => world.double.calls.includes('RunInstances');
    world.double.fault = (call) => (call === 'DescribeInstances' && hasRun() ? refused : undefined);
    await expect(life('leave')).rejects.toMatchObject({ code: 'ERR_AWS_DENIED' });
    const [id] = [...world.double.ec2.instances.keys()];
    expect(record.access).toMatchObject({ instance: id, type: 'm6i.large' });
    expect(record.said.at(-1)).toContain('may have run: it is kept');
    expect(record.made.every(isProduct)).toBe(true);
  });

  it('that was up stands, whatever keeps us from seeing it for a while', async () => {
    const refused = { kind: 'refuse', status: 403, type: 'UnauthorizedOperation' } as const;
    let left = 5;
    const phase = async (name: string) => {
      if (name !== 'up') return;
      world.double.fault = (call) => {
        if (call !== 'DescribeInstances') return undefined;
        left -= 1;
        if (left === -3) instance().state = 'stopped';
        return left >= 0 ? refused : undefined;
      };
    };
    expect(await life('leave', { phase })).toBe('done');
    expect(left).toBeLessThan(-2);
    expect(record.access).toMatchObject({ privateAddress: '10.0.0.7' });
    const told = record.said.filter((line) => /DescribeInstances|seen again/.test(line));
    expect(told).toEqual([expect.stringContaining('UnauthorizedOperation'), expect.any(String)]);
  });

  it('that was up stands, though AWS is out of reach when staging is started again', async () => {
    expect(await life('leave')).toBe('left');
    const { access } = record;
    world.double.fault = () => ({ kind: 'refuse', status: 403, type: 'UnauthorizedOperation' });
    const options = { plan: JSON.stringify(world.options.plan), verify: 'none' };
    const leave = new AbortController();
    const launch = {
      ...launchOf(world, record, options, { stop: leave.signal, leave: leave.signal }),
      ...{ clock, kind: 'failover' as const, stop: new AbortController().signal },
      phase: async () => leave.abort(),
    };
    expect(await world.launcher.run(launch)).toBe('left');
    expect(record.said.join()).toContain('ran before staging was started again');
    expect(record.access).toEqual(access);
  });

  it.each([
    ['terminated', false],
    ['stopped', true],
  ] as const)('that EC2 says is %s before it was seen to run: kept %s', async (state, isKept) => {
    world.double.fault = (call) => {
      if (call === 'DescribeInstances') instance().state = state;
      return undefined;
    };
    await expect(life('leave')).rejects.toMatchObject({ code: 'ERR_EC2_INSTANCE_FAILED' });
    expect(record.access !== null).toBe(isKept);
  });

  it('volumes go with the instance where the plan says so', async () => {
    world = Object.assign(world, {
      options: {
        plan: { instanceType: 'm6i.large', subnetId: 'subnet-0a', keepVolumes: false },
      },
    });
    await life('stop');
    expect(volumes()).toMatchObject([{ deletes: true }]);
  });
});

describe('what the plan leaves open', () => {
  const machine = (over: Partial<SourceMachine> = {}): SourceMachine => ({
    timeMs: Date.UTC(2026, 10, 21),
    ...{ architecture: 'x86_64', cpuCount: 3, memoryBytes: 10.2 * 2 ** 30, bootVolume: '' },
    ...over,
  });
  async function chosen(
    plan: Record<string, unknown>,
    told: SourceMachine | null,
  ): Promise<LaunchOptions> {
    const world = await createWorld({ plan: { subnetId: 'subnet-0a', ...plan } }, told);
    try {
      const { launcher, options, point, openImage } = world;
      return await launcher.check(options, point, openImage, 'drill');
    } finally {
      await world.close();
    }
  }

  it('is chosen by what the agent told of its machine, and stays so', async () => {
    const options = await chosen({}, machine());
    expect(options.chosen).toMatch(/^3 CPUs and 10\.2 GiB: as the agent told at 2026-11-21T/);
    expect(options.chosen).toMatch(/m6i\.xlarge: the smallest of m6i, c6i, r6i with 3 CPUs/);
    expect(JSON.parse(String(options.plan))).toMatchObject({
      ...{ source: { cpus: 3, memoryGiB: 10.2 }, architecture: 'x86_64' },
    });
  });

  it('by the plan first', async () => {
    const options = await chosen({ source: { cpus: 2, memoryGiB: 4 } }, machine());
    expect(options.chosen).toContain('c6i.large');
    const named = await chosen({ instanceType: 'r6i.large' }, machine());
    expect(named.chosen).toContain('r6i.large: the plan names it');
  });

  it('an ARM machine gets one of ARM', async () => {
    const arm = machine({ architecture: 'aarch64', cpuCount: 2, memoryBytes: 8 * 2 ** 30 });
    expect((await chosen({}, arm)).chosen).toContain('m7g.large');
  });

  it('by nobody: it is said', async () => {
    await expect(chosen({}, null)).rejects.toMatchObject({
      code: 'ERR_EC2_PLAN',
      message: expect.stringContaining('source is needed'),
    });
  });
});
