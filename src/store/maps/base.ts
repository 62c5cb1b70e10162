/**
 * A base: the whole map of one volume at one epoch, in two levels. The root table lists a digest a leaf;
 * the leaf tables are pieces in packs, so that leaves that did not change are shared by all bases. A
 * base's chunks are all whole or zero: patches have been folded into contents. FORMAT.md, "Bases".
 *
 *   header  object-header.ts: whose map, epoch, root of the chain there, length and XXH64 of the table
 *   table   runs: kind u8 (0: zero leaves, 1: digests follow), count u32, then 32 bytes each for kind 1
 */
import { UnderstudyError } from '../../base/errors.ts';
import { DIGEST_BYTES, leafCount } from '../../model/geometry.ts';
import type { Core } from '../core.ts';
import { ByteReader, ByteWriter } from '../format/bytes.ts';
import { checksum, fromHex, toHex } from '../format/checksum.ts';
import type { MapPlace } from '../format/layout.ts';
import { damaged, encodeHeader, openHeader } from '../format/object-header.ts';
import { chunksInLeaf, type Leaf, zeroLeaf } from '../leaves/leaf.ts';
import type { LeafSource } from '../leaves/leaf-source.ts';

const MAGIC = 'US-BASE ';

export interface BaseInfo extends MapPlace {
  readonly epoch: number;
  readonly sizeBytes: number;
  readonly sectorBytes: number;
  readonly sequence: number;
  readonly timeMs: number;
  readonly root: string;
  readonly contentDigest: string;
}

/** Digest of each leaf's table; null for a leaf that is all zero. */
export type RootTable = readonly (Uint8Array | null)[];

export function encodeBase(info: BaseInfo, table: RootTable): Uint8Array {
  const body = new ByteWriter();
  for (let at = 0; at < table.length; ) {
    const isZero = table[at] === null;
    let end = at + 1;
    while (end < table.length && (table[end] === null) === isZero) end += 1;
    body.u8(isZero ? 0 : 1).u32(end - at);
    for (; at < end; at += 1) if (!isZero) body.raw(table[at]!);
  }
  const bytes = body.take();
  const header = encodeHeader(MAGIC, (writer) =>
    writer
      .u32(info.epoch)
      .u64(info.sizeBytes)
      .u32(info.sectorBytes)
      .u64(info.sequence)
      .u64(info.timeMs)
      .u32(bytes.length)
      .raw64(checksum(bytes))
      .raw(fromHex(info.root))
      .text(info.server)
      .text(info.volume)
      .text(info.generation)
      .text(info.contentDigest),
  );
  return Buffer.concat([header, bytes]);
}

export function decodeBase(bytes: Uint8Array, path: string): { info: BaseInfo; table: RootTable } {
  const { fields, length } = openHeader(bytes, MAGIC, path);
  const numbers = {
    epoch: fields.u32(),
    sizeBytes: fields.u64(),
    sectorBytes: fields.u32(),
    sequence: fields.u64(),
    timeMs: fields.u64(),
  };
  const bodyLength = fields.u32();
  const bodyChecksum = fields.raw64();
  const root = toHex(fields.raw(DIGEST_BYTES));
  const place = { server: fields.text(), volume: fields.text(), generation: fields.text() };
  const info = { ...numbers, root, ...place, contentDigest: fields.text() };
  const body = bytes.subarray(length);
  if (body.length !== bodyLength || checksum(body) !== bodyChecksum) {
    throw damaged(path, 'the table is damaged');
  }
  return { info, table: decodeTable(body, leafCount(info.sizeBytes), path) };
}

function decodeTable(body: Uint8Array, leaves: number, path: string): RootTable {
  const reader = new ByteReader(body, path);
  const table: (Uint8Array | null)[] = [];
  while (reader.position < body.length) {
    const kind = reader.u8();
    const count = reader.u32();
    if (kind > 1 || count === 0 || table.length + count > leaves) {
      throw damaged(path, 'the table is malformed');
    }
    for (let i = 0; i < count; i += 1) table.push(kind === 0 ? null : reader.raw(DIGEST_BYTES));
  }
  if (table.length !== leaves) throw damaged(path, `a table of ${table.length} leaves`);
  return table;
}

type BaseCore = Pick<Core, 'disk' | 'reader'>;

/** A base that is open for reading. */
export class Base implements LeafSource {
  readonly path: string;
  readonly info: BaseInfo;
  readonly table: RootTable;
  private readonly core: BaseCore;

  private constructor(core: BaseCore, path: string, info: BaseInfo, table: RootTable) {
    this.core = core;
    this.path = path;
    this.info = info;
    this.table = table;
  }

  /** ERR_OBJECT_DAMAGED, ERR_DISK_NOT_FOUND. */
  static async open(core: BaseCore, path: string): Promise<Base> {
    return Base.over(core, await core.disk.readFile(path), path);
  }

  /** `bytes`: the whole file, wherever it lies now. */
  static over(core: BaseCore, bytes: Uint8Array, path: string): Base {
    const { info, table } = decodeBase(bytes, path);
    return new Base(core, path, info, table);
  }

  leafNumbers(): ArrayLike<number> {
    return Array.from(this.table, (_, leaf) => leaf);
  }

  has(leaf: number): boolean {
    return leaf < this.table.length;
  }

  async read(leaf: number): Promise<Leaf | undefined> {
    const digest = this.table[leaf];
    if (digest === undefined) return undefined;
    if (digest === null) return zeroLeaf(chunksInLeaf(leaf, this.info.sizeBytes));
    try {
      return await this.leafTable(digest);
    } catch (error) {
      if (!(error instanceof UnderstudyError)) throw error;
      // Whoever can do without this base must know that it is about this base.
      const context = { ...error.context, map: this.path };
      throw new UnderstudyError(error.code, `${this.path}: ${error.message}`, context, error);
    }
  }

  private async leafTable(digest: Uint8Array): Promise<Leaf> {
    const [place] = await this.core.reader.locate([digest]);
    if (place == null) {
      const context = { volume: this.info.volume, epoch: this.info.epoch, digest: toHex(digest) };
      throw new UnderstudyError('ERR_PIECE_MISSING', 'the table of a leaf is gone', context);
    }
    let bytes: Leaf | undefined;
    await this.core.reader.read([place], (_, content) => {
      bytes = content;
    });
    return bytes!;
  }
}
