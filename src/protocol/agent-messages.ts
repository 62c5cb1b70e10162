/**
 * Fields of the messages that an agent sends. Byte tables in PROTOCOL.md; bounds in limits.ts. Every
 * reader is total and accepts only what its writer makes. Hello is frozen byte for byte: all versions of
 * both sides must be able to read it; what later versions add goes into messages of their own.
 */

import { assert } from '../base/errors.ts';
import type { IndexedEntry } from '../model/entry.ts';
import { decodeEntries, encodeEntries } from '../model/entry-codec.ts';
import { DIGEST_BYTES, MAX_VOLUME_BYTES } from '../model/geometry.ts';
import { type CutMethod, isServerId, replicationStates } from '../model/replication.ts';
import { type ByteReader, type ByteWriter, malformed } from './bytes.ts';
import {
  MAX_ENTRIES_BYTES,
  MAX_PIECE_BYTES,
  MAX_TEXT_BYTES,
  MAX_VOLUME_ID_BYTES,
  MAX_VOLUMES,
  MAX_WORD_BYTES,
} from './limits.ts';
import type {
  Commit,
  CommitVolume,
  Hello,
  HelloVolume,
  Offer,
  Patch,
  Pieces,
  Status,
  VolumeStatus,
  WirePiece,
} from './messages.ts';

const GENERATION_BYTES = 16;
/** Append-only: the place in this list is the byte on the wire. */
const cutMethods: readonly CutMethod[] = ['validated', 'scan', 'frozen', 'logged'];

function writeHelloVolume(out: ByteWriter, volume: HelloVolume): void {
  out.text(volume.volume, MAX_VOLUME_ID_BYTES);
  out.u64(volume.sizeBytes);
  out.u32(volume.sectorBytes);
  out.hex(volume.generation, GENERATION_BYTES);
  out.u64(volume.committedEpoch);
  out.u8(volume.syncing ? 1 : 0);
}

function readHelloVolume(from: ByteReader): HelloVolume {
  const volume = from.text(MAX_VOLUME_ID_BYTES);
  if (volume === '') throw malformed('a volume without a name');
  const sizeBytes = from.u64();
  if (sizeBytes === 0 || sizeBytes > MAX_VOLUME_BYTES) throw malformed(`volume of ${sizeBytes} B`);
  const sectorBytes = from.u32();
  if (sectorBytes !== 512 && sectorBytes !== 4096) throw malformed(`sectors of ${sectorBytes} B`);
  return {
    volume,
    sizeBytes,
    sectorBytes,
    generation: from.hex(GENERATION_BYTES),
    committedEpoch: from.u64(),
    syncing: from.flag(),
  };
}

export function writeHello(out: ByteWriter, hello: Hello): void {
  out.u16(hello.version);
  out.text(hello.server, MAX_WORD_BYTES);
  out.text(hello.hardwareId, MAX_WORD_BYTES);
  out.text(hello.bootId, MAX_WORD_BYTES);
  out.text(hello.agentVersion, MAX_WORD_BYTES);
  out.u16(hello.volumes.length);
  for (const volume of hello.volumes) writeHelloVolume(out, volume);
}

export function readHello(from: ByteReader): Hello {
  const version = from.u16();
  const server = from.text(MAX_WORD_BYTES);
  if (!isServerId(server)) throw malformed('not a name of a server');
  const hardwareId = from.text(MAX_WORD_BYTES);
  const bootId = from.text(MAX_WORD_BYTES);
  const agentVersion = from.text(MAX_WORD_BYTES);
  const count = from.count(from.u16(), 2 + 1 + 8 + 4 + GENERATION_BYTES + 8 + 1, MAX_VOLUMES);
  const volumes = Array.from({ length: count }, () => readHelloVolume(from));
  if (new Set(volumes.map((each) => each.volume)).size !== count) {
    throw malformed('two volumes of one name');
  }
  return { type: 'hello', version, server, hardwareId, bootId, agentVersion, volumes };
}

function writeEntries(out: ByteWriter, entries: readonly IndexedEntry[]): void {
  const bytes = encodeEntries(entries);
  assert(bytes.length <= MAX_ENTRIES_BYTES, `entries of ${bytes.length} bytes in one batch`);
  out.u32(bytes.length);
  out.raw(bytes);
}

function readEntries(from: ByteReader): IndexedEntry[] {
  return decodeEntries(from.raw(from.count(from.u32(), 1, MAX_ENTRIES_BYTES)));
}

export function writeOffer(out: ByteWriter, offer: Offer): void {
  out.u32(offer.seq);
  out.u16(offer.volume);
  out.u32(offer.synced);
  writeEntries(out, offer.entries);
}

export function readOffer(from: ByteReader): Offer {
  const seq = from.u32();
  const volume = from.u16();
  const synced = from.u32();
  const entries = readEntries(from);
  if (entries.some(({ entry }) => entry.mask !== 0)) throw malformed('an offer of single blocks');
  return { type: 'offer', seq, volume, synced, entries };
}

const PIECE_ENTRY_BYTES = DIGEST_BYTES + 1 + 4 + 4;

function writePieces(out: ByteWriter, pieces: readonly WirePiece[]): void {
  out.u32(pieces.length);
  for (const { digest, codec, rawLength, stored } of pieces) {
    assert(digest.length === DIGEST_BYTES, 'a digest has 32 bytes');
    out.raw(digest);
    out.u8(codec);
    out.u32(rawLength);
    out.u32(stored.length);
  }
}

