/** The parts of the EC2 target that decide: chains, plans, boot modes, sizes, prices, the policy, the quota. */
import { createHash, randomBytes } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Clock } from '../../src/base/clock.ts';
import { blocksOf, EBS_BLOCK_BYTES, sizeGiB } from '../../src/recovery/ec2/block-image.ts';
import { bootModeOf } from '../../src/recovery/ec2/boot-mode.ts';
import {
  type ChainHead,
  type ChainWish,
  planStep,
  toDelete,
} from '../../src/recovery/ec2/chain.ts';
import { dryRun } from '../../src/recovery/ec2/dry-run.ts';
import { Frontier } from '../../src/recovery/ec2/frontier.ts';
import { iamPolicy, iamPolicyText, impliedActions } from '../../src/recovery/ec2/iam-policy.ts';
import { parsePlan } from '../../src/recovery/ec2/launch-plan.ts';
import { instanceHour, requestCost } from '../../src/recovery/ec2/prices.ts';
import { type Lane, PutQuota } from '../../src/recovery/ec2/put-quota.ts';
import {
  deviceName,
  registerImageRequest,
  runInstancesRequest,
} from '../../src/recovery/ec2/requests.ts';
import { longestWaitMs, retrying } from '../../src/recovery/ec2/retry.ts';
import { rightSize } from '../../src/recovery/ec2/right-size.ts';
import { emptySha256, sha256Finish, sha256Update } from '../../src/recovery/ec2/running-sha256.ts';
import { tagsOf } from '../../src/recovery/ec2/tags.ts';
import { bootDisk } from './support/boot-disk.ts';

const root = resolve(import.meta.dirname, '../..');

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

describe('the running SHA-256', () => {
  it('equals the one of node, however the bytes are cut and written down in between', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 12 }), (parts) => {
        let state = emptySha256;
        for (const part of parts) {
          state = JSON.parse(JSON.stringify(sha256Update(state, part)));
        }
        const expected = createHash('sha256').update(Buffer.concat(parts)).digest('hex');
        expect(sha256Finish(state).toString('hex')).toBe(expected);
      }),
    );
  });
});

describe('blocks of extents', () => {
  it('are those touched, each once, ascending, inside the image', async () => {
    const sizeBytes = 10 * EBS_BLOCK_BYTES - 100;
    const extents = [
      { offset: 5, length: 10 },
      { offset: 100, length: EBS_BLOCK_BYTES },
      { offset: 4 * EBS_BLOCK_BYTES - 1, length: 2 },
      { offset: 9 * EBS_BLOCK_BYTES, length: 5 * EBS_BLOCK_BYTES },
    ];
    const from = (first: number) => collect(blocksOf(extents, sizeBytes, first));
    expect(await from(0)).toEqual([0, 1, 3, 4, 9]);
    expect(await from(4)).toEqual([4, 9]);
  });

  it('sizes are whole GiB, up to 64 TiB', () => {
    expect([1, 2 ** 30, 2 ** 30 + 1].map(sizeGiB)).toEqual([1, 1, 2]);
    expect(() => sizeGiB(2 ** 46 + 1)).toThrow('EBS ends at');
  });
});

describe('the frontier', () => {
  it('is below the first block that has not ended, whatever the order', () => {
    const frontier = new Frontier(3);
    const digests = [0, 1, 2].map((byte) => Buffer.from([byte]));
    const ends = [3, 7, 8].map((index) => frontier.begin(index));
    expect(frontier.take()).toEqual({ next: 3, digests: [] });
    ends[1]!(digests[1]!);
    expect(frontier.take().next).toBe(3);
    ends[0]!(null);
    expect(frontier.take()).toEqual({ next: 8, digests: [digests[1]] });
    ends[2]!(digests[2]!);
    expect(frontier.take()).toEqual({ next: 9, digests: [digests[2]] });
  });
});

