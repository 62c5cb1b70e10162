/** The target `ec2` as a job's launcher: the contract of launchers, its checks, its ends. */
import { hash, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { createEc2Launcher } from '../../src/recovery/ec2/ec2-launcher.ts';
import type { Launch, LaunchOptions } from '../../src/recovery/launcher.ts';
import type { ImageReader } from '../../src/store/types.ts';
import { type AwsDouble, startAwsDouble } from '../tools/aws-double.ts';
import { BLOCK_BYTES } from '../tools/ebs-double.ts';
import { hurriedClock, imageOf, useKey } from './support/aws-world.ts';
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

interface Ec2World extends LaunchWorld {
  readonly double: AwsDouble;
}

async function createWorld(options: Record<string, unknown> = {}): Promise<Ec2World> {
  const root = mkdtempSync(join(tmpdir(), 'understudy-ec2-'));
  const double = await startAwsDouble();
  double.ec2.patience = 0;
  useKey();
  process.env.AWS_ENDPOINT_URL = double.endpoint;
  const plan = { instanceType: 'm6i.large', subnetId: 'subnet-0a' };
  return {
    ...{ launcher: createEc2Launcher(hurriedClock), root, point: fakePoint('p'), double },
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
    clock: hurriedClock,
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
