/** From a point to an instance and back to nothing, against the doubles: whole, interrupted, refused. */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { nodeDisk } from '../../src/base/node-disk.ts';
import type { AwsConnection } from '../../src/recovery/ec2/aws-connection.ts';
import { cleanUp } from '../../src/recovery/ec2/cleanup.ts';
import {
  type LaunchOptions,
  launchInstance,
  type VolumeSource,
} from '../../src/recovery/ec2/launch.ts';
import { parsePlan } from '../../src/recovery/ec2/launch-plan.ts';
import type { LaunchRecord } from '../../src/recovery/ec2/launch-record.ts';
import {
  type ChainRecord,
  type PrestageOptions,
  prestage,
} from '../../src/recovery/ec2/prestage.ts';
import { PutQuota } from '../../src/recovery/ec2/put-quota.ts';
import { recordFile } from '../../src/recovery/ec2/record-file.ts';
import { type AwsDouble, startAwsDouble } from '../tools/aws-double.ts';
import { BLOCK_BYTES } from '../tools/ebs-double.ts';
import { connectTo, differences, hurriedClock, imageOf, useKey } from './support/aws-world.ts';
import { bootDisk } from './support/boot-disk.ts';

let double: AwsDouble;
let aws: AwsConnection;
beforeEach(async () => {
  useKey();
  double = await startAwsDouble();
  aws = connectTo(double);
});
afterEach(async () => {
  aws.close();
  await double.stop();
});

/** A record in memory. Once killed it takes nothing more, as a process that is gone. */
function memoryRecord<T>() {
  const journal = {
    record: null as T | null,
    isKilled: false,
    load: async () => structuredClone(journal.record),
    save: async (record: T) => {
      if (journal.isKilled) throw new Error('killed');
      journal.record = structuredClone(record);
    },
  };
  return journal;
}

function rootDisk(): Buffer {
  const disk = bootDisk({ table: 'gpt', partitions: ['bios', 'linux'] }, 3 * BLOCK_BYTES + 4096);
  randomBytes(BLOCK_BYTES + 9000).copy(disk, BLOCK_BYTES);
  return disk;
}

const planOf = (fields: object = {}) =>
  parsePlan(
    JSON.stringify({ instanceType: 'm6i.large', subnetId: 'subnet-0a', ...fields }),
    'plan.json',
  );

let disks: { vda: Buffer; vdb: Buffer };
beforeEach(() => {
  disks = { vda: rootDisk(), vdb: randomBytes(2 * BLOCK_BYTES) };
});

const sources = (): VolumeSource[] => [
  { volume: 'vdb', image: imageOf(disks.vdb) },
  { volume: 'vda', image: imageOf(disks.vda) },
];

const launch = (over: Partial<LaunchOptions> = {}) =>
  launchInstance(aws, {
    ...{ job: 'job-1', server: 'web1', point: 'point-1', plan: planOf({ rootVolume: 'vda' }) },
    sources: sources(),
    journal: memoryRecord<LaunchRecord>(),
    quota: new PutQuota(hurriedClock, 1e6),
    stop: new AbortController().signal,
    concurrency: 2,
    checkShare: 1,
    waitsForChecks: true,
    onProgress: () => undefined,
    onNote: () => undefined,
    ...over,
  });

const clean = (record: LaunchRecord, keepsInstance = false) =>
  cleanUp(aws, {
    ...{ record, keepsInstance, waitsForEnd: true, onNote: () => undefined },
    stop: new AbortController().signal,
  });

function expectEverythingRight(): void {
  expect(double.ec2.instances.size).toBe(1);
  expect(double.ec2.images.size).toBe(1);
  const [instance] = double.ec2.instances.values();
  const image = double.ec2.images.get(instance!.imageId)!;
  expect(image.form['BlockDeviceMapping.1.DeviceName']).toBe('/dev/xvda');
  const [vda, vdb] = image.snapshots.map((id, at) =>
    double.ebs.volume(id, [disks.vda, disks.vdb][at]!.length),
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
    const [instance] = double.ec2.instances.values();
    expect(instance!.tags).toMatchObject({
      ...{ Name: 'web1 (understudy)', 'understudy-managed': 'true', 'understudy-job': 'job-1' },
      ...{ 'understudy-server': 'web1', 'understudy-point': 'point-1' },
    });
    const image = double.ec2.images.get(done.imageId)!;
    expect(image.form).toMatchObject({ BootMode: 'legacy-bios', EnaSupport: 'true' });
    expect(double.calls.filter((call) => call === 'DescribeInstanceStatus').length).toBeGreaterThan(
      1,
    );
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
    expect(double.ec2.instances.get(done.instanceId)!.state).toBe('terminated');
    expect([double.ec2.images.size, double.ebs.snapshots.size]).toEqual([0, 0]);
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
    expect(double.ec2.instances.get(done.instanceId)!.state).toBe('running');
    expect([double.ec2.images.size, double.ebs.snapshots.size]).toEqual([0, 0]);
  });
});