describe('the rolling chain', () => {
  const head: ChainHead = { snapshotId: 'snap-1', point: 'p1', sizeGiB: 8, encryption: null };
  const wish: ChainWish = {
    ...{ point: 'p2', sizeGiB: 8, encryption: null, isHeadThere: true, isDeltaKnown: true },
  };
  it('goes on with a delta over its head, or keeps it', () => {
    const delta = { kind: 'delta', parentSnapshotId: 'snap-1', fromPoint: 'p1' };
    expect(planStep(head, wish)).toEqual(delta);
    expect(planStep(head, { ...wish, point: 'p1' })).toEqual({
      kind: 'keep',
      snapshotId: 'snap-1',
    });
  });

  it.each([
    ['first', null, {}],
    ['snapshot-gone', head, { isHeadThere: false }],
    ['other-key', head, { encryption: { kmsKeyArn: null } }],
    ['other-key', { ...head, encryption: { kmsKeyArn: 'a' } }, { encryption: { kmsKeyArn: 'b' } }],
    ['other-size', head, { sizeGiB: 9 }],
    ['differences-unknown', head, { isDeltaKnown: false }],
  ] as const)('begins anew: %s', (reason, held, change) => {
    expect(planStep(held, { ...wish, ...change })).toEqual({ kind: 'full', reason });
  });

  it('gives up what the head replaced, but not what images use', () => {
    expect(toDelete(['a', 'b', 'c'], 'c', new Set(['a']))).toEqual(['b']);
  });
});

describe('the boot mode', () => {
  it.each([
    ['legacy-bios', { table: 'mbr' }],
    ['uefi', { table: 'mbr', partitions: ['efi'], hasCode: false }],
    ['legacy-bios', { table: 'gpt', partitions: ['bios', 'linux'] }],
    ['uefi', { table: 'gpt', partitions: ['efi', 'linux'], hasCode: false }],
    ['uefi', { table: 'gpt', partitions: ['efi', 'linux'] }],
    ['uefi-preferred', { table: 'gpt', partitions: ['linux', 'bios', 'efi'] }],
  ] as const)('%s: %j', (mode, kind) => {
    expect(bootModeOf(bootDisk(kind), 'vda')).toBe(mode);
  });

  it.each([
    ['no partition table', { table: 'none' }],
    ['4,096 bytes', { table: 'gpt', sector: 4096 }],
  ] as const)('refuses a disk: %s', (why, kind) => {
    expect(() => bootModeOf(bootDisk(kind), 'vda')).toThrow(why);
  });

  it('refuses a disk whose GPT is gone', () => {
    const disk = bootDisk({ table: 'gpt' });
    disk.fill(0, 512, 1024);
    expect(() => bootModeOf(disk, 'vda')).toThrow('damaged');
  });

  it('of a hostile disk is a mode or a refusal, and nothing else', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(2047), fc.nat(255)), { maxLength: 60 }), (changes) => {
        const disk = bootDisk({ table: 'gpt', partitions: ['efi', 'bios'] });
        for (const [at, byte] of changes) disk[at] = byte;
        try {
          expect(bootModeOf(disk, 'vda')).toMatch(/^(legacy-bios|uefi|uefi-preferred)$/);
        } catch (error) {
          expect(error).toMatchObject({ code: 'ERR_EC2_DISK' });
        }
      }),
    );
  });
});

const type = (InstanceType: string, cpus: number, gib: number, modes = ['legacy-bios', 'uefi']) =>
  ({
    InstanceType,
    VCpuInfo: { DefaultVCpus: cpus },
    MemoryInfo: { SizeInMiB: gib * 1024 },
    ProcessorInfo: { SupportedArchitectures: ['x86_64'] },
    SupportedBootModes: modes,
  }) as Parameters<typeof rightSize>[0][number];

describe('right-sizing', () => {
  const types = [
    type('r6i.large', 2, 16),
    type('m6i.large', 2, 8),
    type('c6i.large', 2, 4, ['uefi']),
    type('m6i.xlarge', 4, 16),
    type('c6i.xlarge', 4, 8),
  ];
  const wanted = { architecture: 'x86_64', bootMode: 'legacy-bios' } as const;
  it.each([
    [{ cpus: 2, memoryGiB: 3.5 }, 'm6i.large'],
    [{ cpus: 2, memoryGiB: 8.3 }, 'm6i.large'],
    [{ cpus: 2, memoryGiB: 12 }, 'r6i.large'],
    [{ cpus: 3, memoryGiB: 4 }, 'c6i.xlarge'],
    [{ cpus: 4, memoryGiB: 15 }, 'm6i.xlarge'],
  ])('%j: %s', (source, name) => {
    expect(rightSize(types, source, wanted)).toBe(name);
  });

  it('says that none is large enough', () => {
    expect(() => rightSize(types, { cpus: 64, memoryGiB: 1 }, wanted)).toThrow('64 CPUs');
    const arm = { ...wanted, architecture: 'arm64' } as const;
    expect(() => rightSize(types, { cpus: 1, memoryGiB: 1 }, arm)).toThrow('arm64');
  });
});

