/**
 * A worker thread of the pipeline: runs the tasks of `content-work.ts` on buffers that it shares with the
 * engine, and hands finished frames over without copying them.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { assert } from '../base/errors.ts';
import { buildPatch, buildPieces, digestParts, type Task } from './content-work.ts';

export interface WorkRequest {
  readonly id: number;
  readonly task: Task;
}
export interface WorkReply {
  readonly id: number;
  readonly result?: unknown;
  readonly error?: unknown;
}

assert(parentPort !== null, 'the pipeline worker runs in a worker thread');
const port = parentPort;
const buffers = (workerData as { buffers: Uint8Array[] }).buffers.map((bytes) =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength),
);

function work(task: Task): { result: unknown; transfer: ArrayBuffer[] } {
  const bytes = buffers[task.buffer]!;
  switch (task.kind) {
    case 'digest': {
      const result = digestParts(bytes, task.parts);
      return { result, transfer: [memoryOf(result.digests), memoryOf(result.zeros)] };
    }
    case 'patch': {
      const result = buildPatch(bytes, task);
      return { result, transfer: [memoryOf(result.frame), memoryOf(result.entries)] };
    }
    case 'pieces': {
      const result = buildPieces(bytes, task);
      return { result, transfer: [memoryOf(result.frame)] };
    }
  }
}

/** Frames and lists are in memory of their own, so it may change hands. */
const memoryOf = (bytes: Uint8Array): ArrayBuffer => bytes.buffer as ArrayBuffer;

port.on('message', ({ id, task }: WorkRequest) => {
  try {
    const { result, transfer } = work(task);
    port.postMessage({ id, result } satisfies WorkReply, transfer);
  } catch (error) {
    port.postMessage({ id, error } satisfies WorkReply);
  }
});
