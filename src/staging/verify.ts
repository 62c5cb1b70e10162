/**
 * Are the contents of a frame what their names say (P3)? Decompresses and digests every piece; the length
 * that LZ4 data claims is compared with the message's before memory is given to it. Synchronous and pure
 * in effect: runs in worker threads, and in the simulator in place.
 */
import { hash } from 'node:crypto';
import { uncompressSync } from 'lz4-napi';
import { UnderstudyError } from '../base/errors.ts';
import { freeBytes } from '../base/memory.ts';
import { decodeMessage } from '../protocol/codec.ts';
import type { WirePiece } from '../protocol/messages.ts';

const wrong = (detail: string, cause?: unknown): UnderstudyError =>
  new UnderstudyError('ERR_PROTOCOL_DIGEST', detail, {}, cause);

function plainOf({ codec, rawLength, stored }: WirePiece): Uint8Array {
  if (codec === 0) return stored;
  const claimed = new DataView(stored.buffer, stored.byteOffset).getUint32(0, true);
  if (claimed !== rawLength) throw wrong(`a piece of ${rawLength} bytes claims ${claimed}`);
  let plain: Uint8Array;
  try {
    plain = uncompressSync(stored);
  } catch (cause) {
    throw wrong('a piece cannot be decompressed', cause);
  }
  if (plain.length !== rawLength) throw wrong(`a piece of ${rawLength} bytes has ${plain.length}`);
  return plain;
}

/** Throws ERR_PROTOCOL_DIGEST. */
export function verifyPiece(piece: WirePiece): void {
  const plain = plainOf(piece);
  const digest: Buffer = hash('sha256', plain, 'buffer');
  if (piece.codec === 1) freeBytes(plain);
  if (digest.compare(piece.digest) !== 0)
    throw wrong('a content does not have the digest it is named by');
}

/** Throws ERR_PROTOCOL_* and ERR_ENTRIES_INVALID for a frame that is not all right. */
export function verifyFrame(frame: Uint8Array): void {
  const message = decodeMessage(frame);
  if (message.type !== 'patch' && message.type !== 'pieces') return;
  for (const piece of message.pieces) verifyPiece(piece);
}
