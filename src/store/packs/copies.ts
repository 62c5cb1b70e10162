/**
 * Other copies of contents that are damaged or not found where the index says. A content may lie in
 * several packs, and the index names one of them; the footers name all. They are searched only where
 * something is wrong: once for all that a damaged pack has, and not again before packs have changed.
 * Condemned packs count here: what they have is right as long as its digest is.
 */
import type { Log } from '../../base/log.ts';
import { toHex } from '../format/checksum.ts';
import { isDamage, isNotFound } from '../format/object-header.ts';
import {
  compareDigests,
  readTableEntry,
  TABLE_ENTRY_BYTES,
  type TableEntry,
} from './digest-table.ts';
import type { FileCache } from './file-cache.ts';
import { entriesOf, findInPack, readPack } from './pack-entries.ts';
import type { PackInfo, PackTable } from './pack-table.ts';

/** Digests that are nowhere are remembered up to this many. */
const MAX_ABSENT = 65_536;

interface CopiesWorld {
  readonly files: FileCache;
  readonly packs: PackTable;
  readonly log: Log;
  /** Enters packs that have come since the directory was listed; a reader beside a service needs it. */
  readonly refresh: () => Promise<void>;
}

/** Places by the hex digests of their contents. */
type Places = ReadonlyMap<string, readonly TableEntry[]>;

export class Copies {
  private readonly world: CopiesWorld;
  /** Of all contents of a pack, by its number: where else they lie. */
  private readonly byPack = new Map<number, Places>();
  private readonly absent = new Set<string>();
  private changes = -1;

  constructor(world: CopiesWorld) {
    this.world = world;
  }

  /** All places of these contents, in whatever pack, as the footers say. */
  async search(digests: readonly Uint8Array[]): Promise<Places> {
    this.forgetOld();
    const unknown = digests.filter((digest) => !this.absent.has(toHex(digest)));
    if (unknown.length === 0) return new Map();
    await this.refresh();
    const found = await this.searchPacks(unknown);
    for (const name of unknown.map(toHex)) {
      if (!found.has(name) && this.absent.size < MAX_ABSENT) this.absent.add(name);
    }
    return found;
  }

  /** Where the content of `place`, which is damaged, lies besides. */
  async besides(place: TableEntry): Promise<readonly TableEntry[]> {
    this.forgetOld();
    let places = this.byPack.get(place.pack);
    if (places === undefined) {
      const all = await this.digestsOf(place.pack);
      if (all === null) return (await this.search([place.digest])).get(toHex(place.digest)) ?? [];
      await this.refresh();
      places = await this.searchPacks(all, place.pack);
      this.byPack.set(place.pack, places);
    }
    return places.get(toHex(place.digest)) ?? [];
  }

  /** Takes in packs that have come since the directory was listed. */
  async refresh(): Promise<void> {
    await this.world.refresh();
    this.forgetOld();
  }

  /** What was found counts until packs come or go. */
  private forgetOld(): void {
    if (this.changes === this.world.packs.changes) return;
    this.changes = this.world.packs.changes;
    this.byPack.clear();
    this.absent.clear();
  }

  /** Digests of all contents of a pack; null where its footer cannot be read. */
  private async digestsOf(number: number): Promise<Uint8Array[] | null> {
    const pack = this.world.packs.byNumber(number);
    if (pack?.isPublished !== true) return null;
    try {
      const contents = await readPack(this.world.files, pack.path);
      return [...entriesOf(contents)].filter(({ isGrant }) => !isGrant).map(({ digest }) => digest);
    } catch (error) {
      if (!isDamage(error) && !isNotFound(error)) throw error;
      return null;
    }
  }

  private async searchPacks(digests: readonly Uint8Array[], except = -1): Promise<Places> {
    const found = new Map<string, TableEntry[]>();
    for (const pack of this.world.packs.all()) {
      if (!pack.isPublished || pack.number === except) continue;
      const footer = await this.footerOf(pack);
      for (const digest of digests) {
        const entry = findIn(footer, digest);
        if (entry === null) continue;
        const name = toHex(digest);
        found.set(name, [...(found.get(name) ?? []), { ...entry, pack: pack.number }]);
      }
    }
    return found;
  }

  /** Entries ascending by digest; none where the pack says nothing at all. */
  private async footerOf({ path }: PackInfo): Promise<Uint8Array> {
    const { files, log } = this.world;
    try {
      const told = (error: string) => log.warn('a pack is damaged', { path, error });
      return (await findInPack(files, path, told)).contents.footer;
    } catch (error) {
      if (!isDamage(error) && !isNotFound(error)) throw error;
      return new Uint8Array(0);
    }
  }
}

function findIn(footer: Uint8Array, digest: Uint8Array): TableEntry | null {
  let low = 0;
  let high = footer.length / TABLE_ENTRY_BYTES;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (compareDigests(footer, middle * TABLE_ENTRY_BYTES, digest, 0) < 0) low = middle + 1;
    else high = middle;
  }
  const at = low * TABLE_ENTRY_BYTES;
  if (at >= footer.length || compareDigests(footer, at, digest, 0) !== 0) return null;
  const entry = readTableEntry(footer, at);
  return { ...entry, digest: entry.digest.slice(), owner: entry.owner.slice() };
}
