/**
 * A volume's content at a point (P3): maps are resolved leaf by leaf, every content is checked against
 * its digest when it is read, and damage is reported with the point, the volume and the offset. Memory
 * is bounded by the leaves kept and by the window that one read works on.
 */
import { UnderstudyError } from '../../base/errors.ts';
import { inOrder } from '../../base/in-order.ts';
import type { ChunkEntry, Piece } from '../../model/entry.ts';
import {
  BLOCK_BYTES,
  blocksInChunk,
  CHUNK_BYTES,
  CHUNKS_PER_LEAF,
  chunkCount,
  chunkLength,
} from '../../model/geometry.ts';
import type { Core } from '../core.ts';
import { equalBytes, toHex } from '../format/checksum.ts';
import { isDamage, isNotFound } from '../format/object-header.ts';
import { chunksInLeaf, isZeroLeaf, type Leaf, type OpenLeaf, openLeaf } from '../leaves/leaf.ts';
import { LeafFile } from '../leaves/leaf-file.ts';
import { type LeafSource, mergedLeafNumbers } from '../leaves/leaf-source.ts';
import type { TableEntry } from '../packs/digest-table.ts';
import { ReadAhead, UNIT_BYTES } from '../packs/read-ahead.ts';
import type { ImageReader } from '../types.ts';
import { Base } from './base.ts';
import type { Chain } from './chain.ts';

/** A read works on so much at a time. */
const WINDOW_BYTES = 64 * CHUNK_BYTES;
/** On a disk that is far away on so many units. */
const FAR_PARTS = 4;
const CACHED_LEAVES = 16;

interface ImageOf {
  readonly point: string;
  readonly volume: string;
}

/** What an image that is open for long needs of its surroundings. */
interface ImageLife {
  /** Opens the maps anew: others may say the same by now. `avoid`: paths of maps to do without. */
  readonly open: (avoid?: ReadonlySet<string>) => Promise<Chain>;
  readonly release: () => void;
}

/** A piece that a read needs, and where it goes: `length` bytes at `to`, from `from` of the content. */
interface Part {
  readonly digest: Uint8Array;
  /** Offset in the volume where the piece begins, and how long it must be. */
  readonly offset: number;
  readonly size: number;
  readonly copies: { readonly from: number; readonly to: number; readonly length: number }[];
}

/** What images of the same content share: maps that are open, leaves, and what was read ahead. */
export class ImageMemory {
  chain: Chain;
  /** Null: the leaf is all zero. */
  readonly leaves = new Map<number, Promise<OpenLeaf | null>>();
  /** 1 for each leaf of which a map over the base knows something; made when it is first needed. */
  touched: Uint8Array | null = null;
  /** Null where reading takes no time. */
  readonly ahead: ReadAhead | null;

  constructor(core: Pick<Core, 'aheadUnits'>, chain: Chain) {
    this.chain = chain;
    this.ahead = core.aheadUnits === null ? null : new ReadAhead(core.aheadUnits);
  }
}

type ImageCore = Pick<Core, 'reader' | 'aheadUnits' | 'disk' | 'paths'>;

export class ChainImage implements ImageReader {
  readonly sizeBytes: number;
  readonly etag: string;
  private readonly core: ImageCore;
  private readonly memory: ImageMemory;
  private readonly of: ImageOf;
  private readonly life: ImageLife | null;
  private isClosed = false;
  /** The maps that this image does without, and one that does without the base as well. */
  private avoid: ReadonlySet<string> = new Set();
  private withoutBase: ChainImage | null = null;

