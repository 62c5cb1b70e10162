/** Waiting for an instance: that it runs, and that EC2's two checks of it pass. */

import type { Instance } from '@aws-sdk/client-ec2';
import type { Clock } from '../../base/clock.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { formatDuration } from '../../base/units.ts';
import type { Ec2Calls } from './ec2-calls.ts';
import { pause } from './retry.ts';

export interface WaitWorld {
  readonly ec2: Ec2Calls;
  readonly clock: Clock;
  readonly stop: AbortSignal;
}

const POLL_MS = 5000;
const RUNNING_MS = 10 * 60e3;
const CHECKS_MS = 20 * 60e3;
const TERMINATED_MS = 15 * 60e3;
const STOPPED_MS = 15 * 60e3;

/** Asks until there is an answer. ERR_EC2_INSTANCE_FAILED when `limitMs` is over. */
async function until<T>(
  { clock, stop }: WaitWorld,
  limitMs: number,
  what: string,
  ask: () => Promise<T | null>,
): Promise<T> {
  const endMs = clock.monotonicMs() + limitMs;
  for (;;) {
    const answer = await ask();
    if (answer !== null) return answer;
    if (clock.monotonicMs() > endMs) {
      const message = `${what} within ${formatDuration(limitMs)}`;
      throw new UnderstudyError('ERR_EC2_INSTANCE_FAILED', message);
    }
    await pause(clock, POLL_MS, stop);
  }
}

/** The running instance. ERR_EC2_INSTANCE_FAILED where it ends instead, with EC2's reason. */
export async function waitForInstance(
  world: WaitWorld,
  id: string,
  options: { waitsForChecks: boolean; onNote: (text: string) => void },
): Promise<Instance> {
  const { ec2 } = world;
  const running = await until(world, RUNNING_MS, `${id} did not run`, async () => {
    const instance = await ec2.instance(id);
    const state = instance?.State?.Name;
    if (state === 'running') return instance;
    if (state === undefined || state === 'pending') return null;
    const why = instance?.StateReason?.Message ?? 'no reason given';
    throw new UnderstudyError('ERR_EC2_INSTANCE_FAILED', `${id} is ${state}: ${why}`, { state });
  });
  if (!options.waitsForChecks) return running;
  options.onNote(`${id} runs; waiting for its status checks`);
  await until(world, CHECKS_MS, `${id} did not pass its status checks`, async () => {
    const checks = await ec2.checks(id);
    return checks?.system === 'ok' && checks.instance === 'ok' ? checks : null;
  });
  return running;
}

/** Until EC2 has taken the instance away: its volumes and snapshots are free then. */
export async function waitUntilTerminated(world: WaitWorld, id: string): Promise<void> {
  await until(world, TERMINATED_MS, `${id} did not end`, async () => {
    const state = (await world.ec2.instance(id))?.State?.Name;
    return state === undefined || state === 'terminated' ? true : null;
  });
}

/** Until EC2 has shut it down in order. ERR_EC2_INSTANCE_FAILED where it is gone, or will not. */
export async function waitUntilStopped(
  world: WaitWorld,
  id: string,
  limitMs = STOPPED_MS,
): Promise<void> {
  await until(world, limitMs, `${id} did not stop`, async () => {
    const state = (await world.ec2.instance(id))?.State?.Name;
    if (state === 'stopped') return true;
    if (state !== undefined && state !== 'terminated' && state !== 'shutting-down') return null;
    throw new UnderstudyError('ERR_EC2_INSTANCE_FAILED', `${id} is ${state ?? 'gone'}`);
  });
}
