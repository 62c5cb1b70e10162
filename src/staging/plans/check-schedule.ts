/**
 * When the newest whole point of a server is due for its boot check. Pure.
 *
 * - Once in `everyMs`, counted from the start of the last one; a server that was never checked is due at
 *   once. Checks that were missed while staging was not there are made up by one.
 * - A point that has booted is not booted again: nothing is due until there is a newer one.
 * - After a failure the next point is tried soon, and then less and less often, up to `everyMs`; the same
 *   point once more after `everyMs`.
 * - A clock that was set back does not keep checks from coming.
 */

export type CheckOutcome = 'passed' | 'failed' | 'cancelled';
export const checkOutcomes: readonly CheckOutcome[] = ['passed', 'failed', 'cancelled'];

export interface LastCheck {
  readonly point: string;
  /** T of the point, ISO 8601. */
  readonly pointTime: string;
  /** Null: the launch was refused. */
  readonly job: string | null;
  /** ISO 8601. */
  readonly startedAt: string;
  /** Null: it runs. */
  readonly outcome: CheckOutcome | null;
  /** What decided. */
  readonly detail: string;
  readonly endedAt: string | null;
}

export interface CheckHistory {
  readonly last: LastCheck | null;
  /** In a row. */
  readonly failures: number;
}

export interface NewestPoint {
  readonly id: string;
  /** Its boot check passed. */
  readonly isVerified: boolean;
}

/** The first wait after a failure; it doubles. */
export const RETRY_MS = 15 * 60_000;

/**
 * Wall clock from which on a check is due; null: there is nothing to check, or one runs. `newest`: null
 * where a server has no whole point.
 */
export function dueMs(
  { last, failures }: CheckHistory,
  everyMs: number,
  newest: NewestPoint | null,
  nowMs: number,
): number | null {
  if (everyMs === 0 || newest === null || newest.isVerified) return null;
  if (last === null) return nowMs;
  if (last.outcome === null) return null;
  const startedMs = Date.parse(last.startedAt);
  if (startedMs > nowMs) return nowMs;
  const isRetry = last.outcome === 'failed' && newest.id !== last.point;
  return startedMs + (isRetry ? Math.min(everyMs, RETRY_MS * 2 ** (failures - 1)) : everyMs);
}

export interface DueServer {
  readonly server: string;
  readonly dueMs: number | null;
}

/** The one that waits longest, of those by name the first; null: none is due. */
export function nextServer(servers: readonly DueServer[], nowMs: number): string | null {
  let next: { server: string; dueMs: number } | null = null;
  for (const { server, dueMs: due } of servers) {
    if (due === null || due > nowMs) continue;
    const isFirst = next === null || due < next.dueMs;
    if (isFirst || (due === next!.dueMs && server < next!.server)) next = { server, dueMs: due };
  }
  return next?.server ?? null;
}

export function begun(
  { failures }: CheckHistory,
  check: Pick<LastCheck, 'point' | 'pointTime' | 'job'>,
  nowMs: number,
): CheckHistory {
  const startedAt = new Date(nowMs).toISOString();
  return { last: { ...check, startedAt, outcome: null, detail: '', endedAt: null }, failures };
}

/** Cancelled by an operator: neither good nor bad. */
export function ended(
  { last, failures }: CheckHistory,
  { outcome, detail }: { readonly outcome: CheckOutcome; readonly detail: string },
  nowMs: number,
): CheckHistory {
  const counted = { passed: 0, failed: failures + 1, cancelled: failures }[outcome];
  const endedAt = new Date(nowMs).toISOString();
  return { last: last && { ...last, outcome, detail, endedAt }, failures: counted };
}
