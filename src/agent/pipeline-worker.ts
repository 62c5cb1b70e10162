/**
 * A worker thread of the pipeline: runs the tasks of `content-work.ts` on buffers that it shares with the
 * engine, and builds frames in memory that it shares with the main thread.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { assert } from '../base/errors.ts';
import { tellLoaded } from '../base/worker-thread.ts';
import { buildPatch, buildPieces, digestRanges, type Task } from './content-work.ts';

export interface WorkRequest {
  readonly id: number;
  readonly task: Task;
}
/** A frame within the frame memory of its buffer. */
export interface FramePlace {
  readonly at: number;
  readonly length: number;
}
export interface WorkReply {
  readonly id: number;
  readonly result?: unknown;
  readonly error?: unknown;
}

assert(parentPort !== null, 'the pipeline worker runs in a worker thread');
const port = parentPort;
const shared = workerData as { buffers: Uint8Array[]; frames: Uint8Array[] };
const asBuffer = (bytes: Uint8Array) =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const buffers = shared.buffers.map(asBuffer);
const frames = shared.frames.map(asBuffer);

function work(task: Task): { result: unknown; transfer: ArrayBuffer[] } {
  const bytes = buffers[task.buffer]!;
  const into = frames[task.buffer]!;
  switch (task.kind) {
    case 'digest': {
      const result = digestRanges(bytes, task);
      return { result, transfer: [memoryOf(result.digests), memoryOf(result.zeros)] };
    }
    case 'patch': {
      const { frame, ...result } = buildPatch(bytes, task, into);
      return { result: { ...result, frame: placeOf(frame, into) }, transfer: [] };
    }
    case 'pieces': {
      const { frame, ...result } = buildPieces(bytes, task, into);
      return { result: { ...result, frame: placeOf(frame, into) }, transfer: [] };
    }
  }
}

/** Lists are in memory of their own, so it may change hands. */
const memoryOf = (bytes: Uint8Array): ArrayBuffer => bytes.buffer as ArrayBuffer;

/** A frame that found room lies in the shared memory: its place is enough. */
function placeOf(frame: Uint8Array, into: Buffer): FramePlace | Uint8Array {
  if (frame.buffer !== into.buffer) return frame;
  return { at: frame.byteOffset - into.byteOffset, length: frame.length };
}

port.on('message', ({ id, task }: WorkRequest) => {
  try {
    const { result, transfer } = work(task);
    port.postMessage({ id, result } satisfies WorkReply, transfer);
  } catch (error) {
    port.postMessage({ id, error } satisfies WorkReply);
  }
});
tellLoaded();
