/** From a point to an instance and back to nothing, against the doubles: whole, interrupted, refused. */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { nodeDisk } from '../../src/base/node-disk.ts';
import type { LaunchOptions, VolumeSource } from '../../src/recovery/ec2/launch.ts';
import type { LaunchRecord } from '../../src/recovery/ec2/launch-record.ts';
import type { ChainRecord } from '../../src/recovery/ec2/prestage.ts';
import { recordFile } from '../../src/recovery/ec2/record-file.ts';
import { BLOCK_BYTES } from '../tools/ebs-double.ts';
import { cleanIn, launchIn, planOf, rootDisk } from './support/aws-launch.ts';
import {
  expectKilled,
  hurriedClock,
  imageOf,
  killAt,
  memoryRecord,
  useAwsWorld,
  useKey,
} from './support/aws-world.ts';

const world = useAwsWorld();

let disks: { vda: Buffer; vdb: Buffer };
beforeEach(() => {
  disks = { vda: rootDisk(), vdb: randomBytes(2 * BLOCK_BYTES) };
});

const sources = (): VolumeSource[] => [
  { volume: 'vdb', image: imageOf(disks.vdb) },
  { volume: 'vda', image: imageOf(disks.vda) },
];

const launch = (over: Partial<LaunchOptions> = {}) =>
  launchIn(world, { plan: planOf({ rootVolume: 'vda' }), sources: sources(), ...over });
const clean = (record: LaunchRecord, keepsInstance = false) =>
  cleanIn(world, record, { keepsInstance });

function expectEverythingRight(): void {
  expect(world.double.ec2.instances.size).toBe(1);
  expect(world.double.ec2.images.size).toBe(1);
  const [instance] = world.double.ec2.instances.values();
  const image = world.double.ec2.images.get(instance!.imageId)!;
  expect(image.form['BlockDeviceMapping.1.DeviceName']).toBe('/dev/xvda');
  const [vda, vdb] = image.snapshots.map((id, at) =>
    world.double.ebs.volume(id, [disks.vda, disks.vdb][at]!.length),
  );
  expect(vda!.subarray(0, disks.vda.length).equals(disks.vda)).toBe(true);
  expect(vdb!.equals(disks.vdb)).toBe(true);
}

describe('a launch', () => {
  it('runs an instance of all volumes, with tags, and tells its addresses', async () => {
    const done = await launch();
    expectEverythingRight();
    expect(done).toMatchObject({
      ...{ instanceType: 'm6i.large', bootMode: 'legacy-bios', privateAddress: '10.0.0.7' },
    });
    const [instance] = world.double.ec2.instances.values();
    expect(instance!.tags).toMatchObject({
      ...{ Name: 'web1 (understudy)', 'understudy-managed': 'true', 'understudy-job': 'job-1' },
      ...{ 'understudy-server': 'web1', 'understudy-point': 'point-1' },
    });
    const image = world.double.ec2.images.get(done.imageId)!;
    expect(image.form).toMatchObject({ BootMode: 'legacy-bios', EnaSupport: 'true' });
    expect(
      world.double.calls.filter((call) => call === 'DescribeInstanceStatus').length,
    ).toBeGreaterThan(1);
  });

  it('chooses the type by the source', async () => {
    const plan = planOf({ instanceType: 'auto', source: { cpus: 4, memoryGiB: 10 } });
    const done = await launch({ plan, sources: sources().reverse() });
    expect(done.instanceType).toBe('m6i.xlarge');
  });

  it('is taken away whole: instance, image, snapshots', async () => {
    const journal = memoryRecord<LaunchRecord>();
    const done = await launch({ journal });
    const report = await clean(journal.record!);
    expect(report.snapshots.toSorted()).toEqual(done.snapshotIds.toSorted());
    expect(world.double.ec2.instances.get(done.instanceId)!.state).toBe('terminated');
    expect([world.double.ec2.images.size, world.double.ebs.snapshots.size]).toEqual([0, 0]);
    // And again, though there is nothing left.
    await clean(journal.record!);
    await expect(
      launch({
        journal: { ...journal, load: async () => ({ ...journal.record!, isCleaned: true }) },
      }),
    ).rejects.toMatchObject({ code: 'ERR_EC2_RECORD' });
  });

  it('of a failover leaves the instance at a cleanup', async () => {
    const journal = memoryRecord<LaunchRecord>();
    const done = await launch({ journal });
    await clean(journal.record!, true);
    expect(world.double.ec2.instances.get(done.instanceId)!.state).toBe('running');
    expect([world.double.ec2.images.size, world.double.ebs.snapshots.size]).toEqual([0, 0]);
  });
});

