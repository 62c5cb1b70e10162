/**
 * A small source server for tests of the store: volumes in memory that are written to, and an agent that
 * sends what changed as offers or patches. Knows what every committed point must read as.
 */
import { createCipheriv, createHash } from 'node:crypto';
import { compressSync } from 'lz4-napi';
import { silentLog } from '../../../src/base/log.ts';
import { type IndexedEntry, type Piece, patchEntry, wholeEntry } from '../../../src/model/entry.ts';
import { BLOCK_BYTES, CHUNK_BYTES, chunkCount, chunkLength } from '../../../src/model/geometry.ts';
import type { CutInfo } from '../../../src/model/replication.ts';
import { MemoryCatalog } from '../../../src/store/catalog/catalog-memory.ts';
import { openStore } from '../../../src/store/open-store.ts';
import type { Ingest, Store, VerifiedPiece, VolumeDescription } from '../../../src/store/types.ts';
import type { Random } from '../../simulation/random.ts';
import { VirtualClock } from '../../simulation/virtual-clock.ts';
import type { FaultyDisk } from './faulty-disk.ts';

export const sha256 = (bytes: Uint8Array): Uint8Array =>
  new Uint8Array(createHash('sha256').update(bytes).digest());
const zeros = Buffer.alloc(CHUNK_BYTES);
const isZero = (bytes: Uint8Array): boolean =>
  zeros.compare(bytes, 0, bytes.length, 0, bytes.length) === 0;

export const cut: CutInfo = { method: 'validated', passes: 1, durationMs: 1 };

export function pieceOf(content: Uint8Array): { piece: Piece; verified: VerifiedPiece | null } {
  if (isZero(content)) return { piece: 'zero', verified: null };
  const copy = content.slice();
  const digest = sha256(copy);
  const packed = compressSync(Buffer.from(copy));
  const codec = packed.length < copy.length ? 1 : 0;
  const stored = codec === 1 ? new Uint8Array(packed) : copy;
  return { piece: digest, verified: { digest, codec, rawLength: copy.length, stored } };
}

/** Bytes that do not compress, quickly: a stream cipher's output under a random key. */
const noise = (random: Random, length: number): Uint8Array =>
  createCipheriv('aes-128-ctr', random.bytes(16), Buffer.alloc(16)).update(Buffer.alloc(length));

export class SourceVolume {
  readonly volume: string;
  readonly content: Uint8Array;
  generation: string;
  /** Epochs of the generation that were acknowledged. */
  epoch = 0;
  /** Blocks written since they were last sent. */
  readonly dirty = new Set<number>();
  /** Blocks sent since the last commit that was acknowledged. */
  readonly outstanding = new Set<number>();

  constructor(volume: string, sizeBytes: number, generation: string) {
    this.volume = volume;
    this.content = new Uint8Array(sizeBytes);
    this.generation = generation;
  }

  get description(): VolumeDescription {
    const { volume, generation } = this;
    return { volume, generation, sizeBytes: this.content.length, sectorBytes: 512 };
  }

  /** Writes `length` bytes: random, repeated, or zero. */
  write(random: Random, offset: number, length: number): void {
    const end = Math.min(offset + length, this.content.length);
    const kind = random.below(4);
    if (kind <= 1) this.content.fill(kind === 0 ? 0 : random.below(256), offset, end);
    else this.content.set(noise(random, end - offset), offset);
    const last = Math.floor((end - 1) / BLOCK_BYTES);
    for (let block = Math.floor(offset / BLOCK_BYTES); block <= last; block += 1) {
      this.dirty.add(block);
    }
  }

  chunk(index: number): Uint8Array {
    const start = index * CHUNK_BYTES;
    return this.content.subarray(start, start + chunkLength(index, this.content.length));
  }

  block(block: number): Uint8Array {
    const start = block * BLOCK_BYTES;
    return this.content.subarray(start, Math.min(start + BLOCK_BYTES, this.content.length));
  }
}

