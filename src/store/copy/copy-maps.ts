/**
 * The maps of a copy. For each point the destination gets the way that the source has to it (copy-plan.ts):
 * bases and single deltas byte for byte, several deltas folded into one. A map lies at the destination,
 * under a temporary name, before its contents are looked up: what the source folds meanwhile does not
 * matter. It gets its name after the packs with its contents, and before its point.
 */
import { UnderstudyError } from '../../base/errors.ts';
import type { Span } from '../../model/fold-plan.ts';
import { type Core, temporaryPath } from '../core.ts';
import type { MapPlace } from '../format/layout.ts';
import { discard, publish, together } from '../format/object-file.ts';
import { damaged, isDamage, isNotFound } from '../format/object-header.ts';
import { readLeafFileInfo } from '../leaves/leaf-file.ts';
import { decodeBase } from '../maps/base.ts';
import { listMaps } from '../maps/chain.ts';
import { firstRoot } from '../maps/chain-root.ts';
import type { CommittedVolume } from '../points/point-format.ts';
import { type ContentCopier, HurtSource, type Spend } from './copy-contents.ts';
import { HeldMaps, SourceMaps, type Way } from './copy-plan.ts';
import { MapStager, type Staged, type StagedMap, writeTemporary } from './copy-stage.ts';

/** Each time one map fewer is tried, or the source is listed anew. */
const MAX_TRIES = 8;

/** One generation of one volume, at both places. */
interface Both {
  readonly place: MapPlace;
  readonly held: HeldMaps;
  listed: SourceMaps;
}

interface Avoid {
  readonly bases: Set<number>;
  readonly deltas: Set<Span>;
}

export class MapCopier {
  maps = 0;
  /** Names that were given, for whoever reads back what was copied. */
  readonly published: string[] = [];
  private readonly source: Core;
  private readonly target: Core;
  private readonly spend: Spend;
  private readonly stager: MapStager;
  private readonly both = new Map<string, Both>();
  private pending: Staged[] = [];

  constructor(source: Core, target: Core, contents: ContentCopier, spend: Spend) {
    this.source = source;
    this.target = target;
    this.spend = spend;
    this.stager = new MapStager(source, target, contents, spend);
  }

  /** Objects that wait for their names. */
  get waiting(): { objects: number; bytes: number } {
    const bytes = this.pending.reduce((sum, staged) => sum + staged.bytes, 0);
    return { objects: this.pending.length, bytes };
  }

  /** Stages what the destination lacks to read the volume at its epoch. HurtSource. */
  async reach(server: string, volume: CommittedVolume): Promise<void> {
    const both = await this.bothOf({
      ...{ server, volume: volume.volume, generation: volume.generation },
    });
    const avoid: Avoid = { bases: new Set(), deltas: new Set() };
    let last: unknown = null;
    for (let tries = 0; tries < MAX_TRIES; tries += 1) {
      if (both.held.reached.has(volume.epoch)) return;
      const way = await this.wayTo(both, volume.epoch, avoid);
      if (way === null) break;
      try {
        await this.stageWay(both, way, volume);
        return;
      } catch (error) {
        last = error;
        if (!(await this.mayTryAgain(error, both, way, avoid))) break;
      }
    }
    if (last instanceof HurtSource) throw last;
    if (last !== null && !isNotFound(last)) throw last;
    throw new HurtSource(this.unled(both.place, volume.epoch));
  }

  /** An object of the repository as it is, to be named after the maps that were staged before it. */
  async stageObject(bytes: Uint8Array, path: string): Promise<void> {
    const staged = { temporary: temporaryPath(this.target), path, bytes: bytes.length };
    await writeTemporary(this.target.disk, staged.temporary, [bytes]);
    this.pending.push(staged);
    await this.spend({ read: bytes.length, written: bytes.length });
  }

  /** Everything that was staged gets its name, in that order. The contents have theirs already. */
  async publish(): Promise<void> {
    const { disk } = this.target;
    await together(disk, async () => {
      for (const { temporary, path } of this.pending) await publish(disk, temporary, path);
    });
    this.published.push(...this.pending.map(({ path }) => path));
    this.pending = [];
  }

  async abandon(): Promise<void> {
    for (const { temporary } of this.pending) await discard(this.target.disk, temporary);
    this.pending = [];
  }

