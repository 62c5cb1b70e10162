/**
 * Every call that a launch would make, with its parameters and what it costs, made by the same functions as
 * the launch's own requests. Ids that only the calls themselves give stand in angle brackets. Pure.
 */

import type { LaunchKind } from '../runner.ts';
import { EBS_BLOCK_BYTES, sizeGiB } from './block-image.ts';
import type { BootMode } from './boot-mode.ts';
import type { ChainStep } from './chain.ts';
import type { ChosenType, FittedPlan } from './launch-choices.ts';
import { instanceHour, type PriceTable, requestCost, snapshotHour, volumeHour } from './prices.ts';
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
  readonly kind: LaunchKind;
  readonly plan: FittedPlan;
  readonly volumes: readonly DryVolume[];
  readonly bootMode: BootMode;
  /** Null: chosen by the rule, and nobody was asked. */
  readonly instanceType: ChosenType | null;
  readonly prices: PriceTable;
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
  /** What was chosen for what the plan leaves open, and why: a line each. */
  readonly choices: readonly string[];
  readonly calls: readonly PlannedCall[];
  /** Paid once: for the requests. */
  readonly requestsUsd: number;
  /** For each hour that it stands; null: the table has no price of the type. */
  readonly hourly: {
    readonly instanceUsd: number | null;
    readonly volumesUsd: number;
    readonly snapshotsUsd: number;
  };
  /** All prices are estimates by this table. */
  readonly prices: Pick<PriceTable, 'region' | 'asOf' | 'source'> & { readonly isEstimate: true };
}

const PAGE_BLOCKS = 1000;

export function dryRun(facts: DryFacts): DryRun {
  const calls = [
    ...typeCalls(facts),
    ...facts.volumes.flatMap((volume) => volumeCalls(facts, volume)),
    ...instanceCalls(facts),
  ];
  const { plan, volumes, instanceType, prices } = facts;
  const { region, asOf, source } = prices;
  const sum = (of: (volume: DryVolume) => number) =>
    volumes.reduce((total, volume) => total + of(volume), 0);
  return {
    choices: [...plan.reasons, ...chosen(facts)],
    calls,
    requestsUsd: calls.reduce((total, { costUsd }) => total + costUsd, 0),
    hourly: {
      instanceUsd: instanceType === null ? null : instanceHour(prices, instanceType.name),
      volumesUsd: sum(({ sizeBytes }) => volumeHour(prices, plan.volumeType, sizeGiB(sizeBytes))),
      snapshotsUsd: sum(({ blocks }) => snapshotHour(prices, blocks * EBS_BLOCK_BYTES)),
    },
    prices: { region, asOf, source, isEstimate: true },
  };
}

function chosen({ instanceType, bootMode, volumes, plan }: DryFacts): string[] {
  const root = volumes[0];
  return [
    ...(root === undefined ? [] : [`${root.volume} boots, by ${bootMode}`]),
    instanceType === null
      ? `instance type: by the rule from ${plan.families?.join(', ')}; the launch asks EC2`
      : `instance type ${instanceType.name}: ${instanceType.reason}`,
  ];
}

const free = (call: string, request: object | null, count = 1): PlannedCall => ({
  ...{ service: 'ec2', call, count, request, costUsd: 0 },
});

function typeCalls({ plan, instanceType }: DryFacts): PlannedCall[] {
  const { subnetId } = plan;
  const type = instanceType?.name ?? '<by the rule>';
  const types = plan.instanceType === null ? null : { InstanceTypes: [type] };
  if (subnetId === null) return [free('DescribeInstanceTypes', types)];
  return [
    free('DescribeSubnets', { SubnetIds: [subnetId] }),
    free('DescribeInstanceTypes', types),
    free('DescribeInstanceTypeOfferings', {
      LocationType: 'availability-zone',
      Filters: [{ Name: 'instance-type', Values: [type] }],
    }),
  ];
}

function volumeCalls(
  facts: DryFacts,
  { volume, sizeBytes, step, blocks }: DryVolume,
): PlannedCall[] {
  if (step.kind === 'keep') return [free('DescribeSnapshots', { SnapshotIds: [step.snapshotId] })];
  const { job, kind, server, point, plan, timeoutMinutes, checkShare, prices } = facts;
  const record = newRecord({
    key: `${job} ${volume}`,
    sizeGiB: sizeGiB(sizeBytes),
    description: `understudy: ${server} ${volume} at ${point}`,
    tags: tagsOf(job, { kind, server, point, volume }, plan.tags),
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
    ebs('PutSnapshotBlock', blocks, null, requestCost(prices, 'put', blocks)),
    ebs('CompleteSnapshot', 1, { SnapshotId, ChangedBlocksCount: blocks }, 0),
    free('DescribeSnapshots', { SnapshotIds: [SnapshotId] }),
    ...(reads === 0
      ? []
      : [
          ebs('ListSnapshotBlocks', pages, { SnapshotId }, requestCost(prices, 'list', pages)),
          ebs('GetSnapshotBlock', reads, null, requestCost(prices, 'get', reads)),
        ]),
  ];
}

function instanceCalls(facts: DryFacts): PlannedCall[] {
  const { job, kind, server, point, plan, volumes, bootMode } = facts;
  const launch = {
    ...{ job, kind, server, point, plan, bootMode },
    tags: tagsOf(job, { kind, server, point }, { Name: `${server} (understudy)`, ...plan.tags }),
    volumes: volumes.map(({ volume, step }) => ({
      volume,
      snapshotId: step.kind === 'keep' ? step.snapshotId : `<snapshot of ${volume}>`,
    })),
  };
  const image = '<image>';
  const InstanceIds = ['<instance>'];
  const type = facts.instanceType?.name ?? '<by the rule>';
  return [
    free('RegisterImage', registerImageRequest(launch)),
    free('RunInstances', runInstancesRequest(launch, image, type)),
    free('DescribeInstances', { InstanceIds }),
    free('DescribeInstanceStatus', { InstanceIds, IncludeAllInstances: true }),
  ];
}
