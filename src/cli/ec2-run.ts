/** What the `understudy ec2` commands do; loaded when one of them runs, for the SDK is large. */
import { UnderstudyError } from '../base/errors.ts';
import { cleanUp } from '../recovery/ec2/cleanup.ts';
import { dryRun } from '../recovery/ec2/dry-run.ts';
import { iamPolicyText } from '../recovery/ec2/iam-policy.ts';
import { type LaunchedInstance, launchInstance } from '../recovery/ec2/launch.ts';
import { chooseBootMode, expectedType, rootFirst } from '../recovery/ec2/launch-choices.ts';
import { type LaunchPlan, parsePlan } from '../recovery/ec2/launch-plan.ts';
import { prestage as bringUp, type ChainRecord } from '../recovery/ec2/prestage.ts';
import type { LaunchKind } from '../recovery/runner.ts';
import type { ListedPoint } from '../store/types.ts';
import type { CommandContext } from './command.ts';
import {
  chainJournal,
  chainOfService,
  changedSince,
  connectAws,
  dryVolume,
  fittedPlan,
  idleMinutes,
  jobName,
  launchJournal,
  pointOf,
  pricesOf,
  quotaOf,
  readChain,
  readPlan,
  shareOf,
  sourcesOf,
} from './ec2-inputs.ts';
import { renderDryRun } from './ec2-view.ts';
import { connect, findPoint, pointChoice } from './operator.ts';
import { pointImage } from './point-image.ts';
import type { RestClient } from './rest-client.ts';
import type { Settings } from './settings.ts';
import { renderFields } from './table.ts';

/** Every call of a launch, and its cost. */
export async function plan(context: CommandContext, settings: Settings): Promise<number> {
  const launchPlan = await readPlan(settings.text('plan'));
  const timeoutMinutes = idleMinutes(settings);
  const client = await connect(context, settings);
  const point = await findPoint(client, pointChoice(settings));
  const chain = await readChain(settings, point.server);
  const facts = { client, point, launchPlan, chain, timeoutMinutes, kind: 'drill' as const };
  return showPlan(context, settings, facts);
}

/** The same for a job: as the service would launch it, over the snapshots that it keeps ready. */
export async function planJob(
  context: CommandContext,
  settings: Settings,
  found: { client: RestClient; point: ListedPoint; planText: string; kind: LaunchKind },
): Promise<number> {
  const launchPlan = parsePlan(found.planText, settings.text('plan'));
  const chain = await chainOfService(found.client, launchPlan, found.point.server);
  const facts = { ...found, launchPlan, chain, timeoutMinutes: 24 * 60 };
  return showPlan(context, settings, facts);
}

interface PlanFacts {
  readonly client: RestClient;
  readonly point: ListedPoint;
  readonly launchPlan: LaunchPlan;
  readonly chain: ChainRecord | null;
  readonly timeoutMinutes: number;
  readonly kind: LaunchKind;
}

async function showPlan(
  context: CommandContext,
  settings: Settings,
  { client, point, launchPlan, chain, timeoutMinutes, kind }: PlanFacts,
): Promise<number> {
  const fitted = await fittedPlan(client, launchPlan, point);
  const sources = rootFirst(await sourcesOf(client, point, chain), fitted.rootVolume);
  const bootMode = await chooseBootMode(fitted, sources[0]!);
  const told = dryRun({
    ...{ job: '<job>', kind, server: point.server, point: point.id, plan: fitted, bootMode },
    volumes: await Promise.all(sources.map((source) => dryVolume(source, point.id, fitted))),
    instanceType: expectedType(fitted, bootMode),
    prices: await pricesOf(settings),
    checkShare: shareOf(settings),
    timeoutMinutes,
  });
  context.print(settings.flag('json') ? JSON.stringify(told, null, 2) : renderDryRun(told));
  return 0;
}

