/**
 * Trying again what may pass: exponential waits with full jitter, so that many that failed together do not
 * come back together, and an end. Clock and chance are injected.
 */
import { type Clock, sleep } from '../../base/clock.ts';

export interface RetryPolicy {
  /** So often a call is made at most, the first time included. */
  readonly tries: number;
  /** The longest first wait, doubled each time ... */
  readonly firstMs: number;
  /** ... up to this. Each wait is any part of its longest. */
  readonly capMs: number;
}

export const defaultRetry: RetryPolicy = { tries: 8, firstMs: 200, capMs: 20_000 };

export interface RetryWorld {
  readonly clock: Clock;
  /** 0 <= x < 1. */
  readonly random: () => number;
}

/** The longest time before try number `next` (2, 3, ...). */
export const longestWaitMs = ({ firstMs, capMs }: RetryPolicy, next: number): number =>
  Math.min(capMs, firstMs * 2 ** (next - 2));

/** Runs `run` until it resolves, fails for good, or has had its tries: the last error is thrown. */
export async function retrying<T>(
  { clock, random }: RetryWorld,
  policy: RetryPolicy,
  mayPass: (error: unknown) => boolean,
  run: () => Promise<T>,
): Promise<T> {
  for (let next = 2; ; next += 1) {
    try {
      return await run();
    } catch (error) {
      if (!mayPass(error) || next > policy.tries) throw error;
      await sleep(clock, random() * longestWaitMs(policy, next));
    }
  }
}
