/**
 * A sealed file that is read as if it were not: each read opens the blocks that it touches. Files do not
 * change once they have their name, so length and key are read once. Whatever is not what was sealed is
 * ERR_OBJECT_DAMAGED, never bytes.
 */
import type { DiskFile } from '../../base/disk.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { damaged } from '../format/object-header.ts';
import {
  BLOCK_BYTES,
  BlockCipher,
  decodeSealedHeader,
  SEALED_HEADER_BYTES,
  STORED_BLOCK_BYTES,
  sealedExtent,
} from './sealed-format.ts';
import type { Vault } from './vault.ts';

/** So many blocks are read with one call. */
const RUN_BLOCKS = 64;
/** Blocks that are kept open: neighbouring small reads meet in one block. */
const CACHED_BLOCKS = 4;

interface Opened {
  readonly cipher: BlockCipher;
  readonly blocks: number;
  readonly size: number;
}

async function cipherOf(vault: Vault, header: Uint8Array, path: string): Promise<BlockCipher> {
  const { keyId, salt } = decodeSealedHeader(header, path);
  const found = (await vault.keys?.find(keyId)) ?? null;
  if (found === null) {
    throw damaged(path, `its data key ${keyId} is not among the repository's`);
  }
  return new BlockCipher(vault.aead, found.key, salt, header);
}

function openBlocks(
  { cipher, blocks }: Opened,
  first: number,
  stored: Uint8Array,
  path: string,
): Uint8Array[] {
  const opened: Uint8Array[] = [];
  for (let at = 0; at < stored.length; at += STORED_BLOCK_BYTES) {
    const block = first + opened.length;
    const part = stored.subarray(at, at + STORED_BLOCK_BYTES);
    const plain = cipher.open(block, block === blocks - 1, part);
    if (plain === null) throw damaged(path, `block ${block} is not what was sealed`);
    opened.push(plain);
  }
  return opened;
}

/** The content of a sealed file that was read whole. ERR_OBJECT_DAMAGED. */
export async function openSealed(
  vault: Vault,
  bytes: Uint8Array,
  path: string,
): Promise<Uint8Array> {
  const header = bytes.subarray(0, SEALED_HEADER_BYTES);
  const cipher = await cipherOf(vault, header, path);
  const extent = sealedExtent(bytes.length, path);
  const stored = bytes.subarray(SEALED_HEADER_BYTES);
  return Buffer.concat(openBlocks({ cipher, ...extent }, 0, stored, path));
}

export class SealedReader implements DiskFile {
  readonly path: string;
  private readonly raw: DiskFile;
  private readonly vault: Vault;
  private opened: Promise<Opened> | null = null;
  private readonly cached = new Map<number, Uint8Array>();

  constructor(raw: DiskFile, vault: Vault) {
    this.path = raw.path;
    this.raw = raw;
    this.vault = vault;
  }

  async read(buffer: Uint8Array, offset: number): Promise<number> {
    const opened = await this.open();
    const end = Math.min(offset + buffer.length, opened.size);
    for (let at = offset; at < end; ) {
      const block = Math.floor(at / BLOCK_BYTES);
      const until = Math.min(block + RUN_BLOCKS, Math.ceil(end / BLOCK_BYTES));
      for (const plain of await this.blocks(opened, block, until)) {
        const from = at % BLOCK_BYTES;
        const part = plain.subarray(from, Math.min(plain.length, from + end - at));
        buffer.set(part, at - offset);
        at += part.length;
      }
    }
    return Math.max(0, end - offset);
  }

  async size(): Promise<number> {
    return (await this.open()).size;
  }

  async write(): Promise<void> {
    throw new UnderstudyError('ERR_BUG', `${this.path}: a sealed file is not written to`);
  }

  async truncate(): Promise<void> {
    throw new UnderstudyError('ERR_BUG', `${this.path}: a sealed file is not cut`);
  }

  sync(): Promise<void> {
    return this.raw.sync();
  }

  close(): Promise<void> {
    return this.raw.close();
  }

  private open(): Promise<Opened> {
    if (this.opened === null) {
      this.opened = this.readHead();
      this.opened.catch(() => {
        this.opened = null;
      });
    }
    return this.opened;
  }

  private async readHead(): Promise<Opened> {
    const { raw, path } = this;
    const header = new Uint8Array(SEALED_HEADER_BYTES);
    const count = await raw.read(header, 0);
    const cipher = await cipherOf(this.vault, header.subarray(0, count), path);
    return { cipher, ...sealedExtent(await raw.size(), path) };
  }

  /** Blocks [first, until), from memory where all of them are there. */
  private async blocks(opened: Opened, first: number, until: number): Promise<Uint8Array[]> {
    const known: Uint8Array[] = [];
    for (let block = first; block < until; block += 1) {
      const plain = this.cached.get(block);
      if (plain !== undefined) known.push(plain);
    }
    if (known.length === until - first) return known;
    const start = SEALED_HEADER_BYTES + first * STORED_BLOCK_BYTES;
    const most = Math.min(until, opened.blocks) - first;
    const stored = new Uint8Array(most * STORED_BLOCK_BYTES);
    const count = await this.raw.read(stored, start);
    const read = openBlocks(opened, first, stored.subarray(0, count), this.path);
    if (read.length < most) throw damaged(this.path, 'cut short');
    for (const [i, plain] of read.entries()) this.keep(first + i, plain);
    return read;
  }

  private keep(block: number, plain: Uint8Array): void {
    this.cached.set(block, plain);
    if (this.cached.size > CACHED_BLOCKS) this.cached.delete(this.cached.keys().next().value!);
  }
}