/** From a point to a running instance. */
export async function launch(context: CommandContext, settings: Settings): Promise<number> {
  const launchPlan = await readPlan(settings.text('plan'));
  const journal = launchJournal(settings);
  const held = await journal.load();
  const client = await connect(context, settings);
  const point = await findPoint(client, pointOf(settings, held));
  const chain = await readChain(settings, point.server);
  const aws = connectAws(context, launchPlan);
  const progress = context.progress('upload');
  try {
    const done = await launchInstance(aws, {
      ...{ job: held?.job ?? jobName('launch'), server: point.server, point: point.id, journal },
      plan: await fittedPlan(client, launchPlan, point),
      sources: await sourcesOf(client, point, chain),
      quota: quotaOf(context, settings),
      concurrency: Math.max(1, settings.number('parallel')),
      stop: context.stop,
      checkShare: shareOf(settings),
      timeoutMinutes: idleMinutes(settings),
      waitsForChecks: !settings.flag('skip-checks'),
      onProgress: (doneBytes, total, stage) => progress.update(doneBytes, total, stage),
      onNote: context.note,
    });
    context.print(settings.flag('json') ? JSON.stringify(done, null, 2) : rendered(done));
  } finally {
    progress.finish();
    aws.close();
  }
  return 0;
}

/** Every volume of a point, at the head of its chain. */
export async function prestage(context: CommandContext, settings: Settings): Promise<number> {
  const launchPlan = await readPlan(settings.text('plan'));
  const journal = chainJournal(settings);
  const client = await connect(context, settings);
  const point = await findPoint(client, pointChoice(settings));
  const aws = connectAws(context, launchPlan);
  const progress = context.progress('upload');
  try {
    const images = point.volumes.map(async ({ volume }) => ({
      volume,
      image: await pointImage(client, point.id, volume),
      changedSince: (from: string) => changedSince(client, from, point.id, volume),
    }));
    const done = await bringUp(aws, {
      ...{ job: jobName('chain'), server: point.server, point: point.id, plan: launchPlan },
      sources: await Promise.all(images),
      journal,
      quota: quotaOf(context, settings),
      concurrency: Math.max(1, settings.number('parallel')),
      stop: context.stop,
      timeoutMinutes: idleMinutes(settings),
      onProgress: (volume, doneBytes, total) => progress.update(doneBytes, total, volume),
      onNote: context.note,
    });
    if (settings.flag('json')) context.print(JSON.stringify(done, null, 2));
    for (const { volume, kind, snapshotId, putBlocks } of settings.flag('json') ? [] : done) {
      context.print(`${volume}: ${snapshotId} (${kind}, ${putBlocks} blocks put)`);
    }
  } finally {
    progress.finish();
    aws.close();
  }
  return 0;
}

/** Takes away what a launch has made. */
export async function cleanup(context: CommandContext, settings: Settings): Promise<number> {
  const journal = launchJournal(settings);
  const record = await journal.load();
  const path = settings.text('record');
  if (record === null) {
    throw new UnderstudyError('ERR_DISK_NOT_FOUND', `there is no ${path}`, { path });
  }
  const keepsInstance = settings.flag('keep-instance');
  if (!settings.flag('yes')) {
    const instance = keepsInstance ? '' : `terminate ${record.instanceId ?? 'its instance'}, `;
    await context.confirm(`${instance}remove the image and snapshots of ${record.job}?`);
  }
  const aws = connectAws(context, record);
  try {
    const { stop } = context;
    const report = await cleanUp(aws, {
      ...{ record, keepsInstance, waitsForEnd: true, stop, onNote: context.note },
    });
    await journal.save({ ...record, isCleaned: true });
    if (settings.flag('json')) context.print(JSON.stringify(report, null, 2));
  } finally {
    aws.close();
  }
  return 0;
}

/** The IAM policy. */
export async function policy(context: CommandContext): Promise<number> {
  context.print(iamPolicyText().trimEnd());
  return 0;
}

function rendered(done: LaunchedInstance): string {
  return renderFields([
    ['instance', `${done.instanceId} (${done.instanceType}, ${done.bootMode})`],
    ['private address', done.privateAddress ?? 'none'],
    ['public address', done.publicAddress ?? 'none'],
    ['image', done.imageId],
    ['snapshots', done.snapshotIds.join(', ')],
  ]);
}
