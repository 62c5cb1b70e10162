/**
 * What becomes of a generation's maps. Pure. Deltas come one an epoch. Those between two epochs that are
 * needed become one (points were dropped between them). Where many epochs are needed, levels lie over the
 * deltas, as in an LSM tree: 32 become one that spans them, 32 of these another, and the parts stay as long
 * as their epochs are needed; so a chain is short however many points there are, for maps alone and no
 * content. A level that spans few needed epochs any more is not worth its place.
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

interface Step<T> {
  readonly delta: T;
  readonly before: Step<T> | null;
  readonly length: number;
}

interface Way<T> {
  readonly start: number;
  /** The last delta; null where the base is of the epoch itself. */
  readonly last: Step<T> | null;
}

/** Chains to many epochs over the same maps. */
class ChainPlanner<T extends Span> {
  private readonly starts: readonly number[];
  private readonly deltas: readonly T[];
  private readonly reached = new Map<number, Map<number, Step<T> | null>>();

  constructor(bases: readonly number[], deltas: readonly T[]) {
    this.starts = [...new Set([...bases, 0])].sort((a, b) => b - a);
    const usable = deltas.filter(({ from, to }) => to > from);
    this.deltas = usable.sort((a, b) => a.from - b.from || b.to - a.to);
  }

  /** The fewest deltas from the newest base that reaches `epoch`; null where none does. */
  way(epoch: number): Way<T> | null {
    for (const start of this.starts) {
      if (start > epoch) continue;
      const last = this.from(start).get(epoch);
      if (last !== undefined && (last !== null || start !== 0)) return { start, last };
    }
    return null;
  }

  private from(start: number): Map<number, Step<T> | null> {
    const known = this.reached.get(start);
    if (known !== undefined) return known;
    const reached = new Map<number, Step<T> | null>([[start, null]]);
    for (const delta of this.deltas) {
      const before = reached.get(delta.from);
      if (before === undefined) continue;
      const length = (before?.length ?? 0) + 1;
      const other = reached.get(delta.to);
      if (other !== undefined && (other === null || other.length <= length)) continue;
      reached.set(delta.to, { delta, before, length });
    }
    this.reached.set(start, reached);
    return reached;
  }
}

/** The fewest deltas from the newest base that reaches `epoch`; null where none does. */
export function planChain<T extends Span>(
  bases: readonly number[],
  deltas: readonly T[],
  epoch: number,
): ChainPlan<T> | null {
  const way = new ChainPlanner(bases, deltas).way(epoch);
  if (way === null) return null;
  const path: T[] = [];
  for (let step = way.last; step !== null; step = step.before) path.push(step.delta);
  return { base: way.start === 0 ? null : way.start, deltas: path.reverse() };
}

interface FoldPlan {
  /** Each list becomes one delta, from its first's `from` to its last's `to`. */
  readonly folds: readonly (readonly Span[])[];
  /** Not needed for any epoch, once the folds are done. */
  readonly unneededBases: readonly number[];
  readonly unneededDeltas: readonly Span[];
}

/** A level is kept where it spans so many needed epochs. */
const MIN_SPANNED = 8;

