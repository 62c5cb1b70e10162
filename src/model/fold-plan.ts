/**
 * What becomes of a generation's maps when points have been dropped. Pure. Given the bases and deltas
 * that there are and the epochs that must stay readable, says which maps are not needed any more, and
 * which neighbouring deltas become one (between them no epoch is needed and no base stands).
 */

/** Covers the epochs after `from`, up to `to`. */
export interface Span {
  readonly from: number;
  readonly to: number;
}

export interface ChainPlan<T extends Span> {
  /** Null: the chain begins with the generation's first delta. */
  readonly base: number | null;
  readonly deltas: readonly T[];
}

/** The fewest deltas from the newest base that reaches `epoch`; null where none does. */
export function planChain<T extends Span>(
  bases: readonly number[],
  deltas: readonly T[],
  epoch: number,
): ChainPlan<T> | null {
  const starts = bases.filter((base) => base <= epoch).sort((a, b) => b - a);
  for (const start of [...starts, 0]) {
    const path = shortestPath(deltas, start, epoch);
    if (path !== null) return { base: start === 0 ? null : start, deltas: path };
  }
  return null;
}

interface Step<T> {
  readonly delta: T;
  readonly before: Step<T> | null;
  readonly length: number;
}

function shortestPath<T extends Span>(deltas: readonly T[], from: number, to: number): T[] | null {
  if (from === to) return [];
  const reached = new Map<number, Step<T> | null>([[from, null]]);
  const usable = deltas.filter((delta) => delta.from >= from && delta.to <= to);
  usable.sort((a, b) => a.from - b.from || b.to - a.to);
  for (const delta of usable) {
    const before = reached.get(delta.from);
    if (before === undefined || delta.to <= delta.from) continue;
    const length = (before?.length ?? 0) + 1;
    const known = reached.get(delta.to);
    if (known === undefined || (known !== null && known.length > length)) {
      reached.set(delta.to, { delta, before, length });
    }
  }
  const path: T[] = [];
  for (let step = reached.get(to) ?? null; step !== null; step = step.before)
    path.unshift(step.delta);
  return path.length === 0 ? null : path;
}

export interface FoldPlan {
  /** Each list becomes one delta, from its first's `from` to its last's `to`. */
  readonly folds: readonly (readonly Span[])[];
  /** Not needed for any epoch, once the folds are done. */
  readonly unneededBases: readonly number[];
  readonly unneededDeltas: readonly Span[];
}

/** `needed`: epochs of points, and the head's. Maps that lead to none of them are not needed. */
export function planFold(
  bases: readonly number[],
  deltas: readonly Span[],
  needed: readonly number[],
): FoldPlan {
  const usedBases = new Set<number>();
  const usedDeltas = new Set<Span>();
  for (const epoch of needed) {
    const plan = planChain(bases, deltas, epoch);
    if (plan?.base != null) usedBases.add(plan.base);
    for (const delta of plan?.deltas ?? []) usedDeltas.add(delta);
  }
  const borders = new Set([...needed, ...usedBases]);
  const folds: Span[][] = [];
  let run: Span[] = [];
  for (const delta of [...usedDeltas].sort((a, b) => a.from - b.from || a.to - b.to)) {
    const joins = run.at(-1)?.to === delta.from && !borders.has(delta.from);
    if (!joins) {
      folds.push(run);
      run = [];
    }
    run.push(delta);
  }
  folds.push(run);
  return {
    folds: folds.filter((fold) => fold.length > 1),
    unneededBases: bases.filter((base) => !usedBases.has(base)),
    unneededDeltas: deltas.filter((delta) => !usedDeltas.has(delta)),
  };
}
