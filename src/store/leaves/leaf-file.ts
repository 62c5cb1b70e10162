/**
 * A file of leaves: deltas and the runs of open epochs. FORMAT.md, "Deltas".
 *
 *   header     object-header.ts, with whose map it is, which epochs it covers, and both chain roots
 *   fragments  encoded leaves, one after the other, ascending
 *   index      of each: leaf u32, length u32, offset u64, XXH64 u64; at the offset that the header names
 *
 * Written front to back without ever holding the map; the header's room is kept and filled in last.
 */
import { createHash } from 'node:crypto';
import type { Disk, DiskFile } from '../../base/disk.ts';
import { MAX_CHUNKS } from '../../model/entry-codec.ts';
import { BLOCKS_PER_CHUNK, CHUNKS_PER_LEAF, DIGEST_BYTES } from '../../model/geometry.ts';
import { ByteReader, ByteWriter } from '../format/bytes.ts';
import { checksum, fromHex, toHex } from '../format/checksum.ts';
import type { MapPlace } from '../format/layout.ts';
import {
  damaged,
  encodeHeader,
  headerLength,
  openHeader,
  PREFIX_BYTES,
} from '../format/object-header.ts';
import type { FileCache } from '../packs/file-cache.ts';
import type { Leaf } from './leaf.ts';
import type { LeafSource } from './leaf-source.ts';

const INDEX_ENTRY_BYTES = 24;
const WRITE_BYTES = 1024 * 1024;
/** Bounds of what a header and an index can say: the largest volume, chunks with all their blocks. */
const MAX_LEAVES = MAX_CHUNKS / CHUNKS_PER_LEAF;
const MAX_LEAF_BYTES = CHUNKS_PER_LEAF * (BLOCKS_PER_CHUNK + 2) * DIGEST_BYTES;

/** What a delta or run says of itself; hex digests of 64 digits. */
export interface LeafFileInfo extends MapPlace {
  /** Covers the epochs after `from`, up to `to`. */
  readonly from: number;
  readonly to: number;
  readonly sizeBytes: number;
  readonly sectorBytes: number;
  /** Number of the commit of `to` among all commits of the store; 0 in a run. */
  readonly sequence: number;
  /** Wall clock of the cut, milliseconds. */
  readonly timeMs: number;
  readonly previousRoot: string;
  readonly root: string;
  /** The agent's digest of the epoch `to`. */
  readonly contentDigest: string;
}

interface Layout {
  readonly leafDigest: Uint8Array;
  readonly count: number;
  readonly indexOffset: number;
  readonly indexChecksum: bigint;
}

type LeafMagic = 'US-DELTA' | 'US-RUN  ';

function encode(magic: LeafMagic, info: LeafFileInfo, layout: Layout): Uint8Array {
  return encodeHeader(magic, (writer) =>
    writer
      .u32(info.from)
      .u32(info.to)
      .u64(info.sizeBytes)
      .u32(info.sectorBytes)
      .u32(layout.count)
      .u64(info.sequence)
      .u64(info.timeMs)
      .u64(layout.indexOffset)
      .raw64(layout.indexChecksum)
      .raw(fromHex(info.previousRoot))
      .raw(fromHex(info.root))
      .raw(layout.leafDigest)
      .text(info.server)
      .text(info.volume)
      .text(info.generation)
      .text(info.contentDigest),
  );
}

function decode(bytes: Uint8Array, magic: LeafMagic, path: string): LeafFileInfo & Layout {
  const { fields } = openHeader(bytes, magic, path);
  const numbers = {
    from: fields.u32(),
    to: fields.u32(),
    sizeBytes: fields.u64(),
    sectorBytes: fields.u32(),
    count: fields.u32(),
    sequence: fields.u64(),
    timeMs: fields.u64(),
    indexOffset: fields.u64(),
    indexChecksum: fields.raw64(),
  };
  const roots = { previousRoot: toHex(fields.raw(32)), root: toHex(fields.raw(32)) };
  const leafDigest = fields.raw(32);
  const place = { server: fields.text(), volume: fields.text(), generation: fields.text() };
  return { ...numbers, ...roots, leafDigest, ...place, contentDigest: fields.text() };
}

/** Digest over the leaves of a map, whatever file they lie in: what a chain root links. */
export class LeafDigest {
  private readonly hash = createHash('sha256');

  add(leaf: number, bytes: Leaf): void {
    this.hash.update(new ByteWriter().u32(leaf).u32(bytes.length).take()).update(bytes);
  }

  take(): Uint8Array {
    return this.hash.digest();
  }
}

export class LeafFileWriter {
  private readonly file: DiskFile;
  private readonly digest = new LeafDigest();
  private readonly index = new ByteWriter();
  private pending: Uint8Array[] = [];
  private pendingBytes = 0;
  private written: number;
  private offset: number;
  private count = 0;

  private constructor(file: DiskFile, start: number) {
    this.file = file;
    this.written = start;
    this.offset = start;
  }

  /** The strings of `info` fix the length of the header; its roots may still be unknown. */
  static async create(
    disk: Disk,
    path: string,
    magic: LeafMagic,
    info: LeafFileInfo,
  ): Promise<LeafFileWriter> {
    const file = await disk.open(path, 'create');
    const nothing = { leafDigest: new Uint8Array(32), count: 0, indexOffset: 0, indexChecksum: 0n };
    return new LeafFileWriter(file, encode(magic, info, nothing).length);
  }

