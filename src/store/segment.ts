/**
 * One journal segment: an append-only file of records, written batch by batch. It knows its good end; a
 * batch that fails is cut off again, so that the file always ends in a whole record. Rotation, syncing
 * and order are journal.ts's.
 */
import type { Disk, DiskFile } from '../base/disk.ts';
import { DIGEST_BYTES } from '../model/geometry.ts';
import type { DigestTable } from './digest-table.ts';
import { discard } from './object-file.ts';
import { encodePackHeader, PACK_HEADER_BYTES } from './pack-format.ts';
import {
  encodeRecord,
  encodeVolumeRecord,
  PIECE_HEADER_BYTES,
  RECORD_END,
  RECORD_GRANT,
  RECORD_PIECE,
  type VolumeRecord,
  writePieceHeader,
} from './record.ts';
import type { VerifiedPiece } from './types.ts';

/** An open epoch as records name it; the handle is the segment's affair. */
export type OpenEpochName = Omit<VolumeRecord, 'handle'>;

/** What one append writes, in this order: pieces, grants, records. */
export interface Batch {
  readonly owner: Uint8Array;
  readonly pieces: readonly VerifiedPiece[];
  /** Digests of contents that are stored already and that `owner` has sent too (grant.ts). */
  readonly grants: readonly { key: Uint8Array; digest: Uint8Array }[];
  /** Records that may name open epochs by `handleOf`, which declares them where needed. */
  readonly records: (handleOf: (name: OpenEpochName) => number) => Uint8Array[];
}

const grantLengths = { codec: 0 as const, rawLength: DIGEST_BYTES, storedLength: DIGEST_BYTES };

export const emptyBatch = { pieces: [], grants: [], owner: new Uint8Array(8) };

export class Segment {
  readonly sequence: number;
  readonly id: string;
  readonly path: string;
  readonly file: DiskFile;
  readonly table: DigestTable;
  /** Number of this segment's pack in the table of packs. */
  readonly pack: number;
  /** End of the last whole record. */
  size: number;
  /** True once the end record is written. */
  isEnded = false;
  /** Points whose commit records lie here. */
  commits = 0;
  private readonly handles = new Map<string, number>();
  private nextHandle = 1;

  constructor(given: {
    sequence: number;
    id: string;
    path: string;
    file: DiskFile;
    table: DigestTable;
    pack: number;
    size: number;
  }) {
    this.sequence = given.sequence;
    this.id = given.id;
    this.path = given.path;
    this.file = given.file;
    this.table = given.table;
    this.pack = given.pack;
    this.size = given.size;
  }

  /** A new file with its header and name durable. */
  static async create(
    disk: Disk,
    folder: string,
    given: { sequence: number; id: string; path: string; createdMs: number },
    table: DigestTable,
    pack: number,
  ): Promise<Segment> {
    const file = await disk.open(given.path, 'create');
    try {
      await file.write([encodePackHeader(given)], 0);
      await file.sync();
      await disk.syncDirectory(folder);
    } catch (error) {
      await file.close();
      await discard(disk, given.path);
      throw error;
    }
    return new Segment({ ...given, file, table, pack, size: PACK_HEADER_BYTES });
  }

  /** Buffers of a batch, and what enters the table once they are written. */
  prepare(batch: Batch): { buffers: Uint8Array[]; bytes: number } {
    const buffers: Uint8Array[] = [];
    const count = batch.pieces.length + batch.grants.length;
    const headers = new Uint8Array(count * PIECE_HEADER_BYTES);
    let at = 0;
    const pushHeader = () => {
      buffers.push(headers.subarray(at, at + PIECE_HEADER_BYTES));
      at += PIECE_HEADER_BYTES;
    };
    for (const piece of batch.pieces) {
      const header = { ...piece, storedLength: piece.stored.length };
      writePieceHeader(headers, at, header, batch.owner, RECORD_PIECE);
      pushHeader();
      buffers.push(piece.stored);
    }
    for (const { key, digest } of batch.grants) {
      writePieceHeader(headers, at, { digest: key, ...grantLengths }, batch.owner, RECORD_GRANT);
      pushHeader();
      buffers.push(digest);
    }
    const declared: Uint8Array[] = [];
    const records = batch.records((name) => this.handleOf(name, declared));
    buffers.push(...declared, ...records);
    return { buffers, bytes: buffers.reduce((sum, buffer) => sum + buffer.length, 0) };
  }

  /** Enters a batch that was written at `offset` into the table. */
  register(batch: Batch, offset: number): void {
    let at = offset;
    const { pack, table } = this;
    for (const { digest, codec, rawLength, stored } of batch.pieces) {
      const place = { offset: at + PIECE_HEADER_BYTES, storedLength: stored.length };
      table.add({ digest, owner: batch.owner, codec, rawLength, ...place, isGrant: false, pack });
      at += PIECE_HEADER_BYTES + stored.length;
    }
    for (const { key } of batch.grants) {
      const place = { offset: at + PIECE_HEADER_BYTES, ...grantLengths };
      table.add({ digest: key, owner: batch.owner, ...place, isGrant: true, pack });
      at += PIECE_HEADER_BYTES + DIGEST_BYTES;
    }
  }

  /** Declarations that a failed write took along must be made again. */
  forgetHandles(): void {
    this.handles.clear();
  }

  /** Writes the end record; the caller syncs. */
  async end(): Promise<void> {
    const record = encodeRecord(RECORD_END, new Uint8Array(0));
    await this.file.write([record], this.size);
    this.size += record.length;
    this.isEnded = true;
  }

  private handleOf(name: OpenEpochName, declared: Uint8Array[]): number {
    const key = JSON.stringify([name.server, name.volume, name.generation, name.epoch]);
    const known = this.handles.get(key);
    if (known !== undefined) return known;
    const handle = this.nextHandle;
    this.nextHandle += 1;
    this.handles.set(key, handle);
    declared.push(encodeVolumeRecord({ ...name, handle }));
    return handle;
  }
}
