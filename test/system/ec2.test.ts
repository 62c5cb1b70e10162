/**
 * The EC2 target as its users run it: a disk replicated by a real agent into a real service, launched,
 * prestaged and cleaned up by the program, against the strict doubles; and the same requests against moto,
 * which was written by others: it understands them, and its snapshots hold the right bytes.
 */
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { DescribeSubnetsCommand } from '@aws-sdk/client-ec2';
import { describe, expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { AwsConnection } from '../../src/recovery/ec2/aws-connection.ts';
import { cleanUp } from '../../src/recovery/ec2/cleanup.ts';
import { Ec2Calls } from '../../src/recovery/ec2/ec2-calls.ts';
import { waitUntilStopped } from '../../src/recovery/ec2/instance-wait.ts';
import { type LaunchedInstance, launchInstance } from '../../src/recovery/ec2/launch.ts';
import { fitPlan } from '../../src/recovery/ec2/launch-choices.ts';
import { parsePlan } from '../../src/recovery/ec2/launch-plan.ts';
import type { LaunchRecord } from '../../src/recovery/ec2/launch-record.ts';
import type { PrestagedVolume } from '../../src/recovery/ec2/prestage.ts';
import { PutQuota } from '../../src/recovery/ec2/put-quota.ts';
import type { ApiPrestage } from '../../src/staging/api-types.ts';
import type { ListedPoint } from '../../src/store/types.ts';
import { ACCESS_KEY, type AwsDouble, startAwsDouble } from '../tools/aws-double.ts';
import { startMoto } from '../tools/s3-server.ts';
import { imageOf, useKey } from '../unit/support/aws-world.ts';
import { bootDisk } from '../unit/support/boot-disk.ts';
import { type Scratch, withScratch } from './helpers/scratch.ts';
import { Staging, startAgent } from './helpers/understudy.ts';
import { waitFor } from './helpers/wait.ts';

const MIB = 2 ** 20;

/** 24 MiB: a partition table, data, holes. */
function disk(): Buffer {
  const bytes = bootDisk({ table: 'gpt', partitions: ['efi', 'linux'], hasCode: false }, 24 * MIB);
  for (const at of [1, 2, 9, 20]) randomBytes(MIB - 5000).copy(bytes, at * MIB);
  return bytes;
}

interface Home {
  readonly staging: Staging;
  readonly path: string;
  readonly double: AwsDouble;
  readonly file: (name: string) => string;
  /** Runs `understudy ec2 ...` with the double's key; the output parsed. */
  ec2<T>(...words: string[]): Promise<T>;
  refused(...words: string[]): Promise<{ exitCode: number; err: string }>;
  /** A point that holds the disk as it is now. */
  point(): Promise<ListedPoint>;
}

async function home(scratch: Scratch, serviceWords: readonly string[] = []): Promise<Home> {
  const path = scratch.path('disk');
  writeFileSync(path, disk());
  const double = await startAwsDouble();
  // The program asks every five seconds.
  double.ec2.patience = 0;
  scratch.defer(() => double.stop());
  useKey();
  process.env.AWS_ENDPOINT_URL = double.endpoint;
  process.env.AWS_REGION = 'us-east-1';
  scratch.defer(() => {
    delete process.env.AWS_ENDPOINT_URL;
  });
  const staging = await Staging.start(scratch, { words: [...serviceWords] });
  const words = ['--tracker', 'scan'];
  startAgent(scratch, staging, { volumes: [path], cutInterval: '1s', words });
  await staging.waitForPoints(1);
  const run = (words: string[]) => staging.run('ec2', ...words);
  return {
    ...{ staging, path, double },
    file: (name) => scratch.path(name),
    async ec2<T>(...words: string[]) {
      const { exitCode, out, err } = await run([...words, '--json']);
      if (exitCode !== 0) throw new Error(`ec2 ${words.join(' ')}: exit ${exitCode}: ${err}`);
      return JSON.parse(out) as T;
    },
    refused: (...words) => run(words),
    point: async () => {
      const { id } = await staging.createPoint(scratch.server);
      return (await staging.points()).find((point) => point.id === id)!;
    },
  };
}

function writePlan(at: Home, fields: object = {}): string {
  const plan = { instanceType: 'm6i.large', subnetId: 'subnet-0a', ...fields };
  writeFileSync(at.file('plan.json'), JSON.stringify(plan));
  return at.file('plan.json');
}

const holds = (double: AwsDouble, snapshotId: string, path: string): boolean => {
  const bytes = readFileSync(path);
  return double.ebs.volume(snapshotId, bytes.length).equals(bytes);
};

describe('the program', () => {
  it('plans, launches, prestages, launches from the chain, and cleans up', async () => {
    await withScratch('ec2', async (scratch) => {
      const at = await home(scratch);
      const { double, path } = at;
      const plan = writePlan(at);
      const first = await at.point();
      const words = ['--point', first.id, '--plan', plan];

      const dry = await at.staging.run('ec2', 'plan', ...words);
      expect(dry).toMatchObject({ exitCode: 0, err: '' });
      expect(dry.out).toMatch(/PutSnapshotBlock x 1[0-9] /);
      expect(dry.out).toMatch(/"BootMode": "uefi"/);
      expect(dry.out).toMatch(/instance, an hour +\$0\.0960/);
      expect(double.calls).toEqual([]);

      const record = ['--record', at.file('drill.json')];
      const launched = await at.ec2<LaunchedInstance>('launch', ...words, ...record);
      expect(launched).toMatchObject({ instanceType: 'm6i.large', bootMode: 'uefi' });
      expect(holds(double, launched.snapshotIds[0]!, path)).toBe(true);
      const made = double.calls.length;
      expect(await at.ec2('launch', ...words, ...record)).toEqual(launched);
      expect(double.calls.slice(made)).not.toContain('PutSnapshotBlock');
      await at.ec2('cleanup', ...record, '--yes');
      expect([double.ec2.images.size, double.ebs.snapshots.size]).toEqual([0, 0]);

      const chain = ['--chain', at.file('chain.json')];
      const [whole] = await at.ec2<PrestagedVolume[]>('prestage', ...words, ...chain);
      expect(whole).toMatchObject({ kind: 'full' });
      // A MiB of data becomes zeros, and some bytes elsewhere change.
      const bytes = readFileSync(path);
      bytes.fill(0, 9 * MIB, 10 * MIB);
      randomBytes(500).copy(bytes, 20 * MIB);
      writeFileSync(path, bytes);
      const second = await at.point();
      const next = ['--point', second.id, '--plan', plan];
      const [delta] = await at.ec2<PrestagedVolume[]>('prestage', ...next, ...chain);
      expect(delta).toMatchObject({ kind: 'delta', putBlocks: 3 });
      expect(holds(double, delta!.snapshotId, path)).toBe(true);

      const again = ['--record', at.file('failover.json')];
      const puts = double.calls.filter((call) => call === 'PutSnapshotBlock').length;
      const failover = await at.ec2<LaunchedInstance>('launch', ...next, ...again, ...chain);
      expect(failover.snapshotIds).toEqual([delta!.snapshotId]);
      expect(double.calls.filter((call) => call === 'PutSnapshotBlock')).toHaveLength(puts);
      await at.ec2('cleanup', ...again, '--keep-instance', '--yes');
      expect(double.ec2.instances.get(failover.instanceId)!.state).toBe('running');
      expect([...double.ebs.snapshots.keys()]).toEqual([delta!.snapshotId]);
    });
  });

  it('launches as a drill: planned, begun, found again after a restart of staging, stopped', async () => {
    await withScratch('ec2-drill', async (scratch) => {
      const at = await home(scratch);
      const { double, path } = at;
      const { id } = await at.point();
      const words = ['drill', 'start', '--point', id, '--target', 'ec2', '--plan', writePlan(at)];
      const dry = await at.staging.run(...words, '--dry-run');
      expect(dry.out).toMatch(/RunInstances/);
      expect(double.calls).toEqual([]);

      // Killed while blocks are on their way.
      let puts = 0;
      double.fault = (call) => {
        puts += call === 'PutSnapshotBlock' ? 1 : 0;
        return puts >= 3 ? { kind: 'drop', isDone: true } : undefined;
      };
      const job = await at.staging.json<{ id: string }>(...words);
      await waitFor('puts', () => puts >= 3, { timeoutMs: 120_000 });
      await at.staging.daemon.kill();
      double.fault = () => undefined;
      const again = await Staging.start(scratch, { dataFolder: at.staging.dataFolder });
      const up = await again.json<{ access: Record<string, string> }>('job', 'wait', job.id);
      expect(up.access).toMatchObject({ type: 'm6i.large', privateAddress: '10.0.0.7' });
      expect(double.calls.filter((call) => call === 'StartSnapshot')).toHaveLength(1);
      const [snapshot] = double.ebs.snapshots.keys();
      expect(holds(double, snapshot!, path)).toBe(true);
      expect(await again.run('drill', 'stop', job.id)).toMatchObject({ exitCode: 0 });
      expect([double.ec2.images.size, double.ebs.snapshots.size]).toEqual([0, 0]);
      expect(double.ec2.instances.size).toBe(1);
      for (const { state } of double.ec2.instances.values()) expect(state).toBe('shutting-down');
    });
  });

  it('keeps snapshots ready; a failover uploads the last difference, and is stopped and discarded', async () => {
    await withScratch('ec2-ready', async (scratch) => {
      const at = await home(scratch, ['--ec2-prestage', '10s', '--ec2-region', 'us-east-1']);
      const { double, path, staging } = at;
      const { server } = scratch;
      const kept = async () => {
        const { servers } = await at.ec2<ApiPrestage>('status');
        return servers.find((each) => each.server === server)!;
      };
      const isAt = async (point: string) =>
        waitFor(
          'the snapshots of a point',
          async () => {
            const { state, volumes } = await kept();
            return state === 'current' && volumes[0]!.point! >= point;
          },
          { timeoutMs: 120_000 },
        );
      const first = await at.point();
      await at.ec2('chain', 'run', server);
      await isAt(first.id);
      expect(holds(double, (await kept()).volumes[0]!.snapshotId!, path)).toBe(true);
      // From now on only when asked: the launch shall find something to upload.
      await at.ec2('chain', 'off', server);
      const bytes = readFileSync(path);
      randomBytes(500).copy(bytes, 20 * MIB);
      bytes.fill(0, 9 * MIB, 9 * MIB + 4096);
      writeFileSync(path, bytes);
      const { id } = await at.point();

      const plan = ['--plan', writePlan(at, { instanceType: undefined })];
      const words = ['failover', 'start', '--point', id, '--target', 'ec2'];
      const dry = await staging.run(...words, ...plan, '--dry-run');
      expect(dry.out).toMatch(/instance type \S+: the smallest of m6i, c6i, r6i with \d+ CPUs/);
      expect(dry.out).toMatch(/PutSnapshotBlock x 2 /);
      expect(dry.out).toMatch(/An estimate, .*not checked/);
      writePlan(at);
      const before = double.calls.filter((call) => call === 'PutSnapshotBlock').length;
      const job = await staging.json<{ id: string }>(...words, ...plan, '--yes', '--wait');
      expect(double.calls.filter((call) => call === 'PutSnapshotBlock')).toHaveLength(before + 2);
      const [instance] = double.ec2.instances.values();
      const image = double.ec2.images.get(instance!.imageId)!;
      expect(holds(double, image.snapshots[0]!, path)).toBe(true);
      expect(instance!.tags).toMatchObject({ 'understudy-kind': 'failover' });

      expect(await staging.run('failover', 'stop', job.id)).toMatchObject({ exitCode: 0 });
      expect(instance!.state).toBe('stopped');
      expect(double.ec2.volumes.size).toBe(1);
      await staging.json('failover', 'start', '--again', job.id, '--yes', '--wait');
      expect(instance!.state).toBe('running');
      await staging.run('failover', 'stop', job.id);
      expect(await staging.run('failover', 'discard', job.id, '--yes')).toMatchObject({
        exitCode: 0,
      });
      expect(instance!.state).toBe('terminated');
      expect([double.ec2.volumes.size, double.ec2.images.size]).toEqual([0, 0]);
      // The chain is as it was; switched off, it can be deleted.
      expect(double.ebs.snapshots.size).toBe(1);
      expect((await staging.run('server', 'show', server)).out).toMatch(/ec2 snapshots: off/);
      await at.ec2('chain', 'off', server, '--delete', '--yes');
      expect(double.ebs.snapshots.size).toBe(0);
    });
  });

  it('says in one line what is wrong', async () => {
    await withScratch('ec2-bad', async (scratch) => {
      const at = await home(scratch);
      const { id } = await at.point();
      const record = ['--record', at.file('r.json')];
      const launch = (...words: string[]) => at.refused('launch', ...words, ...record);
      const bad = async (
        exitCode: number,
        code: string,
        run: Promise<{ exitCode: number; err: string }>,
      ) => {
        const ran = await run;
        expect(ran.err).toMatch(new RegExp(`^error: .+ \\(${code}\\)\\nhint: .+\\n$`));
        expect(ran.exitCode).toBe(exitCode);
      };
      const plan = ['--plan', writePlan(at)];
      await bad(5, 'ERR_POINT_NOT_FOUND', launch('--point', 'p-no', ...plan));
      await bad(5, 'ERR_DISK_NOT_FOUND', launch('--point', id, '--plan', at.file('none.json')));
      at.double.ebs.settings.pendingLimit = 0;
      await bad(3, 'ERR_AWS_QUOTA', launch('--point', id, ...plan));
      at.double.ebs.settings.pendingLimit = 100;
      process.env.AWS_ACCESS_KEY_ID = 'AKIAWRONG';
      await bad(6, 'ERR_AWS_CREDENTIALS', launch('--point', id, ...plan));
      process.env.AWS_ACCESS_KEY_ID = ACCESS_KEY;
      writePlan(at, { instanceType: 'x9.huge' });
      await bad(6, 'ERR_EC2_INSTANCE_TYPE', launch('--point', id, ...plan));
      writePlan(at, { subnetId: 'here' });
      await bad(2, 'ERR_EC2_PLAN', launch('--point', id, ...plan));
      writeFileSync(at.file('r.json'), 'x');
      writePlan(at);
      await bad(6, 'ERR_EC2_RECORD', launch('--point', id, ...plan));
    });
  });
});

describe('moto', () => {
  it('understands every call of a launch and of its cleanup, and holds the bytes', async () => {
    const moto = await startMoto();
    useKey('test');
    const world = { clock: systemClock, random: Math.random };
    const aws = new AwsConnection(world, { endpoint: moto.endpoint, region: 'us-east-1' });
    const stop = new AbortController().signal;
    const quiet = { stop, onNote: () => undefined };
    try {
      const { Subnets } = await aws.ec2.send(new DescribeSubnetsCommand({}));
      const subnetId = Subnets![0]!.SubnetId!;
      const fields = { subnetId, instanceType: 'auto', source: { cpus: 2, memoryGiB: 8 } };
      const plan = fitPlan(parsePlan(JSON.stringify(fields), 'plan'), null, []);
      let record: LaunchRecord | null = null;
      const done = await launchInstance(aws, {
        ...{ job: 'job-1', server: 'web1', point: 'p1', plan, ...quiet, checkShare: 1 },
        sources: [{ volume: 'vda', image: imageOf(disk()) }],
        journal: {
          load: async () => record,
          save: async (next) => {
            record = next;
          },
        },
        quota: new PutQuota(systemClock),
        waitsForChecks: true,
        onProgress: () => undefined,
      });
      expect(done).toMatchObject({ instanceType: 'm6i.large', bootMode: 'uefi' });
      const ec2 = new Ec2Calls(aws, stop);
      expect(await ec2.snapshotsOf('job-1')).toEqual(done.snapshotIds);
      expect(await ec2.instancesOf('job-1')).toEqual([done.instanceId]);
      await ec2.stopInstance(done.instanceId);
      await waitUntilStopped({ ec2, clock: systemClock, stop }, done.instanceId);
      await ec2.startInstance(done.instanceId);
      expect((await ec2.instance(done.instanceId))?.State?.Name).toBe('running');
      const volumes = await ec2.volumesOf('job-1');
      expect(volumes.length).toBeGreaterThan(0);
      const report = await cleanUp(aws, {
        ...{ record: record!, keepsInstance: false, removesVolumes: true, waitsForEnd: true },
        ...quiet,
      });
      expect(await ec2.volumesOf('job-1')).toEqual([]);
      expect(report).toEqual({
        instances: [done.instanceId],
        volumes: expect.any(Array),
        images: [done.imageId],
        snapshots: done.snapshotIds,
      });
      expect(await ec2.snapshot(done.snapshotIds[0]!)).toBe(null);
    } finally {
      aws.close();
      await moto.stop();
    }
  });
});
