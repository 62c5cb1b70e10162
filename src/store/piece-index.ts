/**
 * Where each piece lies: digest -> pack and offset. Looked up in the tables of the journal's segments, in
 * the table of what was published since the last index object, then in the index objects, newest first.
 * An entry whose pack is condemned or gone does not count.
 */

import { sha256 } from './checksum.ts';
import { DigestTable, type TableEntry } from './digest-table.ts';
import type { PackInfo, PackTable } from './pack-table.ts';

/** The key under which it is noted that `owner` has sent a content that was stored already. */
export const grantKey = (owner: Uint8Array, digest: Uint8Array): Uint8Array =>
  sha256(Buffer.concat([Buffer.from('understudy grant\n'), owner, digest]));

export class PieceIndex {
  private readonly packs: PackTable;
  private readonly salt: number;
  private readonly segments = new Map<number, DigestTable>();
  private published: DigestTable;

  constructor(packs: PackTable, salt: number) {
    this.packs = packs;
    this.salt = salt;
    this.published = new DigestTable(salt);
  }

  /** The table of a journal segment, which is `pack`. */
  addSegment(pack: number): DigestTable {
    const table = new DigestTable(this.salt);
    this.segments.set(pack, table);
    return table;
  }

  /** The segment lies in the repository now, or is gone. */
  publish(pack: number): void {
    const table = this.segments.get(pack);
    if (table === undefined) return;
    for (const entry of table.entries()) this.addPublished(entry);
    this.segments.delete(pack);
  }

  addPublished(entry: TableEntry): void {
    const known = this.published.get(entry.digest);
    if (known === null || this.packOf(known) === null) this.published.set(entry);
  }

  /** Where the content (or grant) of `key` lies; null where it is not held. */
  async find(key: Uint8Array): Promise<TableEntry | null> {
    return this.findInMemory(key);
  }

  /** Length of the content where it is held and `owner` has sent it: it may be told so. Else 0. */
  async owns(owner: Uint8Array, digest: Uint8Array): Promise<number> {
    const entry = await this.find(digest);
    if (entry === null) return 0;
    if (Buffer.compare(entry.owner, owner) === 0) return entry.rawLength;
    return (await this.find(grantKey(owner, digest))) === null ? 0 : entry.rawLength;
  }

  private findInMemory(key: Uint8Array): TableEntry | null {
    for (const table of this.segments.values()) {
      const entry = table.get(key);
      if (entry !== null && this.packOf(entry) !== null) return entry;
    }
    const entry = this.published.get(key);
    return entry !== null && this.packOf(entry) !== null ? entry : null;
  }

  private packOf(entry: TableEntry): PackInfo | null {
    const info = this.packs.byNumber(entry.pack);
    return info === null || info.isCondemned ? null : info;
  }
}
