/**
 * Repairs deltas, bases and points, from another repository with the same history: one whose maps lead to
 * the same root. A map is taken byte for byte, after its digests, its root and its name were compared and
 * all its contents are here; a point after its maps lead to its roots. Contents first, then maps, then
 * points, each durable before the next.
 *
 * What nobody has stays as it is and is told. A damaged map that no point needs goes: others say the same.
 */
import { CHUNKS_PER_LEAF } from '../../model/geometry.ts';
import { checkDigest } from '../check/check-volume.ts';
import type { Core } from '../core.ts';
import { fromHex } from '../format/checksum.ts';
import { type MapPlace, parseBaseName, parseDeltaName } from '../format/layout.ts';
import { damaged, isDamage, isNotFound } from '../format/object-header.ts';
import { leafDigests, missingChunks } from '../leaves/leaf.ts';
import type { LeafFile } from '../leaves/leaf-file.ts';
import type { LeafSource } from '../leaves/leaf-source.ts';
import { Base } from '../maps/base.ts';
import { openChain } from '../maps/chain.ts';
import { openBase, openDelta } from '../maps/maps.ts';
import { decodePointObject, type PointRecord } from '../points/point-format.ts';
import { PackWriter } from '../repository/pack-writer.ts';
import { listPoints, readNamedPoint } from '../repository/repository.ts';
import type { Finding, VolumeEpoch } from '../types.ts';
import {
  isHeldRight,
  LOCKED,
  pieceFromDonor,
  type RepairWorld,
  removeDamaged,
  replaceObject,
} from './repair-world.ts';

/** So many damaged maps of the other repository are gone around. */
const MAX_TRIES = 8;

interface DonorMap {
  readonly path: string;
  readonly source: LeafSource;
  readonly place: MapPlace;
  readonly to: number;
}

export class MapRepair {
  private readonly world: RepairWorld;
  private readonly core: Core;
  private points: PointRecord[] = [];
  /** How many maps were taken, or would be. */
  private taken = 0;
  /** No point is hurt, and none may lie in what cannot be read. */
  private isElseWell = false;

  constructor(world: RepairWorld) {
    this.world = world;
    this.core = world.core;
  }

  async run(findings: readonly Finding[]): Promise<void> {
    this.points = await this.readablePoints();
    const hidden = this.core.disk.hidden?.() ?? [];
    this.isElseWell = hidden.length === 0 && findings.every(({ points }) => points.length === 0);
    for (const finding of findings) {
      const { object, kind, epoch, digest } = finding;
      if (epoch !== undefined) await this.reach(epoch, object);
      else if (digest !== undefined) await this.goAround(finding, digest);
      else if (kind === 'damaged-object' && isMap(object)) await this.replaceMap(finding);
    }
    for (const { object, kind } of findings) {
      if (kind === 'damaged-object' && object.endsWith('.point')) await this.replacePoint(object);
    }
  }

  private async readablePoints(): Promise<PointRecord[]> {
    const points = [...this.core.staged.values()].map(({ record }) => record);
    for await (const { path } of listPoints(this.core)) {
      try {
        points.push(await readNamedPoint(this.core, path));
      } catch (error) {
        if (!isDamage(error) && !isNotFound(error)) throw error; // its own finding
      }
    }
    return points;
  }

  private told(object: string, action: string, isPossible: boolean): boolean {
    this.world.steps.push({ object, action, isPossible });
    return isPossible;
  }

  /** The map of the same name, or another way to the points that need this one. */
  private async replaceMap({ object, points }: Finding): Promise<void> {
    const { donor } = this.world;
    const theirs = donor === null ? null : donor.paths.repo + this.below(object);
    if (donor !== null && theirs !== null && (await donor.disk.exists(theirs))) {
      const map = await this.openAt(donor, theirs);
      if (typeof map !== 'string') {
        const why = (await this.isSameHistory(map)) ? await this.take(map, object) : OTHER_HISTORY;
        this.told(object, why ?? TAKEN, why === null);
        return;
      }
    }
    if (points.length > 0) await this.reachPoints(object, points);
    else if (this.isElseWell) await this.dropMap(object);
    else this.told(object, 'it goes once every point is whole', true);
  }

  /**
   * A content that only a base names, which put it together, is in no copy that has come to its points by
   * deltas: those do without it.
   */
  private async goAround({ object, points }: Finding, digest: string): Promise<void> {
    const { donor } = this.world;
    if (donor === null || points.length === 0 || !object.endsWith('.base')) return;
    if ((await pieceFromDonor(this.world, fromHex(digest))) !== null) return;
    const before = this.taken;
    const { steps } = this.world;
    const told = steps.length;
    await this.reachPoints(object, points);
    // Where all of the way is here already nothing was won.
    if (this.taken === before) steps.splice(told);
  }