describe('killed at any call', () => {
  it.each([true, false])(
    'and gone on with, there is one of everything (carried out: %s)',
    async (isDone) => {
      await launch();
      const total = world.double.calls.length;
      expect(total).toBeGreaterThan(15);
      for (let at = 1; at <= total; at += 1) {
        await world.renew();
        const journal = memoryRecord<LaunchRecord>();
        const { stop, revive } = killAt(world, at, isDone, journal);
        await launch({ journal, stop }).catch(expectKilled);
        revive();
        await launch({ journal });
        expectEverythingRight();
        // Also what was made in the instant before is found by its tag.
        await clean(journal.record!);
        expect([world.double.ec2.images.size, world.double.ebs.snapshots.size]).toEqual([0, 0]);
      }
    },
  );

  it.each(['drill', 'failover'] as const)(
    'a cleanup killed at any call is ended by the next one: %s',
    async (kind) => {
      const over = { removesVolumes: kind === 'failover' };
      for (let at = 1; at <= 14; at += 1) {
        const journal = memoryRecord<LaunchRecord>();
        await launch({ job: `job-${at}`, kind, journal });
        const first = world.double.calls.length;
        world.double.fault = (_call, number) =>
          number < first + at ? undefined : { kind: 'refuse', status: 400, type: 'Broken' };
        await cleanIn(world, journal.record!, over).catch((error) =>
          expect(String(error)).toContain('Broken'),
        );
        world.double.fault = () => undefined;
        await cleanIn(world, journal.record!, over);
        const { ec2, ebs } = world.double;
        expect([ec2.images.size, ebs.snapshots.size, ec2.volumes.size]).toEqual([0, 0, 0]);
      }
    },
  );
});

