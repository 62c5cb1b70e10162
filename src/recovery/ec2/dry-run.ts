/**
 * Every call that a launch would make, with its parameters and what it costs, made by the same functions as
 * the launch's own requests. Ids that only the calls themselves give stand in angle brackets. Pure.
 */

import { EBS_BLOCK_BYTES, sizeGiB } from './block-image.ts';
import type { BootMode } from './boot-mode.ts';
import type { ChainStep } from './chain.ts';
import type { LaunchPlan } from './launch-plan.ts';
import { instanceHour, requestCost, snapshotHour, volumeHour } from './prices.ts';
import { registerImageRequest, runInstancesRequest } from './requests.ts';
import { tagsOf } from './tags.ts';
import { newRecord, startRequest } from './upload-record.ts';

export interface DryVolume {
  readonly volume: string;
  readonly sizeBytes: number;
  readonly step: ChainStep;
  /** Blocks that would be put; with 'keep' none. */
  readonly blocks: number;
}

export interface DryFacts {
  readonly job: string;
  readonly server: string;
  readonly point: string;
  readonly plan: LaunchPlan;
  readonly volumes: readonly DryVolume[];
  readonly bootMode: BootMode;
  /** Null: chosen by the rule, and nobody was asked. */
  readonly instanceType: string | null;
  readonly checkShare: number;
  readonly timeoutMinutes: number;
}

export interface PlannedCall {
  readonly service: 'ebs' | 'ec2';
  readonly call: string;
  readonly count: number;
  /** Parameters; null where they differ from call to call. */
  readonly request: object | null;
  readonly costUsd: number;
}

export interface DryRun {
  readonly calls: readonly PlannedCall[];
  /** Paid once: for the requests. */
  readonly requestsUsd: number;
  /** For each hour that it stands; null: the table has no price of the type. */
  readonly hourly: {
    readonly instanceUsd: number | null;
    readonly volumesUsd: number;
    readonly snapshotsUsd: number;
  };
}

const PAGE_BLOCKS = 1000;

export function dryRun(facts: DryFacts): DryRun {
  const calls = [
    ...typeCalls(facts),
    ...facts.volumes.flatMap((volume) => volumeCalls(facts, volume)),
    ...instanceCalls(facts),
  ];
  const { plan, volumes, instanceType } = facts;
  const sum = (of: (volume: DryVolume) => number) =>
    volumes.reduce((total, volume) => total + of(volume), 0);
  return {
    calls,
    requestsUsd: calls.reduce((total, { costUsd }) => total + costUsd, 0),
    hourly: {
      instanceUsd: instanceType === null ? null : instanceHour(instanceType),
      volumesUsd: sum(({ sizeBytes }) => volumeHour(plan.volumeType, sizeGiB(sizeBytes))),
      snapshotsUsd: sum(({ blocks }) => snapshotHour(blocks * EBS_BLOCK_BYTES)),
    },
  };
}

const free = (call: string, request: object | null, count = 1): PlannedCall => ({
  ...{ service: 'ec2', call, count, request, costUsd: 0 },
});

function typeCalls({ plan, instanceType }: DryFacts): PlannedCall[] {
  const type = plan.instanceType ?? instanceType;
  return [free('DescribeInstanceTypes', type === null ? null : { InstanceTypes: [type] })];
}

function volumeCalls(
  facts: DryFacts,
  { volume, sizeBytes, step, blocks }: DryVolume,
): PlannedCall[] {
  if (step.kind === 'keep') return [free('DescribeSnapshots', { SnapshotIds: [step.snapshotId] })];
  const { job, server, point, plan, timeoutMinutes, checkShare } = facts;
  const record = newRecord({
    key: `${job} ${volume}`,
    sizeGiB: sizeGiB(sizeBytes),
    description: `understudy: ${server} ${volume} at ${point}`,
    tags: tagsOf(job, { server, point, volume }, plan.tags),
    parentSnapshotId: step.kind === 'delta' ? step.parentSnapshotId : null,
    encryption: plan.encryption,
    timeoutMinutes,
  });
  const ebs = (call: string, count: number, request: object | null, costUsd: number) =>
    ({ service: 'ebs', call, count, request, costUsd }) as const;
  const SnapshotId = `<snapshot of ${volume}>`;
  const pages = Math.ceil(blocks / PAGE_BLOCKS);
  const reads = Math.ceil(blocks * checkShare);
  return [
    ebs('StartSnapshot', 1, startRequest(record), 0),
    ebs('PutSnapshotBlock', blocks, null, requestCost('put', blocks)),
    ebs('CompleteSnapshot', 1, { SnapshotId, ChangedBlocksCount: blocks }, 0),
    free('DescribeSnapshots', { SnapshotIds: [SnapshotId] }),
    ...(reads === 0
      ? []
      : [
          ebs('ListSnapshotBlocks', pages, { SnapshotId }, requestCost('list', pages)),
          ebs('GetSnapshotBlock', reads, null, requestCost('get', reads)),
        ]),
  ];
}

function instanceCalls(facts: DryFacts): PlannedCall[] {
  const { job, server, point, plan, volumes, bootMode } = facts;
  const launch = {
    ...{ job, server, point, plan, bootMode },
    tags: tagsOf(job, { server, point }, { Name: `${server} (understudy)`, ...plan.tags }),
    volumes: volumes.map(({ volume, step }) => ({
      volume,
      snapshotId: step.kind === 'keep' ? step.snapshotId : `<snapshot of ${volume}>`,
    })),
  };
  const image = '<image>';
  const InstanceIds = ['<instance>'];
  const type = facts.instanceType ?? plan.instanceType ?? '<by the rule>';
  return [
    free('RegisterImage', registerImageRequest(launch)),
    free('RunInstances', runInstancesRequest(launch, image, type)),
    free('DescribeInstances', { InstanceIds }),
    free('DescribeInstanceStatus', { InstanceIds, IncludeAllInstances: true }),
  ];
}
