// A replica in memory of what the engine hands over: tracker, engine and one image a volume, with
// jobs as promises. What the tests of the tracker and of the cut stand on.
import { setTimeout as sleep } from 'node:timers/promises';
import { loadAddon } from '../../src/native/addon.ts';
import { detachTracker } from '../../src/native/detach.ts';
import { createEngineOf } from '../../src/native/engine.ts';
import { alignedBuffer, openDevice, openTracker, type Tracker } from '../../src/native/index.ts';
import { type Loader, programLoader } from '../../src/native/loader.ts';
import type {
  Engine,
  FilledBuffer,
  PassResult,
  ReadFault,
  TrackedVolume,
} from '../../src/native/types.ts';

/** enum omission of native/tracker/test_knobs.h. */
export const omissions = {
  queueMarks: 1,
  issueMarks: 2,
  completionMarks: 4,
  flightCounts: 8,
  discard: 16,
  writeZeroes: 32,
  longRanges: 64,
  plainWrites: 128,
};

export interface ReplicaOptions {
  paths: string[];
  instance: string;
  buffers?: number;
  bufferBytes?: number;
  depth?: number;
  memoryBudgetBytes?: number;
  /** Rules taken out of the programs (bits of `omissions`), or of the cutter. */
  omit?: number;
  loseOneIn?: number;
  /** False: what is handed over is thrown away. */
  keepsImages?: boolean;
  /** Instead of the volume's size. */
  imageBytes?: number;
  rules?: { skipsValidation?: boolean; ignoresFlight?: boolean };
}

export interface JobEnd {
  result: PassResult;
  faults: ReadFault[];
  /** Bytes handed over by the job. */
  bytes: number;
}

export function testLoader(options: Pick<ReplicaOptions, 'omit' | 'loseOneIn'>): Loader {
  return programLoader('understudy-loader-test', [
    ...['--omit', String(options.omit ?? 0)],
    ...['--lose-one-in', String(options.loseOneIn ?? 0)],
  ]);
}

export class Replica {
  readonly images: Uint8Array[] = [];
  readonly volumes: readonly TrackedVolume[];
  readonly engine: Engine;
  readonly tracker: Tracker;
  readonly #memory: Uint8Array[];
  readonly #instance: string;
  readonly #keepsImages: boolean;
  #nextJob = 1;
  #bytes = 0;
  #waiting = new Map<number, (end: JobEnd) => void>();

  private constructor(tracker: Tracker, sizes: number[], options: ReplicaOptions) {
    const { buffers = 8, bufferBytes = 4 << 20, depth } = options;
    this.tracker = tracker;
    this.#instance = options.instance;
    this.#keepsImages = options.keepsImages ?? true;
    this.volumes = [...tracker.volumes];
    this.images = sizes.map((size) => new Uint8Array(options.imageBytes ?? size));
    this.#memory = Array.from({ length: buffers }, () => alignedBuffer(bufferBytes));
    const native = loadAddon(options.rules ? 'understudy_test.node' : 'understudy.node');
    const events = {
      onFilled: (filled: FilledBuffer) => this.#apply(filled),
      onDone: (result: PassResult, faults: ReadFault[]) => {
        this.#waiting.get(result.job)?.({ result, faults, bytes: this.#bytes });
        this.#waiting.delete(result.job);
        this.#bytes = 0;
      },
    };
    const settings = {
      ...{ tracker, buffers: this.#memory, events },
      ...(depth === undefined ? {} : { depth }),
    };
    this.engine = createEngineOf(native, settings, options.rules ?? {});
  }

  static async open(options: ReplicaOptions): Promise<Replica> {
    const volumes = options.paths.map((path) => {
      const device = openDevice(path);
      const { geometry } = device;
      device.close();
      return { path, geometry };
    });
    const { instance, memoryBudgetBytes } = options;
    const tracker = await openTracker({
      backend: 'bpf',
      volumes,
      instance,
      ...(memoryBudgetBytes === undefined ? {} : { memoryBudgetBytes }),
      ...(options.omit || options.loseOneIn ? { loader: testLoader(options) } : {}),
    });
    return new Replica(
      tracker,
      volumes.map(({ geometry }) => geometry.sizeBytes),
      options,
    );
  }

  #apply(filled: FilledBuffer): void {
    const bytes = this.#memory[filled.buffer]!;
    for (const { volume, offset, length, at } of filled.pieces) {
      if (this.#keepsImages) this.images[volume]!.set(bytes.subarray(at, at + length), offset);
      this.#bytes += length;
      this.onPiece?.(volume, offset, bytes.subarray(at, at + length));
    }
    this.engine.release(filled.buffer);
  }

  /** Told of every piece that is handed over, before its buffer is released. */
  onPiece: ((volume: number, offset: number, bytes: Uint8Array) => void) | undefined;

  #job(start: (job: number) => void): Promise<JobEnd> {
    const job = this.#nextJob++;
    return new Promise((resolve) => {
      this.#waiting.set(job, resolve);
      start(job);
    });
  }

  get #all(): number[] {
    return this.images.map((_, index) => index);
  }

  async readAll(): Promise<void> {
    for (const [volume, image] of this.images.entries()) {
      const whole = [{ offset: 0, length: image.length }];
      await this.#job((job) => this.engine.read(job, volume, whole));
    }
  }

  drain(volumes = this.#all): Promise<JobEnd> {
    return this.#job((job) => this.engine.drain(job, volumes));
  }

  cut(deadlineMs = 5000, volumes = this.#all): Promise<JobEnd> {
    return this.#job((job) => this.engine.cut(job, volumes, deadlineMs));
  }

  /** Offsets of the first blocks at which image and device differ now. */
  async differences(volume: number, most = 8): Promise<number[]> {
    const device = openDevice(this.tracker.volumes[volume]!.path);
    const image = this.images[volume]!;
    const buffer = alignedBuffer(1 << 20);
    const found: number[] = [];
    for (let offset = 0; offset < image.length && found.length < most; offset += buffer.length) {
      const count = await device.read(buffer.subarray(0, image.length - offset), offset);
      if (Buffer.compare(buffer.subarray(0, count), image.subarray(offset, offset + count)) === 0) {
        continue;
      }
      for (let at = 0; at < count && found.length < most; at += 4096) {
        const end = Math.min(at + 4096, count);
        const here = image.subarray(offset + at, offset + end);
        if (Buffer.compare(buffer.subarray(at, end), here) !== 0) found.push(offset + at);
      }
    }
    device.close();
    return found;
  }

  /** Drains until nothing is pending; the writers must have stopped. */
  async settle(): Promise<void> {
    for (let round = 0; round < 50; round++) {
      await this.drain();
      if (this.#all.every((volume) => this.engine.counters(volume).pendingBlocks === 0)) return;
      await sleep(200);
    }
    throw new Error('blocks stay pending');
  }

  /** Leaves the programs and marks in the kernel, as a dying agent does. */
  async close(): Promise<void> {
    await this.engine.close();
    this.tracker.close();
  }

  async closeAndDetach(): Promise<void> {
    await this.close();
    detachTracker(this.#instance);
  }
}
