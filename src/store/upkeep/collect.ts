/**
 * Collection: frees what no point, open epoch or reader needs, while agents go on sending. A pack is
 * condemned first - from then on nothing is found in it, so nothing new can refer to it - and deleted
 * after a grace and a second look. Packs that are mostly dead, and small ones when there are many, are
 * rewritten: what is alive is copied into a new pack, durable and found there, before the old one is
 * condemned. FORMAT.md has the table of what may run beside it.
 *
 * A content that was found ("have", dedupe) while the marks were being set keeps its pack for this time.
 */
import { UnderstudyError } from '../../base/errors.ts';
import type { Core } from '../core.ts';
import { equalBytes, toHex } from '../format/checksum.ts';
import type { MapPlace } from '../format/layout.ts';
import { isDamage } from '../format/object-header.ts';
import { listMaps, unledEpochs } from '../maps/chain.ts';
import type { Bloom } from '../packs/bloom.ts';
import type { TableEntry } from '../packs/digest-table.ts';
import { grantOf } from '../packs/grant.ts';
import { readPack } from '../packs/pack-entries.ts';
import { footerEntries } from '../packs/pack-format.ts';
import type { PackInfo } from '../packs/pack-table.ts';
import { isRight, readStored } from '../packs/stored.ts';
import { condemn, pardon, readCondemned } from '../repository/condemned.ts';
import { PackWriter } from '../repository/pack-writer.ts';
import { foldServer } from './map-upkeep.ts';
import { confirmLive, markLive } from './mark.ts';
import { mayHide } from './needed-epochs.ts';

/** So many small packs may lie about before they are merged. */
const MAX_SMALL_PACKS = 16;
/** Where less than this part of a pack is alive, it is rewritten. */
const MIN_LIVE_PART = 0.5;

export interface Collected {
  removedObjects: number;
  freedBytes: number;
  /** What an object store keeps for a time though it is not needed any more. */
  lockedObjects: number;
}

/** Called in the lane of upkeep. */
export async function collectGarbage(core: Core): Promise<Collected> {
  const result: Collected = { removedObjects: 0, freedBytes: 0, lockedObjects: 0 };
  if (mayHide(core)) return result;
  for (const server of [...core.servers.keys()]) {
    const { removedObjects, freedBytes } = await foldServer(core, server);
    result.removedObjects += removedObjects;
    result.freedBytes += freedBytes;
  }
  await assertLed(core);
  const packs = [...core.packs.all()].filter(({ isPublished }) => isPublished);
  const touched = core.index.watch();
  try {
    const pieces = packs.reduce((sum, pack) => sum + pack.pieces, 0);
    const live = await markLive(core, pieces + openPieces(core));
    await deleteCondemned(core, live, result);
    await condemnDead(core, packs.filter(isStanding(core)), live, touched);
  } finally {
    core.index.unwatch();
  }
  result.lockedObjects = core.removal.lockedCount;
  core.removal.tell();
  return result;
}

/** A sealed point without a chain lacks a map, which may come back: what it names is not known. */
async function assertLed(core: Core): Promise<void> {
  const byPlace = new Map<string, { place: MapPlace; epochs: number[] }>();
  for (const { record, state } of await core.catalog.points({})) {
    if (state !== 'sealed') continue;
    for (const { volume, generation, epoch } of record.volumes) {
      const place = { server: record.server, volume, generation };
      const key = JSON.stringify(place);
      const known = byPlace.get(key) ?? { place, epochs: [] };
      byPlace.set(key, known);
      known.epochs.push(epoch);
    }
  }
  for (const { place, epochs } of byPlace.values()) {
    const [epoch] = unledEpochs(await listMaps(core, place), epochs);
    if (epoch === undefined) continue;
    const { server, volume } = place;
    const message = `nothing is collected: no maps lead to epoch ${epoch} of ${volume}`;
    throw new UnderstudyError('ERR_OBJECT_MISSING', message, { server, volume, epoch });
  }
}

const isStanding =
  (core: Core) =>
  ({ number }: PackInfo): boolean =>
    core.packs.byNumber(number)?.isCondemned === false;

