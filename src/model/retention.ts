/**
 * Which recovery points are kept, and why: rules like "one in ten minutes, for a day", holds, and what
 * always stays. Pure. Whatever the rules say, the newest whole point of each server stays (a partial one
 * never counts as the last good one), and so does the newest point of all.
 *
 * A rule looks at points younger than `forMs` and keeps the oldest of each interval of `everyMs`, counted
 * from the beginning of time, so that what it keeps today it keeps tomorrow.
 *
 * Times are the source servers'. A source clock that ran ahead must cost no good point: "newest" means the
 * newest by time and also the last that was committed; and a point of the future is taken to be of the
 * time when it was committed by our own clock, where that is known and past, and stays otherwise. Nor must one
 * that was set back: a point that was committed after one of a later time is of that time, too, or what a server
 * does now would be thinned as if it were old, until its clock has come to where it was.
 */
import { formatKeepRule, type KeepRule } from './keep-rules.ts';

export { DEFAULT_KEEP, type KeepRule, parseKeepRules } from './keep-rules.ts';

/** A plan as if this server had this policy (null: none of its own). */
export interface PolicyWish {
  readonly server: string;
  readonly keep: string | null;
}

export interface RetainedPoint {
  readonly id: string;
  readonly server: string;
  readonly timeMs: number;
  readonly isPartial: boolean;
  /** Number of its commit: grows with each. */
  readonly sequence: number;
  /** When it was committed, by the clock of staging; undefined where that was not noted. */
  readonly receivedMs?: number | undefined;
  readonly isHeld?: boolean;
  /** The newest state of its server is damaged: this may be the last good point. */
  readonly isDoubted?: boolean;
}

export interface PlannedPoint {
  readonly id: string;
  readonly server: string;
  readonly timeMs: number;
  /** Why it stays: rules ("10m=1d"), `newest`, `hold`, `damage`, `future`, `policy unknown`. Empty: it goes. */
  readonly keptBy: readonly string[];
}

export interface RetentionPlan {
  /** Ids, oldest first. */
  readonly keep: string[];
  readonly drop: string[];
  /** All points, oldest first. */
  readonly points: readonly PlannedPoint[];
}

/** The rules of a server; null: they are not known, and nothing of it is dropped. */
export type RulesOf = (server: string) => readonly KeepRule[] | null;

const byTime = (a: RetainedPoint, b: RetainedPoint): number =>
  a.timeMs - b.timeMs || (a.id < b.id ? -1 : 1);

const byCommit = (a: RetainedPoint, b: RetainedPoint): number => a.sequence - b.sequence;

export function planRetention(
  points: readonly RetainedPoint[],
  rules: readonly KeepRule[] | RulesOf,
  nowMs: number,
): RetentionPlan {
  const rulesOf: RulesOf = typeof rules === 'function' ? rules : () => rules;
  const reasons = new Map<string, string[]>(points.map(({ id }) => [id, []]));
  const note = (ids: Iterable<string>, reason: string) => {
    for (const id of ids) reasons.get(id)?.push(reason);
  };
  for (const [server, own] of byServer(points)) {
    note(lastPoints(own), 'newest');
    note(idsOf(own.filter(({ isHeld }) => isHeld === true)), 'hold');
    note(idsOf(own.filter(({ isDoubted }) => isDoubted === true)), 'damage');
    const known = rulesOf(server);
    if (known === null) note(idsOf(own), 'policy unknown');
    const aged = agedPoints(own, nowMs).sort(byTime);
    for (const rule of known ?? []) note(keptBy(rule, aged, nowMs), formatKeepRule(rule));
    note(idsOf(aged.filter(({ timeMs }) => timeMs > nowMs)), 'future');
  }
  const planned = [...points].sort(byTime).map(({ id, server, timeMs }) => {
    return { id, server, timeMs, keptBy: reasons.get(id)! };
  });
  return {
    keep: idsOf(planned.filter((point) => point.keptBy.length > 0)),
    drop: idsOf(planned.filter((point) => point.keptBy.length === 0)),
    points: planned,
  };
}

const idsOf = (points: readonly { id: string }[]): string[] => points.map(({ id }) => id);

function byServer(points: readonly RetainedPoint[]): Map<string, RetainedPoint[]> {
  const servers = new Map<string, RetainedPoint[]>();
  for (const point of points) {
    const own = servers.get(point.server);
    if (own === undefined) servers.set(point.server, [point]);
    else own.push(point);
  }
  return servers;
}

/** With the times that their ages count from. */
function agedPoints(own: readonly RetainedPoint[], nowMs: number): RetainedPoint[] {
  let latestMs = Number.NEGATIVE_INFINITY;
  return [...own].sort(byCommit).map((point) => {
    const { timeMs, receivedMs = timeMs } = point;
    const isBehind = timeMs < latestMs;
    latestMs = Math.max(latestMs, timeMs);
    if (timeMs > nowMs) return { ...point, timeMs: receivedMs };
    // A point is received after its cut: where our own clock says otherwise, that one was set back.
    return isBehind ? { ...point, timeMs: Math.max(timeMs, receivedMs) } : point;
  });
}

/**
 * What always stays: of each server the newest point and the newest whole one, by time, and the last ones
 * that were committed.
 */
export function lastPoints(points: readonly RetainedPoint[]): Set<string> {
  const last = new Map<string, string>();
  const orders = { time: byTime, commit: byCommit };
  for (const [order, compare] of Object.entries(orders)) {
    for (const { id, server, isPartial } of [...points].sort(compare)) {
      last.set(JSON.stringify([server, order, 'any']), id);
      if (!isPartial) last.set(JSON.stringify([server, order, 'whole']), id);
    }
  }
  return new Set(last.values());
}

/** Of each interval the oldest whole point, or the oldest partial one where there is none. */
function keptBy(rule: KeepRule, own: readonly RetainedPoint[], nowMs: number): string[] {
  const isYoung = ({ timeMs }: RetainedPoint) => nowMs - timeMs < rule.forMs;
  if (rule.everyMs === 0) return idsOf(own.filter(isYoung));
  const intervals = new Map<number, RetainedPoint>();
  for (const point of own) {
    const interval = Math.floor(point.timeMs / rule.everyMs);
    const first = intervals.get(interval);
    if (first === undefined || (first.isPartial && !point.isPartial))
      intervals.set(interval, point);
  }
  return idsOf([...intervals.values()].filter(isYoung));
}