  constructor(core: ImageCore, memory: ImageMemory, of: ImageOf, life: ImageLife | null = null) {
    this.core = core;
    this.memory = memory;
    this.of = of;
    this.life = life;
    this.sizeBytes = memory.chain.sizeBytes;
    this.etag = memory.chain.root;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    const isInside =
      Number.isSafeInteger(offset) &&
      Number.isSafeInteger(length) &&
      offset >= 0 &&
      length >= 0 &&
      offset + length <= this.sizeBytes;
    if (!isInside) {
      throw new UnderstudyError('ERR_IMAGE_RANGE', `bytes ${offset} + ${length} of the image`);
    }
    this.assertOpen();
    const output = new Uint8Array(length);
    const { ahead } = this.memory;
    ahead?.note(this, offset, offset + length);
    const window = ahead === null ? WINDOW_BYTES : UNIT_BYTES;
    const parts = splitAt(offset, offset + length, window).map((span) => ({
      ...span,
      // Asked for at once: what was read ahead makes room for what follows.
      ready: ahead?.get(Math.floor(span.at / window)) ?? null,
    }));
    let isWanted = true;
    const fill = async ({ at, end, ready }: (typeof parts)[number]) => {
      const bytes = await ready;
      const part = output.subarray(at - offset, end - offset);
      if (bytes === null) await this.fill(part, at, () => isWanted);
      else part.set(bytes.subarray(at % window, (at % window) + part.length));
    };
    try {
      for await (const _ of inOrder(parts, ahead === null ? 1 : FAR_PARTS, fill));
      return output;
    } finally {
      isWanted = false; // where a part has failed, the others need not be read
    }
  }

  /** A unit of reading ahead. */
  async loadUnit(unit: number): Promise<Uint8Array> {
    const at = unit * UNIT_BYTES;
    const output = new Uint8Array(Math.min(UNIT_BYTES, this.sizeBytes - at));
    await this.fill(output, at);
    return output;
  }

  async dataAt(offset: number, end: number): Promise<number | null> {
    return (await this.findData(offset, end))?.offset ?? null;
  }

  async nextData(offset: number): Promise<{ offset: number; length: number } | null> {
    this.assertOpen();
    const found = await this.findData(offset, this.sizeBytes);
    this.memory.ahead?.skip(offset, found?.offset ?? this.sizeBytes);
    return found;
  }

