/**
 * Anything that holds leaves of one map: memory, a delta, a run of an open epoch, a base. Sources lie
 * over each other, oldest first, and are read leaf by leaf, so that no map is ever in memory as a whole.
 */
import { inOrder } from '../../base/in-order.ts';
import { composeAll, type Leaf } from './leaf.ts';

export interface LeafSource {
  /** Numbers of the leaves that it knows anything of, ascending. */
  leafNumbers(): ArrayLike<number>;
  has(leaf: number): boolean;
  read(leaf: number): Promise<Leaf | undefined>;
}

/** Leaves in memory. A frozen one is never changed again. */
export class MemoryLeaves implements LeafSource {
  readonly leaves: Map<number, Leaf>;

  constructor(leaves: Map<number, Leaf> = new Map()) {
    this.leaves = leaves;
  }

  leafNumbers(): ArrayLike<number> {
    return [...this.leaves.keys()].sort((a, b) => a - b);
  }

  has(leaf: number): boolean {
    return this.leaves.has(leaf);
  }

  async read(leaf: number): Promise<Leaf | undefined> {
    return this.leaves.get(leaf);
  }
}

/** Numbers of the leaves of all sources, ascending, each once. */
export function* mergedLeafNumbers(sources: readonly LeafSource[]): Generator<number> {
  const lists = sources.map((source) => source.leafNumbers());
  const at = lists.map(() => 0);
  for (;;) {
    let next = Number.POSITIVE_INFINITY;
    for (const [i, list] of lists.entries()) next = Math.min(next, list[at[i]!] ?? next);
    if (next === Number.POSITIVE_INFINITY) return;
    for (const [i, list] of lists.entries()) if (list[at[i]!] === next) at[i]! += 1;
    yield next;
  }
}

/** `parallel`: so many of the sources are asked at a time. */
export async function readComposed(
  sources: readonly LeafSource[],
  leaf: number,
  parallel = 1,
): Promise<Leaf | undefined> {
  const asked = sources.filter((source) => source.has(leaf));
  // Most leaves of a volume lie in one place, and this is asked of each leaf.
  if (asked.length < 2) return asked[0]?.read(leaf);
  const layers: (Leaf | undefined)[] = [];
  const read = (source: LeafSource) => source.read(leaf);
  for await (const layer of inOrder(asked, parallel, read)) layers.push(layer);
  return composeAll(layers);
}

/** All leaves of sources that lie over each other, ascending. */
export async function* composedLeaves(
  sources: readonly LeafSource[],
): AsyncGenerator<{ leaf: number; bytes: Leaf }> {
  for (const leaf of mergedLeafNumbers(sources)) {
    const bytes = await readComposed(sources, leaf);
    if (bytes !== undefined) yield { leaf, bytes };
  }
}