const least = { instanceType: 'm6i.large', subnetId: 'subnet-0a' };
const planOf = (fields: object) => parsePlan(JSON.stringify({ ...least, ...fields }), 'p.json');

describe('the launch plan', () => {
  it('has defaults', () => {
    expect(planOf({})).toMatchObject({
      ...{ instanceType: 'm6i.large', architecture: 'x86_64', bootMode: 'auto', encryption: null },
      ...{ volumeType: 'gp3', keepsVolumes: false, securityGroupIds: [], tags: {} },
    });
    expect(planOf({ encrypted: true }).encryption).toEqual({ kmsKeyArn: null });
  });

  it.each([
    [{ instanceTyp: 'x' }, 'instanceTyp is no field'],
    [{ instanceType: 'large' }, 'instanceType is "large"'],
    [{ instanceType: 'auto' }, 'source is needed'],
    [{ instanceType: 'auto', source: { cpus: 2 } }, 'source.memoryGiB is missing'],
    [{ source: { cpus: 2.5, memoryGiB: 1 } }, 'source.cpus is 2.5, not a whole number'],
    [{ source: { cpus: 2, memoryGiB: 1, disks: 1 } }, 'source.disks is no field'],
    [{ subnetId: undefined }, 'subnetId is needed'],
    [{ subnetId: 'vpc-1' }, 'subnetId is "vpc-1"'],
    [{ securityGroupIds: [] }, 'securityGroupIds is []'],
    [{ securityGroupIds: 'sg-1' }, 'not a list like ["sg-0a1b2c3d"]'],
    [{ bootMode: 'bios' }, 'bootMode is "bios", none of auto'],
    [{ kmsKeyArn: 'alias/x' }, 'kmsKeyArn'],
    [{ kmsKeyArn: 'arn:aws:kms:us-east-1:123456789012:key/a', encrypted: false }, 'encrypted'],
    [{ tags: { 'understudy-job': 'x' } }, 'tags cannot have "understudy-job"'],
    [{ tags: ['x'] }, 'tags is no object'],
    [{ launchTemplate: { version: '1' } }, 'launchTemplate.id is missing'],
    [{ volumeType: 'io2' }, 'iops is needed for io2'],
    [{ volumeType: 'gp2', iops: 3000 }, 'iops is not for gp2'],
    [{ volumeType: 'st1', throughputMiB: 200 }, 'throughputMiB is for gp3'],
    [{ publicAddress: 'yes' }, 'publicAddress is "yes"'],
    [{ privateAddress: '10.0.0' }, 'privateAddress is "10.0.0"'],
    [{ region: 'Frankfurt' }, 'region is "Frankfurt"'],
  ])('%j: %s', (fields, message) => {
    try {
      planOf(fields);
      expect.unreachable();
    } catch (error) {
      expect(error).toMatchObject({ code: 'ERR_EC2_PLAN' });
      expect((error as Error).message).toContain(`p.json: `);
      expect((error as Error).message).toContain(message);
    }
  });

  it.each(['{', '[]', 'null', '"x"'])('%s is no plan', (text) => {
    expect(() => parsePlan(text, 'p.json')).toThrow('p.json');
  });

  it('the example in the documentation is one', () => {
    const text = readFileSync(join(root, 'install/aws/README.md'), 'utf8');
    const example = /```json\n([\s\S]*?)```/.exec(text)![1]!;
    const plan = parsePlan(example, 'README');
    expect(plan.securityGroupIds).toHaveLength(1);
    // Every field is described.
    for (const field of Object.keys(JSON.parse(example)))
      expect(text).toContain(`| \`${field}\` |`);
  });
});