  /** As `nextData`, of the data that begins before `end`. */
  private async findData(
    offset: number,
    end: number,
  ): Promise<{ offset: number; length: number } | null> {
    const chunks = chunkCount(this.sizeBytes);
    const last = chunkCount(end);
    let start = -1;
    for (let chunk = Math.floor(offset / CHUNK_BYTES); chunk < chunks; chunk += 1) {
      if (start < 0) chunk = Math.max(chunk, this.firstKnown(chunk));
      if (chunk >= (start < 0 ? last : chunks)) break;
      const leaf = Math.floor(chunk / CHUNKS_PER_LEAF);
      const entries = await this.leaf(leaf);
      const entry = entries?.[chunk - leaf * CHUNKS_PER_LEAF];
      const isData = entry !== undefined && !isAllZero(entry);
      if (start < 0 && isData) start = chunk;
      if (start >= 0 && !isData) return this.range(start, chunk, offset);
      if (start >= 0 && chunk - start >= CHUNKS_PER_LEAF) return this.range(start, chunk, offset);
      if (entries === null) chunk = (leaf + 1) * CHUNKS_PER_LEAF - 1;
    }
    return start < 0 ? null : this.range(start, chunks, offset);
  }

  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.life?.release();
  }

  /** What is known of the chunks of a leaf; null: they are all zero. */
  entries(leaf: number): Promise<OpenLeaf | null> {
    this.assertOpen();
    return this.leaf(leaf);
  }

  /** What tells of a leaf, oldest first: the same things tell the same, in any image. */
  tellers(leaf: number): unknown[] {
    return this.memory.chain.sources.flatMap((source): unknown[] => {
      if (source instanceof Base) return [toHex(source.table[leaf] ?? new Uint8Array())];
      if (!source.has(leaf)) return [];
      return [source instanceof LeafFile ? source.path : source];
    });
  }

  private assertOpen(): void {
    if (this.isClosed) throw new UnderstudyError('ERR_STORE_CLOSED', 'the image is closed');
  }

  private range(first: number, end: number, from: number): { offset: number; length: number } {
    const offset = Math.max(first * CHUNK_BYTES, from);
    return { offset, length: Math.min(end * CHUNK_BYTES, this.sizeBytes) - offset };
  }

  private leaf(leaf: number): Promise<OpenLeaf | null> {
    const { leaves } = this.memory;
    const known = leaves.get(leaf);
    if (known !== undefined) return known;
    const opened = this.openLeaf(leaf);
    if (leaves.size >= CACHED_LEAVES) leaves.delete(leaves.keys().next().value!);
    leaves.set(leaf, opened);
    opened.catch(() => {
      if (leaves.get(leaf) === opened) leaves.delete(leaf); // to be tried again
    });
    return opened;
  }

  private async openLeaf(leaf: number): Promise<OpenLeaf | null> {
    const bytes = await this.readLeaf(leaf);
    if (bytes === undefined) throw this.hurt('a leaf of the map is missing', leaf);
    const isZero = isZeroLeaf(bytes, chunksInLeaf(leaf, this.sizeBytes));
    return isZero ? null : openLeaf(bytes);
  }

  /** The first chunk, from `chunk` on, of which the base alone does not say that it is zero. */
  private firstKnown(chunk: number): number {
    const { memory } = this;
    const [first, ...later] = memory.chain.sources;
    if (!(first instanceof Base)) return chunk;
    memory.touched ??= bitmapOf(later, first.table.length);
    let leaf = Math.floor(chunk / CHUNKS_PER_LEAF);
    const { table } = first;
    while (leaf < table.length && table[leaf] === null && memory.touched[leaf] === 0) leaf += 1;
    return leaf * CHUNKS_PER_LEAF;
  }

  private async readLeaf(leaf: number): Promise<Leaf | undefined> {
    const { memory } = this;
    const { chain } = memory;
    try {
      return await chain.read(leaf);
    } catch (error) {
      if (!isNotFound(error) || this.life === null) throw error;
      // Another read may have opened them meanwhile.
      if (memory.chain === chain) {
        memory.chain = await this.life.open(this.avoid);
        memory.touched = null;
      }
      return memory.chain.read(leaf);
    }
  }

  private hurt(detail: string, leaf: number): UnderstudyError {
    const offset = leaf * CHUNKS_PER_LEAF * CHUNK_BYTES;
    return new UnderstudyError('ERR_OBJECT_MISSING', detail, { ...this.of, offset });
  }

  /** Fills `output` with the bytes of the volume from `at` on. */
  private async fill(output: Uint8Array, at: number, isWanted?: () => boolean): Promise<void> {
    try {
      await this.fillByMaps(output, at, isWanted);
    } catch (error) {
      if (!isDamage(error) && !isNotFound(error)) throw error;
      if (!(await this.fillWithoutBase(output, at))) throw await this.lost(error, at);
    }
  }

  /**
   * ERR_PIECE_MISSING where a file that is needed is gone for good; a repository that is merely out of reach (its
   * disk is not mounted) has lost nothing.
   */
  private async lost(error: UnderstudyError, offset: number): Promise<UnderstudyError> {
    const { disk, paths } = this.core;
    if (!isNotFound(error) || !(await disk.exists(paths.format))) return error;
    const { point, volume } = this.of;
    const message = `${error.message}: it is gone (point ${point}, volume ${volume})`;
    return new UnderstudyError('ERR_PIECE_MISSING', message, { ...this.of, offset }, error);
  }

  /**
   * A base has contents of its own: chunks put together of blocks that older maps name. Where one is
   * damaged, those maps, if they are still there, say the same by other contents. False where there is no
   * such way.
   */
  private async fillWithoutBase(output: Uint8Array, at: number): Promise<boolean> {
    const [first] = this.memory.chain.sources;
    if (this.life === null || !(first instanceof Base)) return false;
    try {
      this.withoutBase ??= await this.avoiding(this.life, new Set([...this.avoid, first.path]));
      await this.withoutBase.fill(output.fill(0), at);
      return true;
    } catch (error) {
      if (!isDamage(error) && !isNotFound(error)) throw error;
      return false;
    }
  }

  private async avoiding(life: ImageLife, avoid: ReadonlySet<string>): Promise<ChainImage> {
    const memory = new ImageMemory(this.core, await life.open(avoid));
    const image = new ChainImage(this.core, memory, this.of, life);
    image.avoid = avoid;
    return image;
  }

  private async fillByMaps(
    output: Uint8Array,
    at: number,
    isWanted?: () => boolean,
  ): Promise<void> {
    const parts: Part[] = [];
    const end = at + output.length;
    for (let chunk = Math.floor(at / CHUNK_BYTES); chunk * CHUNK_BYTES < end; chunk += 1) {
      const leaf = Math.floor(chunk / CHUNKS_PER_LEAF);
      const entries = await this.leaf(leaf);
      if (entries === null) continue;
      const entry = entries[chunk - leaf * CHUNKS_PER_LEAF];
      if (entry === undefined) throw this.hurt(`chunk ${chunk} is not in the map`, leaf);
      this.partsOf(entry, chunk, at, end, parts);
    }
    const copy = ({ size, copies, digest }: Part, content: Uint8Array) => {
      if (content.length !== size) {
        const context = { digest: toHex(digest) };
        throw new UnderstudyError('ERR_PIECE_DAMAGED', `a content is not ${size} long`, context);
      }
      for (const { from, to, length } of copies)
        output.set(content.subarray(from, from + length), to);
    };
    const use = (i: number, content: Uint8Array) => copy(parts[i]!, content);
    try {
      await this.core.reader.read(await this.locate(parts), use, isWanted);
    } catch (error) {
      throw this.placed(error, parts);
    }
  }

  /** Pieces of one chunk that lie in [at, end). */
  private partsOf(entry: ChunkEntry, chunk: number, at: number, end: number, parts: Part[]): void {
    const start = chunk * CHUNK_BYTES;
    const size = chunkLength(chunk, this.sizeBytes);
    const part = (piece: Piece | null, offset: number, length: number): Part | null => {
      if (piece === null) throw this.hurt(`chunk ${chunk} is not known wholly`, 0);
      return piece === 'zero' ? null : { digest: piece, offset, size: length, copies: [] };
    };
    const copy = (to: Part | null, first: number, length: number) => {
      const from = Math.max(first, at);
      const until = Math.min(first + length, end);
      if (to === null || from >= until) return;
      to.copies.push({ from: from - to.offset, to: from - at, length: until - from });
    };
    const isCovered = entry.mask === 2 ** blocksInChunk(chunk, this.sizeBytes) - 1;
    const whole = isCovered ? null : part(entry.whole, start, size);
    const found = [whole];
    if (entry.mask === 0) copy(whole, start, size);
    let next = 0;
    for (let block = 0; entry.mask !== 0 && block * BLOCK_BYTES < size; block += 1) {
      const first = start + block * BLOCK_BYTES;
      const length = Math.min(BLOCK_BYTES, size - block * BLOCK_BYTES);
      if ((entry.mask & (1 << block)) === 0) {
        copy(whole, first, length);
        continue;
      }
      const own = part(entry.blocks[next]!, first, length);
      copy(own, first, length);
      found.push(own);
      next += 1;
    }
    for (const one of found) if (one !== null && one.copies.length > 0) parts.push(one);
  }

  private async locate(parts: readonly Part[]): Promise<TableEntry[]> {
    const found = await this.core.reader.locate(parts.map(({ digest }) => digest));
    return found.map((place, i) => {
      if (place !== null) return place;
      const { digest, offset } = parts[i]!;
      const context = { ...this.of, offset, digest: toHex(digest) };
      throw new UnderstudyError('ERR_PIECE_MISSING', 'a content is not held', context);
    });
  }

  /** The error with the offset of the first part that it is about. */
  private placed(error: unknown, parts: readonly Part[]): unknown {
    if (!(error instanceof UnderstudyError) || typeof error.context.digest !== 'string') {
      return error;
    }
    const digest = Buffer.from(error.context.digest, 'hex');
    const part = parts.find((candidate) => equalBytes(candidate.digest, digest));
    const offset = part?.offset ?? 0;
    const context = { ...error.context, ...this.of, offset };
    const where = `point ${this.of.point}, volume ${this.of.volume}, byte ${offset}`;
    const message = `${error.message} (${where})`;
    return new UnderstudyError(error.code, message, context, error);
  }
}

function bitmapOf(sources: readonly LeafSource[], leaves: number): Uint8Array {
  const map = new Uint8Array(leaves);
  for (const leaf of mergedLeafNumbers(sources)) map[leaf] = 1;
  return map;
}

/** [offset, end), cut at multiples of `size`. */
function splitAt(offset: number, end: number, size: number): { at: number; end: number }[] {
  const spans: { at: number; end: number }[] = [];
  for (let at = offset; at < end; ) {
    const until = Math.min(end, (Math.floor(at / size) + 1) * size);
    spans.push({ at, end: until });
    at = until;
  }
  return spans;
}

const isAllZero = ({ whole, blocks }: ChunkEntry): boolean =>
  whole === 'zero' && blocks.every((block) => block === 'zero');
