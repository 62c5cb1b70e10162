/**
 * Which points a copy takes: those of the source that are sealed and asked for, that the destination lacks
 * and that its own rules of retention would not drop at once. In the order of their commits, whatever the
 * clocks said, so that each finds the one before it at the destination, and the newest are the last.
 */
import { type KeepRule, planRetention, type RetainedPoint } from '../../model/retention.ts';
import type { Core } from '../core.ts';
import { retained } from '../retention/retention.ts';

const PAGE = 500;

interface Selection {
  readonly server?: string | undefined;
  /** Not older, ms since 1970. */
  readonly sinceMs?: number | undefined;
  /** Only so many of each server, those that were committed last. */
  readonly newest?: number | undefined;
}

interface Selected {
  /** In the order of their commits. */
  readonly points: readonly { readonly id: string; readonly server: string }[];
  /** Points that were asked for and are not sealed yet: the next copy takes them. */
  readonly unsealed: number;
  /** All points that were asked for, with those that the destination has. */
  readonly asked: number;
}

export async function selectPoints(
  source: Core,
  target: Core,
  selection: Selection,
  keep: readonly KeepRule[] | undefined,
  nowMs: number,
): Promise<Selected> {
  const held = new Set((await target.catalog.pointNames()).map(({ id }) => id));
  const { sealed, unsealed } = await askedFor(source, selection);
  const wanted = sealed.filter(({ id }) => !held.has(id));
  const kept = keep === undefined ? null : await keptOf(target, wanted, keep, nowMs);
  const points = wanted.filter(({ id }) => kept === null || kept.has(id));
  return {
    points: points.map(({ id, server }) => ({ id, server })),
    ...{ unsealed, asked: sealed.length },
  };
}

async function askedFor(
  source: Core,
  { server, sinceMs, newest }: Selection,
): Promise<{ sealed: RetainedPoint[]; unsealed: number }> {
  const sealed: RetainedPoint[] = [];
  let unsealed = 0;
  for (let after: string | undefined; ; ) {
    const page = await source.catalog.points({
      ...{ order: 'oldest', limit: PAGE },
      ...(server !== undefined && { server }),
      ...(sinceMs !== undefined && { fromMs: sinceMs }),
      ...(after !== undefined && { after }),
    });
    for (const point of page) {
      const isHeld = source.legalHolds.has(point.record.id);
      if (point.state === 'sealed') sealed.push({ ...retained(point), isHeld });
      else unsealed += 1;
    }
    after = page.at(-1)?.record.id;
    if (page.length < PAGE) break;
  }
  sealed.sort((a, b) => a.sequence - b.sequence);
  return { sealed: newest === undefined ? sealed : newestOf(sealed, newest), unsealed };
}

/** The last so many of each server; the list is in the order of commits, and stays so. */
function newestOf(points: readonly RetainedPoint[], count: number): RetainedPoint[] {
  const left = new Map<string, number>();
  const found: RetainedPoint[] = [];
  for (const point of [...points].reverse()) {
    const taken = left.get(point.server) ?? 0;
    if (taken >= count) continue;
    left.set(point.server, taken + 1);
    found.push(point);
  }
  return found.reverse();
}

/** What the rules would keep if the destination had all of it. */
async function keptOf(
  target: Core,
  wanted: readonly RetainedPoint[],
  keep: readonly KeepRule[],
  nowMs: number,
): Promise<Set<string>> {
  const points = await target.catalog.points({});
  const there = points.map((point) => ({
    ...retained(point),
    isHeld: target.legalHolds.has(point.record.id),
  }));
  return new Set(planRetention([...there, ...wanted], keep, nowMs).keep);
}
