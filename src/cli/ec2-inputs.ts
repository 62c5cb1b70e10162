/** What the `understudy ec2` commands work on, made of their options: plan, records, images, connection. */
import { randomBytes } from 'node:crypto';
import { resolve } from 'node:path';
import { UnderstudyError } from '../base/errors.ts';
import { nodeDisk } from '../base/node-disk.ts';
import { AwsConnection } from '../recovery/ec2/aws-connection.ts';
import { blocksOf, extentsOf, sizeGiB } from '../recovery/ec2/block-image.ts';
import { planStep } from '../recovery/ec2/chain.ts';
import type { DryVolume } from '../recovery/ec2/dry-run.ts';
import type { VolumeSource } from '../recovery/ec2/launch.ts';
import { type FittedPlan, fitPlan } from '../recovery/ec2/launch-choices.ts';
import { type LaunchPlan, parsePlan } from '../recovery/ec2/launch-plan.ts';
import type { LaunchRecord } from '../recovery/ec2/launch-record.ts';
import type { ChainRecord } from '../recovery/ec2/prestage.ts';
import { type PriceTable, parsePrices, standardPrices } from '../recovery/ec2/prices.ts';
import { PutQuota } from '../recovery/ec2/put-quota.ts';
import { type RecordFile, recordFile } from '../recovery/ec2/record-file.ts';
import { checkShares } from '../recovery/ec2/snapshot-check.ts';
import type { ApiMachineReport, ApiPrestage } from '../staging/api-types.ts';
import type { ListedPoint } from '../store/types.ts';
import type { CommandContext } from './command.ts';
import { readText } from './ec2-options.ts';
import { findPoint, type PointChoice, pointChoice } from './operator.ts';
import { differencesOf, pointImage } from './point-image.ts';
import type { RestClient } from './rest-client.ts';
import type { Settings } from './settings.ts';

const launchKind = 'ec2-launch';
const chainKind = 'ec2-chain';

export const readPlan = async (path: string): Promise<LaunchPlan> =>
  parsePlan(await readText(path), path);

/** The plan, filled in by what the service knows of the server's machine. ERR_EC2_PLAN. */
export async function fittedPlan(
  client: RestClient,
  plan: LaunchPlan,
  point: ListedPoint,
): Promise<FittedPlan> {
  const path = `/v1/servers/${encodeURIComponent(point.server)}/machine`;
  const told = await client.call<ApiMachineReport>('GET', path).catch((error: unknown) => {
    const codes = ['ERR_MACHINE_UNKNOWN', 'ERR_SERVER_NOT_FOUND'];
    if (error instanceof UnderstudyError && codes.includes(error.code)) return null;
    throw error;
  });
  const machine = told === null ? null : { ...told, timeMs: Date.parse(told.time) };
  const volumes = point.volumes.map(({ volume }) => volume);
  return fitPlan(plan, machine, volumes);
}

/** The chain that the service keeps of a server, in the plan's region; null: none. */
export async function chainOfService(
  client: RestClient,
  plan: LaunchPlan,
  server: string,
): Promise<ChainRecord | null> {
  const { region, servers } = await client.call<ApiPrestage>('GET', '/v1/ec2/prestage');
  const found = servers.find((each) => each.server === server);
  if (found === undefined || (plan.region !== null && plan.region !== region)) return null;
  const volumes = found.volumes.flatMap(({ volume, snapshotId, point, sizeGiB, encryption }) => {
    if (snapshotId === null || point === null || sizeGiB === null) return [];
    const head = { snapshotId, point, sizeGiB, encryption };
    return [{ volume, head, upload: null, held: [snapshotId] }];
  });
  return { version: 1, job: '', server, region, volumes };
}

/** Prices for a dry run: the operator's own, or the standard ones. ERR_EC2_PLAN, ERR_DISK_*. */
export async function pricesOf(settings: Settings): Promise<PriceTable> {
  const path = settings.optionalText('prices');
  return path === undefined ? standardPrices : parsePrices(await readText(path), path);
}

