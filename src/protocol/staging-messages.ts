/**
 * Fields of the messages that staging sends, and of those that go both ways. Byte tables in PROTOCOL.md.
 * Every reader is total and accepts only what its writer makes.
 */
import { DIGEST_BYTES } from '../model/geometry.ts';
import { type ByteReader, type ByteWriter, malformed } from './bytes.ts';
import {
  MAX_ENTRIES_BYTES,
  MAX_MISSING_CHUNKS,
  MAX_TEXT_BYTES,
  MAX_VOLUMES,
  MAX_WINDOW_BYTES,
  MAX_WORD_BYTES,
} from './limits.ts';
import type {
  Answer,
  Committed,
  CutRequest,
  Missing,
  Ping,
  Pong,
  Refusal,
  Stored,
  Welcome,
  WelcomeVolume,
} from './messages.ts';

const GENERATION_BYTES = 16;

function readWelcomeVolume(from: ByteReader): WelcomeVolume {
  const committed = from.flag()
    ? {
        generation: from.hex(GENERATION_BYTES),
        epoch: from.u64(),
        contentDigest: from.hex(DIGEST_BYTES),
      }
    : null;
  return { committed, syncedChunks: from.u32() };
}

export function writeWelcome(out: ByteWriter, welcome: Welcome): void {
  out.u16(welcome.version);
  out.text(welcome.stagingVersion, MAX_WORD_BYTES);
  out.text(welcome.sessionId, MAX_WORD_BYTES);
  out.u32(welcome.windowBytes);
  out.u16(welcome.volumes.length);
  for (const { committed, syncedChunks } of welcome.volumes) {
    out.u8(committed === null ? 0 : 1);
    if (committed !== null) {
      out.hex(committed.generation, GENERATION_BYTES);
      out.u64(committed.epoch);
      out.hex(committed.contentDigest, DIGEST_BYTES);
    }
    out.u32(syncedChunks);
  }
}

export function readWelcome(from: ByteReader): Welcome {
  const version = from.u16();
  const stagingVersion = from.text(MAX_WORD_BYTES);
  const sessionId = from.text(MAX_WORD_BYTES);
  const windowBytes = from.u32();
  if (windowBytes === 0 || windowBytes > MAX_WINDOW_BYTES) {
    throw malformed(`a window of ${windowBytes} bytes`);
  }
  const count = from.count(from.u16(), 5, MAX_VOLUMES);
  const volumes = Array.from({ length: count }, () => readWelcomeVolume(from));
  return { type: 'welcome', version, stagingVersion, sessionId, windowBytes, volumes };
}

/** `need` travels as bits, lowest first. */
export function writeAnswer(out: ByteWriter, answer: Answer): void {
  out.u32(answer.seq);
  out.u32(answer.changed);
  out.u32(answer.need.length);
  const bits = new Uint8Array(Math.ceil(answer.need.length / 8));
  answer.need.forEach((need, i) => {
    if (need !== 0) bits[i >> 3] = bits[i >> 3]! | (1 << (i & 7));
  });
  out.raw(bits);
}

export function readAnswer(from: ByteReader): Answer {
  const seq = from.u32();
  const changed = from.u32();
  const count = from.u32();
  if (count > MAX_ENTRIES_BYTES) throw malformed(`an answer about ${count} pieces`);
  const bits = from.raw(Math.ceil(count / 8));
  const need = new Uint8Array(count);
  for (let i = 0; i < count; i += 1) need[i] = (bits[i >> 3]! >> (i & 7)) & 1;
  if (count % 8 !== 0 && bits.at(-1)! >> (count % 8) !== 0) throw malformed('bits beyond the end');
  return { type: 'answer', seq, need, changed };
}

export function writeStored(out: ByteWriter, stored: Stored): void {
  out.u32(stored.seq);
  out.u64(stored.bytes);
}

export const readStored = (from: ByteReader): Stored => ({
  type: 'stored',
  seq: from.u32(),
  bytes: from.u64(),
});

export function writeCommitted(out: ByteWriter, committed: Committed): void {
  out.text(committed.pointId, MAX_WORD_BYTES);
  out.u16(committed.volumes.length);
  for (const { volume, generation, epoch } of committed.volumes) {
    out.u16(volume);
    out.hex(generation, GENERATION_BYTES);
    out.u64(epoch);
  }
}

export function readCommitted(from: ByteReader): Committed {
  const pointId = from.text(MAX_WORD_BYTES);
  const count = from.count(from.u16(), 2 + GENERATION_BYTES + 8, MAX_VOLUMES);
  const volumes = Array.from({ length: count }, () => ({
    volume: from.u16(),
    generation: from.hex(GENERATION_BYTES),
    epoch: from.u64(),
  }));
  return { type: 'committed', pointId, volumes };
}

export function writeMissing(out: ByteWriter, missing: Missing): void {
  out.u16(missing.volumes.length);
  for (const { volume, chunks, more } of missing.volumes) {
    const told = chunks.slice(0, MAX_MISSING_CHUNKS);
    out.u16(volume);
    out.u8(more || told.length < chunks.length ? 1 : 0);
    out.u16(told.length);
    for (const chunk of told) out.u32(chunk);
  }
}

export function readMissing(from: ByteReader): Missing {
  const count = from.count(from.u16(), 5, MAX_VOLUMES);
  const volumes = Array.from({ length: count }, () => {
    const volume = from.u16();
    const more = from.flag();
    const length = from.count(from.u16(), 4, MAX_MISSING_CHUNKS);
    return { volume, more, chunks: Array.from({ length }, () => from.u32()) };
  });
  return { type: 'missing', volumes };
}

export const writeCutRequest = (out: ByteWriter, request: CutRequest): void =>
  out.text(request.requestId, MAX_WORD_BYTES);
export const readCutRequest = (from: ByteReader): CutRequest => ({
  type: 'cut-request',
  requestId: from.text(MAX_WORD_BYTES),
});

export const writeBeat = (out: ByteWriter, beat: Ping | Pong): void => out.u32(beat.id);
export const readPing = (from: ByteReader): Ping => ({ type: 'ping', id: from.u32() });
export const readPong = (from: ByteReader): Pong => ({ type: 'pong', id: from.u32() });

export function writeRefusal(out: ByteWriter, refusal: Refusal): void {
  out.text(refusal.code, MAX_WORD_BYTES);
  out.clippedText(refusal.message, MAX_TEXT_BYTES);
}

export const readRefusal = (from: ByteReader): Refusal => ({
  type: 'refusal',
  code: from.text(MAX_WORD_BYTES),
  message: from.text(MAX_TEXT_BYTES),
});
