/** The parts of the EC2 target that decide: chains, plans, boot modes, sizes, prices, the policy, the quota. */
import { createHash, randomBytes } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { awsError } from '../../src/recovery/ec2/aws-errors.ts';
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
import {
  foreignTags,
  iamPolicy,
  iamPolicyText,
  impliedActions,
} from '../../src/recovery/ec2/iam-policy.ts';
import { expectedType, fitPlan } from '../../src/recovery/ec2/launch-choices.ts';
import { parsePlan } from '../../src/recovery/ec2/launch-plan.ts';
import {
  instanceHour,
  parsePrices,
  requestCost,
  standardPrices,
} from '../../src/recovery/ec2/prices.ts';
import {
  deviceName,
  registerImageRequest,
  runInstancesRequest,
} from '../../src/recovery/ec2/requests.ts';
import { rightSize } from '../../src/recovery/ec2/right-size.ts';
import { emptySha256, sha256Finish, sha256Update } from '../../src/recovery/ec2/running-sha256.ts';
import { tagsOf } from '../../src/recovery/ec2/tags.ts';
import { bootDisk } from './support/boot-disk.ts';
import fc from './support/properties.ts';

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
    expect(rightSize(types, source, wanted)[0]).toBe(name);
  });

  it('says that none is large enough', () => {
    expect(() => rightSize(types, { cpus: 64, memoryGiB: 1 }, wanted)).toThrow('64 CPUs');
    const arm = { ...wanted, architecture: 'arm64' } as const;
    expect(() => rightSize(types, { cpus: 1, memoryGiB: 1 }, arm)).toThrow('arm64');
  });
});

const least = { instanceType: 'm6i.large', subnetId: 'subnet-0a' };
const planOf = (fields: object) => parsePlan(JSON.stringify({ ...least, ...fields }), 'p.json');
const fitted = (fields: object) => fitPlan(planOf(fields), null, []);

