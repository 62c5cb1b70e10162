/**
 * The verifier on threads: frames are moved to a worker and back without a copy, the least busy worker
 * first. Small frames are looked at in place: that takes less time than the way to a thread. A worker
 * that dies is a defect: every frame that waits for it fails.
 */
import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import { UnderstudyError } from '../base/errors.ts';
import { freeBytes } from '../base/memory.ts';
import { endable, type WorkerEnd } from '../base/worker-thread.ts';
import { peekContentBytes } from '../protocol/frame.ts';
import { inlineVerifier, type Verifier } from './verifier.ts';
import type { Verdict } from './verify-worker.ts';

const INLINE_BYTES = 128 * 1024;
/** A worker's own heap holds little; what it works on is outside of it. */
const resourceLimits = { maxOldGenerationSizeMb: 64, maxYoungGenerationSizeMb: 4 };

interface Waiting {
  readonly bytes: number;
  readonly settle: PromiseWithResolvers<Uint8Array>;
}

class Thread {
  queuedBytes = 0;
  private readonly worker: Worker;
  private readonly life: WorkerEnd;
  private readonly waiting: Waiting[] = [];
  private failure: UnderstudyError | null = null;

  constructor() {
    const script = new URL(`./verify-worker${extname(import.meta.filename)}`, import.meta.url);
    this.worker = new Worker(script, { resourceLimits });
    this.life = endable(this.worker);
    this.worker.unref();
    this.life.onMessage((verdict: Verdict) => this.judged(verdict));
    this.worker.on('error', (error) => this.fail(error));
    this.worker.on('exit', () => this.fail(undefined));
  }

  verify(frame: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
    if (this.failure !== null) return Promise.reject(this.failure);
    const settle = Promise.withResolvers<Uint8Array>();
    this.waiting.push({ bytes: frame.length, settle });
    this.queuedBytes += frame.length;
    this.worker.postMessage(frame, [frame.buffer]);
    return settle.promise;
  }

  async close(): Promise<void> {
    await this.life.end();
  }

  /** Verdicts come in the order of the frames. */
  private judged({ frame, error }: Verdict): void {
    const { bytes, settle } = this.waiting.shift()!;
    this.queuedBytes -= bytes;
    if (error === null) settle.resolve(frame);
    else settle.reject(new UnderstudyError(error.code, error.message));
  }

  private fail(cause: unknown): void {
    this.failure ??= new UnderstudyError('ERR_BUG', 'a verifying thread has ended', {}, cause);
    for (const { settle } of this.waiting.splice(0)) settle.reject(this.failure);
  }
}

/** The frame in memory of its own, as a transfer takes all of a buffer. */
function owned(frame: Uint8Array): Uint8Array<ArrayBuffer> {
  const isWhole = frame.byteLength === frame.buffer.byteLength;
  if (isWhole && frame.buffer instanceof ArrayBuffer) return frame as Uint8Array<ArrayBuffer>;
  return new Uint8Array(frame);
}

export function createWorkerVerifier(threadCount: number): Verifier {
  const threads = Array.from({ length: threadCount }, () => new Thread());
  return {
    async verify(frame) {
      if (peekContentBytes(frame) <= INLINE_BYTES) return inlineVerifier.verify(frame);
      const thread = threads.reduce((best, each) =>
        each.queuedBytes < best.queuedBytes ? each : best,
      );
      return thread.verify(owned(frame));
    },
    release: freeBytes,
    async close() {
      await Promise.all(threads.map((thread) => thread.close()));
    },
  };
}
