/**
 * Reads a segment's records in order and checks each: headers by checksum, contents by digest. Total: it
 * ends at the end record, at the end of the file, or at the first bytes that are no whole record, and
 * says which. What that means - torn tail or corruption - only the watermark can tell (replay.ts).
 */
import type { DiskFile } from '../../base/disk.ts';
import { CHECKSUM_BYTES, hasChecksum } from '../format/checksum.ts';
import type { Names } from '../format/names.ts';
import type { PackSeal } from '../keys/pack-seal.ts';
import { isGrantOf } from './grant.ts';
import { openPiece } from './piece.ts';
import {
  MAX_BODY_BYTES,
  openRecord,
  PIECE_HEADER_BYTES,
  type PieceRecord,
  piecePlace,
  RECORD_COMMIT,
  RECORD_CURSOR,
  RECORD_END,
  RECORD_ENTRIES,
  RECORD_GRANT,
  RECORD_HEADER_BYTES,
  RECORD_PIECE,
  RECORD_VOLUME,
  readPieceHeader,
} from './record.ts';

interface ScannedPiece {
  readonly kind: 'piece';
  readonly piece: PieceRecord;
  /** Of the body. */
  readonly offset: number;
}
interface ScannedRecord {
  readonly kind: 'record';
  readonly type: number;
  readonly body: Uint8Array;
  readonly offset: number;
}
export type Scanned = ScannedPiece | ScannedRecord;

export interface ScanEnd {
  /** End of the last whole record. */
  readonly end: number;
  /** True where that was the end record. */
  readonly isEnded: boolean;
  /** Why what follows is no record; empty at the end of the file. */
  readonly damage: string;
}

const WINDOW_BYTES = 1024 * 1024;

/** Reads ranges of a file through one large buffer. Results are valid until the next read. */
class Window {
  private readonly file: DiskFile;
  private bytes = new Uint8Array(0);
  private start = 0;

  constructor(file: DiskFile) {
    this.file = file;
  }

  /** Shorter than asked for only at the end of the file. */
  async read(offset: number, length: number): Promise<Uint8Array> {
    const isInside = offset >= this.start && offset + length <= this.start + this.bytes.length;
    if (!isInside) {
      const buffer = new Uint8Array(Math.max(length, WINDOW_BYTES));
      const count = await this.file.read(buffer, offset);
      this.bytes = buffer.subarray(0, count);
      this.start = offset;
    }
    const at = offset - this.start;
    return this.bytes.subarray(at, at + length);
  }
}

const known: readonly number[] = [
  RECORD_VOLUME,
  RECORD_ENTRIES,
  RECORD_CURSOR,
  RECORD_COMMIT,
  RECORD_END,
];

type Step = { found: Scanned; end: number } | string;

/** How the records of one pack are opened. */
interface Opening {
  readonly seal: PackSeal;
  readonly names: Names;
}

async function stepPiece(window: Window, { seal, names }: Opening, at: number): Promise<Step> {
  const bytes = await window.read(at, PIECE_HEADER_BYTES);
  if (bytes.length < PIECE_HEADER_BYTES) return 'a record is cut short';
  if (!hasChecksum(bytes, 0, PIECE_HEADER_BYTES - CHECKSUM_BYTES)) {
    return 'the checksum of a record is wrong';
  }
  const head = bytes.slice();
  const piece = readPieceHeader(head, seal.overhead);
  if (piece === null) return 'a record makes no sense';
  const offset = at + PIECE_HEADER_BYTES;
  const end = offset + piece.storedLength;
  const stored = await window.read(offset, piece.storedLength);
  if (stored.length < piece.storedLength) return 'a content is cut short';
  const isRight =
    piece.type === RECORD_GRANT
      ? isGrantOf(names, piece.digest, piece.owner, stored)
      : openPiece(seal.openPiece(piecePlace(head, at), stored), piece, names) !== null;
  if (!isRight) return 'a content does not match its digest';
  return { found: { kind: 'piece', piece, offset }, end };
}

async function stepRecord(
  window: Window,
  { seal }: Opening,
  type: number,
  at: number,
): Promise<Step> {
  const header = await window.read(at, RECORD_HEADER_BYTES);
  if (header.length < RECORD_HEADER_BYTES) return 'a record is cut short';
  const length = new DataView(header.buffer, header.byteOffset).getUint32(4, true);
  if (length > MAX_BODY_BYTES + seal.overhead) return 'a record is too long';
  const bytes = await window.read(at, RECORD_HEADER_BYTES + length);
  if (bytes.length < RECORD_HEADER_BYTES + length) return 'a record is cut short';
  const body = openRecord(bytes, seal, at);
  if (body === null) return 'a record is not what was written there';
  const found = { kind: 'record' as const, type, body: body.slice(), offset: at };
  return { found, end: at + bytes.length };
}

/** Yields the records behind the header; returns where and why it ended. */
export async function* scanRecords(
  file: DiskFile,
  opening: Opening,
): AsyncGenerator<Scanned, ScanEnd> {
  const window = new Window(file);
  let at = opening.seal.headerBytes;
  for (;;) {
    const [type] = await window.read(at, 1);
    if (type === undefined) return { end: at, isEnded: false, damage: '' };
    const isPiece = type === RECORD_PIECE || type === RECORD_GRANT;
    if (!isPiece && !known.includes(type)) {
      return { end: at, isEnded: false, damage: `an unknown record (${type})` };
    }
    const step = isPiece
      ? await stepPiece(window, opening, at)
      : await stepRecord(window, opening, type, at);
    if (typeof step === 'string') return { end: at, isEnded: false, damage: step };
    at = step.end;
    if (type === RECORD_END) return { end: at, isEnded: true, damage: '' };
    yield step.found;
  }
}