  async add(leaf: number, bytes: Leaf): Promise<void> {
    this.digest.add(leaf, bytes);
    this.index.u32(leaf).u32(bytes.length).u64(this.offset).raw64(checksum(bytes));
    this.pending.push(bytes);
    this.pendingBytes += bytes.length;
    this.offset += bytes.length;
    this.count += 1;
    if (this.pendingBytes >= WRITE_BYTES) await this.flush();
  }

  /** Ends the fragments; returns the digest over them. */
  async finishLeaves(): Promise<Uint8Array> {
    await this.flush();
    return this.digest.take();
  }

  /** Index, header, sync, close. */
  async finish(magic: LeafMagic, info: LeafFileInfo, leafDigest: Uint8Array): Promise<number> {
    const index = this.index.take();
    const layout = { leafDigest, count: this.count, indexOffset: this.offset };
    await this.file.write([index], this.offset);
    const header = encode(magic, info, { ...layout, indexChecksum: checksum(index) });
    await this.file.write([header], 0);
    await this.file.sync();
    await this.file.close();
    return this.offset + index.length;
  }

  /** Closes the file; nothing where that was done. */
  async abandon(): Promise<void> {
    await this.file.close();
  }

  private async flush(): Promise<void> {
    if (this.pending.length === 0) return;
    const buffers = this.pending;
    this.pending = [];
    await this.file.write(buffers, this.written);
    this.written = this.offset;
    this.pendingBytes = 0;
  }
}

/** A delta or run that is open for reading. Its index is in memory, 24 bytes a leaf. */
export class LeafFile implements LeafSource {
  path: string;
  readonly info: LeafFileInfo;
  /** Digest over the leaves, as the header has it. */
  readonly leafDigest: Uint8Array;
  readonly fileBytes: number;
  private readonly files: FileCache;
  private readonly index: Uint8Array;
  private readonly numbers: Uint32Array;

  private constructor(
    files: FileCache,
    path: string,
    head: LeafFileInfo & Layout,
    index: Uint8Array,
  ) {
    this.files = files;
    this.path = path;
    this.info = head;
    this.leafDigest = head.leafDigest;
    this.index = index;
    this.fileBytes = head.indexOffset + index.length;
    this.numbers = new Uint32Array(head.count);
    const reader = new DataView(index.buffer, index.byteOffset, index.length);
    for (let i = 0; i < head.count; i += 1) {
      this.numbers[i] = reader.getUint32(i * INDEX_ENTRY_BYTES, true);
    }
  }

  /** ERR_OBJECT_DAMAGED, ERR_DISK_NOT_FOUND. */
  static async open(files: FileCache, path: string, magic: LeafMagic): Promise<LeafFile> {
    return files.with(path, async (file) => {
      const head = decode(await readHeader(file, magic), magic, path);
      if (head.count > MAX_LEAVES) throw damaged(path, `${head.count} leaves`);
      const index = new Uint8Array(head.count * INDEX_ENTRY_BYTES);
      const count = await file.read(index, head.indexOffset);
      if (count < index.length || checksum(index) !== head.indexChecksum) {
        throw damaged(path, 'the index is damaged');
      }
      return new LeafFile(files, path, head, index);
    });
  }

  /** The file has got another name; readers go on with that. */
  relocate(path: string): void {
    this.path = path;
  }

  leafNumbers(): ArrayLike<number> {
    return this.numbers;
  }

  has(leaf: number): boolean {
    return this.find(leaf) >= 0;
  }

  async read(leaf: number): Promise<Leaf | undefined> {
    const found = this.find(leaf);
    if (found < 0) return undefined;
    const reader = new ByteReader(this.index, this.path, found * INDEX_ENTRY_BYTES + 4);
    const length = reader.u32();
    if (length > MAX_LEAF_BYTES) throw damaged(this.path, `leaf ${leaf} of ${length} bytes`);
    const bytes = new Uint8Array(length);
    const offset = reader.u64();
    const count = await this.readAt(bytes, offset);
    if (count < bytes.length || checksum(bytes) !== reader.raw64()) {
      throw damaged(this.path, `the fragment of leaf ${leaf} is damaged`);
    }
    return bytes;
  }

  private async readAt(bytes: Uint8Array, offset: number): Promise<number> {
    const { path } = this;
    try {
      return await this.files.with(path, (file) => file.read(bytes, offset));
    } catch (error) {
      if (path === this.path) throw error;
      return this.readAt(bytes, offset); // it has got its name meanwhile
    }
  }

  private find(leaf: number): number {
    let low = 0;
    let high = this.numbers.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.numbers[middle]! < leaf) low = middle + 1;
      else high = middle;
    }
    return this.numbers[low] === leaf ? low : -1;
  }
}

async function readHeader(file: DiskFile, magic: string): Promise<Uint8Array> {
  const prefix = new Uint8Array(PREFIX_BYTES);
  if ((await file.read(prefix, 0)) < prefix.length) throw damaged(file.path, 'cut short');
  const bytes = new Uint8Array(headerLength(prefix, magic, file.path));
  if ((await file.read(bytes, 0)) < bytes.length) throw damaged(file.path, 'cut short');
  return bytes;
}

/** The head of a delta or run without its index. */
export function readLeafFileInfo(
  files: FileCache,
  path: string,
  magic: LeafMagic,
): Promise<LeafFileInfo> {
  return files.with(path, async (file) => decode(await readHeader(file, magic), magic, path));
}
