/**
 * The pipeline in worker threads: each task goes to the worker with the fewest tasks open. A worker that
 * dies fails its tasks, and with them the agent: its buffers' state is unknown. Every buffer has memory for
 * its frames beside it, used again and again, so that nothing grows and nothing is collected.
 */
import { availableParallelism } from 'node:os';
import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import { UnderstudyError } from '../base/errors.ts';
import { KIB } from '../base/units.ts';
import { endable, type WorkerEnd } from '../base/worker-thread.ts';
import { BLOCK_BYTES } from '../model/geometry.ts';
import {
  type BuiltPatch,
  type BuiltPieces,
  type Digested,
  frameOverheadBytes,
  type Task,
} from './content-work.ts';
import type { Pipeline } from './pipeline.ts';
import type { FramePlace, WorkReply, WorkRequest } from './pipeline-worker.ts';

interface OpenTask {
  readonly resolve: (result: never) => void;
  readonly reject: (error: unknown) => void;
}

class PipelineWorker {
  readonly open = new Map<number, OpenTask>();
  private readonly worker: Worker;
  private readonly life: WorkerEnd;

  constructor(buffers: readonly Uint8Array[], frames: readonly Uint8Array[]) {
    const script = new URL(`./pipeline-worker${extname(import.meta.filename)}`, import.meta.url);
    this.worker = new Worker(script, {
      workerData: { buffers, frames },
      resourceLimits: { maxOldGenerationSizeMb: 64, maxYoungGenerationSizeMb: 3 },
    });
    this.life = endable(this.worker);
    this.life.onMessage((reply: WorkReply) => this.done(reply));
    this.worker.on('error', (error) => this.failAll(error));
    this.worker.unref();
  }

  run(request: WorkRequest, task: OpenTask): void {
    this.open.set(request.id, task);
    this.worker.postMessage(request);
  }

  async stop(): Promise<void> {
    await this.life.end();
    this.failAll(new UnderstudyError('ERR_BUG', 'the pipeline was stopped under a task'));
  }

  private done({ id, result, error }: WorkReply): void {
    const task = this.open.get(id);
    this.open.delete(id);
    if (error === undefined) task?.resolve(result as never);
    else task?.reject(error);
  }

  private failAll(error: unknown): void {
    for (const task of this.open.values()) task.reject(error);
    this.open.clear();
  }
}

/** Room for the frames of a buffer, however many batches it is split into. */
const frameMemoryBytes = (bufferBytes: number): number =>
  bufferBytes + frameOverheadBytes(bufferBytes / BLOCK_BYTES) + SPLIT_ROOM_BYTES;
const SPLIT_ROOM_BYTES = 64 * KIB;

export function createWorkerPipeline(
  buffers: readonly Uint8Array[],
  threads = Math.min(2, availableParallelism()),
): Pipeline {
  const frames = buffers.map(
    (buffer) => new Uint8Array(new SharedArrayBuffer(frameMemoryBytes(buffer.length))),
  );
  const workers = Array.from({ length: threads }, () => new PipelineWorker(buffers, frames));
  let nextId = 1;
  const run = <T>(task: Task): Promise<T> =>
    new Promise((resolve, reject) => {
      const least = workers.reduce((a, b) => (b.open.size < a.open.size ? b : a));
      least.run({ id: nextId, task }, { resolve, reject });
      nextId += 1;
    });
  const build = async <T extends { frame: Uint8Array }>(task: Task): Promise<T> => {
    const built = await run<Omit<T, 'frame'> & { frame: FramePlace | Uint8Array }>(task);
    const { frame } = built;
    if (frame instanceof Uint8Array) return { ...built, frame } as unknown as T;
    const view = frames[task.buffer]!.subarray(frame.at, frame.at + frame.length);
    return { ...built, frame: view } as unknown as T;
  };
  return {
    digest: (task) => run<Digested>(task),
    patch: (task) => build<BuiltPatch>(task),
    pieces: (task) => build<BuiltPieces>(task),
    async close() {
      await Promise.all(workers.map((worker) => worker.stop()));
    },
  };
}
