/**
 * Trying again what may pass: exponential waits with full jitter, so that many that were throttled together
 * do not come back together, and an end. Clock and chance are injected; an abort ends the waiting at once.
 */
import type { Clock } from '../../base/clock.ts';

export interface RetryPolicy {
  /** So often a call is made at most, the first time included. */
  readonly tries: number;
  /** The longest first wait, doubled each time ... */
  readonly firstMs: number;
  /** ... up to this. Each wait is any part of its longest. */
  readonly capMs: number;
}

/** About two minutes on average: snapshots need some of that to be known everywhere once started. */
export const defaultRetry: RetryPolicy = { tries: 14, firstMs: 250, capMs: 30_000 };

export interface World {
  readonly clock: Clock;
  /** 0 <= x < 1. */
  readonly random: () => number;
}

/** The longest time before try number `next` (2, 3, ...). */
export const longestWaitMs = ({ firstMs, capMs }: RetryPolicy, next: number): number =>
  Math.min(capMs, firstMs * 2 ** (next - 2));

/** Resolves after `delayMs`, or rejects with the signal's reason. */
export function pause(clock: Clock, delayMs: number, stop: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (stop.aborted) return reject(stop.reason);
    const end = () => {
      timer.cancel();
      reject(stop.reason);
    };
    const timer = clock.after(delayMs, () => {
      stop.removeEventListener('abort', end);
      resolve();
    });
    stop.addEventListener('abort', end, { once: true });
  });
}

/** Runs `run` until it resolves, fails for good, or has had its tries: the last error is thrown. */
export async function retrying<T>(
  { clock, random }: World,
  policy: RetryPolicy,
  stop: AbortSignal,
  mayPass: (error: unknown) => boolean,
  run: () => Promise<T>,
): Promise<T> {
  for (let next = 2; ; next += 1) {
    stop.throwIfAborted();
    try {
      return await run();
    } catch (error) {
      stop.throwIfAborted();
      if (!mayPass(error) || next > policy.tries) throw error;
      await pause(clock, random() * longestWaitMs(policy, next), stop);
    }
  }
}