  private async reachPoints(object: string, ids: readonly string[]): Promise<void> {
    for (const { id, server, volumes } of this.points) {
      if (!ids.includes(id)) continue;
      for (const { volume, generation, epoch } of volumes) {
        const place = { server, volume, generation };
        const { deltas, bases } = this.core.paths;
        const folders = [this.core.paths.deltaFolder(place), this.core.paths.baseFolder(place)];
        const isOf = folders.some((folder) => object.startsWith(`${folder}/`));
        if (isOf && (object.startsWith(deltas) || object.startsWith(bases))) {
          await this.reach({ ...place, epoch }, object);
        }
      }
    }
  }

  /** Damaged, and no point needs it: nothing is lost with it. Only when all else is well. */
  private async dropMap(object: string): Promise<void> {
    this.told(object, 'it goes: other maps lead to every point', true);
    if (this.world.isDryRun) return;
    const folder = object.slice(0, object.lastIndexOf('/'));
    await removeDamaged(this.world, object, folder);
  }

  /** Takes the maps by which the other repository reaches a point's epoch, as far as they are not here. */
  private async reach(wanted: VolumeEpoch, object: string): Promise<boolean> {
    const { donor } = this.world;
    const goal = `epoch ${wanted.epoch} of ${wanted.volume}`;
    if (donor === null) return this.told(object, `${goal}: there is no other repository`, false);
    const root = this.rootOf(wanted);
    const avoid = new Set<string>();
    for (let tries = 0; tries < MAX_TRIES; tries += 1) {
      try {
        const wish = { ...(root === undefined ? {} : { root }), avoid };
        const { sources } = await openChain(donor, wanted, wanted.epoch, [], wish);
        const failed = await this.takeAll(sources, wanted);
        if (failed === null) return this.told(object, `${goal}: maps ${TAKEN}`, true);
        if (failed.map === '') return this.told(object, `${goal}: ${failed.why}`, false);
        avoid.add(failed.map);
      } catch (error) {
        if (!isDamage(error) && !isNotFound(error)) throw error;
        return this.told(object, `${goal}: the other repository has no way there`, false);
      }
    }
    return this.told(object, `${goal}: the other repository is damaged there`, false);
  }

  private rootOf({ server, volume, generation, epoch }: VolumeEpoch): string | undefined {
    for (const point of this.points) {
      if (point.server !== server) continue;
      const of = point.volumes.find((each) => each.volume === volume && each.epoch === epoch);
      if (of?.generation === generation) return of.chainRoot;
    }
    return undefined;
  }

  private async takeAll(
    sources: readonly LeafSource[],
    place: MapPlace,
  ): Promise<{ map: string; why: string } | null> {
    const donor = this.world.donor!;
    for (const source of sources) {
      const { path } = source as LeafFile | Base;
      const ours = this.pathOf(place, path);
      const here = await this.openAt(this.core, ours);
      if (typeof here !== 'string') continue;
      const map = await this.openAt(donor, path);
      if (typeof map === 'string') return { map: path, why: map };
      const why = await this.take({ ...map, place }, ours);
      if (why !== null) return { map: '', why };
    }
    return null;
  }

  /** The name that a map of the other repository has here: with other keys folders have other names. */
  private pathOf(place: MapPlace, theirs: string): string {
    const name = theirs.slice(theirs.lastIndexOf('/') + 1);
    const base = parseBaseName(name);
    if (base !== null) return this.core.paths.base(place, base);
    const { from, to } = parseDeltaName(name)!;
    return this.core.paths.delta(place, from, to);
  }

  /** A map, opened and compared with its digests and its name; else what is wrong with it. */
  private async openAt(core: Core, path: string): Promise<DonorMap | string> {
    const name = path.slice(path.lastIndexOf('/') + 1);
    try {
      const base = parseBaseName(name);
      if (base !== null) {
        const opened = await openBase(core, path);
        const { info } = opened;
        for (const leaf of opened.table.keys()) await totalLeaf(opened, leaf, info.sizeBytes);
        return { path, source: opened, place: info, to: base };
      }
      const opened = await openDelta(core, path);
      await checkDigest(opened);
      return { path, source: opened, place: opened.info, to: opened.info.to };
    } catch (error) {
      if (!isDamage(error) && !isNotFound(error)) throw error;
      return error.message;
    }
  }

  /** The other repository's maps lead to the root of a point of ours that is not before this map. */
  private async isSameHistory({ place, to }: DonorMap): Promise<boolean> {
    const { server, volume, generation } = place;
    for (const point of this.points) {
      const of = point.volumes.find((each) => each.volume === volume);
      if (point.server !== server || of?.generation !== generation || of.epoch < to) continue;
      try {
        await openChain(this.world.donor!, place, of.epoch, [], { root: of.chainRoot });
        return true;
      } catch (error) {
        if (!isDamage(error) && !isNotFound(error)) throw error;
      }
    }
    return false;
  }

