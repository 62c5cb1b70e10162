/**
 * Which recovery points are kept: rules like "one in ten minutes, for a day". Pure. Whatever the rules
 * say, the newest whole point of each server stays (a partial one never counts as the last good one),
 * and so does the newest point of all.
 *
 * A rule looks at points younger than `forMs` and keeps the oldest of each interval of `everyMs`, counted
 * from the beginning of time, so that what it keeps today it keeps tomorrow.
 */
import { UnderstudyError } from '../base/errors.ts';
import { parseDuration } from '../base/units.ts';

export interface KeepRule {
  /** Keep one point in each interval (0: every point) ... */
  readonly everyMs: number;
  /** ... for points younger than this. */
  readonly forMs: number;
}

export interface RetainedPoint {
  readonly id: string;
  readonly server: string;
  readonly timeMs: number;
  readonly isPartial: boolean;
}

export const DEFAULT_KEEP = 'all=1h,10m=1d,1h=1w,1d=30d';

/** "all=1h,10m=1d,1h=1w,1d=30d". ERR_RETENTION_RULES. */
export function parseKeepRules(text: string): KeepRule[] {
  return text.split(',').map((part) => {
    const [every, keep, ...rest] = part.trim().split('=');
    if (every === undefined || keep === undefined || rest.length > 0) throw badRules(text);
    try {
      const everyMs = every === 'all' ? 0 : parseDuration(every);
      const forMs = parseDuration(keep);
      if (forMs <= 0 || (every !== 'all' && everyMs <= 0)) throw badRules(text);
      return { everyMs, forMs };
    } catch (cause) {
      throw badRules(text, cause);
    }
  });
}

function badRules(text: string, cause?: unknown): UnderstudyError {
  return new UnderstudyError('ERR_RETENTION_RULES', `not rules of retention: "${text}"`, {}, cause);
}

const byTime = (a: RetainedPoint, b: RetainedPoint): number =>
  a.timeMs - b.timeMs || (a.id < b.id ? -1 : 1);

/** Ids to keep and to drop, each oldest first. Points of the future are kept: a clock has leapt. */
export function planRetention(
  points: readonly RetainedPoint[],
  rules: readonly KeepRule[],
  nowMs: number,
): { keep: string[]; drop: string[] } {
  const sorted = [...points].sort(byTime);
  const kept = new Set<string>();
  for (const server of new Set(sorted.map((point) => point.server))) {
    const own = sorted.filter((point) => point.server === server);
    for (const id of lastPoints(own)) kept.add(id);
    for (const rule of rules) for (const id of keptBy(rule, own, nowMs)) kept.add(id);
    for (const { id, timeMs } of own) if (timeMs > nowMs) kept.add(id);
  }
  const ids = sorted.map(({ id }) => id);
  return { keep: ids.filter((id) => kept.has(id)), drop: ids.filter((id) => !kept.has(id)) };
}

/** What always stays: the newest point of each server, and its newest whole one. */
export function lastPoints(points: readonly RetainedPoint[]): Set<string> {
  const last = new Map<string, string>();
  for (const { id, server, isPartial } of [...points].sort(byTime)) {
    last.set(JSON.stringify([server, 'any']), id);
    if (!isPartial) last.set(JSON.stringify([server, 'whole']), id);
  }
  return new Set(last.values());
}

/** Of each interval the oldest whole point, or the oldest partial one where there is none. */
function keptBy(rule: KeepRule, own: readonly RetainedPoint[], nowMs: number): string[] {
  const isYoung = ({ timeMs }: RetainedPoint) => nowMs - timeMs < rule.forMs;
  if (rule.everyMs === 0) return own.filter(isYoung).map(({ id }) => id);
  const intervals = new Map<number, RetainedPoint>();
  for (const point of own) {
    const interval = Math.floor(point.timeMs / rule.everyMs);
    const first = intervals.get(interval);
    if (first === undefined || (first.isPartial && !point.isPartial))
      intervals.set(interval, point);
  }
  return [...intervals.values()].filter(isYoung).map(({ id }) => id);
}