/** About how many pieces are not in published packs yet. */
function openPieces(core: Core): number {
  const unpublished = [...core.packs.all()].filter(({ isPublished }) => !isPublished);
  return unpublished.length * Math.ceil(core.settings.segmentBytes / 16_384);
}

/** Entries of a pack; null where its footer is damaged: such a pack is left alone, check reports it. */
async function entriesOf(core: Core, pack: PackInfo): Promise<TableEntry[] | null> {
  try {
    const { footer } = await readPack(core.files, pack.path);
    await core.pace.spend(footer.length);
    return [...footerEntries(footer)];
  } catch (error) {
    if (!isDamage(error)) throw error;
    core.log.error('a pack is damaged and left alone', { path: pack.path, error: error.message });
    return null;
  }
}

/** The second look: what is alive and found nowhere else saves its pack. */
async function deleteCondemned(core: Core, live: Bloom, result: Collected): Promise<void> {
  const now = core.clock.wallMs();
  const due: string[] = [];
  for (const [id, since] of await readCondemned(core)) {
    // The mark of a try that failed and was not undone: sessions have found contents in the pack since.
    if (core.packs.byId(id)?.isCondemned === false) await pardon(core, id);
    // A damaged mark, or one of the future (the clock has leapt): the grace begins anew.
    else if (since === null || since > now) await condemn(core, id);
    else if (now - since >= core.settings.graceMs) due.push(id);
  }
  const candidates = new Map<string, string[]>();
  for (const id of due) {
    const digests = await doubtful(core, id, live);
    if (digests !== null) candidates.set(id, digests);
  }
  const alive = await confirmLive(core, new Set([...candidates.values()].flat()));
  for (const [id, digests] of candidates) {
    if (digests.some((digest) => alive.has(digest))) {
      core.log.warn('a condemned pack is needed after all', { pack: id });
      await pardon(core, id);
    } else {
      await deletePack(core, id, result);
    }
  }
}

/**
 * Digests that may be alive and are right in no pack that stands: found there, read and compared. Null
 * where it cannot be told what the pack has; then it stays.
 */
async function doubtful(core: Core, id: string, live: Bloom): Promise<string[] | null> {
  const pack = core.packs.byId(id);
  if (pack === null) return (await core.disk.exists(core.paths.pack(id))) ? null : [];
  const entries = await entriesOf(core, pack);
  if (entries === null) return null;
  const doubtfulOnes: string[] = [];
  for (const entry of entries) {
    if (entry.isGrant || !live.mayHave(entry.digest)) continue;
    const place = await core.index.find(entry.digest);
    const isElsewhere = place !== null && place.pack !== pack.number;
    const isSafe = isElsewhere && (await core.reader.isRightAt(place));
    if (!isSafe) doubtfulOnes.push(toHex(entry.digest));
  }
  return doubtfulOnes;
}

async function deletePack(core: Core, id: string, result: Collected): Promise<void> {
  const pack = core.packs.byId(id);
  if (pack !== null) {
    if (!(await core.removal.remove(core.disk, pack.path))) return;
    await core.disk.syncDirectory(core.paths.packFolder(id));
    core.packs.remove(pack.number);
    result.removedObjects += 1;
    result.freedBytes += pack.fileBytes;
  }
  await core.removal.remove(core.disk, core.paths.condemnedMark(id));
}

async function condemnDead(
  core: Core,
  packs: readonly PackInfo[],
  live: Bloom,
  touched: ReadonlySet<number>,
): Promise<void> {
  const rewrite = new Rewrite(core);
  try {
    for (const pack of packs) {
      const alive = await foundHere(core, pack, async (entry) =>
        live.mayHave(await aboutOf(core, pack, entry)),
      );
      if (alive === null || storedBytes(alive) >= pack.fileBytes * MIN_LIVE_PART) continue;
      await rewrite.add(pack, alive);
    }
    await rewrite.finish(({ number }) => !touched.has(number));
  } catch (error) {
    await rewrite.abandon();
    throw error;
  }
}

/**
 * Entries that would be lost with the pack: found here, found nowhere, or found in a place where the
 * content is damaged. Null where the pack is damaged.
 */