describe('refusals', () => {
  it('a type that is not offered is said before anything is made', async () => {
    const plan = planOf({ instanceType: 'm1.huge', rootVolume: 'vda' });
    await expect(launch({ plan })).rejects.toMatchObject({
      code: 'ERR_EC2_INSTANCE_TYPE',
      message: expect.stringContaining('m1.huge'),
    });
    const arm = planOf({ instanceType: 'm7g.large', rootVolume: 'vda' });
    await expect(launch({ plan: arm })).rejects.toThrow('it runs arm64');
    expect(world.double.ebs.snapshots.size).toBe(0);
  });

  it('a type that the zone of the subnet does not offer, and a rule that takes the next one', async () => {
    world.double.ec2.offered.set('m6i.large', ['us-east-1b', 'us-east-1c']);
    await expect(launch()).rejects.toMatchObject({
      code: 'ERR_EC2_INSTANCE_TYPE',
      message:
        'instance type m6i.large: zone us-east-1a of the subnet does not offer it; ' +
        'us-east-1b, us-east-1c offer it',
    });
    expect(world.double.ebs.snapshots.size).toBe(0);
    const source = { cpus: 2, memoryGiB: 8 };
    const plan = planOf({ instanceType: 'auto', source, rootVolume: 'vda' });
    expect((await launch({ plan })).instanceType).toBe('r6i.large');
  });

  it('a subnet of another region', async () => {
    const plan = planOf({ subnetId: 'subnet-0f', region: 'eu-central-1', rootVolume: 'vda' });
    await expect(launch({ plan })).rejects.toMatchObject({
      code: 'ERR_EC2_PLAN',
      message: expect.stringContaining('eu-central-1 has none of that id'),
    });
    expect(world.double.ebs.snapshots.size).toBe(0);
  });

  it('a type without room: another one in the plan, and the launch goes on', async () => {
    world.double.ec2.exhausted = 'm6i.large';
    const journal = memoryRecord<LaunchRecord>();
    await expect(launch({ journal })).rejects.toMatchObject({ code: 'ERR_EC2_INSTANCE_TYPE' });
    const puts = world.double.calls.filter((call) => call === 'PutSnapshotBlock').length;
    const plan = planOf({ instanceType: 'm6i.xlarge', rootVolume: 'vda' });
    expect((await launch({ journal, plan })).instanceType).toBe('m6i.xlarge');
    expect(world.double.calls.filter((call) => call === 'PutSnapshotBlock')).toHaveLength(puts);
    expectEverythingRight();
  });

  it.each([
    ['VcpuLimitExceeded', 'ERR_AWS_QUOTA'],
    ['InsufficientInstanceCapacity', 'ERR_EC2_INSTANCE_TYPE'],
    ['ExpiredToken', 'ERR_AWS_CREDENTIALS'],
    ['UnauthorizedOperation', 'ERR_AWS_DENIED'],
    ['InvalidSubnetID.NotFound', 'ERR_AWS_REFUSED'],
  ])('RunInstances says %s: %s', async (name, code) => {
    world.double.fault = (call) =>
      call === 'RunInstances' ? { kind: 'refuse', status: 400, type: name } : undefined;
    await expect(launch()).rejects.toMatchObject({
      code,
      message: expect.stringContaining(`RunInstances ami-`),
    });
  });

  it('throttled at every second call, it comes to its end', async () => {
    world.double.fault = (call, number) =>
      number % 2 === 0
        ? {
            kind: 'refuse',
            status: 503,
            type: /Snapshot(Block)?s?$/.test(call)
              ? 'RequestThrottledException'
              : 'RequestLimitExceeded',
          }
        : undefined;
    await launch();
    expectEverythingRight();
  });

  it('an instance that does not pass its checks', async () => {
    // It runs when it is first asked: its checks alone are waited for in vain.
    Object.assign(world.double.ec2, { checks: 'impaired', patience: 0 });
    world.reconnect({}, hurriedClock);
    await expect(launch()).rejects.toMatchObject({
      code: 'ERR_EC2_INSTANCE_FAILED',
      message: expect.stringContaining('did not pass its status checks within 20m'),
    });
  });

  it('an instance that ends at once', async () => {
    world.double.fault = (call) => {
      if (call === 'DescribeInstances') {
        for (const instance of world.double.ec2.instances.values()) instance.state = 'terminated';
      }
      return undefined;
    };
    await expect(launch()).rejects.toMatchObject({ code: 'ERR_EC2_INSTANCE_FAILED' });
  });

  it('a disk that does not boot, and a root volume that is none of the point', async () => {
    await expect(launch({ plan: planOf({ rootVolume: 'vdb' }) })).rejects.toMatchObject({
      code: 'ERR_EC2_DISK',
    });
    await expect(launch({ plan: planOf({ rootVolume: 'sda' }) })).rejects.toThrow('no volume sda');
    expect(world.double.calls).toEqual([]);
  });

  it('a snapshot that differs from the point is found before it is launched', async () => {
    world.double.fault = (call) => {
      if (call !== 'ListSnapshotBlocks') return undefined;
      for (const { blocks, state } of world.double.ebs.snapshots.values()) {
        // The other volume may still be on its way.
        if (state === 'completed') blocks.set(0, Buffer.alloc(BLOCK_BYTES, 9));
      }
      return undefined;
    };
    await expect(launch()).rejects.toMatchObject({ code: 'ERR_EC2_MISMATCH' });
    expect(world.double.ec2.images.size).toBe(0);
  });

  it('wrong credentials', async () => {
    useKey('AKIAOTHER');
    world.reconnect();
    await expect(launch()).rejects.toMatchObject({ code: 'ERR_AWS_CREDENTIALS' });
  });

  it('the record of another point', async () => {
    const journal = memoryRecord<LaunchRecord>();
    await launch({ journal });
    await expect(launch({ journal, point: 'point-2' })).rejects.toMatchObject({
      code: 'ERR_EC2_RECORD',
    });
  });
});

describe('the record as a file', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'understudy-record-'));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  it('is read as it was written, and another kind or a torn one is refused', async () => {
    const path = join(folder, 'r.json');
    const file = recordFile<LaunchRecord>(nodeDisk, path, 'ec2-launch');
    expect(await file.load()).toBe(null);
    const journal = memoryRecord<LaunchRecord>();
    await launch({ journal });
    await file.save(journal.record!);
    await file.save(journal.record!);
    expect(await file.load()).toEqual(journal.record);
    const other = recordFile<ChainRecord>(nodeDisk, path, 'ec2-chain');
    await expect(other.load()).rejects.toMatchObject({ code: 'ERR_EC2_RECORD' });
    writeFileSync(path, readFileSync(path, 'utf8').slice(0, 50));
    await expect(file.load()).rejects.toMatchObject({ code: 'ERR_EC2_RECORD' });
  });
});