const facts = (fields: object) => ({
  ...{ job: 'j1', server: 'web 1', point: 'p1', plan: planOf(fields), bootMode: 'uefi' as const },
  volumes: ['vda', 'vdb'].map((volume, at) => ({ volume, snapshotId: `snap-${at}` })),
  tags: tagsOf('j1', { server: 'web 1' }, { team: 'a' }),
});

describe('requests', () => {
  it('an image of all volumes, the root first', () => {
    const request = registerImageRequest(facts({ volumeType: 'gp3', throughputMiB: 250 }));
    expect(request).toMatchObject({
      ...{
        Architecture: 'x86_64',
        BootMode: 'uefi',
        EnaSupport: true,
        RootDeviceName: '/dev/xvda',
      },
    });
    expect(request.Name).toMatch(/^understudy-web-1-[0-9a-f]{24}$/);
    expect(request.BlockDeviceMappings).toMatchObject([
      { DeviceName: '/dev/xvda', Ebs: { SnapshotId: 'snap-0', Throughput: 250 } },
      { DeviceName: '/dev/xvdb', Ebs: { SnapshotId: 'snap-1', DeleteOnTermination: true } },
    ]);
  });

  it('an instance as the plan says; the same plan gives the same token', () => {
    const fields = {
      ...{ securityGroupIds: ['sg-1'], instanceProfile: 'web', keyName: 'ops' },
      ...{ privateAddress: '10.0.0.7', launchTemplate: { id: 'lt-1', version: '3' } },
    };
    const request = runInstancesRequest(facts(fields), 'ami-1', 'm6i.large');
    expect(request).toMatchObject({
      ...{ ImageId: 'ami-1', InstanceType: 'm6i.large', MinCount: 1, MaxCount: 1 },
      ...{ SubnetId: 'subnet-0a', SecurityGroupIds: ['sg-1'], PrivateIpAddress: '10.0.0.7' },
      ...{ IamInstanceProfile: { Name: 'web' }, KeyName: 'ops' },
      LaunchTemplate: { LaunchTemplateId: 'lt-1', Version: '3' },
    });
    expect(request.ClientToken).toHaveLength(64);
    expect(runInstancesRequest(facts(fields), 'ami-1', 'm6i.large')).toEqual(request);
    const other = runInstancesRequest(facts(fields), 'ami-1', 'c6i.large');
    expect(other.ClientToken).not.toBe(request.ClientToken);
  });

  it('a public address is asked for with its interface', () => {
    const request = runInstancesRequest(facts({ publicAddress: true }), 'ami-1', 'm6i.large');
    expect(request.SubnetId).toBeUndefined();
    expect(request.NetworkInterfaces).toEqual([
      { DeviceIndex: 0, AssociatePublicIpAddress: true, SubnetId: 'subnet-0a' },
    ]);
  });

  it('device names are different for 60 volumes', () => {
    const names = Array.from({ length: 60 }, (_, index) => deviceName(index));
    expect(new Set(names).size).toBe(60);
    for (const name of names) expect(name).toMatch(/^\/dev\/xvd[a-z]{1,2}$/);
  });
});

describe('the dry run', () => {
  const told = dryRun({
    ...{ job: 'j', server: 's', point: 'p', plan: planOf({}), bootMode: 'uefi' as const },
    ...{ instanceType: 'm6i.large', checkShare: 0.5, timeoutMinutes: 60 },
    volumes: [
      { volume: 'vda', sizeBytes: 2 ** 33, step: { kind: 'full', reason: 'first' }, blocks: 2000 },
      {
        volume: 'vdb',
        sizeBytes: 2 ** 30,
        step: { kind: 'keep', snapshotId: 'snap-9' },
        blocks: 0,
      },
    ],
  });

  it('has the calls with their number and the cost', () => {
    const put = told.calls.find(({ call }) => call === 'PutSnapshotBlock')!;
    expect(put).toMatchObject({ count: 2000, costUsd: 0.012 });
    expect(told.requestsUsd).toBeCloseTo(0.012 + 0.003 + 2 * 0.0006e-3, 9);
    expect(told.hourly.instanceUsd).toBeCloseTo(0.096, 6);
    expect(JSON.stringify(told.calls)).toContain('snap-9');
  });

  it('prices follow the size within a family', () => {
    expect(instanceHour('m6i.4xlarge')).toBeCloseTo(0.768, 6);
    expect([instanceHour('u-6tb1.metal'), instanceHour('odd')]).toEqual([null, null]);
    expect(requestCost('put', 1000)).toBe(0.006);
  });
});

