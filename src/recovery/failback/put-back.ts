/**
 * Puts a disk back as it was before a failback wrote to it, from what the undo file keeps; then reads every
 * chunk that was put back, and compares. May be interrupted and begun again. Once it has ended the disk may
 * have been used, and what the file keeps is too old for it: it is not put back a second time unasked.
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

export interface PutBackOptions {
  /** The target as the operator names it. */
  readonly to: string;
  /** ISO 8601. */
  readonly now: () => string;
  /** Also where it was put back already. */
  readonly isAgain: boolean;
  readonly stop: AbortSignal;
  readonly onChunk: (chunks: number) => void;
}

/** ERR_UNDO_FILE where all of it was put back already, and that is not wanted again. */
export function refuseAgain({ last, title }: OpenUndo, isAgain: boolean): void {
  if (last?.event !== 'done' || isAgain) return;
  const what = `it was put back on ${last.target} (${last.time}), and no run has filled it since`;
  const why = 'what was written there meanwhile would be lost: --again puts it back once more';
  const message = `${title.volume} of ${title.server}: ${what}; ${why}`;
  throw new UnderstudyError('ERR_UNDO_FILE', message);
}

/** ERR_UNDO_FILE, ERR_FAILBACK_MISMATCH, and what the target throws. */
export async function putBack(
  undo: OpenUndo,
  target: DiskFile,
  { to, now, isAgain, stop, onChunk }: PutBackOptions,
): Promise<PutBackReport> {
  refuseAgain(undo, isAgain);
  await undo.mark('begun', to, now());
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
  await undo.mark('done', to, now());
  return { chunks, writtenBytes, tornBytes: await undo.tornBytes() };
}
