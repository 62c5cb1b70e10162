/**
 * Repairs packs. Whatever is wrong with one - a content, header, footer, trailer - what is right in it is
 * copied into a new pack, with the contents that are damaged here and right elsewhere: in another pack, or
 * in the other repository. The new pack is read back and durable before the damaged one goes, and that
 * stays where it has anything that is needed and is right nowhere. So also for contents that no pack has.
 */
import type { PackFindings } from '../check/check-packs.ts';
import type { Core } from '../core.ts';
import { equalBytes, fromHex, toHex } from '../format/checksum.ts';
import { isDamage, isNotFound } from '../format/object-header.ts';
import { DigestTable, type TableEntry } from '../packs/digest-table.ts';
import { findInPack } from '../packs/pack-entries.ts';
import { footerEntries } from '../packs/pack-format.ts';
import type { PackInfo } from '../packs/pack-table.ts';
import { isRight, readStored } from '../packs/stored.ts';
import { PackWriter } from '../repository/pack-writer.ts';
import type { Finding } from '../types.ts';
import { confirmLive } from '../upkeep/mark.ts';
import {
  type FoundPiece,
  pieceFromDonor,
  type RepairWorld,
  removeDamaged,
} from './repair-world.ts';

interface Tally {
  copied: number;
  fromCopies: number;
  fromDonor: number;
  dropped: number;
  lost: number;
}

export class PackRepair {
  private readonly world: RepairWorld;
  private readonly core: Core;
  private readonly writer: PackWriter;
  /** Names of what the new pack has. */
  private readonly done = new Set<string>();
  /** Numbers of the packs that are to go: nothing counts because it is there. */
  private bad: ReadonlySet<number> = new Set();
  /** Damaged packs of which everything that is needed is safe elsewhere. */
  private readonly spent: PackInfo[] = [];

  constructor(world: RepairWorld) {
    this.world = world;
    this.core = world.core;
    this.writer = new PackWriter(world.core);
  }

  /** `findings`: of the whole check, for the contents that are missing. */
  async run(packs: PackFindings, findings: readonly Finding[]): Promise<void> {
    const bad = this.badPacks(packs);
    this.bad = new Set(bad.map(({ number }) => number));
    const wanted = findings.flatMap(({ digest }) => digest ?? []);
    const live = await this.liveOf([...packs.damaged.keys()]);
    try {
      for (const pack of bad) await this.rewrite(pack, live);
      for (const digest of new Set(wanted)) await this.fetch(digest, findings);
      if (this.world.isDryRun) return;
      await this.writer.finish();
      for (const pack of this.spent) await this.remove(pack);
    } finally {
      await this.writer.abandon();
    }
  }

  private badPacks({ findings, damaged }: PackFindings): PackInfo[] {
    const paths = new Set([...damaged.values()].flatMap(({ paths: of }) => of));
    for (const { kind, object } of findings) if (kind !== 'stale-index') paths.add(object);
    return [...this.core.packs.all()].filter(({ path }) => paths.has(path));
  }

  /** Which of these contents are needed; all of them where a map cannot be read, for it is not known. */
  private async liveOf(names: readonly string[]): Promise<ReadonlySet<string>> {
    try {
      return await confirmLive(this.core, new Set(names));
    } catch (error) {
      if (!isDamage(error) && !isNotFound(error)) throw error;
      return new Set(names);
    }
  }

  private async rewrite(pack: PackInfo, live: ReadonlySet<string>): Promise<void> {
    const tally: Tally = { copied: 0, fromCopies: 0, fromDonor: 0, dropped: 0, lost: 0 };
    const entries = await this.entriesOf(pack);
    const copies = await this.core.copies.search(entries.map(({ digest }) => digest));
    for (const entry of entries) {
      const name = toHex(entry.digest);
      if (this.done.has(name)) continue;
      const others = (copies.get(name) ?? []).filter((copy) => copy.pack !== pack.number);
      const found = await this.right(entry, others, tally);
      if (found === 'elsewhere') continue;
      if (found !== null) await this.add(found);
      else if (entry.isGrant || !live.has(name)) tally.dropped += 1;
      else tally.lost += 1;
    }
    const isPossible = tally.lost === 0;
    const parts = [
      `${tally.copied} of its contents copied into a new pack`,
      `${tally.fromCopies} taken from other packs`,
      `${tally.fromDonor} from the other repository`,
      `${tally.dropped} that nothing needs left out`,
    ];
    const end = isPossible ? 'then it goes' : `it stays: ${tally.lost} are right nowhere`;
    this.world.steps.push({ object: pack.path, action: [...parts, end].join(', '), isPossible });
    if (isPossible) this.spent.push(pack);
  }

