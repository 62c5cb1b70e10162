/**
 * Puts a disk back as it was before a failback wrote to it, from what the undo file keeps; then reads every
 * chunk that was put back, and compares. May be interrupted and begun again.
 */
import { alignedMemory } from '../../base/aligned.ts';
import type { DiskFile } from '../../base/disk.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { CHUNK_BYTES } from '../../model/geometry.ts';
import type { OpenUndo } from './undo-file.ts';

export interface PutBackReport {
  readonly chunks: number;
  readonly writtenBytes: number;
  /** At the end of the undo file: of a write that had not begun. */
  readonly tornBytes: number;
}

/** ERR_UNDO_FILE, ERR_FAILBACK_MISMATCH, and what the target throws. */
export async function putBack(
  undo: OpenUndo,
  target: DiskFile,
  { stop, onChunk }: { stop: AbortSignal; onChunk: (chunks: number) => void },
): Promise<PutBackReport> {
  const memory = alignedMemory(CHUNK_BYTES);
  let chunks = 0;
  let writtenBytes = 0;
  for await (const { offset, content } of undo.records()) {
    stop.throwIfAborted();
    const bytes = memory.subarray(0, content.length);
    bytes.set(content);
    await target.write([bytes], offset);
    writtenBytes += content.length;
    chunks += 1;
    onChunk(chunks);
  }
  await target.sync();
  for await (const { offset, content } of undo.records()) {
    stop.throwIfAborted();
    const bytes = memory.subarray(0, content.length);
    const got = await target.read(bytes, offset);
    if (got === content.length && Buffer.compare(bytes, content) === 0) continue;
    const { path } = target;
    const message = `${path} gives back other bytes at ${offset} than were put there`;
    throw new UnderstudyError('ERR_FAILBACK_MISMATCH', message, { path, offset });
  }
  return { chunks, writtenBytes, tornBytes: await undo.tornBytes() };
}
