/**
 * The part of a check that looks at one generation of one volume: every map is parsed and its digest
 * compared, chains lead to every point with the right root, a chain begins with a total map, and every
 * content that a map names is held at its right length.
 */
import { UnderstudyError } from '../../base/errors.ts';
import { inOrder } from '../../base/in-order.ts';
import { decodeEntries } from '../../model/entry-codec.ts';
import { planChain, type Span } from '../../model/fold-plan.ts';
import { CHUNKS_PER_LEAF, leafCount } from '../../model/geometry.ts';
import type { StagedMap } from '../core.ts';
import { equalBytes, toHex } from '../format/checksum.ts';
import { damaged, isDamage, isNotFound } from '../format/object-header.ts';
import { type Leaf, leafDigests, missingChunks, piecesOf } from '../leaves/leaf.ts';
import { LeafDigest, type LeafFile, type LeafFileInfo } from '../leaves/leaf-file.ts';
import { type LeafSource, readComposed } from '../leaves/leaf-source.ts';
import { firstRoot, nextRoot } from '../maps/chain-root.ts';
import { openBase, openDelta } from '../maps/maps.ts';
import type { TableEntry } from '../packs/digest-table.ts';
import type { PointRecord } from '../points/point-format.ts';
import type { Finding } from '../types.ts';
import { type CheckCore, findingOf } from './check-finding.ts';
import type { VolumeMaps } from './check-maps.ts';
import type { PackFindings } from './check-packs.ts';
import { gonePackOf } from './gone-pack.ts';

interface CheckedMap extends Span {
  readonly name: string;
  /** Null where the map could not be opened. */
  readonly source: LeafSource | null;
  readonly previousRoot: string | null;
  readonly root: string;
  readonly isBase: boolean;
}

/** A content that is missing or damaged, and where it was named. */
interface BadPiece {
  readonly map: CheckedMap;
  readonly leaf: number;
  readonly digest: Uint8Array;
  readonly kind: Finding['kind'];
  readonly detail: string;
}

type Chain = readonly CheckedMap[];

/** A content that a map names, and how long it must be. */
interface Wanted {
  readonly leaf: number;
  readonly digest: Uint8Array;
  readonly length: number;
}

/** A map, and what kept it from being read wholly. */
interface LookedAt {
  readonly map: CheckedMap;
  readonly error: unknown;
}

/** Where reading takes long; each takes memory for what is looked up. */
const MAPS_AT_A_TIME = 4;

/** So many contents are looked up at a time. */
const LOOKUPS = 65_536;

export class CheckVolume {
  readonly findings: Finding[] = [];
  /** Hex digests of the contents that findings are about. */
  readonly told = new Set<string>();
  /** Set where a map was gone when it was to be read, or none led to a point. */
  mayBeStale = false;
  private readonly core: CheckCore;
  private readonly volume: VolumeMaps;
  private readonly packs: Pick<PackFindings, 'damaged' | 'silent'>;
  private readonly maps: CheckedMap[] = [];
  /** Maps that cannot be read wholly, and why. */
  private readonly failures = new Map<CheckedMap, unknown>();

  constructor(
    core: CheckCore,
    volume: VolumeMaps,
    packs: Pick<PackFindings, 'damaged' | 'silent'>,
  ) {
    this.core = core;
    this.volume = volume;
    this.packs = packs;
  }

  async run(): Promise<void> {
    if (this.volume.points.length === 0) return; // all dropped meanwhile
    await this.openAll();
    const bad: BadPiece[] = [];
    const checked = inOrder([...this.maps], this.parallel, (map) => this.checkPieces(map));
    for await (const found of checked) {
      bad.push(...found.bad);
      if (found.error !== null) this.fail(found.map, found.error);
    }
    for (const [map, error] of this.failures) this.reportFailure(map, error);
    for (const point of this.volume.points) this.checkChain(point);
    await this.reportPieces(await this.heldNowhere(bad));
  }

  private epochOf(point: PointRecord): { epoch: number; chainRoot: string } {
    const { volume, generation } = this.volume.place;
    return point.volumes.find((own) => own.volume === volume && own.generation === generation)!;
  }