  /** By footer or records; and what only the index knows of a pack that does not say it. */
  private async entriesOf(pack: PackInfo): Promise<TableEntry[]> {
    const table = new DigestTable(0);
    let isWhole = false;
    try {
      const found = await findInPack(this.core.files, pack.path, () => undefined);
      for (const entry of footerEntries(found.contents.footer)) table.add(entry);
      isWhole = found.isWhole;
    } catch (error) {
      if (!isDamage(error) && !isNotFound(error)) throw error;
    }
    for (const object of isWhole ? [] : this.core.index.objects.all) {
      for await (const entry of object.entries(() => undefined)) {
        if (entry.pack === pack.number) table.add(entry);
      }
    }
    return [...table.entries()].map((entry) => ({ ...entry, pack: pack.number }));
  }

  /** Right in a pack that stays, and sent by the same owner. */
  private async isSafe(entry: TableEntry, others: readonly TableEntry[]): Promise<boolean> {
    for (const other of others) {
      const isStaying =
        !this.bad.has(other.pack) && this.core.packs.byNumber(other.pack)?.isCondemned === false;
      if (!isStaying || !equalBytes(other.owner, entry.owner)) continue;
      if (await this.core.reader.isRightAt(other)) return true;
    }
    return false;
  }

  private async right(
    entry: TableEntry,
    others: readonly TableEntry[],
    tally: Tally,
  ): Promise<FoundPiece | 'elsewhere' | null> {
    if (!entry.isGrant && (await this.isSafe(entry, others))) return 'elsewhere';
    const stored = await this.rightAt(entry);
    if (stored !== null) {
      tally.copied += 1;
      return { entry, stored };
    }
    if (entry.isGrant) return null;
    for (const other of others) {
      const bytes = await this.rightAt(other);
      if (bytes === null) continue;
      tally.fromCopies += 1;
      return { entry: { ...other, owner: entry.owner }, stored: bytes };
    }
    const given = await pieceFromDonor(this.world, entry.digest, entry.owner);
    if (given !== null) tally.fromDonor += 1;
    return given;
  }

  /** What is stored at a place; null where it is not what the entry says. */
  private async rightAt(entry: TableEntry): Promise<Uint8Array | null> {
    const { files, packs } = this.core;
    const path = packs.byNumber(entry.pack)?.path;
    if (path === undefined) return null;
    try {
      const stored = await readStored(files, path, entry);
      return isRight(files.vault, entry, stored) ? stored : null;
    } catch (error) {
      if (!isDamage(error) && !isNotFound(error)) throw error;
      return null;
    }
  }

  /** A content that is missing, or right in no pack. */
  private async fetch(digest: string, findings: readonly Finding[]): Promise<void> {
    if (this.done.has(digest)) return;
    const found = await pieceFromDonor(this.world, fromHex(digest));
    const object = findings.find((finding) => finding.digest === digest)!.object;
    const isPossible = found !== null;
    const action = isPossible
      ? `content ${digest} taken from the other repository into a new pack`
      : `content ${digest} is right nowhere`;
    this.world.steps.push({ object, action, isPossible });
    if (found !== null) await this.add(found);
  }

  private async add({ entry, stored }: FoundPiece): Promise<void> {
    this.done.add(toHex(entry.digest));
    if (this.world.isDryRun) return;
    await this.writer.copy({ ...entry, offset: 0, storedLength: stored.length, pack: 0 }, stored);
  }

  /** Everything that is needed of it is durable elsewhere. */
  private async remove({ id, path, number }: PackInfo): Promise<void> {
    const { disk, paths, packs } = this.core;
    if (!(await removeDamaged(this.world, path, paths.packFolder(id)))) return;
    packs.remove(number);
    if (!(await disk.exists(paths.condemnedMark(id)))) return;
    await disk.remove(paths.condemnedMark(id));
    await disk.syncDirectory(paths.condemned);
  }
}
