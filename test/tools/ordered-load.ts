// A load of ordered writes on some devices, and the oracle that judges the images cut from them.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { buildTool } from './build-tool.ts';

export interface LoadOptions {
  /** Devices to write to; `blocks` of each. */
  paths: string[];
  blocks: number;
  seed: number;
  chains?: number;
  /** Writes a second over all chains; 0: all that the machine can. */
  rate?: number;
  hotBlocks?: number;
  hotPercent?: number;
  /** A file in shared memory, unique to this load. */
  log: string;
}

export interface LoadEnd {
  writes: number;
  seconds: number;
}

function planArguments(options: LoadOptions): string[] {
  const plan = {
    seed: options.seed,
    chains: options.chains ?? 32,
    hot: options.hotBlocks ?? 16,
    'hot-percent': options.hotPercent ?? 20,
    blocks: options.blocks,
    log: options.log,
  };
  return Object.entries(plan).flatMap(([name, value]) => [`--${name}`, String(value)]);
}

/** The next line of a child; rejects when it ends instead. */
class Lines {
  readonly #iterator: AsyncIterator<string>;

  constructor(child: ChildProcess) {
    this.#iterator = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  }

  async next(): Promise<string> {
    const { value, done } = await this.#iterator.next();
    if (done) throw new Error('the child has ended');
    return value;
  }
}

export class Writer {
  readonly #child: ChildProcess;
  readonly #lines: Lines;

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.#lines = new Lines(child);
  }

  /** Returns once it writes. */
  static async start(options: LoadOptions): Promise<Writer> {
    const rate = ['--rate', String(options.rate ?? 0)];
    const args = [...planArguments(options), ...rate, ...options.paths];
    const child = spawn(buildTool('ordered-writer'), args, {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const writer = new Writer(child);
    await writer.#lines.next();
    return writer;
  }

  async stop(): Promise<LoadEnd> {
    this.#child.kill('SIGTERM');
    return JSON.parse(await this.#lines.next()) as LoadEnd;
  }
}

const FRAME_BYTES = 24;
const PIECE = 1;
const CUT = 2;

function frame(kind: number, volume: number, offset: bigint, length: number): Buffer {
  const bytes = Buffer.alloc(FRAME_BYTES);
  bytes.writeUInt32LE(kind, 0);
  bytes.writeUInt32LE(volume, 4);
  bytes.writeBigUInt64LE(offset, 8);
  bytes.writeBigUInt64LE(BigInt(length), 16);
  return bytes;
}

export class Checker {
  readonly #child: ChildProcess;
  readonly #lines: Lines;
  readonly #log: string;
  readonly #changed: Set<number>[] = [];

  constructor(options: LoadOptions) {
    const volumes = ['--volumes', String(options.paths.length)];
    this.#child = spawn(buildTool('ordered-checker'), [...planArguments(options), ...volumes], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.#lines = new Lines(this.#child);
    this.#log = options.log;
  }

  /** Notes that these whole blocks of an image have changed; cheap, as a cut may be under way. */
  changed(volume: number, offset: number, length: number): void {
    this.#changed[volume] ??= new Set();
    for (let at = offset; at < offset + length; at += 4096) this.#changed[volume].add(at);
  }

  /** 'ok WRITES' or 'bad REASON' for the images, as the state at `timeMs`. */
  async judge(images: readonly Uint8Array[], timeMs: number): Promise<string> {
    for (const [volume, image] of images.entries()) this.#send(volume, image);
    this.#child.stdin!.write(frame(CUT, 0, BigInt(Math.round(timeMs * 1e6)), 0));
    return this.#lines.next();
  }

  #send(volume: number, image: Uint8Array): void {
    const offsets = [...(this.#changed[volume] ?? [])].sort((a, b) => a - b);
    this.#changed[volume]?.clear();
    for (let first = 0; first < offsets.length; ) {
      let last = first;
      while (offsets[last + 1] === offsets[last]! + 4096) last += 1;
      const bytes = image.slice(offsets[first]!, offsets[last]! + 4096);
      this.#child.stdin!.write(frame(PIECE, volume, BigInt(offsets[first]!), bytes.length));
      this.#child.stdin!.write(bytes);
      first = last + 1;
    }
  }

  async close(): Promise<void> {
    this.#child.stdin!.end();
    await once(this.#child, 'exit');
    rmSync(this.#log, { force: true });
  }
}
