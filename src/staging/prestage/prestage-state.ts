/**
 * When the rolling chain of a server has its next turn, and what is told of it. Pure: times are monotonic
 * milliseconds, handed in.
 */
import type { ApiError } from '../api-errors.ts';
import type { ApiPrestagedServer } from '../api-types.ts';

export interface TurnState {
  /** Null: not before it is asked for. */
  readonly dueMs: number | null;
  /** Turns that failed since the last good one. */
  readonly failures: number;
  readonly error: ApiError['error'] | null;
  /** Why there was nothing to do; '' otherwise. */
  readonly reason: string;
}

/** The first turn after a start, and the next look for a first point. */
export const FIRST_MS = 10_000;
const RETRY_MS = 60_000;
const RETRY_CAP_MS = 3_600_000;

export const freshTurn = (nowMs: number): TurnState => ({
  ...{ dueMs: nowMs + FIRST_MS, failures: 0, error: null, reason: '' },
});

/** The wait after so many failures; at most the interval itself. `chance`: 0 <= x < 1. */
export function retryMs(failures: number, everyMs: number, chance: number): number {
  const doubled = Math.min(RETRY_CAP_MS, RETRY_MS * 2 ** (failures - 1));
  return Math.min(everyMs, doubled * (0.75 + chance / 2));
}

export type TurnEnd =
  | { readonly type: 'done' }
  | { readonly type: 'nothing'; readonly reason: string }
  /** A launch took the chain, or staging stops. */
  | { readonly type: 'interrupted' }
  | { readonly type: 'failed'; readonly error: ApiError['error'] };

export function afterTurn(
  state: TurnState,
  end: TurnEnd,
  at: { readonly startedMs: number; readonly nowMs: number; readonly everyMs: number },
  chance: number,
): TurnState {
  const { startedMs, nowMs, everyMs } = at;
  const next = Math.max(nowMs, startedMs + everyMs);
  switch (end.type) {
    case 'done':
      return { dueMs: next, failures: 0, error: null, reason: '' };
    case 'nothing':
      return {
        ...{ dueMs: nowMs + Math.min(everyMs, FIRST_MS), failures: 0, error: null },
        reason: end.reason,
      };
    case 'interrupted':
      return { ...state, dueMs: nowMs };
    case 'failed': {
      const failures = state.failures + 1;
      const dueMs = nowMs + retryMs(failures, everyMs, chance);
      return { dueMs, failures, error: end.error, reason: '' };
    }
  }
}

/** The word for where a chain stands. */
export function stateOf(
  { error, reason }: TurnState,
  now: { readonly isOn: boolean; readonly isRunning: boolean; readonly hasHead: boolean },
): ApiPrestagedServer['state'] {
  if (!now.isOn) return 'off';
  if (now.isRunning) return 'uploading';
  if (error !== null) return 'failing';
  return reason !== '' || !now.hasHead ? 'waiting' : 'current';
}