  private async bothOf(place: MapPlace): Promise<Both> {
    const key = JSON.stringify(place);
    const known = this.both.get(key);
    if (known !== undefined) return known;
    const held = new HeldMaps(await listMaps(this.target, place));
    const made = { place, held, listed: new SourceMaps(await listMaps(this.source, place)) };
    this.both.set(key, made);
    return made;
  }

  /** What was sealed since the source was listed is found by listing it again. */
  private async wayTo(both: Both, epoch: number, avoid: Avoid): Promise<Way | null> {
    const way = both.listed.way(both.held.reached, epoch, avoid);
    if (way !== null) return way;
    both.listed = new SourceMaps(await listMaps(this.source, both.place));
    return both.listed.way(both.held.reached, epoch, avoid);
  }

  /** True where another way may do: without a map that is damaged, or by maps that have come since. */
  private async mayTryAgain(error: unknown, both: Both, way: Way, avoid: Avoid): Promise<boolean> {
    if (isNotFound(error)) {
      both.listed = new SourceMaps(await listMaps(this.source, both.place));
      return true;
    }
    if (!(error instanceof HurtSource) || error.map === '') return false;
    const { paths } = this.source;
    if (way.base !== null && error.map === paths.base(both.place, way.base)) {
      avoid.bases.add(way.base);
      return true;
    }
    const hurt = way.deltas.find(({ from, to }) => error.map === paths.delta(both.place, from, to));
    if (hurt !== undefined) avoid.deltas.add(hurt);
    return hurt !== undefined;
  }

  private unled(place: MapPlace, epoch: number): UnderstudyError {
    const context = { path: this.source.paths.deltaFolder(place), volume: place.volume, epoch };
    const message = `no maps lead to epoch ${epoch} of ${place.volume}`;
    return new UnderstudyError('ERR_OBJECT_MISSING', message, context);
  }

  /** All of the way, or nothing of it. */
  private async stageWay(both: Both, way: Way, volume: CommittedVolume): Promise<void> {
    const { place, held } = both;
    const staged: StagedMap[] = [];
    const { base, deltas } = way;
    try {
      const isReached = base !== null && held.reached.has(base);
      const start = isReached ? await this.rootAt(both, base) : null;
      if (isReached && start === null) {
        held.drop(base);
        throw new UnderstudyError('ERR_DISK_NOT_FOUND', 'a map of the destination is damaged');
      }
      const { sizeBytes } = volume;
      if (base !== null && start === null)
        staged.push(await this.stager.base(place, base, sizeBytes));
      const before = staged[0]?.root ?? start ?? firstRoot(place, sizeBytes);
      if (deltas.length > 0) {
        staged.push(await this.stager.deltas(place, deltas, before, sizeBytes));
      }
      if ((staged.at(-1)?.root ?? before) !== volume.chainRoot) {
        const path = staged.at(-1)?.path ?? this.source.paths.deltaFolder(place);
        throw new HurtSource(damaged(path, 'the maps lead to another root'));
      }
    } catch (error) {
      for (const { temporary } of staged) await discard(this.target.disk, temporary);
      throw error;
    }
    this.pending.push(...staged);
    this.maps += staged.length;
    for (const { span, root } of staged) {
      if (span === null) held.addBase(base!, root);
      else held.addDelta(span, root);
    }
  }

  /** Root of a map that the destination has; null where it is damaged there. */
  private async rootAt({ place, held }: Both, epoch: number): Promise<string | null> {
    const known = held.roots.get(epoch);
    if (known !== undefined) return known;
    try {
      const root = await this.readRoot(place, held, epoch);
      held.roots.set(epoch, root);
      return root;
    } catch (error) {
      if (!isDamage(error)) throw error;
      const fields = { ...place, epoch, error: error.message };
      this.target.log.error('a map at the destination is damaged; others are copied', fields);
      return null;
    }
  }

  private async readRoot(place: MapPlace, held: HeldMaps, epoch: number): Promise<string> {
    const { paths, disk, files } = this.target;
    const delta = held.deltas.find(({ to }) => to === epoch);
    if (delta !== undefined) {
      const path = paths.delta(place, delta.from, delta.to);
      return (await readLeafFileInfo(files, path, 'US-DELTA')).root;
    }
    const path = paths.base(place, epoch);
    return decodeBase(await disk.readFile(path), path).info.root;
  }
}