/** `needed`: epochs of points, and the head's. Maps that lead to none of them are not needed. */
export function planFold(
  bases: readonly number[],
  deltas: readonly Span[],
  needed: readonly number[],
  minSpanned = MIN_SPANNED,
): FoldPlan {
  const sorted = [...new Set(needed)].sort((a, b) => a - b);
  const spanned = ({ from, to }: Span) => countBelow(sorted, to) - countBelow(sorted, from + 1);
  const fine = new ChainPlanner(
    bases,
    deltas.filter((delta) => spanned(delta) === 0),
  );
  const worth = new ChainPlanner(
    bases,
    deltas.filter((delta) => spanned(delta) === 0 || spanned(delta) >= minSpanned),
  );
  const all = new ChainPlanner(bases, deltas);
  // What leads from each needed epoch to the next without passing over one stays, whatever the levels.
  const ways = sorted
    .map((epoch) => fine.way(epoch) ?? all.way(epoch))
    .filter((way) => way !== null);
  const usedBases = new Set(ways.map(({ start }) => start));
  const borders = new Set([...sorted, ...usedBases]);
  const usedDeltas = new Set<Span>();
  const folds: Span[][] = [];
  for (const { last } of ways) {
    const run: Span[] = [];
    for (let step = last; step !== null && !usedDeltas.has(step.delta); step = step.before) {
      usedDeltas.add(step.delta);
      run.unshift(step.delta);
      if (borders.has(step.delta.from)) folds.push(run.splice(0));
    }
    folds.push(run);
  }
  for (const epoch of sorted) {
    const way = worth.way(epoch);
    if (way === null) continue;
    usedBases.add(way.start);
    for (let step = way.last; step !== null; step = step.before) usedDeltas.add(step.delta);
  }
  return {
    folds: folds.filter((fold) => fold.length > 1),
    unneededBases: bases.filter((base) => !usedBases.has(base)),
    unneededDeltas: deltas.filter((delta) => !usedDeltas.has(delta)),
  };
}

/** How many of the ascending numbers are below `limit`. */
function countBelow(ascending: readonly number[], limit: number): number {
  let low = 0;
  let high = ascending.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ascending[middle]! < limit) low = middle + 1;
    else high = middle;
  }
  return low;
}

/**
 * Which neighbours of a chain become a level; null: none, and then the chain has at most `maxChain` maps.
 *
 * `fan` or more that span about as many epochs, with nothing larger between them, do, and what is smaller
 * between them with them: the smallest first, of equals the youngest. Where epochs only come at the end that
 * leaves fewer than `fan` of each level. But thinning takes levels away where it was most thorough, and
 * leaves small maps before larger ones, few at each place. Where these are too many in all, those `fan`
 * neighbours become one that are the least to write, whatever they span: each such merge is paid for by
 * `fan` - 1 maps that came, or came to light, since the last one.
 */
export function planLevel<T extends Span>(path: readonly T[], fan: number): readonly T[] | null {
  const levels = path.map(({ from, to }) => levelOf(to - from, fan));
  const highest = Math.max(-1, ...levels);
  for (let level = 0; level <= highest; level += 1) {
    for (let end = path.length; end > 0; ) {
      let begin = end;
      while (begin > 0 && levels[begin - 1]! <= level) begin -= 1;
      // What is smaller before the first of the level belongs to it, too.
      const run = levels.slice(begin, end);
      const count = run.filter((each) => each === level).length;
      if (count >= fan) return path.slice(begin, begin + run.lastIndexOf(level) + 1);
      end = begin - 1;
    }
  }
  return path.length > maxChain(path, fan) ? leastToWrite(path, fan) : null;
}

/** `fan` maps for each level that the chain's epochs have room for. */
function maxChain(path: readonly Span[], fan: number): number {
  const epochs = (path.at(-1)?.to ?? 0) - (path[0]?.from ?? 0);
  return fan * (levelOf(epochs, fan) + 1);
}

/** Those `count` neighbours that span the fewest epochs; of equals the youngest. */
function leastToWrite<T extends Span>(path: readonly T[], count: number): readonly T[] {
  const spanned = (begin: number) => path[begin + count - 1]!.to - path[begin]!.from;
  let best = path.length - count;
  for (let begin = best - 1; begin >= 0; begin -= 1) {
    if (spanned(begin) < spanned(best)) best = begin;
  }
  return path.slice(best, best + count);
}

/** 0 for fewer than `fan` epochs, 1 for fewer than its square, and so on. `fan` is 2 or more. */
function levelOf(epochs: number, fan: number): number {
  let level = 0;
  for (let size = fan; size <= epochs; size *= fan) level += 1;
  return level;
}