export const connectAws = (
  context: CommandContext,
  plan: { region: string | null },
): AwsConnection =>
  new AwsConnection(
    { clock: context.clock, random: Math.random },
    { region: plan.region ?? undefined },
  );

export const shareOf = (settings: Settings): number => checkShares[settings.text('verify')]!;
export const jobName = (kind: string): string => `${kind}-${randomBytes(8).toString('hex')}`;

export function idleMinutes(settings: Settings): number {
  const minutes = Math.ceil(settings.number('idle-timeout') / 60_000);
  if (minutes >= 10 && minutes <= 4320) return minutes;
  throw new UnderstudyError('ERR_USAGE', '--idle-timeout: AWS takes 10m to 72h');
}

/** What differs since the head's point; null where the service has that point no more. */
export async function changedSince(client: RestClient, from: string, to: string, volume: string) {
  try {
    await findPoint(client, { ...chosen(from), volume });
  } catch (error) {
    const codes = ['ERR_POINT_NOT_FOUND', 'ERR_VOLUME_NOT_FOUND'];
    if (error instanceof UnderstudyError && codes.includes(error.code)) return null;
    throw error;
  }
  return () => differencesOf(client, { from, to }, volume);
}

const chosen = (point: string) => ({
  ...{ point, atMs: undefined, server: undefined, isPartialWanted: false },
});

/** The point's volumes, with what the chain has of them. */
export async function sourcesOf(
  client: RestClient,
  point: ListedPoint,
  chain: ChainRecord | null,
): Promise<VolumeSource[]> {
  const sources: VolumeSource[] = [];
  for (const { volume } of point.volumes) {
    const image = await pointImage(client, point.id, volume);
    const head = chain?.volumes.find((held) => held.volume === volume)?.head ?? null;
    const changed = head === null ? null : await changedSince(client, head.point, point.id, volume);
    sources.push({ volume, image, head, ...(changed !== null && { changed }) });
  }
  return sources;
}

/** ERR_EC2_RECORD where the file is of another server. */
export async function readChain(settings: Settings, server: string): Promise<ChainRecord | null> {
  const path = settings.optionalText('chain');
  if (path === undefined) return null;
  const chain = await recordFile<ChainRecord>(nodeDisk, resolve(path), chainKind).load();
  if (chain === null || chain.server === server) return chain;
  throw new UnderstudyError('ERR_EC2_RECORD', `${path} is the chain of ${chain.server}`);
}

/** Once begun, a launch stays with its point, also where "latest" means another one by now. */
export function pointOf(settings: Settings, held: LaunchRecord | null): PointChoice {
  const choice = pointChoice(settings);
  return held === null || choice.point !== 'latest' ? choice : chosen(held.point);
}

/** What a launch would do for one volume; its blocks at most: the service tells data by the MiB. */
export async function dryVolume(
  source: VolumeSource,
  point: string,
  launchPlan: LaunchPlan,
): Promise<DryVolume> {
  const { volume, image, head = null, changed } = source;
  const step = planStep(head, {
    point,
    sizeGiB: sizeGiB(image.sizeBytes),
    encryption: launchPlan.encryption,
    isHeadThere: true,
    isDeltaKnown: changed !== undefined,
  });
  let blocks = 0;
  const extents = step.kind === 'delta' ? changed!() : extentsOf(image);
  if (step.kind !== 'keep') {
    for await (const _ of blocksOf(extents, image.sizeBytes, 0)) blocks += 1;
  }
  return { volume, sizeBytes: image.sizeBytes, step, blocks };
}

export const launchJournal = (settings: Settings): RecordFile<LaunchRecord> =>
  recordFile(nodeDisk, resolve(settings.text('record')), launchKind);
export const chainJournal = (settings: Settings): RecordFile<ChainRecord> =>
  recordFile(nodeDisk, resolve(settings.text('chain')), chainKind);

export const quotaOf = (context: CommandContext, settings: Settings): PutQuota =>
  new PutQuota(context.clock, { putsPerSecond: Math.max(1, settings.number('puts-per-second')) });
