/**
 * A launch to EC2 as a job of staging. Its one thing written down beforehand is the launch's record in the
 * job's folder: whatever the record says, and what bears the job's tag, is what a cleanup removes; then the
 * record goes, too. A drill stands until it is stopped; with `check` it ends when EC2's checks have passed.
 */
import { join } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { nodeDisk } from '../../base/node-disk.ts';
import type { ImageReader, ListedPoint } from '../../store/types.ts';
import { checkOptions } from '../launch-options.ts';
import type { Launch, LaunchEnd, LaunchOptions, Made } from '../launcher.ts';
import { removeMade } from '../made.ts';
import { AwsConnection } from './aws-connection.ts';
import type { BorrowedChain } from './borrowed-chain.ts';
import { cleanUp } from './cleanup.ts';
import { Ec2Calls } from './ec2-calls.ts';
import type { Ec2Ports } from './ec2-launcher.ts';
import { launchInstance, type VolumeSource } from './launch.ts';
import { chooseBootMode, chooseType, rootFirst } from './launch-choices.ts';
import { type LaunchPlan, parsePlan } from './launch-plan.ts';
import type { LaunchRecord } from './launch-record.ts';
import type { PutQuota } from './put-quota.ts';
import { type RecordFile, recordFile } from './record-file.ts';
import { defaultRetry, pause, type RetryPolicy } from './retry.ts';
import { checkShares } from './snapshot-check.ts';

const LAUNCH = 'ec2-launch';
const LOOK_MS = 30_000;
const PROBE = 'ec2-status';
/** Staging waits for a cleanup when it stops, and begins it again when it starts. */
const hastyRetry: RetryPolicy = { tries: 6, firstMs: 250, capMs: 5000 };

const rules = {
  plan: { kind: 'text', like: /\S/, shape: 'a launch plan: JSON' },
  verify: { kind: 'choice', of: Object.keys(checkShares), standard: 'sample' },
  check: { kind: 'flag', standard: false },
  keepRunning: { kind: 'flag', standard: false },
} as const;

type OpenImage = (volume: string) => Promise<ImageReader>;

const connect = (clock: Clock, region: string | null, retry = defaultRetry): AwsConnection =>
  new AwsConnection({ clock, random: Math.random }, { region: region ?? undefined, retry });

const journalAt = (path: string): RecordFile<LaunchRecord> => recordFile(nodeDisk, path, LAUNCH);

/** Looks at the plan, the root disk and the instance type: AWS is asked, and nothing is made. */
export async function checkLaunch(
  clock: Clock,
  given: Readonly<Record<string, unknown>>,
  point: ListedPoint,
  openImage: OpenImage,
): Promise<LaunchOptions> {
  const text = typeof given.plan === 'object' ? JSON.stringify(given.plan) : given.plan;
  const options = checkOptions(rules, { ...given, plan: text });
  if (options.plan === undefined) {
    throw new UnderstudyError('ERR_LAUNCH_OPTIONS', 'the target ec2 needs a plan');
  }
  const plan = planOf(options);
  const [root] = rootFirst(point.volumes, plan.rootVolume);
  const image = await openImage(root!.volume);
  const aws = connect(clock, plan.region);
  try {
    const bootMode = await chooseBootMode(plan, { volume: root!.volume, image });
    await chooseType(new Ec2Calls(aws, new AbortController().signal), plan, bootMode);
  } finally {
    aws.close();
    image.close();
  }
  return options;
}

const planOf = (options: LaunchOptions): LaunchPlan => parsePlan(String(options.plan), 'plan');