export async function foundHere(
  core: Core,
  pack: PackInfo,
  isWanted: (entry: TableEntry) => Promise<boolean>,
): Promise<TableEntry[] | null> {
  const entries = await entriesOf(core, pack);
  if (entries === null) return null;
  const found: TableEntry[] = [];
  for (const entry of entries) {
    if (!(await isWanted(entry))) continue;
    const own = { ...entry, pack: pack.number };
    const place = await core.index.find(entry.digest);
    const isElsewhere =
      place !== null &&
      place.pack !== pack.number &&
      (entry.isGrant || (await core.reader.isRightAt(place)));
    if (isElsewhere) found.push(...(await secondCopy(core, own, place)));
    else found.push(own);
  }
  return found;
}

/** What must be kept of a content that is found elsewhere: that its owner has sent it. */
async function secondCopy(core: Core, copy: TableEntry, place: TableEntry): Promise<TableEntry[]> {
  if (copy.isGrant || equalBytes(copy.owner, place.owner)) return [];
  const grant = grantOf(core.names, copy);
  const known = await core.index.find(grant.digest);
  return known === null || known.pack === copy.pack ? [grant] : [];
}

/** The name of the content that an entry is about: of a grant, what it holds. */
async function aboutOf(core: Core, pack: PackInfo, entry: TableEntry): Promise<Uint8Array> {
  if (!entry.isGrant) return entry.digest;
  return (await readStored(core.files, pack.path, entry)) ?? entry.digest;
}

const storedBytes = (entries: readonly TableEntry[]): number =>
  entries.reduce((sum, { storedLength }) => sum + storedLength, 0);

/** Copies out of packs that are to be condemned, and condemns them once the copies are durable. */
export class Rewrite {
  private readonly core: Core;
  private readonly writer: PackWriter;
  private readonly done: PackInfo[] = [];
  private isOver = false;

  constructor(core: Core) {
    this.core = core;
    this.writer = new PackWriter(core);
    core.index.beginRewrite();
  }

  /** A pack with a damaged piece among `entries` is left alone: check reports it. */
  async add(pack: PackInfo, entries: readonly TableEntry[]): Promise<void> {
    const inOrder = [...entries].sort((a, b) => a.offset - b.offset);
    for (const entry of inOrder) {
      const stored = await readStored(this.core.files, pack.path, entry);
      await this.core.pace.spend(entry.storedLength);
      if (stored === null || !isRight(this.core.vault, entry, stored)) {
        this.core.log.error('a piece is damaged and left alone', { path: pack.path });
        return;
      }
      await this.writer.copy(entry, stored);
    }
    this.done.push(pack);
  }

  async finish(mayCondemn: (pack: PackInfo) => boolean = () => true): Promise<void> {
    await this.writer.finish();
    for (const pack of this.done) if (mayCondemn(pack)) await condemn(this.core, pack.id);
    this.end();
  }

  async abandon(): Promise<void> {
    this.end();
    await this.writer.abandon();
  }

  private end(): void {
    if (!this.isOver) this.core.index.endRewrite();
    this.isOver = true;
  }
}

/**
 * Frequent seals leave small packs: many of about one size become one, so that a content is copied only a
 * few times before its pack is large.
 */
export async function mergeSmallPacks(core: Core): Promise<void> {
  for (const packs of sizeClasses(core).values()) {
    if (packs.length <= MAX_SMALL_PACKS) continue;
    const rewrite = new Rewrite(core);
    try {
      for (const pack of packs) {
        const entries = await foundHere(core, pack, async () => true);
        if (entries !== null) await rewrite.add(pack, entries);
      }
      await rewrite.finish();
    } catch (error) {
      await rewrite.abandon();
      throw error;
    }
  }
}

/** Small packs by about how large they are: each class up to eight times the one below. */
function sizeClasses(core: Core): Map<number, PackInfo[]> {
  const classes = new Map<number, PackInfo[]>();
  for (const pack of core.packs.all()) {
    const isSmall = pack.fileBytes < core.settings.smallPackBytes;
    if (!pack.isPublished || pack.isCondemned || !isSmall) continue;
    const size = Math.floor(Math.log2(Math.max(1, pack.fileBytes)) / 3);
    classes.set(size, [...(classes.get(size) ?? []), pack]);
  }
  return classes;
}
