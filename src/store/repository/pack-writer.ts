/**
 * Writes packs that were no journal segments: tables of bases, materialised chunks, and what is left of
 * packs that are rewritten. Everything is read back and compared with its digest before the pack gets its
 * name, and the pieces are found only from then on.
 */
import { compressSync } from 'lz4-napi';
import type { DiskFile } from '../../base/disk.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { type Core, temporaryPath } from '../core.ts';
import { toHex } from '../format/checksum.ts';
import { discard, publish } from '../format/object-file.ts';
import type { PackSeal } from '../keys/pack-seal.ts';
import { DigestTable, type TableEntry } from '../packs/digest-table.ts';
import { encodeFooter, readFooter, readTrailer, sumOf } from '../packs/pack-format.ts';
import {
  encodeRecord,
  PIECE_HEADER_BYTES,
  piecePlace,
  RECORD_END,
  RECORD_GRANT,
  RECORD_PIECE,
  sealRecord,
  writePieceHeader,
} from '../packs/record.ts';
import { isRight, readStoredIn } from '../packs/stored.ts';

const WRITE_BYTES = 1024 * 1024;
/** Room for a seal, whether there is one or not. */
const TAG_BYTES = 16;

interface OpenPack {
  readonly id: string;
  readonly path: string;
  readonly file: DiskFile;
  readonly seal: PackSeal;
  readonly table: DigestTable;
  /** Names of what was copied from packs that will go. */
  readonly moved: Set<string>;
  size: number;
  pending: Uint8Array[];
  pendingBytes: number;
}

export class PackWriter {
  /** Written so far, with the heads of records. */
  bytes = 0;
  private readonly core: Core;
  private open: OpenPack | null = null;

  constructor(core: Core) {
    this.core = core;
  }

  /**
   * Stores a content unless the repository (or this writer) has it already; returns its digest.
   *
   * What lies in the journal only is stored once more: an object may name nothing that is not published
   * before it. To wait for the segment instead would hang the upkeep on whoever fills the journal, and an
   * unsynced content may never come; the second copy costs its bytes until packs are rewritten.
   */
  async put(content: Uint8Array, owner: Uint8Array): Promise<Uint8Array> {
    const { index, packs } = this.core;
    const digest = this.core.names.ofContent(content);
    if (this.holds(digest)) return digest;
    const held = await index.claim(digest);
    if (held !== null && packs.byNumber(held.pack)?.isPublished === true) return digest;
    const packed = compressSync(Buffer.from(content.buffer, content.byteOffset, content.length));
    const codec = packed.length < content.length ? 1 : 0;
    const stored = codec === 1 ? packed : content;
    await this.append({ digest, owner, codec, rawLength: content.length }, stored, RECORD_PIECE);
    return digest;
  }

  /** True for what lies in the pack that has no name yet: nobody else finds it. */
  holds(digest: Uint8Array): boolean {
    return this.open?.table.get(digest) != null;
  }

  /** Copies a piece or a grant; `stored`: its bytes as they were before they were sealed. */
  async copy(entry: TableEntry, stored: Uint8Array): Promise<void> {
    await this.append(entry, stored, entry.isGrant ? RECORD_GRANT : RECORD_PIECE);
    this.open?.moved.add(toHex(entry.digest));
  }

  /** The last pack gets its name too. */
  async finish(): Promise<void> {
    const { open } = this;
    if (open === null) return;
    this.open = null; // this call answers for the file from here on
    const { disk, paths, packs, index } = this.core;
    const fileBytes = await this.complete(open);
    await publish(disk, open.path, paths.pack(open.id));
    const sums = sumOf(open.table.entries());
    const place = { path: paths.pack(open.id), fileBytes, isPublished: true };
    const { number } = packs.add({ id: open.id, ...place, ...sums });
    const entries = [...open.table.entries()];
    const isMoved = ({ digest }: TableEntry) => open.moved.has(toHex(digest));
    index.moveTo(number, entries.filter(isMoved));
    index.addPublished(
      number,
      entries.filter((entry) => !isMoved(entry)),
    );
  }

