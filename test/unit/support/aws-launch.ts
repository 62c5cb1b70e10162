/** Launches against the double, as several test files make them. */
import { randomBytes } from 'node:crypto';
import { type CleanupOptions, cleanUp } from '../../../src/recovery/ec2/cleanup.ts';
import { type LaunchOptions, launchInstance } from '../../../src/recovery/ec2/launch.ts';
import { type FittedPlan, fitPlan } from '../../../src/recovery/ec2/launch-choices.ts';
import { parsePlan } from '../../../src/recovery/ec2/launch-plan.ts';
import type { LaunchRecord } from '../../../src/recovery/ec2/launch-record.ts';
import { PutQuota } from '../../../src/recovery/ec2/put-quota.ts';
import { BLOCK_BYTES } from '../../tools/ebs-double.ts';
import { type AwsWorld, hurriedClock, memoryRecord } from './aws-world.ts';
import { bootDisk } from './boot-disk.ts';

/** Four blocks: a partition table, data, a hole, an odd end. */
export function rootDisk(): Buffer {
  const disk = bootDisk({ table: 'gpt', partitions: ['bios', 'linux'] }, 3 * BLOCK_BYTES + 4096);
  randomBytes(BLOCK_BYTES + 9000).copy(disk, BLOCK_BYTES);
  return disk;
}

export const planOf = (fields: object = {}): FittedPlan => fitPlan(parsedPlan(fields), null, []);

const parsedPlan = (fields: object) =>
  parsePlan(
    JSON.stringify({ instanceType: 'm6i.large', subnetId: 'subnet-0a', ...fields }),
    'plan.json',
  );

/** A launch of everything that has to be told; `sources` at least. */
export const launchIn = (
  world: AwsWorld,
  over: Partial<LaunchOptions> & Pick<LaunchOptions, 'sources'>,
) =>
  launchInstance(world.aws, {
    ...{ job: 'job-1', server: 'web1', point: 'point-1', plan: planOf() },
    journal: memoryRecord<LaunchRecord>(),
    quota: new PutQuota(hurriedClock, { putsPerSecond: 1e6 }),
    stop: new AbortController().signal,
    concurrency: 2,
    checkShare: 1,
    waitsForChecks: true,
    onProgress: () => undefined,
    onNote: () => undefined,
    ...over,
  });

export const cleanIn = (
  world: AwsWorld,
  record: LaunchRecord,
  over: Partial<CleanupOptions> = {},
) =>
  cleanUp(world.aws, {
    ...{ record, keepsInstance: false, waitsForEnd: true, onNote: () => undefined },
    stop: new AbortController().signal,
    ...over,
  });
