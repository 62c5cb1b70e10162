/**
 * A new file that is sealed while it is written. Those who write files here go front to back and put the
 * head in last, so a block is sealed, and written, once all its bytes have come and a later one has begun;
 * the others wait in memory until the one sync, at which the file is whole. What was never written in
 * between is zeros, as in any file.
 *
 * No block is ever sealed twice, and nothing is written after the sync: ERR_BUG. So no nonce comes twice.
 */
import type { DiskFile } from '../../base/disk.ts';
import { assert, UnderstudyError } from '../../base/errors.ts';
import {
  BLOCK_BYTES,
  type BlockCipher,
  SEALED_HEADER_BYTES,
  STORED_BLOCK_BYTES,
} from './sealed-format.ts';

/** A block of which not all bytes have come: what has, as ascending spans that do not touch. */
interface Pending {
  readonly bytes: Uint8Array;
  spans: readonly { readonly from: number; readonly to: number }[];
}

export class SealedWriter implements DiskFile {
  readonly path: string;
  private readonly raw: DiskFile;
  private readonly header: Uint8Array;
  private readonly cipher: BlockCipher;
  private readonly pending = new Map<number, Pending>();
  private readonly sealed = new Set<number>();
  private end = 0;
  private isFinished = false;

  constructor(raw: DiskFile, header: Uint8Array, cipher: BlockCipher) {
    this.path = raw.path;
    this.raw = raw;
    this.header = header;
    this.cipher = cipher;
  }

  async write(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    let at = offset;
    for (const buffer of buffers) {
      this.put(buffer, at);
      at += buffer.length;
    }
    await this.writeBlocks(this.whole());
  }

  /** The file is whole: everything that waits is sealed. A second time only what is beneath is synced. */
  async sync(): Promise<void> {
    if (!this.isFinished) {
      this.isFinished = true;
      const rest = [];
      for (let block = 0; block <= this.lastBlock; block += 1) {
        if (!this.sealed.has(block)) rest.push(block);
      }
      await this.writeBlocks(rest);
      await this.raw.write([this.header], 0);
    }
    await this.raw.sync();
  }

  async size(): Promise<number> {
    return this.end;
  }

  async read(): Promise<number> {
    throw this.misused('read while it is being written');
  }

  async truncate(): Promise<void> {
    throw this.misused('cut while it is being written');
  }

  close(): Promise<void> {
    this.isFinished = true;
    this.pending.clear();
    return this.raw.close();
  }

  private get lastBlock(): number {
    return Math.max(0, Math.ceil(this.end / BLOCK_BYTES) - 1);
  }

  private misused(what: string): UnderstudyError {
    return new UnderstudyError('ERR_BUG', `${this.path}: a sealed file is ${what}`);
  }

  private put(buffer: Uint8Array, offset: number): void {
    if (this.isFinished) throw this.misused('written after its sync');
    for (let done = 0; done < buffer.length; ) {
      const block = Math.floor((offset + done) / BLOCK_BYTES);
      const from = (offset + done) % BLOCK_BYTES;
      const part = buffer.subarray(done, done + BLOCK_BYTES - from);
      if (this.sealed.has(block)) throw this.misused('written again where it is sealed');
      const pending = this.pending.get(block) ?? { bytes: new Uint8Array(BLOCK_BYTES), spans: [] };
      this.pending.set(block, pending);
      pending.bytes.set(part, from);
      pending.spans = withSpan(pending.spans, from, from + part.length);
      done += part.length;
    }
    this.end = Math.max(this.end, offset + buffer.length);
  }

  /** Blocks that can be sealed now: the one at the end may turn out to be the last. */
  private whole(): number[] {
    const { lastBlock } = this;
    const isWhole = ({ spans: [span] }: Pending) => span?.from === 0 && span.to === BLOCK_BYTES;
    return [...this.pending]
      .filter(([block, pending]) => block < lastBlock && isWhole(pending))
      .map(([block]) => block)
      .sort((a, b) => a - b);
  }

  /** `blocks` ascend; neighbours are written with one call. */
  private async writeBlocks(blocks: readonly number[]): Promise<void> {
    for (let i = 0; i < blocks.length; ) {
      const first = blocks[i]!;
      const parts: Uint8Array[] = [];
      let block = first;
      for (; i < blocks.length && blocks[i] === block; i += 1, block += 1) {
        parts.push(...this.seal(block));
      }
      await this.raw.write(parts, SEALED_HEADER_BYTES + first * STORED_BLOCK_BYTES);
    }
  }

  private seal(block: number): Uint8Array[] {
    assert(!this.sealed.has(block), 'a block is sealed once');
    this.sealed.add(block);
    const isLast = this.isFinished && block === this.lastBlock;
    const bytes = this.pending.get(block)?.bytes ?? new Uint8Array(BLOCK_BYTES);
    this.pending.delete(block);
    const plain = isLast ? bytes.subarray(0, this.end - block * BLOCK_BYTES) : bytes;
    return this.cipher.seal(block, isLast, plain);
  }
}

/** With [from, to) added, and what touches it made one. */
function withSpan(spans: Pending['spans'], from: number, to: number): Pending['spans'] {
  const apart = spans.filter((span) => span.to < from || span.from > to);
  const joined = spans.filter((span) => !apart.includes(span));
  const added = {
    from: Math.min(from, ...joined.map((span) => span.from)),
    to: Math.max(to, ...joined.map((span) => span.to)),
  };
  return [...apart, added].sort((a, b) => a.from - b.from);
}
