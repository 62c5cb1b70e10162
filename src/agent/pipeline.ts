/**
 * The work on bytes behind an interface: in worker threads on a server (`worker-pipeline.ts`), in place in
 * the simulator. A buffer must not be given back to the engine while a task on it runs.
 */
import {
  type BuiltPatch,
  type BuiltPieces,
  buildPatch,
  buildPieces,
  type Digested,
  type DigestTask,
  digestRanges,
  type PatchTask,
  type PiecesTask,
} from './content-work.ts';

export interface Pipeline {
  digest(task: DigestTask): Promise<Digested>;
  patch(task: PatchTask): Promise<BuiltPatch>;
  pieces(task: PiecesTask): Promise<BuiltPieces>;
  close(): Promise<void>;
}

/** Does the work at once, on the caller's thread. */
export function createInlinePipeline(buffers: readonly Uint8Array[]): Pipeline {
  const views = buffers.map((b) => Buffer.from(b.buffer, b.byteOffset, b.byteLength));
  return {
    digest: async (task) => digestRanges(views[task.buffer]!, task),
    patch: async (task) => buildPatch(views[task.buffer]!, task),
    pieces: async (task) => buildPieces(views[task.buffer]!, task),
    close: async () => undefined,
  };
}