describe('the IAM policy', () => {
  const actions = new Set(iamPolicy.Statement.flatMap((statement) => statement.Action));
  const folder = join(root, 'src/recovery/ec2');
  const calls = readdirSync(folder).flatMap((name) => {
    const text = readFileSync(join(folder, name), 'utf8');
    const imports = [...text.matchAll(/import \{([^}]*)\} from '@aws-sdk\/client-(\w+)'/g)];
    const service = (command: string) =>
      imports.find(([, names]) => names!.includes(`${command}Command`))?.[2];
    const found = [...text.matchAll(/new (\w+)Command\(/g)].map((match) => match[1]!);
    return found.map((command) => `${service(command)}:${command}`);
  });

  it('allows every call in the code, what AWS checks along with them, and nothing else', () => {
    expect(calls.length).toBeGreaterThan(14);
    expect([...actions].sort()).toEqual([...new Set([...calls, ...impliedActions])].sort());
  });

  it('binds every change to the tag, but for where EC2 cannot', () => {
    const unbound = iamPolicy.Statement.filter((statement) => statement.Condition === undefined);
    expect(unbound.map(({ Sid }) => Sid)).toEqual(['Look', 'RunIn']);
    expect(actions.has('*')).toBe(false);
  });

  it('is the file in install', () => {
    expect(readFileSync(join(root, 'install/aws/iam-policy.json'), 'utf8')).toBe(iamPolicyText());
  });
});

/** A clock that only moves when told. */
function handClock(): Clock & { advance(ms: number): Promise<void> } {
  let nowMs = 0;
  let timers: { atMs: number; run: () => void }[] = [];
  return {
    wallMs: () => nowMs,
    monotonicMs: () => nowMs,
    after(delayMs, run) {
      const timer = { atMs: nowMs + delayMs, run };
      timers.push(timer);
      return { cancel: () => (timers = timers.filter((held) => held !== timer)) };
    },
    async advance(ms) {
      const endMs = nowMs + ms;
      for (;;) {
        await new Promise((done) => setImmediate(done));
        const due = timers
          .filter((timer) => timer.atMs <= endMs)
          .sort((a, b) => a.atMs - b.atMs)[0];
        if (due === undefined) break;
        nowMs = due.atMs;
        timers = timers.filter((held) => held !== due);
        due.run();
      }
      nowMs = endMs;
    },
  };
}

