/**
 * The three tasks of the pipeline as functions over one buffer: digests of whole chunks, a patch with its
 * contents, and the contents that an answer asked for. They run in worker threads or, in the simulator,
 * in place. Frames come out ready for the wire.
 */

import type { IndexedEntry, Piece } from '../model/entry.ts';
import { patchEntry, wholeEntry, ZERO_ENTRY } from '../model/entry.ts';
import { encodeEntries } from '../model/entry-codec.ts';
import { BLOCK_BYTES, DIGEST_BYTES } from '../model/geometry.ts';
import { encodeMessage } from '../protocol/codec.ts';
import type { WirePiece } from '../protocol/messages.ts';
import type { ChunkPart } from './batch.ts';
import { digestOf, isZeroRange, Packer } from './content.ts';

export interface DigestTask {
  readonly kind: 'digest';
  readonly buffer: number;
  /** Place and length of each chunk, one after the other. */
  readonly ranges: Uint32Array;
}
export interface PatchTask {
  readonly kind: 'patch';
  readonly buffer: number;
  /** Where in the buffer's frame memory the frame may be built. */
  readonly frameAt: number;
  readonly seq: number;
  readonly volume: number;
  readonly parts: readonly ChunkPart[];
}
export interface PiecesTask {
  readonly kind: 'pieces';
  readonly buffer: number;
  readonly frameAt: number;
  readonly seq: number;
  readonly ranges: Uint32Array;
  /** Of the ranges, back to back. */
  readonly digests: Uint8Array;
}
export type Task = DigestTask | PatchTask | PiecesTask;

/** One digest a range; a zero range has a 1 in `zeros`, and nothing to look at in `digests`. */
export interface Digested {
  readonly digests: Uint8Array;
  readonly zeros: Uint8Array;
}
export interface BuiltPatch {
  readonly frame: Uint8Array;
  /** The encoded entries, for the epoch's content digest. */
  readonly entries: Uint8Array;
  readonly pieceBytes: number;
}
export interface BuiltPieces {
  readonly frame: Uint8Array;
  readonly pieceBytes: number;
}

/** What a frame may take besides the bytes of its contents, for `pieces` contents in all. */
export const frameOverheadBytes = (pieces: number): number => 4096 + 96 * pieces;

export function digestRanges(bytes: Buffer, { ranges }: DigestTask): Digested {
  const count = ranges.length / 2;
  const digests = new Uint8Array(count * DIGEST_BYTES);
  const zeros = new Uint8Array(count);
  for (let i = 0; i < count; i += 1) {
    const at = ranges[2 * i]!;
    const length = ranges[2 * i + 1]!;
    if (isZeroRange(bytes, at, length)) zeros[i] = 1;
    else digests.set(digestOf(bytes, at, length), i * DIGEST_BYTES);
  }
  return { digests, zeros };
}

/** The first six bytes as a number; two digests that share them are compared whole. */
const shortKey = (digest: Uint8Array): number => {
  let key = 0;
  for (let i = 0; i < 6; i += 1) key = key * 256 + digest[i]!;
  return key;
};

const packer = new Packer();

/** Contents of one frame, each once; a frame is built before the next list is begun. */
class PieceList {
  readonly pieces: WirePiece[] = [];
  bytes = 0;
  private readonly known = new Map<number, Uint8Array>();
  private readonly source: Buffer;

  constructor(source: Buffer) {
    this.source = source;
    packer.clear(source.length);
  }

  /** Adds what lies at `at` and returns its name. */
  name(at: number, length: number): Piece {
    if (isZeroRange(this.source, at, length)) return 'zero';
    const digest = digestOf(this.source, at, length);
    this.add(at, length, digest);
    return digest;
  }

  add(at: number, length: number, digest: Uint8Array): void {
    const key = shortKey(digest);
    const same = this.known.get(key);
    if (same !== undefined && Buffer.compare(same, digest) === 0) return;
    this.known.set(key, digest);
    const { codec, stored } = packer.pack(this.source, at, length);
    this.pieces.push({ digest, codec, rawLength: length, stored });
    this.bytes += stored.length;
  }
}

/** `into`: the buffer's frame memory; without it the frame gets memory of its own. */
export function buildPatch(bytes: Buffer, task: PatchTask, into?: Buffer): BuiltPatch {
  const list = new PieceList(bytes);
  const entries: IndexedEntry[] = task.parts.map((part) => {
    const entry = part.mask === 0 ? wholeOf(list, part) : blocksOf(list, part);
    return { index: part.chunk, count: 1, entry };
  });
  const { seq, volume } = task;
  const message = { type: 'patch' as const, seq, volume, entries, pieces: list.pieces };
  const frame = encodeMessage(message, into?.subarray(task.frameAt));
  return { frame, entries: encodeEntries(entries), pieceBytes: list.bytes };
}

function wholeOf(list: PieceList, part: ChunkPart) {
  const piece = list.name(part.at[0]!, part.length);
  return piece === 'zero' ? ZERO_ENTRY : wholeEntry(piece);
}

function blocksOf(list: PieceList, part: ChunkPart) {
  const last = part.at.length - 1;
  const blocks = part.at.map((at, i) => list.name(at, i === last ? part.length : BLOCK_BYTES));
  return patchEntry(part.mask, blocks);
}

export function buildPieces(bytes: Buffer, task: PiecesTask, into?: Buffer): BuiltPieces {
  const { ranges, digests } = task;
  const list = new PieceList(bytes);
  for (let i = 0; 2 * i < ranges.length; i += 1) {
    const digest = digests.subarray(i * DIGEST_BYTES, (i + 1) * DIGEST_BYTES);
    list.add(ranges[2 * i]!, ranges[2 * i + 1]!, digest);
  }
  const message = { type: 'pieces' as const, seq: task.seq, pieces: list.pieces };
  const frame = encodeMessage(message, into?.subarray(task.frameAt));
  return { frame, pieceBytes: list.bytes };
}