  /** Of the maps given, oldest first; null where they do not lead to the point. */
  private chainOver(maps: readonly CheckedMap[], point: PointRecord): Chain | null {
    const bases = maps.filter(({ isBase }) => isBase);
    const deltas = maps.filter(({ isBase }) => !isBase);
    const epochs = bases.map(({ to }) => to);
    const plan = planChain(epochs, deltas, this.epochOf(point).epoch);
    if (plan === null) return null;
    const base = bases.find(({ to }) => to === plan.base);
    return base === undefined ? [...plan.deltas] : [base, ...plan.deltas];
  }

  /** Over the maps that can be read: the one that a reader takes, then those without its bases. */
  private chainsOf(point: PointRecord): Chain[] {
    let maps = this.maps.filter((map) => !this.failures.has(map));
    const chains: Chain[] = [];
    for (;;) {
      const chain = this.chainOver(maps, point);
      if (chain === null) return chains;
      chains.push(chain);
      const [first] = chain;
      if (first?.isBase !== true) return chains;
      maps = maps.filter((map) => map !== first);
    }
  }

  private async openAll(): Promise<void> {
    const { place, bases, deltas, staged } = this.volume;
    const { paths } = this.core;
    const named = [
      ...bases.map((epoch) => ({ path: paths.base(place, epoch), from: epoch, to: epoch })),
      ...deltas.map(({ from, to }) => ({ path: paths.delta(place, from, to), from, to })),
    ];
    for await (const { map, error } of inOrder(named, this.parallel, (one) => this.open(one))) {
      this.maps.push(map);
      if (error !== null) this.fail(map, error);
    }
    for (const map of staged) {
      const { from, to } = map.info;
      const isThere = deltas.some((delta) => delta.from === from && delta.to === to);
      if (!isThere) this.maps.push(stagedMap(map));
    }
  }

  private get parallel(): number {
    return this.core.disk.far === undefined ? 1 : MAPS_AT_A_TIME;
  }

  private async open({ path, from, to }: Span & { readonly path: string }): Promise<LookedAt> {
    try {
      const isBase = from === to;
      const map = isBase ? await this.openBase(path, to) : await this.openDelta(path, from, to);
      return { map, error: null };
    } catch (error) {
      const isBase = from === to;
      const map = { name: path, from, to, isBase, source: null, previousRoot: null, root: '' };
      return { map, error };
    }
  }

  private fail(map: CheckedMap, error: unknown): void {
    findingOf(error, map.name, []); // throws what is no finding
    if (isNotFound(error)) this.mayBeStale = true;
    this.failures.set(map, error);
  }

  private async openBase(path: string, epoch: number): Promise<CheckedMap> {
    const base = await openBase(this.core, path);
    const { info } = base;
    if (info.epoch !== epoch || !isOf(info, this.volume)) throw damaged(path, 'another name');
    const span = { from: epoch, to: epoch, isBase: true };
    return { name: path, ...span, source: base, previousRoot: null, root: info.root };
  }

  private async openDelta(path: string, from: number, to: number): Promise<CheckedMap> {
    const file = await openDelta(this.core, path);
    const { info } = file;
    if (info.from !== from || info.to !== to || !isOf(info, this.volume)) {
      throw damaged(path, 'another name');
    }
    await checkDigest(file);
    const { previousRoot, root } = info;
    return { name: path, from, to, isBase: false, source: file, previousRoot, root };
  }

  /** Hurts the points that have no other way. */
  private reportFailure(map: CheckedMap, error: unknown): void {
    const isHurt = (point: PointRecord) =>
      this.chainsOf(point).length === 0 && this.chainOver(this.maps, point)?.includes(map) === true;
    const points = this.volume.points.filter(isHurt).map(({ id }) => id);
    this.findings.push(findingOf(error, map.name, points));
    const digest = error instanceof UnderstudyError ? error.context.digest : undefined;
    if (typeof digest === 'string') this.told.add(digest);
  }

  /** The chain leads to the point, link by link, and to its root. */
  private checkChain(point: PointRecord): void {
    const { chainRoot, epoch } = this.epochOf(point);
    const [chain] = this.chainsOf(point);
    if (chain === undefined) {
      if (this.chainOver(this.maps, point) !== null) return; // told of the map that failed
      this.mayBeStale = true;
      const detail = `no maps lead to epoch ${epoch} of ${this.volume.place.volume}`;
      const object = this.core.paths.deltaFolder(this.volume.place);
      const missing = { ...this.volume.place, epoch };
      this.findings.push({
        ...{ kind: 'missing-object', object, detail, points: [point.id], epoch: missing },
      });
      return;
    }
    let root: string | null = null;
    for (const map of chain) {
      const isLinked = root === null || map.previousRoot === root;
      if (!isLinked) this.report('broken-chain', map.name, 'its previous root is another', point);
      root = map.root;
    }
    if (root !== chainRoot) {
      const object = this.core.paths.point(point.server, point.id);
      this.report('broken-chain', object, 'its maps lead to another root', point);
    }
  }

