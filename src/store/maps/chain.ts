/**
 * Which maps make up a volume's state at an epoch: the newest base at or before it, and deltas that lead
 * from there, without a gap (model/fold-plan.ts chooses). Opens the files and checks that each map's
 * previous root is the root of the one before it. Where a map is damaged, others may say the same: an older
 * base with its deltas, or the parts of a fold.
 */
import { UnderstudyError } from '../../base/errors.ts';
import { inOrder } from '../../base/in-order.ts';
import { type ChainPlan, planChain, type Span } from '../../model/fold-plan.ts';
import type { Core, StagedMap } from '../core.ts';
import { type MapPlace, parseBaseName, parseDeltaName } from '../format/layout.ts';
import { damaged, isDamage, isNotFound } from '../format/object-header.ts';
import type { Leaf } from '../leaves/leaf.ts';
import type { LeafFile } from '../leaves/leaf-file.ts';
import { type LeafSource, readComposed } from '../leaves/leaf-source.ts';
import { openBase, openDelta } from './maps.ts';

/** The bases and deltas of one generation that the repository has, by their names. */
export async function listMaps(
  core: Pick<Core, 'disk' | 'paths'>,
  place: MapPlace,
): Promise<{ bases: number[]; deltas: Span[] }> {
  const { disk, paths } = core;
  // In this order: a base is there before the deltas that it stands for go.
  const deltaNames = await disk.list(paths.deltaFolder(place));
  const baseNames = await disk.list(paths.baseFolder(place));
  return {
    bases: baseNames.map(({ name }) => parseBaseName(name)).filter((epoch) => epoch !== null),
    deltas: deltaNames.map(({ name }) => parseDeltaName(name)).filter((span) => span !== null),
  };
}

export interface ListedMaps {
  readonly bases: readonly number[];
  readonly deltas: readonly Span[];
}

export const isSameList = (a: ListedMaps, b: ListedMaps): boolean =>
  JSON.stringify([a.bases, a.deltas]) === JSON.stringify([b.bases, b.deltas]);

/** Epochs to which chains lead, by the names of the maps alone; 0, the beginning, among them. */
export function reachedEpochs({ bases, deltas }: ListedMaps): Set<number> {
  const reached = new Set([0, ...bases]);
  for (const { from, to } of [...deltas].sort((a, b) => a.from - b.from)) {
    if (to > from && reached.has(from)) reached.add(to);
  }
  return reached;
}

/** Those of `epochs` to which no chain leads, by the names of the maps alone. */
export function unledEpochs(maps: ListedMaps, epochs: Iterable<number>): number[] {
  const reached = reachedEpochs(maps);
  return [...epochs].filter((epoch) => !reached.has(epoch));
}

export interface Chain {
  readonly sizeBytes: number;
  /** Root at the chain's end. */
  readonly root: string;
  /** Oldest first. */
  readonly sources: readonly LeafSource[];
  /** All that is known of a leaf; where a map is damaged there, by another chain that leads here. */
  read(leaf: number): Promise<Leaf | undefined>;
}

type ChainCore = Pick<Core, 'disk' | 'paths' | 'files' | 'reader' | 'log'>;

const MAX_TRIES = 5;
/** So many maps are tried to do without. */
const MAX_WAYS = 64;

interface Link extends Span {
  readonly staged?: StagedMap;
}

export interface ChainWish {
  /** Paths of maps that are known to be damaged. */
  readonly avoid?: ReadonlySet<string>;
  /** The root that the chain must lead to. */
  readonly root?: string;
}

/** ERR_OBJECT_MISSING where no chain of maps leads to `epoch`; ERR_OBJECT_DAMAGED where all are broken. */
export async function openChain(
  core: ChainCore,
  place: MapPlace,
  epoch: number,
  staged: readonly StagedMap[] = [],
  wish: ChainWish = {},
): Promise<Chain> {
  for (let tries = 0; ; tries += 1) {
    try {
      return await new Ways(core, place, epoch, staged, wish).open();
    } catch (error) {
      // A fold has replaced a map between the listing and the opening: list again.
      if (!isNotFound(error) || tries === MAX_TRIES) throw error;
    }
  }
}

/** A chain that did not come about, and the maps that may be to blame. */
interface Broken {
  readonly error: UnderstudyError;
  readonly suspects: readonly string[];
}

type Linked = Omit<Chain, 'read'>;

/** The ways from a base, or from the beginning, to one epoch. */
class Ways {
  private readonly core: ChainCore;
  private readonly place: MapPlace;
  private readonly epoch: number;
  private readonly staged: readonly StagedMap[];
  private readonly wish: ChainWish;
  private tries = 0;

  constructor(
    core: ChainCore,
    place: MapPlace,
    epoch: number,
    staged: readonly StagedMap[],
    wish: ChainWish,
  ) {
    this.core = core;
    this.place = place;
    this.epoch = epoch;
    this.staged = staged.filter(({ info }) => info.generation === place.generation);
    this.wish = wish;
  }