/** Offers chunks [from, to) and sends what is asked for. Returns how many differed. */
export async function sync(
  ingest: Ingest,
  index: number,
  volume: SourceVolume,
  from = 0,
  to = chunkCount(volume.content.length),
): Promise<number> {
  let changed = 0;
  for (let start = from; start < to; start += 16) {
    const end = Math.min(start + 16, to);
    const entries: IndexedEntry[] = [];
    const contents: VerifiedPiece[] = [];
    for (let chunk = start; chunk < end; chunk += 1) {
      const { piece, verified } = pieceOf(volume.chunk(chunk));
      entries.push({ index: chunk, count: 1, entry: wholeEntry(piece) });
      if (verified !== null) contents.push(verified);
    }
    const answer = await ingest.offer(index, entries, end);
    changed += answer.changed;
    await ingest.pieces(contents.filter((_, i) => answer.need[i] === 1));
  }
  return changed;
}

/** Sends the dirty blocks as patches (whole chunks where all blocks are dirty). */
export async function drain(ingest: Ingest, index: number, volume: SourceVolume): Promise<void> {
  const byChunk = new Map<number, number[]>();
  for (const block of [...volume.dirty].sort((a, b) => a - b)) {
    const chunk = Math.floor((block * BLOCK_BYTES) / CHUNK_BYTES);
    byChunk.set(chunk, [...(byChunk.get(chunk) ?? []), block]);
  }
  for (const block of volume.dirty) volume.outstanding.add(block);
  volume.dirty.clear();
  const entries: IndexedEntry[] = [];
  const contents: VerifiedPiece[] = [];
  const add = (bytes: Uint8Array): Piece => {
    const { piece, verified } = pieceOf(bytes);
    if (verified !== null) contents.push(verified);
    return piece;
  };
  for (const [chunk, blocks] of byChunk) {
    const count = Math.ceil(volume.chunk(chunk).length / BLOCK_BYTES);
    if (blocks.length === count) {
      entries.push({ index: chunk, count: 1, entry: wholeEntry(add(volume.chunk(chunk))) });
      continue;
    }
    const first = (chunk * CHUNK_BYTES) / BLOCK_BYTES;
    const mask = blocks.reduce((bits, block) => bits | (1 << (block - first)), 0);
    const pieces = blocks.map((block) => add(volume.block(block)));
    entries.push({ index: chunk, count: 1, entry: patchEntry(mask, pieces) });
  }
  if (entries.length > 0) await ingest.patch(index, entries, contents);
}

/** A committed point and what its volumes must read as. */
export interface Expected {
  readonly id: string;
  readonly timeMs: number;
  readonly contents: ReadonlyMap<string, Uint8Array>;
}

/** Commits all the volumes given; throws where something is missing. */
export async function commit(
  ingest: Ingest,
  volumes: readonly SourceVolume[],
  timeMs: number,
  missingVolumes: readonly string[] = [],
): Promise<Expected> {
  const outcome = await ingest.commit({
    timeMs,
    cut,
    requestId: '',
    volumes: volumes.map(({ generation, epoch }, volume) => ({
      volume,
      generation,
      epoch: epoch + 1,
      contentDigest: `${epoch + 1}`.padStart(64, '0'),
    })),
    missingVolumes,
  });
  if (outcome.kind !== 'committed') throw new Error(`missing: ${JSON.stringify(outcome)}`);
  for (const volume of volumes) {
    volume.epoch += 1;
    volume.outstanding.clear();
  }
  const contents = new Map(volumes.map(({ volume, content }) => [volume, content.slice()]));
  return { id: outcome.point.id, timeMs, contents };
}

/** A store at /data of a disk that takes the power; what it drops may be collected at once. */
export const openWithoutGrace = (disk: FaultyDisk, random: Random): Promise<Store> =>
  openStore({
    disk: disk.mount(),
    clock: new VirtualClock(),
    randomBytes: (count) => random.bytes(count),
    ...{ root: '/data', catalog: new MemoryCatalog(), log: silentLog },
    settings: { graceMs: 0 },
  });