describe('the launch plan', () => {
  it('has defaults', () => {
    expect(planOf({})).toMatchObject({
      ...{ instanceType: 'm6i.large', architecture: null, bootMode: 'auto', encryption: null },
      ...{ volumeType: 'gp3', keepsVolumes: null, securityGroupIds: [], tags: {} },
    });
    expect(planOf({ encrypted: true }).encryption).toEqual({ kmsKeyArn: null });
  });

  it.each([
    [{ instanceTyp: 'x' }, 'instanceTyp is no field'],
    [{ instanceType: 'large' }, 'instanceType is "large"'],
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
  ...{ job: 'j1', server: 'web 1', point: 'p1', plan: fitted(fields), bootMode: 'uefi' as const },
  kind: 'drill' as const,
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
    ...{ job: 'j', server: 's', point: 'p', plan: fitted({}), bootMode: 'uefi' as const },
    ...{ kind: 'drill', prices: standardPrices },
    instanceType: { name: 'm6i.large', reason: 'the plan names it' },
    ...{ checkShare: 0.5, timeoutMinutes: 60 },
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

  it('says what was chosen and why, and that its prices are an estimate', () => {
    expect(told.choices).toEqual([
      'vda boots, by uefi',
      'instance type m6i.large: the plan names it',
    ]);
    expect(told.prices).toMatchObject({ isEstimate: true, asOf: standardPrices.asOf });
    expect(told.prices.source).toContain('not checked');
  });

  it('chooses without asking anybody, as the launch would', () => {
    const plan = fitPlan(
      parsePlan('{"subnetId": "subnet-0a"}', 'p'),
      {
        ...{ timeMs: 0, architecture: 'x86_64', cpuCount: 6, memoryBytes: 30 * 2 ** 30 },
        bootVolume: 'vdb',
      },
      ['vda', 'vdb'],
    );
    expect(plan).toMatchObject({ rootVolume: 'vdb', source: { cpus: 6, memoryGiB: 30 } });
    expect(plan.reasons).toEqual([
      expect.stringContaining('root volume vdb: as the agent told at 1970'),
      expect.stringContaining('6 CPUs and 30 GiB'),
    ]);
    expect(expectedType(plan, 'uefi')).toMatchObject({ name: 'm6i.2xlarge' });
    expect(expectedType({ ...plan, families: ['x2idn'] }, 'uefi')).toBe(null);
    expect(() => fitPlan(parsePlan('{"subnetId": "subnet-0a"}', 'p'), null, [])).toThrow('source');
  });

  it('prices of your own go before the standard ones, and have to say what they are', () => {
    const words = { region: 'eu-central-1', asOf: '2026-11', source: 'our contract' };
    const text = (fields: object) => JSON.stringify({ ...words, ...fields });
    const own = parsePrices(text({ put: 1, instanceHour: { 'm6i.large': 9 } }), 'f');
    expect(requestCost(own, 'put', 1000)).toBe(1);
    expect(instanceHour(own, 'm6i.large')).toBe(9);
    expect(instanceHour(own, 'm6i.xlarge')).toBeCloseTo(0.192, 6);
    expect(own).toMatchObject({ ...words, get: standardPrices.get });
    for (const [given, message] of [
      ['{', 'not JSON'],
      ['[]', 'no object'],
      ['{"put": 1}', 'region is missing'],
      [text({ put: -1 }), 'put is no price'],
      [text({ putt: 1 }), 'putt is no field'],
      [text({ cpuHour: { m6i: 'x' } }), 'cpuHour.m6i is no price'],
      [text({ volumeGBMonth: 3 }), 'volumeGBMonth. is no price'],
    ] as const) {
      expect(() => parsePrices(given, 'f')).toThrow(message);
    }
  });

  it('prices follow the size within a family', () => {
    expect(instanceHour(standardPrices, 'm6i.4xlarge')).toBeCloseTo(0.768, 6);
    expect([
      instanceHour(standardPrices, 'u-6tb1.metal'),
      instanceHour(standardPrices, 'odd'),
    ]).toEqual([null, null]);
    expect(requestCost(standardPrices, 'put', 1000)).toBe(0.006);
  });
});

describe('an error of AWS', () => {
  const said = (name: string, message: string, more: object = {}) =>
    Object.assign(new Error(message), { name, $metadata: { httpStatusCode: 403 }, ...more });

  it.each([
    ['RunInstances', 'You are not authorized to perform this operation.', 'ec2:RunInstances'],
    [
      'RunInstances',
      'User: arn:aws:iam::1:user/u is not authorized to perform: iam:PassRole on resource: arn:aws:iam::1:role/web. ' +
        'Encoded authorization failure message: AbCdEf-0123456789',
      'iam:PassRole',
    ],
    ['StartSnapshot', 'denied', 'ebs:StartSnapshot'],
    ['DescribeSubnets', '', 'ec2:DescribeSubnets'],
  ])('%s denied, %s: the right %s is missing', (call, message, action) => {
    const error = awsError(said('UnauthorizedOperation', message), call, 'x');
    expect(error.code).toBe('ERR_AWS_DENIED');
    expect(error.message).toMatch(new RegExp(`^${call} x: .*; the right ${action} is missing$`));
    expect(error.message).not.toContain('Encoded');
    expect(error.message).not.toContain('\n');
  });

  it('of a region that is none, and of one that is not switched on', () => {
    const error = said('Error', 'getaddrinfo ENOTFOUND ec2.eu-centrall-1.amazonaws.com', {
      ...{ code: 'ENOTFOUND', $metadata: undefined },
    });
    expect(awsError(error, 'DescribeSubnets', 'subnet-1')).toMatchObject({
      code: 'ERR_AWS_UNAVAILABLE',
      message: expect.stringMatching(/eu-centrall-1.*; is there a region of that name\?$/),
    });
    const off = said('OptInRequired', 'You are not subscribed to this service.');
    expect(awsError(off, 'RunInstances', '').code).toBe('ERR_AWS_CREDENTIALS');
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

  it('gives the tag to no snapshot that is known to be of somebody else', () => {
    const { Condition } = iamPolicy.Statement.find(({ Sid }) => Sid === 'TagNewSnapshots')!;
    expect(Condition!.Null).toEqual({
      'aws:ResourceTag/aws:backup:source-resource': 'true',
      'aws:ResourceTag/aws:dlm:lifecycle-policy-id': 'true',
      'aws:ResourceTag/understudy-hands-off': 'true',
    });
    // Nobody takes the mark away, and nothing of ours may bear it.
    expect([...actions].filter((action) => action.includes('DeleteTags'))).toEqual([]);
    const ours = tagsOf('j', { point: 'p' }, {}).map(({ Key }) => Key);
    expect(ours.filter((key) => foreignTags.includes(key))).toEqual([]);
  });

  it('is the file in install', () => {
    expect(readFileSync(join(root, 'install/aws/iam-policy.json'), 'utf8')).toBe(iamPolicyText());
  });
});

it('tags: ours stand, whatever a plan says', () => {
  const tags = tagsOf('j', { point: randomBytes(200).toString('hex') }, { 'understudy-job': 'x' });
  expect(tags).toContainEqual({ Key: 'understudy-job', Value: 'j' });
  expect(tags).toContainEqual({ Key: 'understudy-managed', Value: 'true' });
  for (const { Value } of tags) expect(Value.length).toBeLessThanOrEqual(255);
});