  /** Gives up what has no name yet. */
  async abandon(): Promise<void> {
    const { open } = this;
    if (open === null) return;
    this.open = null;
    await open.file.close();
    await discard(this.core.disk, open.path);
  }

  /** The whole pack, durable and read back under its temporary name; returns its length. */
  private async complete(open: OpenPack): Promise<number> {
    try {
      const end = sealRecord(encodeRecord(RECORD_END, new Uint8Array(0)), open.seal, open.size, 0);
      const offset = open.size + end.length;
      const footer = encodeFooter(open.table.sorted(), offset, open.seal);
      await open.file.write([...open.pending, end, ...footer], open.size - open.pendingBytes);
      await open.file.sync();
      await this.verify(open);
      return await open.file.size();
    } catch (error) {
      await discard(this.core.disk, open.path);
      throw error;
    } finally {
      await open.file.close();
    }
  }

  private async append(
    piece: Pick<TableEntry, 'digest' | 'owner' | 'codec' | 'rawLength'>,
    stored: Uint8Array,
    type: number,
  ): Promise<void> {
    const most = PIECE_HEADER_BYTES + stored.length + TAG_BYTES;
    if (this.open !== null && this.open.size + most > this.core.settings.segmentBytes) {
      await this.finish();
    }
    this.open ??= await this.create();
    const { open } = this;
    const { digest, owner, rawLength } = piece;
    const codec = piece.codec === 1 ? 1 : 0;
    const { seal } = open;
    const isGrant = type === RECORD_GRANT;
    const storedLength = stored.length + (isGrant ? 0 : seal.overhead);
    const header = new Uint8Array(PIECE_HEADER_BYTES);
    writePieceHeader(header, 0, { digest, codec, rawLength, storedLength }, owner, type);
    const place = { offset: open.size + PIECE_HEADER_BYTES, storedLength, rawLength, codec };
    open.table.add({ digest, owner, ...place, isGrant, pack: 0 });
    const body = isGrant ? [stored] : seal.sealPiece(piecePlace(header, open.size), stored);
    // What is not sealed may be the caller's own.
    open.pending.push(header, ...(body[0] === stored ? [stored.slice()] : body));
    const length = PIECE_HEADER_BYTES + storedLength;
    open.pendingBytes += length;
    open.size += length;
    this.bytes += length;
    if (open.pendingBytes < WRITE_BYTES) return;
    await open.file.write(open.pending, open.size - open.pendingBytes);
    open.pending = [];
    open.pendingBytes = 0;
  }

  private async create(): Promise<OpenPack> {
    const id = toHex(this.core.randomBytes(16));
    const path = `${temporaryPath(this.core)}.pack`; // packs have seals of their own
    const file = await this.core.disk.open(path, 'create');
    const createdMs = this.core.clock.wallMs();
    const { header, seal } = this.core.vault.newPack({ id, sequence: 0, createdMs });
    const table = new DigestTable(0);
    const moved = new Set<string>();
    return {
      id,
      path,
      file,
      seal,
      table,
      moved,
      size: header.length,
      pending: [header],
      pendingBytes: header.length,
    };
  }

  /** Reads everything back before anything may rely on it. */
  private async verify(open: OpenPack): Promise<void> {
    const { file, seal } = open;
    const { vault } = this.core;
    await readFooter(file, await readTrailer(file, await file.size(), seal), seal);
    for (const entry of open.table.entries()) {
      if (isRight(vault, entry, await readStoredIn(file, vault, entry))) continue;
      const context = { path: open.path, digest: toHex(entry.digest) };
      throw new UnderstudyError('ERR_PIECE_DAMAGED', 'what was written reads differently', context);
    }
  }
}