describe('the quota of puts', () => {
  it('is kept, and shared fairly by uploads of different size', async () => {
    const clock = handClock();
    const quota = new PutQuota(clock, { putsPerSecond: 1000 });
    const never = new AbortController().signal;
    const taken = [0, 0];
    for (const [at, wanted] of [5000, 300].entries()) {
      const lane = quota.lane();
      for (let i = 0; i < wanted; i += 1) {
        lane.take(never).then(() => (taken[at]! += 1));
      }
    }
    await clock.advance(400);
    // A tenth of a second's worth was saved up.
    expect(taken[0]! + taken[1]!).toBeLessThanOrEqual(501);
    expect(taken[0]! + taken[1]!).toBeGreaterThan(490);
    // The large one had the saved ones, the small one its half of the rest.
    expect(taken[1]).toBeGreaterThan(190);
    await clock.advance(600);
    expect(taken[1]).toBe(300);
    expect(taken[0]! + taken[1]!).toBeLessThanOrEqual(1101);
  });

  it('a launch goes before what is prepared in the background, which has a rate of its own', async () => {
    const clock = handClock();
    const quota = new PutQuota(clock, { putsPerSecond: 1000, backgroundPerSecond: 100 });
    const never = new AbortController().signal;
    const taken = { launch: 0, huge: 0, small: 0 };
    const want = (name: keyof typeof taken, lane: Lane, wanted: number) => {
      for (let i = 0; i < wanted; i += 1) lane.take(never).then(() => (taken[name] += 1));
    };
    want('huge', quota.backgroundLane(), 5000);
    want('small', quota.backgroundLane(), 20);
    await clock.advance(300);
    // The huge one had what was saved up: the two share the rest.
    expect(taken.huge + taken.small).toBeGreaterThan(35);
    expect(taken.huge + taken.small).toBeLessThanOrEqual(41);
    expect(taken.small).toBeGreaterThan(13);
    const before = taken.huge + taken.small;
    want('launch', quota.lane(), 900);
    await clock.advance(800);
    expect(taken.launch).toBeGreaterThan(890);
    expect(taken.huge + taken.small).toBe(before);
    await clock.advance(1000);
    expect(taken.launch).toBe(900);
    expect(taken.small).toBe(20);
  });

  it('a launch does not wait for the turn of a slow background', async () => {
    const clock = handClock();
    const quota = new PutQuota(clock, { putsPerSecond: 100, backgroundPerSecond: 0.1 });
    const never = new AbortController().signal;
    const background = quota.backgroundLane();
    for (let i = 0; i < 3; i += 1) background.take(never).catch(() => undefined);
    const lane = quota.lane();
    let taken = 0;
    for (let i = 0; i < 50; i += 1) lane.take(never).then(() => (taken += 1));
    await clock.advance(500);
    expect(taken).toBe(50);
  });

  it('background uploads hold no more blocks than there is room, and share it', async () => {
    const quota = new PutQuota(handClock());
    const never = new AbortController().signal;
    const [huge, small] = [quota.backgroundLane(), quota.backgroundLane()];
    const leaves: (() => void)[] = [];
    let smallOnes = 0;
    for (let i = 0; i < 200; i += 1) huge.room(never).then((leave) => leaves.push(leave));
    for (let i = 0; i < 5; i += 1) {
      small.room(never).then((leave) => {
        smallOnes += 1;
        leaves.push(leave);
      });
    }
    const settled = () => new Promise((done) => setImmediate(done));
    await settled();
    expect(leaves).toHaveLength(64);
    for (const leave of leaves.slice(0, 10)) leave();
    await settled();
    expect(leaves).toHaveLength(74);
    expect(smallOnes).toBe(5);
    // A launch is bounded by itself alone.
    await quota.lane().room(never);
  });

  it('one that waits is let go when it is stopped, and leaves nothing behind', async () => {
    const clock = handClock();
    const quota = new PutQuota(clock, { putsPerSecond: 1 });
    const lane = quota.lane();
    await lane.take(new AbortController().signal);
    const stop = new AbortController();
    const waiting = lane.take(stop.signal);
    stop.abort(new Error('enough'));
    await expect(waiting).rejects.toThrow('enough');
    const next = lane.take(new AbortController().signal);
    await clock.advance(1100);
    await next;
  });
});

describe('trying again', () => {
  const policy = { tries: 5, firstMs: 100, capMs: 1000 };
  it('waits any part of a time that doubles, and ends', async () => {
    const clock = handClock();
    const waits: number[] = [];
    const slow = {
      ...clock,
      after: (ms: number, run: () => void) => {
        waits.push(ms);
        return clock.after(ms, run);
      },
    };
    const random = () => 0.5;
    const never = new AbortController().signal;
    const failing = retrying(
      { clock: slow, random },
      policy,
      never,
      () => true,
      async () => {
        throw new Error('busy');
      },
    );
    const ended = expect(failing).rejects.toThrow('busy');
    await clock.advance(10_000);
    await ended;
    expect(waits).toEqual([50, 100, 200, 400]);
    expect(longestWaitMs(policy, 9)).toBe(1000);
  });

  it('an abort ends the wait', async () => {
    const stop = new AbortController();
    const world = { clock: handClock(), random: () => 1 };
    const failing = retrying(
      world,
      policy,
      stop.signal,
      () => true,
      async () => {
        setImmediate(() => stop.abort(new Error('stopped')));
        throw new Error('busy');
      },
    );
    await expect(failing).rejects.toThrow('stopped');
  });
});

it('tags: ours stand, whatever a plan says', () => {
  const tags = tagsOf('j', { point: randomBytes(200).toString('hex') }, { 'understudy-job': 'x' });
  expect(tags).toContainEqual({ Key: 'understudy-job', Value: 'j' });
  expect(tags).toContainEqual({ Key: 'understudy-managed', Value: 'true' });
  for (const { Value } of tags) expect(Value.length).toBeLessThanOrEqual(255);
});