/** Contents lie back to back in the order of the table and fill `contents` exactly. */
function readPieces(from: ByteReader, contents: Uint8Array): WirePiece[] {
  const count = from.count(from.u32(), PIECE_ENTRY_BYTES, contents.length);
  const pieces: WirePiece[] = [];
  let at = 0;
  for (let i = 0; i < count; i += 1) {
    const digest = from.raw(DIGEST_BYTES);
    const codec = from.u8();
    const rawLength = from.u32();
    const length = from.u32();
    if (codec !== 0 && codec !== 1) throw malformed(`codec ${codec}`);
    if (rawLength === 0 || rawLength > MAX_PIECE_BYTES) throw malformed(`piece of ${rawLength} B`);
    const isOfLength = codec === 0 ? length === rawLength : length > 4 && length < rawLength;
    if (!isOfLength) throw malformed(`${length} bytes stored of a piece of ${rawLength}`);
    if (at + length > contents.length) throw malformed('contents are cut short');
    pieces.push({ digest, codec, rawLength, stored: contents.subarray(at, at + length) });
    at += length;
  }
  if (at !== contents.length) throw malformed('contents that belong to no piece');
  return pieces;
}

export function writePatch(out: ByteWriter, patch: Patch): void {
  out.u32(patch.seq);
  out.u16(patch.volume);
  writeEntries(out, patch.entries);
  writePieces(out, patch.pieces);
}

export function readPatch(from: ByteReader, contents: Uint8Array): Patch {
  const seq = from.u32();
  const volume = from.u16();
  const entries = readEntries(from);
  return { type: 'patch', seq, volume, entries, pieces: readPieces(from, contents) };
}

export function writePiecesMessage(out: ByteWriter, message: Pieces): void {
  out.u32(message.seq);
  writePieces(out, message.pieces);
}

export function readPiecesMessage(from: ByteReader, contents: Uint8Array): Pieces {
  return { type: 'pieces', seq: from.u32(), pieces: readPieces(from, contents) };
}

function writeCommitVolume(out: ByteWriter, volume: CommitVolume): void {
  out.u16(volume.volume);
  out.hex(volume.generation, GENERATION_BYTES);
  out.u64(volume.epoch);
  out.hex(volume.contentDigest, DIGEST_BYTES);
}

export function writeCommit(out: ByteWriter, commit: Commit): void {
  // T is kept to the millisecond, never later than it was.
  out.u64(Math.floor(commit.timeMs));
  out.u8(cutMethods.indexOf(commit.cut.method));
  out.u32(commit.cut.passes);
  out.f64(commit.cut.durationMs);
  out.text(commit.requestId, MAX_WORD_BYTES);
  out.u16(commit.volumes.length);
  for (const volume of commit.volumes) writeCommitVolume(out, volume);
}

export function readCommit(from: ByteReader): Commit {
  const timeMs = from.u64();
  if (timeMs > 8.64e15) throw malformed('a time beyond all calendars');
  const method = cutMethods[from.u8()];
  if (method === undefined) throw malformed('unknown way to cut');
  const cut = { method, passes: from.u32(), durationMs: from.f64() };
  const requestId = from.text(MAX_WORD_BYTES);
  const count = from.count(from.u16(), 2 + GENERATION_BYTES + 8 + DIGEST_BYTES, MAX_VOLUMES);
  if (count === 0) throw malformed('a commit of nothing');
  const volumes = Array.from({ length: count }, () => ({
    volume: from.u16(),
    generation: from.hex(GENERATION_BYTES),
    epoch: from.u64(),
    contentDigest: from.hex(DIGEST_BYTES),
  }));
  if (new Set(volumes.map((each) => each.volume)).size !== count) {
    throw malformed('a volume is committed twice');
  }
  return { type: 'commit', timeMs, cut, requestId, volumes };
}

const VOLUME_STATUS_BYTES = 2 + 1 + 3 * 8 + 2 + 2 * 8;

function readVolumeStatus(from: ByteReader): VolumeStatus {
  const volume = from.u16();
  const state = replicationStates[from.u8()];
  if (state === undefined) throw malformed('unknown state');
  return {
    volume,
    state,
    backlogBytes: from.u64(),
    syncedBytes: from.u64(),
    totalBytes: from.u64(),
    reason: from.text(MAX_TEXT_BYTES),
    missedCompletions: from.u64(),
    suspectBlocks: from.u64(),
  };
}

export function writeStatus(out: ByteWriter, status: Status): void {
  out.u16(status.volumes.length);
  for (const each of status.volumes) {
    out.u16(each.volume);
    out.u8(replicationStates.indexOf(each.state));
    out.u64(each.backlogBytes);
    out.u64(each.syncedBytes);
    out.u64(each.totalBytes);
    out.clippedText(each.reason, MAX_TEXT_BYTES);
    out.u64(each.missedCompletions);
    out.u64(each.suspectBlocks);
  }
}

export function readStatus(from: ByteReader): Status {
  const count = from.count(from.u16(), VOLUME_STATUS_BYTES, MAX_VOLUMES);
  return { type: 'status', volumes: Array.from({ length: count }, () => readVolumeStatus(from)) };
}