describe('killed at any call', () => {
  it.each([true, false])(
    'and gone on with, there is one of everything (carried out: %s)',
    async (isDone) => {
      await launch();
      const total = double.calls.length;
      expect(total).toBeGreaterThan(15);
      for (let at = 1; at <= total; at += 1) {
        await double.stop();
        aws.close();
        double = await startAwsDouble();
        aws = connectTo(double);
        const journal = memoryRecord<LaunchRecord>();
        const stop = new AbortController();
        double.fault = (_call, number) => {
          if (number < at) return undefined;
          journal.isKilled = true;
          stop.abort(new Error('killed'));
          return { kind: 'drop', isDone };
        };
        await launch({ journal, stop: stop.signal }).catch((error) => {
          expect(String(error)).toContain('killed');
        });
        double.fault = () => undefined;
        journal.isKilled = false;
        await launch({ journal });
        expectEverythingRight();
        // Also what was made in the instant before is found by its tag.
        await clean(journal.record!);
        expect([double.ec2.images.size, double.ebs.snapshots.size]).toEqual([0, 0]);
      }
    },
  );

  it('a cleanup killed at any call is ended by the next one', async () => {
    for (let at = 1; at <= 9; at += 1) {
      const journal = memoryRecord<LaunchRecord>();
      await launch({ job: `job-${at}`, journal });
      const first = double.calls.length;
      double.fault = (_call, number) =>
        number < first + at ? undefined : { kind: 'refuse', status: 400, type: 'Broken' };
      await clean(journal.record!).catch((error) => expect(String(error)).toContain('Broken'));
      double.fault = () => undefined;
      await clean(journal.record!);
      expect([double.ec2.images.size, double.ebs.snapshots.size]).toEqual([0, 0]);
    }
  });
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
    expect(double.ebs.snapshots.size).toBe(0);
  });

  it('a type without room: another one in the plan, and the launch goes on', async () => {
    double.ec2.exhausted = 'm6i.large';
    const journal = memoryRecord<LaunchRecord>();
    await expect(launch({ journal })).rejects.toMatchObject({ code: 'ERR_EC2_INSTANCE_TYPE' });
    const puts = double.calls.filter((call) => call === 'PutSnapshotBlock').length;
    const plan = planOf({ instanceType: 'm6i.xlarge', rootVolume: 'vda' });
    expect((await launch({ journal, plan })).instanceType).toBe('m6i.xlarge');
    expect(double.calls.filter((call) => call === 'PutSnapshotBlock')).toHaveLength(puts);
    expectEverythingRight();
  });

  it.each([
    ['VcpuLimitExceeded', 'ERR_AWS_QUOTA'],
    ['UnauthorizedOperation', 'ERR_AWS_DENIED'],
    ['InvalidSubnetID.NotFound', 'ERR_AWS_REFUSED'],
  ])('RunInstances says %s: %s', async (name, code) => {
    double.fault = (call) =>
      call === 'RunInstances' ? { kind: 'refuse', status: 400, type: name } : undefined;
    await expect(launch()).rejects.toMatchObject({
      code,
      message: expect.stringContaining(`RunInstances ami-`),
    });
  });

  it('throttled at every second call, it comes to its end', async () => {
    double.fault = (call, number) =>
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
    double.ec2.checks = 'impaired';
    await expect(launch()).rejects.toMatchObject({
      code: 'ERR_EC2_INSTANCE_FAILED',
      message: expect.stringContaining('did not pass its status checks within 20 minutes'),
    });
  });

  it('an instance that ends at once', async () => {
    double.fault = (call) => {
      if (call === 'DescribeInstances') {
        for (const instance of double.ec2.instances.values()) instance.state = 'terminated';
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
    expect(double.calls).toEqual([]);
  });

  it('a snapshot that differs from the point is found before it is launched', async () => {
    double.fault = (call) => {
      if (call !== 'ListSnapshotBlocks') return undefined;
      for (const { blocks } of double.ebs.snapshots.values()) {
        blocks.set(0, Buffer.alloc(BLOCK_BYTES, 9));
      }
      return undefined;
    };
    await expect(launch()).rejects.toMatchObject({ code: 'ERR_EC2_MISMATCH' });
    expect(double.ec2.images.size).toBe(0);
  });

  it('wrong credentials', async () => {
    useKey('AKIAOTHER');
    aws.close();
    aws = connectTo(double);
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

describe('the rolling chain', () => {
  let journal: ReturnType<typeof memoryRecord<ChainRecord>>;
  let history: Map<string, Buffer>;
  beforeEach(() => {
    journal = memoryRecord<ChainRecord>();
    history = new Map([['p1', disks.vda]]);
  });

  const stage = (point: string, over: Partial<PrestageOptions> = {}) =>
    prestage(aws, {
      ...{ job: 'chain-1', server: 'web1', point, plan: planOf(), journal, timeoutMinutes: 60 },
      sources: [
        {
          volume: 'vda',
          image: imageOf(history.get(point)!),
          changedSince: async (from) => {
            const before = history.get(from);
            return before === undefined ? null : () => differences(before, history.get(point)!);
          },
        },
      ],
      quota: new PutQuota(hurriedClock, 1e6),
      stop: new AbortController().signal,
      onProgress: () => undefined,
      onNote: () => undefined,
      ...over,
    });

  function write(point: string, at: number): void {
    const disk = Buffer.from([...history.values()].at(-1)!);
    randomBytes(50).copy(disk, at);
    history.set(point, disk);
  }
  const volumeOf = (id: string, point: string) => {
    const disk = history.get(point)!;
    return double.ebs.volume(id, disk.length).subarray(0, disk.length).equals(disk);
  };

  it('puts only what differs, and keeps one snapshot', async () => {
    const [first] = await stage('p1');
    expect(first).toMatchObject({ kind: 'full' });
    write('p2', BLOCK_BYTES + 100);
    const [second] = await stage('p2');
    expect(second).toMatchObject({ kind: 'delta', putBlocks: 1 });
    expect(volumeOf(second!.snapshotId, 'p2')).toBe(true);
    expect([...double.ebs.snapshots.keys()]).toEqual([second!.snapshotId]);
    expect((await stage('p2'))[0]).toMatchObject({ kind: 'keep', putBlocks: 0 });
  });

  it('is begun anew when its head is gone, the point is forgotten, or the key is another', async () => {
    await stage('p1');
    double.ebs.snapshots.clear();
    write('p2', 7000);
    expect((await stage('p2'))[0]).toMatchObject({ kind: 'full' });
    history.delete('p2');
    write('p3', 9000);
    const [third] = await stage('p3');
    expect(third).toMatchObject({ kind: 'full' });
    write('p4', 9500);
    const [fourth] = await stage('p4', { plan: planOf({ encrypted: true }) });
    expect(fourth).toMatchObject({ kind: 'full' });
    expect(volumeOf(fourth!.snapshotId, 'p4')).toBe(true);
    expect(double.ebs.snapshots.size).toBe(1);
  });

  it('killed at any call, and gone on with towards the same or a newer point', async () => {
    for (const next of ['p2', 'p3']) {
      for (let at = 1; at < 12; at += 1) {
        journal = memoryRecord<ChainRecord>();
        history = new Map([['p1', disks.vda]]);
        double.ebs.snapshots.clear();
        const job = `chain-${next}-${at}`;
        await stage('p1', { job });
        write('p2', BLOCK_BYTES + 100);
        write('p3', 200);
        const stop = new AbortController();
        const first = double.calls.length;
        double.fault = (_call, number) => {
          if (number < first + at) return undefined;
          journal.isKilled = true;
          stop.abort(new Error('killed'));
          return { kind: 'drop', isDone: true };
        };
        await stage('p2', { job, stop: stop.signal }).catch((error) => {
          expect(String(error)).toContain('killed');
        });
        double.fault = () => undefined;
        journal.isKilled = false;
        const [done] = await stage(next, { job });
        expect(volumeOf(done!.snapshotId, next)).toBe(true);
        const head = journal.record!.volumes[0]!;
        expect(head).toMatchObject({ upload: null, held: [done!.snapshotId] });
      }
    }
  });

  it('a launch uploads over its head only what differs, and a cleanup leaves it', async () => {
    const [first] = await stage('p1');
    write('p2', BLOCK_BYTES + 100);
    const { head } = journal.record!.volumes[0]!;
    const record = memoryRecord<LaunchRecord>();
    const before = double.calls.length;
    const delta = {
      ...{ volume: 'vda', image: imageOf(history.get('p2')!), head },
      changed: () => differences(history.get('p1')!, history.get('p2')!),
    };
    const done = await launch({ point: 'p2', sources: [delta], plan: planOf(), journal: record });
    expect(volumeOf(done.snapshotIds[0]!, 'p2')).toBe(true);
    const puts = double.calls.slice(before).filter((call) => call === 'PutSnapshotBlock');
    expect(puts).toHaveLength(1);
    await clean(record.record!);
    expect([...double.ebs.snapshots.keys()]).toEqual([first!.snapshotId]);
    // A launch of the very point takes the head as it is, and leaves it, too.
    const same = memoryRecord<LaunchRecord>();
    const kept = { volume: 'vda', image: imageOf(disks.vda), head };
    await launch({ job: 'job-2', point: 'p1', sources: [kept], plan: planOf(), journal: same });
    await clean(same.record!);
    expect([...double.ebs.snapshots.keys()]).toEqual([first!.snapshotId]);
  });

  it('what an image still refers to is deleted at a later time', async () => {
    const [first] = await stage('p1');
    const used = { id: 'ami-1', name: 'n', form: {}, tags: {}, snapshots: [first!.snapshotId] };
    double.ec2.images.set('ami-1', used);
    write('p2', 100);
    await stage('p2');
    expect(double.ebs.snapshots.size).toBe(2);
    double.ec2.images.clear();
    await stage('p2');
    expect(double.ebs.snapshots.size).toBe(1);
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
