/**
 * What is known to be damaged and right nowhere else: contents, by pack and name, and volumes whose newest
 * state is hurt by it. A content that is noted is not found there any more, so that agents are asked for it
 * again; of a volume that is noted a rescan is demanded (needs-rescan.ts), which offers every chunk.
 *
 * Kept in the data directory (DATA/damage), for a restart must not forget it; what is lost with the file
 * is found again by the next check that reads. Notes of packs that are gone go with them.
 */
import type { Disk } from '../../base/disk.ts';
import type { Log } from '../../base/log.ts';
import { toHex } from '../format/checksum.ts';
import type { MapPlace } from '../format/layout.ts';
import { writeObject } from '../format/object-file.ts';
import { isDamage, isNotFound } from '../format/object-header.ts';
import { Mutex } from '../mutex.ts';
import type { PackTable } from './pack-table.ts';

const FORMAT = 'understudy damage';
/** So many contents are noted; more than that is for a repair from a copy. */
const MAX_NOTES = 65_536;

interface Noted {
  readonly format: string;
  readonly version: number;
  /** Digests by the pack's id. */
  readonly packs: Readonly<Record<string, readonly string[]>>;
  readonly rescans: readonly MapPlace[];
  /** Ids of points that the last check found to be hurt. */
  readonly hurt?: readonly string[];
}

interface NotesWorld {
  readonly disk: Disk;
  readonly log: Log;
  readonly packs: PackTable;
  readonly path: string;
  readonly temporary: () => string;
  /** A reader without a service: what it meets is told by its errors, and asked of nobody. */
  readonly isReadOnly: boolean;
}

const keyOf = ({ server, volume, generation }: MapPlace): string =>
  JSON.stringify([server, volume, generation]);

export class DamageNotes {
  /** Called when a content was noted that was not known to be damaged. */
  onNoted: () => void = () => undefined;
  private readonly world: NotesWorld;
  private readonly byPack = new Map<number, Set<string>>();
  private readonly rescans = new Map<string, MapPlace>();
  private readonly writing = new Mutex();
  private count = 0;
  private hurtPoints: ReadonlySet<string> = new Set();

  constructor(world: NotesWorld) {
    this.world = world;
  }

  get isEmpty(): boolean {
    return this.count === 0;
  }

  /** Numbers of the packs in which something is noted. */
  get packNumbers(): number[] {
    return [...this.byPack.keys()];
  }

  /** True where the content is noted at this place. */
  has(pack: number, digest: Uint8Array): boolean {
    return this.count > 0 && this.byPack.get(pack)?.has(toHex(digest)) === true;
  }

  /** True where it is noted in whatever pack. */
  hasAnywhere(digest: Uint8Array): boolean {
    if (this.count === 0) return false;
    const name = toHex(digest);
    return [...this.byPack.values()].some((names) => names.has(name));
  }

  /** Digests that are noted of a pack. */
  of(pack: number): ReadonlySet<string> {
    return this.byPack.get(pack) ?? new Set();
  }

  /** In memory at once; `save` makes it durable. */
  note(pack: number, digest: Uint8Array): void {
    if (this.count >= MAX_NOTES || this.has(pack, digest)) return;
    const names = this.byPack.get(pack) ?? new Set();
    this.byPack.set(pack, names.add(toHex(digest)));
    this.count += 1;
    if (names.size === 1 && !this.world.isReadOnly) {
      const path = this.world.packs.byNumber(pack)?.path;
      this.world.log.error('contents of a pack are damaged and right nowhere', { path });
    }
    this.onNoted();
  }

  /** It was read right after all: a disk may fail for a moment. */
  clear(pack: number, digest: Uint8Array): void {
    if (this.byPack.get(pack)?.delete(toHex(digest)) === true) this.count -= 1;
  }

  /** True for a point that the last check found to be hurt. */
  isHurt(point: string): boolean {
    return this.hurtPoints.has(point);
  }

  /** What a check has found: it counts until the next one. */
  setHurt(points: Iterable<string>): void {
    this.hurtPoints = new Set(points);
  }

  demands({ server, volume, generation }: MapPlace): boolean {
    return this.rescans.has(keyOf({ server, volume, generation }));
  }

  /** True where it was not demanded before. */
  demand({ server, volume, generation }: MapPlace): boolean {
    const place = { server, volume, generation };
    if (this.demands(place)) return false;
    this.rescans.set(keyOf(place), place);
    return true;
  }

  withdraw(place: MapPlace): void {
    this.rescans.delete(keyOf(place));
  }

  /** Volumes of which a rescan is demanded. */
  get demanded(): readonly MapPlace[] {
    return [...this.rescans.values()];
  }

  /** What an earlier run has noted; of packs that are still there. Once packs are loaded. */
  async load(): Promise<void> {
    const { disk, path, packs, log } = this.world;
    if (!(await disk.exists(path))) return;
    const noted = parse(await disk.readFile(path));
    if (noted === null) {
      log.warn('the notes of damage cannot be read: a check finds again what they said', { path });
      return;
    }
    for (const [id, names] of Object.entries(noted.packs)) {
      const number = packs.byId(id)?.number;
      if (number === undefined) continue;
      this.byPack.set(number, new Set(names));
      this.count += names.length;
    }
    for (const place of noted.rescans) this.rescans.set(keyOf(place), place);
    this.setHurt(noted.hurt ?? []);
  }

  /** Durable once it resolves. A failure is logged: the next check finds the same. */
  save(): Promise<void> {
    return this.writing.run(async () => {
      const { disk, path, temporary, log } = this.world;
      const bytes = Buffer.from(JSON.stringify(this.noted()));
      const isSame = (await readOr(disk, path))?.equals(bytes) ?? this.isBlank;
      if (isSame) return;
      try {
        await writeObject(disk, temporary(), path, [bytes]);
      } catch (error) {
        log.warn('damage could not be noted', { path, error: String(error) });
      }
    });
  }

  private get isBlank(): boolean {
    return this.count + this.rescans.size + this.hurtPoints.size === 0;
  }

  private noted(): Noted {
    const packs: Record<string, string[]> = {};
    for (const [number, names] of this.byPack) {
      const id = this.world.packs.byNumber(number)?.id;
      if (id !== undefined && names.size > 0) packs[id] = [...names].sort();
      else if (id === undefined) this.forget(number);
    }
    const hurt = [...this.hurtPoints].sort();
    return { format: FORMAT, version: 1, packs, rescans: this.demanded, hurt };
  }

  private forget(pack: number): void {
    this.count -= this.byPack.get(pack)?.size ?? 0;
    this.byPack.delete(pack);
  }
}

async function readOr(disk: Disk, path: string): Promise<Buffer | null> {
  try {
    return Buffer.from(await disk.readFile(path));
  } catch (error) {
    if (!isNotFound(error) && !isDamage(error)) throw error;
    return null;
  }
}

/** Null for what is no such file. */
function parse(bytes: Uint8Array): Noted | null {
  try {
    const noted = JSON.parse(Buffer.from(bytes).toString('utf8')) as Partial<Noted>;
    const isOurs = noted.format === FORMAT && noted.version === 1;
    const isWhole = typeof noted.packs === 'object' && Array.isArray(noted.rescans);
    return isOurs && isWhole && noted.packs !== null ? (noted as Noted) : null;
  } catch {
    return null;
  }
}
