/**
 * One journal segment: an append-only file of records, written batch by batch. It knows its good end; a
 * batch that fails is cut off again, so that the file always ends in a whole record. Rotation, syncing
 * and order are journal.ts's.
 */
import type { Disk, DiskFile } from '../../base/disk.ts';
import { DIGEST_BYTES } from '../../model/geometry.ts';
import { discard } from '../format/object-file.ts';
import type { PackSeal } from '../keys/pack-seal.ts';
import type { Vault } from '../keys/vault.ts';
import type { VerifiedPiece } from '../types.ts';
import type { DigestTable } from './digest-table.ts';
import {
  encodeRecord,
  encodeVolumeRecord,
  PIECE_HEADER_BYTES,
  piecePlace,
  RECORD_END,
  RECORD_GRANT,
  RECORD_PIECE,
  sealRecord,
  type VolumeRecord,
  writePieceHeader,
} from './record.ts';

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
  readonly seal: PackSeal;
  readonly table: DigestTable;
  /** Number of this segment's pack in the table of packs. */
  readonly pack: number;
  /** End of the last whole record. */
  size: number;
  /** True once the end record is written. */
  isEnded = false;
  /** Points whose commit records lie here. */
  commits = 0;
  /** How often it was cut back: what is written at an offset a second time is sealed differently. */
  private attempt = 0;
  private readonly handles = new Map<string, number>();
  private nextHandle = 1;

  constructor(given: {
    sequence: number;
    id: string;
    path: string;
    file: DiskFile;
    seal: PackSeal;
    table: DigestTable;
    pack: number;
    size: number;
  }) {
    this.sequence = given.sequence;
    this.id = given.id;
    this.path = given.path;
    this.file = given.file;
    this.seal = given.seal;
    this.table = given.table;
    this.pack = given.pack;
    this.size = given.size;
  }

  /** A new file with its header and name durable. */
  static async create(
    disk: Disk,
    folder: string,
    vault: Vault,
    given: { sequence: number; id: string; path: string; createdMs: number },
    table: DigestTable,
    pack: number,
  ): Promise<Segment> {
    const { header, seal } = vault.newPack(given);
    const file = await disk.open(given.path, 'create');
    try {
      await file.write([header], 0);
      await file.sync();
      await disk.syncDirectory(folder);
    } catch (error) {
      await file.close();
      await discard(disk, given.path);
      throw error;
    }
    return new Segment({ ...given, file, seal, table, pack, size: header.length });
  }

  /** Buffers of a batch that is to be written at `offset`. */
  prepare(batch: Batch, offset: number): { buffers: Uint8Array[]; bytes: number } {
    const { seal } = this;
    const attempt = seal.lead === 0 ? 0 : this.attempt;
    const { owner } = batch;
    const buffers: Uint8Array[] = [];
    const count = batch.pieces.length + batch.grants.length;
    const headers = new Uint8Array(count * PIECE_HEADER_BYTES);
    let at = 0;
    let end = offset;
    const header = (piece: Parameters<typeof writePieceHeader>[2], type: number): Uint8Array => {
      writePieceHeader(headers, at, piece, owner, type, attempt);
      at += PIECE_HEADER_BYTES;
      return headers.subarray(at - PIECE_HEADER_BYTES, at);
    };
    const push = (...parts: readonly Uint8Array[]) => {
      for (const part of parts) end += part.length;
      buffers.push(...parts);
    };
    for (const piece of batch.pieces) {
      const storedLength = piece.stored.length + seal.overhead;
      const head = header({ ...piece, storedLength }, RECORD_PIECE);
      push(head, ...seal.sealPiece(piecePlace(head, end), piece.stored));
    }
    for (const { key, digest } of batch.grants) {
      push(header({ digest: key, ...grantLengths }, RECORD_GRANT), digest);
    }
    const declared: Uint8Array[] = [];
    const records = batch.records((name) => this.handleOf(name, declared));
    for (const record of [...declared, ...records]) push(sealRecord(record, seal, end, attempt));
    return { buffers, bytes: end - offset };
  }

  /** Enters a batch that was written at `offset` into the table. */
  register(batch: Batch, offset: number): void {
    let at = offset;
    const { pack, table } = this;
    for (const { digest, codec, rawLength, stored } of batch.pieces) {
      const storedLength = stored.length + this.seal.overhead;
      const place = { offset: at + PIECE_HEADER_BYTES, storedLength };
      table.add({ digest, owner: batch.owner, codec, rawLength, ...place, isGrant: false, pack });
      at += PIECE_HEADER_BYTES + storedLength;
    }
    for (const { key } of batch.grants) {
      const place = { offset: at + PIECE_HEADER_BYTES, ...grantLengths };
      table.add({ digest: key, owner: batch.owner, ...place, isGrant: true, pack });
      at += PIECE_HEADER_BYTES + DIGEST_BYTES;
    }
  }

  /** After a write that failed: what it declared must be declared again, and sealed differently. */
  forgetWrite(): void {
    this.attempt += 1;
    this.handles.clear();
  }

  /** Writes the end record; the caller syncs. */
  async end(): Promise<void> {
    const record = sealRecord(encodeRecord(RECORD_END, new Uint8Array(0)), this.seal, this.size, 0);
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