  private report(kind: Finding['kind'], object: string, detail: string, point: PointRecord): void {
    this.findings.push({ kind, object, detail, points: [point.id] });
  }

  /** Every leaf of a map: total where the chain begins with it, and every content held. */
  private async checkPieces(map: CheckedMap): Promise<LookedAt & { readonly bad: BadPiece[] }> {
    const bad: BadPiece[] = [];
    if (map.source === null) return { map, bad, error: null };
    try {
      const { sizeBytes } = this.volume.points[0]!.volumes.find(
        ({ volume }) => volume === this.volume.place.volume,
      )!;
      if (map.from === 0) await this.checkTotal(map.source, sizeBytes, map.name);
      let wanted: Wanted[] = [];
      const numbers = map.source.leafNumbers();
      for (let i = 0; i < numbers.length; i += 1) {
        const leaf = numbers[i]!;
        const bytes = await map.source.read(leaf);
        if (bytes === undefined) continue;
        if (map.isBase && missingChunks(leaf, bytes, sizeBytes).length > 0) {
          throw damaged(map.name, `leaf ${leaf} is not total`);
        }
        addWanted(wanted, leaf, bytes, sizeBytes);
        if (wanted.length < LOOKUPS) continue;
        bad.push(...(await this.lookUp(map, wanted)));
        wanted = [];
      }
      bad.push(...(await this.lookUp(map, wanted)));
      return { map, bad, error: null };
    } catch (error) {
      return { map, bad, error };
    }
  }

  /** In the order of the index, so that each of its pages is read once for many contents. */
  private async lookUp(map: CheckedMap, wanted: Wanted[]): Promise<BadPiece[]> {
    const bad: BadPiece[] = [];
    wanted.sort((a, b) => Buffer.compare(a.digest, b.digest));
    for (const { leaf, digest, length } of wanted) {
      const problem = await this.problemOf(digest, length);
      if (problem !== null) bad.push({ map, leaf, digest, ...problem });
    }
    return bad;
  }

  private async checkTotal(source: LeafSource, sizeBytes: number, name: string): Promise<void> {
    for (let leaf = 0; leaf < leafCount(sizeBytes); leaf += 1) {
      const [missing] = missingChunks(leaf, await source.read(leaf), sizeBytes);
      if (missing !== undefined) throw damaged(name, `chunk ${missing} is not known wholly`);
    }
  }

  private async problemOf(
    digest: Uint8Array,
    length: number,
  ): Promise<Pick<BadPiece, 'kind' | 'detail'> | null> {
    const name = toHex(digest);
    const place = await this.core.index.find(digest);
    const { damaged: known, silent } = this.packs;
    const found = known.get(name);
    if (found?.isLost === true) {
      return { kind: 'damaged-piece', detail: `${name} in ${found.paths.join(', ')} is damaged` };
    }
    if (place === null && this.core.damage.hasAnywhere(digest)) {
      return { kind: 'damaged-piece', detail: `${name} was found to be damaged` };
    }
    if (place === null) {
      const pack = await gonePackOf(this.core, digest);
      const why = pack === null ? '' : `: ${pack} is gone`;
      return { kind: 'missing-piece', detail: `${name} is not held${why}` };
    }
    if (place.rawLength !== length) {
      return {
        kind: 'damaged-piece',
        detail: `${name} is ${place.rawLength} bytes, not ${length}`,
      };
    }
    const path = this.core.packs.byNumber(place.pack)?.path;
    if (path === undefined || silent.has(path)) return this.readProblem(place, name);
    return null;
  }

  /** Of a content in a pack that does not say what it has. */
  private async readProblem(
    place: TableEntry,
    name: string,
  ): Promise<Pick<BadPiece, 'kind' | 'detail'> | null> {
    try {
      await this.core.reader.read([place], () => undefined);
      return null;
    } catch (error) {
      if (!isDamage(error) && !isNotFound(error)) throw error;
      return { kind: 'damaged-piece', detail: `${name}: ${error.message}` };
    }
  }

