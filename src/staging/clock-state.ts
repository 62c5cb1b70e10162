/**
 * May the clock be trusted to tell how old a point is? Pure. Retention drops by age: a clock that has leapt
 * would drop points for an age that they do not have, so it waits until an operator agrees.
 *
 * While the service runs the wall clock is held against the monotonic one; at start against the last time
 * that was noted, or the newest point. Back by more than an hour is a leap. Forward it may have been off:
 * up to a day is taken for that; after more it waits too, and drops nothing in silence.
 */
import { formatDuration } from '../base/units.ts';

export const MAX_LEAP_MS = 3_600_000;
export const MAX_OFF_MS = 86_400_000;
/** Clocks drift, and are slewed: so much of the time that has passed is no leap. */
const MAX_DRIFT = 0.001;

export interface ClockReading {
  readonly wallMs: number;
  readonly monotonicMs: number;
}

/** Why the clock is doubted at start; null: it is not. `seenMs`: null where no time was ever noted. */
export function doubtAtStart(seenMs: number | null, nowMs: number): string | null {
  if (seenMs === null) return null;
  const ahead = nowMs - seenMs;
  if (ahead < -MAX_LEAP_MS) {
    return `the clock is ${formatDuration(-ahead)} behind the last time that was noted`;
  }
  if (ahead > MAX_OFF_MS) {
    return `the clock is ${formatDuration(ahead)} ahead of the last time that was noted`;
  }
  return null;
}

/** The same, since `start` of the same run. */
export function doubtSince(start: ClockReading, now: ClockReading): string | null {
  const passedMs = now.monotonicMs - start.monotonicMs;
  const leapMs = now.wallMs - start.wallMs - passedMs;
  if (Math.abs(leapMs) <= MAX_LEAP_MS + passedMs * MAX_DRIFT) return null;
  const way = leapMs > 0 ? 'forward' : 'back';
  return `the clock has leapt ${way} by ${formatDuration(Math.abs(leapMs))}`;
}
