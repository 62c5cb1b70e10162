/**
 * By which maps of the source the destination of a copy comes to an epoch: from the newest epoch that it
 * reaches already, or from a newer base of the source. Pure. The usual case, one more delta, is answered
 * without looking through all that there is.
 */
import { type ChainPlan, planChain, type Span } from '../../model/fold-plan.ts';
import { type ListedMaps, reachedEpochs } from '../maps/chain.ts';

/** Where a copy begins (a base of the source, or an epoch that is reached; null: 0) and what follows. */
export type Way = ChainPlan<Span>;

/** Maps of one generation at the destination, with those that wait for their names. */
export class HeldMaps {
  readonly bases: number[];
  readonly deltas: Span[];
  readonly reached: Set<number>;
  /** Root at an epoch, where it is known. */
  readonly roots = new Map<number, string>();

  constructor(listed: ListedMaps) {
    this.bases = [...listed.bases];
    this.deltas = [...listed.deltas];
    this.reached = reachedEpochs(listed);
  }

  addBase(epoch: number, root: string): void {
    this.bases.push(epoch);
    this.reached.add(epoch);
    this.roots.set(epoch, root);
  }

  /** One that begins where something leads to. */
  addDelta(span: Span, root: string): void {
    this.deltas.push(span);
    this.reached.add(span.to);
    this.roots.set(span.to, root);
  }

  /** An epoch is reached no more: what leads there is damaged. */
  drop(epoch: number): void {
    this.reached.delete(epoch);
  }
}

/** Maps of one generation of the source, as they were listed. */
export class SourceMaps {
  private readonly bases: Set<number>;
  private readonly deltas: readonly Span[];
  private readonly byEnd = new Map<number, Span[]>();

  constructor({ bases, deltas }: ListedMaps) {
    this.bases = new Set(bases);
    this.deltas = deltas;
    for (const delta of deltas) {
      const known = this.byEnd.get(delta.to);
      if (known === undefined) this.byEnd.set(delta.to, [delta]);
      else known.push(delta);
    }
  }

  /** Null where nothing leads to `epoch` without the maps that are to be avoided. */
  way(
    reached: ReadonlySet<number>,
    epoch: number,
    avoid: { readonly bases: ReadonlySet<number>; readonly deltas: ReadonlySet<Span> },
  ): Way | null {
    const isWhole = avoid.bases.size === 0 && avoid.deltas.size === 0;
    if (isWhole && !this.bases.has(epoch)) {
      const last = this.byEnd.get(epoch)?.find(({ from }) => from > 0 && reached.has(from));
      if (last !== undefined) return { base: last.from, deltas: [last] };
    }
    const bases = [...this.bases].filter((base) => !avoid.bases.has(base));
    const deltas = this.deltas.filter((delta) => !avoid.deltas.has(delta));
    const starts = new Set([...bases, ...[...reached].filter((start) => start > 0)]);
    return planChain([...starts], deltas, epoch);
  }
}
