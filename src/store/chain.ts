/**
 * Which maps make up a volume's state at an epoch: the newest base at or before it, and deltas that lead
 * from there, without a gap (model/fold-plan.ts chooses). Opens the files and checks that each map's
 * previous root is the root of the one before it.
 */
import { UnderstudyError } from '../base/errors.ts';
import { type ChainPlan, planChain, type Span } from '../model/fold-plan.ts';
import { Base } from './base.ts';
import type { Core, StagedMap } from './core.ts';
import { type MapPlace, parseBaseName, parseDeltaName } from './layout.ts';
import { LeafFile } from './leaf-file.ts';
import type { LeafSource } from './leaf-source.ts';
import { damaged } from './object-header.ts';

/** The bases and deltas of one generation that the repository has, by their names. */
export async function listMaps(
  core: Pick<Core, 'disk' | 'paths'>,
  place: MapPlace,
): Promise<{ bases: number[]; deltas: Span[] }> {
  const { disk, paths } = core;
  const baseNames = await disk.list(paths.baseFolder(place));
  const deltaNames = await disk.list(paths.deltaFolder(place));
  return {
    bases: baseNames.map(({ name }) => parseBaseName(name)).filter((epoch) => epoch !== null),
    deltas: deltaNames.map(({ name }) => parseDeltaName(name)).filter((span) => span !== null),
  };
}

export interface Chain {
  readonly sizeBytes: number;
  /** Root at the chain's end. */
  readonly root: string;
  /** Oldest first. */
  readonly sources: readonly LeafSource[];
}

type ChainCore = Pick<Core, 'disk' | 'paths' | 'files' | 'index' | 'reader'>;

const MAX_TRIES = 5;

interface Link extends Span {
  readonly staged?: StagedMap;
}

/** ERR_OBJECT_MISSING where no chain of maps leads to `epoch`; ERR_OBJECT_DAMAGED where one is broken. */
export async function openChain(
  core: ChainCore,
  place: MapPlace,
  epoch: number,
  staged: readonly StagedMap[] = [],
): Promise<Chain> {
  for (let tries = 0; ; tries += 1) {
    try {
      return await tryOpenChain(core, place, epoch, staged);
    } catch (error) {
      // A fold has replaced a map between the listing and the opening: list again.
      const isGone = error instanceof UnderstudyError && error.code === 'ERR_DISK_NOT_FOUND';
      if (!isGone || tries === MAX_TRIES) throw error;
    }
  }
}

async function tryOpenChain(
  core: ChainCore,
  place: MapPlace,
  epoch: number,
  staged: readonly StagedMap[],
): Promise<Chain> {
  const { bases, deltas } = await listMaps(core, place);
  const ours = staged.filter(({ info }) => info.generation === place.generation);
  const links: Link[] = [...deltas];
  for (const map of ours) {
    const { from, to } = map.info;
    if (!deltas.some((delta) => delta.from === from && delta.to === to)) {
      links.push({ from, to, staged: map });
    }
  }
  const plan = planChain(bases, links, epoch);
  if (plan === null || epoch === 0) {
    const path = core.paths.deltaFolder(place);
    const context = { path, volume: place.volume, epoch };
    throw new UnderstudyError('ERR_OBJECT_MISSING', `no maps lead to epoch ${epoch}`, context);
  }
  return link(core, place, plan);
}

async function link(core: ChainCore, place: MapPlace, plan: ChainPlan<Link>): Promise<Chain> {
  const sources: LeafSource[] = [];
  let root: string | null = null;
  let sizeBytes = 0;
  if (plan.base !== null) {
    const base = await Base.open(core, core.paths.base(place, plan.base));
    sources.push(base);
    root = base.info.root;
    sizeBytes = base.info.sizeBytes;
  }
  for (const { from, to, staged } of plan.deltas) {
    const path = core.paths.delta(place, from, to);
    const file = staged === undefined ? await LeafFile.open(core.files, path, 'US-DELTA') : null;
    const info = file?.info ?? staged!.info;
    if (root !== null && info.previousRoot !== root) throw damaged(path, 'the chain is broken');
    root = info.root;
    sizeBytes = info.sizeBytes;
    sources.push(file ?? staged!.source);
  }
  return { sizeBytes, root: root!, sources };
}