  async open(): Promise<Chain> {
    let listed = await listMaps(this.core, this.place);
    let found = await this.firstSound(listed, this.wish.avoid ?? new Set());
    for (let tries = 0; found === null && tries < MAX_TRIES; tries += 1) {
      // A fold may have moved on between the two listings.
      const again = await listMaps(this.core, this.place);
      if (isSameList(again, listed)) break;
      listed = again;
      found = await this.firstSound(listed, this.wish.avoid ?? new Set());
    }
    if (found !== null && 'sources' in found) {
      return { ...found, read: (leaf) => this.readLeaf(found, leaf) };
    }
    if (found !== null) throw found.error;
    const { epoch, place } = this;
    const context = { path: this.core.paths.deltaFolder(place), volume: place.volume, epoch };
    throw new UnderstudyError('ERR_OBJECT_MISSING', `no maps lead to epoch ${epoch}`, context);
  }

  /** Where the best way is broken, the best one without the map that is to blame; and so on. */
  private async firstSound(
    listed: ListedMaps,
    avoid: ReadonlySet<string>,
  ): Promise<Linked | Broken | null> {
    const plan = this.plan(listed, avoid);
    if (plan === null || this.epoch === 0) return null;
    const found = await this.link(plan);
    if ('sources' in found) return found;
    for (const suspect of found.suspects) {
      this.tries += 1;
      if (this.tries > MAX_WAYS) break;
      const other = await this.firstSound(listed, new Set([...avoid, suspect]));
      if (other === null || !('sources' in other)) continue;
      this.tell(suspect, found.error);
      return other;
    }
    return found;
  }

  private plan({ bases, deltas }: ListedMaps, avoid: ReadonlySet<string>): ChainPlan<Link> | null {
    const { paths } = this.core;
    const isSound = ({ from, to }: Span) => !avoid.has(paths.delta(this.place, from, to));
    const links: Link[] = deltas.filter(isSound);
    for (const map of this.staged) {
      const { from, to } = map.info;
      if (!links.some((delta) => delta.from === from && delta.to === to)) {
        links.push({ from, to, staged: map });
      }
    }
    const soundBases = bases.filter((base) => !avoid.has(paths.base(this.place, base)));
    return planChain(soundBases, links, this.epoch);
  }

  private async link(plan: ChainPlan<Link>): Promise<Linked | Broken> {
    const { core, place } = this;
    const sources: LeafSource[] = [];
    const names: string[] = [];
    let root: string | null = null;
    let sizeBytes = 0;
    const broken = (detail: string): Broken => ({
      error: damaged(names.at(-1)!, detail),
      suspects: [...names.slice(-2)].reverse(),
    });
    try {
      if (plan.base !== null) {
        names.push(core.paths.base(place, plan.base));
        const base = await openBase(core, names[0]!);
        sources.push(base);
        root = base.info.root;
        sizeBytes = base.info.sizeBytes;
      }
      const open = ({ from, to, staged }: Link) =>
        this.openLink(core.paths.delta(place, from, to), staged);
      const files = inOrder(plan.deltas, this.parallel, open);
      for (const { from, to, staged } of plan.deltas) {
        names.push(core.paths.delta(place, from, to));
        const file = (await files.next()).value ?? null;
        const info = file?.info ?? staged!.info;
        if (root !== null && info.previousRoot !== root) return broken('the chain is broken');
        root = info.root;
        sizeBytes = info.sizeBytes;
        sources.push(file ?? staged!.source);
      }
    } catch (error) {
      if (!isDamage(error)) throw error;
      return { error, suspects: names.slice(-1) };
    }
    const wanted = this.wish.root ?? root;
    if (root !== wanted) return broken('the maps lead to another root');
    return { sizeBytes, root: root!, sources };
  }

  /** Null: the map has no file yet. */
  private async openLink(path: string, staged?: StagedMap): Promise<LeafFile | null> {
    return staged === undefined ? openDelta(this.core, path) : null;
  }

  private get parallel(): number {
    return this.core.disk.far?.requests ?? 1;
  }

  private async readLeaf({ sources, root }: Linked, leaf: number): Promise<Leaf | undefined> {
    try {
      return await readComposed(sources, leaf, this.parallel);
    } catch (error) {
      const map = damagedMap(error);
      if (map === null || this.wish.avoid?.has(map) === true) throw error;
      const avoid = new Set([...(this.wish.avoid ?? []), map]);
      const { core, place, epoch, staged } = this;
      try {
        const other = await openChain(core, place, epoch, staged, { root, avoid });
        const bytes = await other.read(leaf);
        this.tell(map, error as UnderstudyError);
        return bytes;
      } catch (second) {
        if (!isDamage(second) && !isNotFound(second)) throw second;
        throw error; // no other way: what is damaged first is what there is to tell
      }
    }
  }

  private tell(path: string, { message }: UnderstudyError): void {
    const { volume } = this.place;
    const fields = { path, volume, epoch: this.epoch, error: message };
    this.core.log.warn('a map is damaged; others that say the same are used', fields);
  }
}

/** The map that an error is about, by its path; null where it is not the damage of one. */
function damagedMap(error: unknown): string | null {
  if (!isDamage(error)) return null;
  const path = error.context.map ?? error.context.path;
  return typeof path === 'string' ? path : null;
}
