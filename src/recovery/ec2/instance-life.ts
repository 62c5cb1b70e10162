/**
 * The life of a job's instance from the moment that it is asked for: told when it is up, judged where a check
 * is due, watched, found again by the next life of staging, started again, and shut down.
 */
import { UnderstudyError } from '../../base/errors.ts';
import type { Launch, LaunchEnd } from '../launcher.ts';
import type { StopReason } from '../runner.ts';
import type { AwsConnection } from './aws-connection.ts';
import { Ec2Calls, type InstanceState } from './ec2-calls.ts';
import { waitForInstance, waitUntilStopped } from './instance-wait.ts';
import type { LaunchedInstance } from './launch.ts';
import type { LaunchRecord } from './launch-record.ts';
import { pause } from './retry.ts';

const LOOK_MS = 30_000;
const PROBE = 'ec2-status';
/** So long an orderly shutdown may take before it is cut off. */
const STOP_MS = 5 * 60_000;

export const both = ({ stop, leave }: Launch): AbortSignal => AbortSignal.any([stop, leave]);

/** An instance of an earlier life; null where it has ended by itself, or was stopped by others. */
export async function findAgain(
  launch: Launch,
  aws: AwsConnection,
  record: LaunchRecord,
): Promise<string | null> {
  const stop = both(launch);
  const ec2 = new Ec2Calls(aws, stop);
  const instanceId = record.instanceId!;
  const world = { ec2, clock: launch.clock, stop };
  const seen = await ec2.instance(instanceId).catch((error: unknown) => unseen(launch, error));
  if (seen instanceof UnderstudyError) {
    if (!isToldWhole(launch)) throw seen;
    launch.say(`${instanceId} ran before staging was started again: ${seen.message}`);
    return instanceId;
  }
  const state = seen?.State?.Name;
  if (launch.starts > 1 && launch.notes.starts !== launch.starts) {
    if (state === 'stopping') await waitUntilStopped(world, instanceId);
    await ec2.startInstance(instanceId);
    launch.say(`${instanceId} starts again`);
  } else if (hasEnded(state)) {
    launch.say(`${instanceId} is ${state ?? 'gone'}: it has ended by itself`);
    return null;
  }
  const onNote = (text: string) => launch.say(text);
  const instance = await waitForInstance(world, instanceId, { waitsForChecks: false, onNote });
  await tellUp(launch, aws, {
    ...{ instanceId, instanceType: record.instanceType!, imageId: record.imageId! },
    privateAddress: instance.PrivateIpAddress ?? null,
    publicAddress: instance.PublicIpAddress ?? null,
  });
  return instanceId;
}

/** It was up, and judged where a check was due. */
const isToldWhole = ({ notes, starts, options }: Launch): boolean =>
  notes.starts === starts && (options.check !== true || notes.isChecked === true);

type Up = Pick<
  LaunchedInstance,
  'instanceId' | 'instanceType' | 'imageId' | 'privateAddress' | 'publicAddress'
>;

/** It runs, and how to reach it; then the verdict, where a check is due. */
export async function tellUp(launch: Launch, aws: AwsConnection, done: Up): Promise<void> {
  const { instanceId } = done;
  await launch.remember({ starts: launch.starts });
  await launch.up({
    ...{ instance: instanceId, type: done.instanceType, image: done.imageId },
    ...(done.privateAddress !== null && { privateAddress: done.privateAddress }),
    ...(done.publicAddress !== null && { publicAddress: done.publicAddress }),
  });
  // Its volumes are its own from now on.
  await launch.standsAlone();
  if (launch.options.check !== true || launch.notes.isChecked === true) return;
  const startMs = launch.clock.wallMs();
  const verdict = async (passed: boolean, detail: string) => {
    const bootMs = Math.round(launch.clock.wallMs() - startMs);
    await launch.checked({ passed, probe: PROBE, bootMs, detail });
    await launch.remember({ isChecked: true });
  };
  const stop = both(launch);
  const world = { ec2: new Ec2Calls(aws, stop), clock: launch.clock, stop };
  const onNote = (text: string) => launch.say(text);
  try {
    await waitForInstance(world, instanceId, { waitsForChecks: true, onNote });
  } catch (error) {
    const isVerdict = error instanceof UnderstudyError && error.code === 'ERR_EC2_INSTANCE_FAILED';
    if (isVerdict) await verdict(false, error.message);
    throw error;
  }
  await verdict(true, 'both status checks of EC2 passed');
}

const hasEnded = (state: InstanceState | undefined): boolean =>
  state === undefined || !['pending', 'running', 'rebooting'].includes(state);

/** Until it is to end, or the instance has ended by itself. A failover is shut down, and kept. */
export async function stand(
  launch: Launch,
  aws: AwsConnection,
  instanceId: string,
): Promise<LaunchEnd> {
  const ec2 = new Ec2Calls(aws, both(launch));
  let trouble = '';
  try {
    for (;;) {
      const state = await ec2.instance(instanceId).then(
        (instance) => instance?.State?.Name,
        (error: unknown) => unseen(launch, error),
      );
      const now = typeof state === 'object' ? state.message : '';
      if (now !== trouble) launch.say(now === '' ? `${instanceId} is seen again` : now);
      trouble = now;
      if (typeof state !== 'object' && hasEnded(state)) {
        launch.say(`${instanceId} is ${state ?? 'gone'}: it has ended by itself`);
        return 'done';
      }
      await pause(launch.clock, LOOK_MS, both(launch));
    }
  } catch (error) {
    if (!launch.stop.aborted || launch.kind !== 'failover') throw error;
  }
  await shutDown(launch, aws, instanceId);
  return 'done';
}

/** That AWS does not answer, or refuses to, says nothing of the instance: it is looked for again. */
function unseen({ stop, leave }: Launch, error: unknown): UnderstudyError {
  const isOfAws = error instanceof UnderstudyError && error.code.startsWith('ERR_AWS_');
  if (stop.aborted || leave.aborted || !isOfAws) throw error;
  return error;
}

async function shutDown(launch: Launch, aws: AwsConnection, instanceId: string): Promise<void> {
  const stop = launch.leave;
  const ec2 = new Ec2Calls(aws, stop);
  const world = { ec2, clock: launch.clock, stop };
  const { timeoutMs = STOP_MS } = (launch.stop.reason ?? {}) as Partial<StopReason>;
  await ec2.stopInstance(instanceId);
  try {
    await waitUntilStopped(world, instanceId, timeoutMs);
  } catch (error) {
    stop.throwIfAborted();
    launch.say(`${instanceId} does not shut down (${String(error)}): it is cut off`);
    await ec2.stopInstance(instanceId, true);
    await waitUntilStopped(world, instanceId);
  }
  launch.say(`${instanceId} is stopped, and kept with its volumes`);
}