/** The contract of launchers: src/recovery/launcher.ts. */
export async function runLaunch(
  ports: Ec2Ports & { readonly quota: PutQuota },
  launch: Launch,
): Promise<LaunchEnd> {
  const path = join(launch.folder, 'ec2-launch.json');
  await launch.making({ kind: LAUNCH, name: path });
  const plan = planOf(launch.options);
  const aws = connect(launch.clock, plan.region);
  const images: ImageReader[] = [];
  let chain: BorrowedChain | null = null;
  try {
    const overlays = await ports.prepare?.(launch);
    chain = (await ports.chains?.borrow(launch.point.server, plan.region)) ?? null;
    const sources: VolumeSource[] = [];
    for (const { volume } of launch.point.volumes) {
      const image = await launch.openImage(volume);
      images.push(image);
      const overlay = overlays?.get(volume);
      const changed = (await chain?.changed(volume, launch.point.id)) ?? null;
      sources.push({
        ...{ volume, image, head: chain?.headOf(volume) ?? null },
        ...(changed !== null && { changed }),
        ...(overlay !== undefined && { overlay }),
      });
    }
    const { quota } = ports;
    const instanceId = await bringUp(launch, { aws, plan, sources, quota, path });
    // Its image holds the snapshots that it uses.
    chain?.release();
    if (isOver(launch)) return 'done';
    await launch.phase('up');
    return await stand(launch, new Ec2Calls(aws, both(launch)), instanceId);
  } catch (error) {
    if (launch.leave.aborted && !launch.stop.aborted) return 'left';
    if (launch.stop.aborted) return 'done';
    throw error;
  } finally {
    chain?.release();
    for (const image of images) image.close();
    aws.close();
  }
}

const both = ({ stop, leave }: Launch): AbortSignal => AbortSignal.any([stop, leave]);

/** A check that has passed ends the drill, unless it is to stay. */
const isOver = ({ options }: Launch): boolean =>
  options.check === true && options.keepRunning !== true;

interface Means {
  readonly aws: AwsConnection;
  readonly plan: LaunchPlan;
  readonly sources: readonly VolumeSource[];
  readonly quota: PutQuota;
  readonly path: string;
}

async function bringUp(launch: Launch, means: Means): Promise<string> {
  const { jobId, point, options } = launch;
  const { aws, plan, sources, quota, path } = means;
  const isCheckDue = options.check === true && launch.notes.isChecked !== true;
  await launch.phase('uploading');
  const startMs = launch.clock.wallMs();
  const launched = launchInstance(aws, {
    ...{ job: jobId, server: point.server, point: point.id, plan, sources, quota },
    journal: journalAt(path),
    stop: both(launch),
    checkShare: checkShares[String(options.verify)]!,
    waitsForChecks: isCheckDue,
    onProgress: (done, total) => launch.progress(done, total),
    onNote: (text) => launch.say(text),
  });
  const verdict = async (passed: boolean, detail: string) => {
    if (!isCheckDue) return;
    const bootMs = Math.round(launch.clock.wallMs() - startMs);
    await launch.checked({ passed, probe: PROBE, bootMs, detail });
    await launch.remember({ isChecked: true });
  };
  try {
    const done = await launched;
    await launch.up({
      ...{ instance: done.instanceId, type: done.instanceType, image: done.imageId },
      ...(done.privateAddress !== null && { privateAddress: done.privateAddress }),
      ...(done.publicAddress !== null && { publicAddress: done.publicAddress }),
    });
    await verdict(true, 'both status checks of EC2 passed');
    return done.instanceId;
  } catch (error) {
    const isVerdict = error instanceof UnderstudyError && error.code === 'ERR_EC2_INSTANCE_FAILED';
    if (isVerdict) await verdict(false, error.message);
    throw error;
  }
}

/** Until the drill is stopped, or the instance has ended by itself. */
async function stand(launch: Launch, ec2: Ec2Calls, instanceId: string): Promise<LaunchEnd> {
  for (;;) {
    const state = (await ec2.instance(instanceId))?.State?.Name;
    if (state === undefined || state === 'terminated' || state === 'shutting-down') {
      launch.say(`${instanceId} has ended by itself`);
      return 'done';
    }
    await pause(launch.clock, LOOK_MS, both(launch));
  }
}

/** What the records say and what bears the jobs' tags, then the records; as often as it is called. */
export async function cleanLaunch(clock: Clock, made: readonly Made[]): Promise<void> {
  for (const { kind, name } of made) if (kind === LAUNCH) await cleanRecord(clock, name);
  await removeMade(made, clock);
}

async function cleanRecord(clock: Clock, path: string): Promise<void> {
  const record = await journalAt(path).load();
  // Nothing was asked of AWS before the record was there.
  if (record === null) return;
  const aws = connect(clock, record.region, hastyRetry);
  try {
    const stop = new AbortController().signal;
    await cleanUp(aws, {
      record,
      keepsInstance: false,
      waitsForEnd: false,
      stop,
      onNote: () => undefined,
    });
  } finally {
    aws.close();
  }
}