  /** Without what only the index misses: the footers have the last word. */
  private async heldNowhere(bad: readonly BadPiece[]): Promise<BadPiece[]> {
    const missing = bad.filter(({ kind }) => kind === 'missing-piece');
    const found = await this.core.copies.search(missing.map(({ digest }) => digest));
    return bad.filter((one) => one.kind !== 'missing-piece' || !found.has(toHex(one.digest)));
  }

  /** One finding a content, with the points whose image still shows it. */
  private async reportPieces(bad: readonly BadPiece[]): Promise<void> {
    if (bad.length === 0) return;
    const byDigest = new Map<string, { bad: BadPiece; points: Set<string> }>();
    for (const one of bad) {
      const key = toHex(one.digest);
      this.told.add(key);
      if (!byDigest.has(key)) byDigest.set(key, { bad: one, points: new Set() });
    }
    for (const point of this.volume.points) {
      for (const name of await this.hurting(point, bad)) byDigest.get(name)!.points.add(point.id);
    }
    for (const [digest, { bad: one, points }] of byDigest) {
      const object = one.map.name;
      const { kind, detail } = one;
      this.findings.push({ kind, object, detail, points: [...points], digest });
    }
  }

  /** What the point's image shows of what is bad; nothing where another chain shows none of it. */
  private async hurting(point: PointRecord, bad: readonly BadPiece[]): Promise<Set<string>> {
    let first: Set<string> | null = null;
    for (const chain of this.chainsOf(point)) {
      const shown = await this.shownBy(chain, bad);
      if (shown.size === 0) return shown;
      first ??= shown;
    }
    return first ?? new Set();
  }

  private async shownBy(chain: Chain, bad: readonly BadPiece[]): Promise<Set<string>> {
    const leaves = new Map<number, Set<string>>();
    for (const { map, leaf, digest } of bad) {
      if (!chain.includes(map)) continue;
      leaves.set(leaf, (leaves.get(leaf) ?? new Set()).add(toHex(digest)));
    }
    const sources = chain.map(({ source }) => source!);
    const shown = new Set<string>();
    for (const [leaf, names] of leaves) {
      const bytes = await readComposed(sources, leaf);
      for (const digest of bytes === undefined ? [] : leafDigests(bytes)) {
        const name = toHex(digest);
        if (names.has(name)) shown.add(name);
      }
    }
    return shown;
  }
}

const isOf = (info: { server: string; volume: string; generation: string }, of: VolumeMaps) =>
  info.server === of.place.server &&
  info.volume === of.place.volume &&
  info.generation === of.place.generation;

const stagedMap = ({ info, source }: StagedMap): CheckedMap => ({
  name: `journal: epoch ${info.to} of ${info.volume}`,
  from: info.from,
  to: info.to,
  isBase: false,
  source,
  previousRoot: info.previousRoot,
  root: info.root,
});

/**
 * The leaves are those that the header was made for; of one epoch, its root follows from them.
 * ERR_OBJECT_DAMAGED.
 */
export async function checkDigest(file: LeafFile): Promise<void> {
  const digest = new LeafDigest();
  const numbers = file.leafNumbers();
  for (let i = 0; i < numbers.length; i += 1) {
    const leaf = numbers[i]!;
    if (i > 0 && leaf <= numbers[i - 1]!) throw damaged(file.path, 'leaves do not ascend');
    digest.add(leaf, (await file.read(leaf))!);
  }
  if (!equalBytes(digest.take(), file.leafDigest)) {
    throw damaged(file.path, 'its leaves are not those that its digest names');
  }
  const { info } = file;
  if (info.to !== info.from + 1) return;
  const isRooted = nextRoot(info.previousRoot, file.leafDigest) === info.root;
  const isFirst = info.from > 0 || info.previousRoot === firstRootOf(info);
  if (!isRooted || !isFirst) throw damaged(file.path, 'its root does not follow from its leaves');
}

const firstRootOf = (info: LeafFileInfo): string => firstRoot(info, info.sizeBytes);

function addWanted(wanted: Wanted[], leaf: number, bytes: Leaf, sizeBytes: number): void {
  for (const { index, entry } of decodeEntries(bytes)) {
    const chunk = leaf * CHUNKS_PER_LEAF + index;
    for (const { piece, length } of piecesOf(entry, chunk, sizeBytes)) {
      if (piece !== 'zero') wanted.push({ leaf, digest: piece, length });
    }
  }
}