  /** Contents first, then the map. Null, or why it cannot be taken. */
  private async take(map: DonorMap, ours: string): Promise<string | null> {
    const lacking = await this.fetchContents(map);
    if (lacking > 0) return `${lacking} of its contents are right in neither repository`;
    this.taken += 1;
    if (this.world.isDryRun) return null;
    const bytes = await this.world.donor!.disk.readFile(map.path);
    await this.core.files.drop(ours);
    const isDone = await replaceObject(this.core, ours, bytes, async (read) => {
      if (Buffer.compare(read, bytes) !== 0) throw damaged(ours, 'it reads differently');
    });
    return isDone ? null : LOCKED;
  }

  /** What the map names and is not right here; returns how many contents nobody has. */
  private async fetchContents({ source }: DonorMap): Promise<number> {
    const writer = new PackWriter(this.core);
    const seen = new Set<string>();
    let lacking = 0;
    const fetch = async (digest: Uint8Array) => {
      const key = Buffer.from(digest).toString('latin1');
      if (seen.has(key)) return;
      seen.add(key);
      if (await isHeldRight(this.world, digest)) return;
      const found = await pieceFromDonor(this.world, digest);
      if (found === null) lacking += 1;
      else if (!this.world.isDryRun) {
        const { entry, stored } = found;
        await writer.copy({ ...entry, offset: 0, storedLength: stored.length, pack: 0 }, stored);
      }
    };
    try {
      for (const table of source instanceof Base ? source.table : []) {
        if (table !== null) await fetch(table);
      }
      const numbers = source.leafNumbers();
      for (let i = 0; i < numbers.length; i += 1) {
        const bytes = await source.read(numbers[i]!);
        for (const digest of bytes === undefined ? [] : leafDigests(bytes)) await fetch(digest);
      }
      await writer.finish();
    } finally {
      await writer.abandon();
    }
    return lacking;
  }

  /** From the other repository, where its maps lead to the same places here. `named`: its path there. */
  async replacePoint(object: string, named?: string): Promise<boolean> {
    const { donor, isDryRun } = this.world;
    const theirs = named ?? (donor === null ? '' : donor.paths.repo + this.below(object));
    if (donor === null || !(await donor.disk.exists(theirs))) {
      return this.told(object, 'no other repository has this point', false);
    }
    const bytes = await donor.disk.readFile(theirs);
    const record = await this.readDonorPoint(donor, bytes, theirs);
    if (record === null) {
      return this.told(object, 'the other repository has it damaged, too', false);
    }
    this.points.push(record);
    for (const { volume, generation, epoch, chainRoot } of record.volumes) {
      const place = { server: record.server, volume, generation };
      if (await this.leads(place, epoch, chainRoot)) continue;
      if (!(await this.reach({ ...place, epoch }, object))) return false;
    }
    const isDone = isDryRun || (await replaceObject(this.core, object, bytes));
    return this.told(object, isDone ? TAKEN : LOCKED, isDone);
  }

  private async readDonorPoint(
    donor: Core,
    bytes: Uint8Array,
    path: string,
  ): Promise<PointRecord | null> {
    try {
      const record = decodePointObject(bytes, path);
      return donor.paths.point(record.server, record.id) === path ? record : null;
    } catch (error) {
      if (!isDamage(error)) throw error;
      return null;
    }
  }

  private async leads(place: MapPlace, epoch: number, root: string): Promise<boolean> {
    try {
      const staged = this.core.servers.get(place.server)?.volumes.get(place.volume)?.staged ?? [];
      await openChain(this.core, place, epoch, staged, { root });
      return true;
    } catch (error) {
      if (!isDamage(error) && !isNotFound(error)) throw error;
      return false;
    }
  }

  private below(path: string): string {
    return path.slice(this.core.paths.repo.length);
  }
}

const TAKEN = 'taken from the other repository';
const OTHER_HISTORY = 'the other repository has another history under this name';
const isMap = (path: string): boolean => path.endsWith('.delta') || path.endsWith('.base');

/** Every chunk of a base's leaf is told. ERR_OBJECT_DAMAGED. */
async function totalLeaf(base: Base, leaf: number, sizeBytes: number): Promise<void> {
  const [missing] = missingChunks(leaf, await base.read(leaf), sizeBytes);
  if (missing === undefined) return;
  const chunk = missing - leaf * CHUNKS_PER_LEAF;
  throw damaged(base.path, `chunk ${chunk} of leaf ${leaf} is not known wholly`);
}
