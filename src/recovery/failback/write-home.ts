/**
 * Makes a disk equal to a volume at a point by writing only the chunks that differ: what the disk holds is
 * read and digested, staging is asked which digests are not the point's, and only these chunks are fetched
 * and written. Interrupted at any moment it leaves a disk that the next run makes equal: nothing is
 * remembered, everything is compared. What is overwritten is kept before (undo-file.ts), where wanted.
 */
import { hash } from 'node:crypto';
import { alignedMemory } from '../../base/aligned.ts';
import type { DiskFile } from '../../base/disk.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { CHUNK_BYTES, chunkCount, chunkLength, type Extent } from '../../model/geometry.ts';
import type { ChunkComparison } from '../../store/types.ts';
import type { UndoFile } from './undo-file.ts';

/** A volume at a point, as a service or a repository gives it. */
export interface HomeSource {
  readonly sizeBytes: number;
  compare(first: number, digests: Uint8Array): Promise<ChunkComparison>;
  read(offset: number, length: number): Promise<Uint8Array>;
}

export type HomeStage = 'comparing' | 'verifying';
export interface HomeOptions {
  readonly undo: Pick<UndoFile, 'keep'> | null;
  readonly stop: AbortSignal;
  readonly onProgress: (stage: HomeStage, done: number, total: number) => void;
  /** Told of each stretch before it is written. */
  readonly onWrite?: (stretch: Extent) => void;
}

export interface HomeReport {
  /** Chunks looked at, and those that were not the point's. */
  readonly chunks: number;
  readonly different: number;
  readonly writtenBytes: number;
  /** Of them, what came from staging; the rest is zeros. */
  readonly fetchedBytes: number;
}

/** Chunks of one question to staging; their bytes lie in memory, twice. */
const BATCH_CHUNKS = 512;
/** One fetch, and how many run at a time. */
const RUN_CHUNKS = 64;
const FETCHES = 4;

interface Batch {
  readonly first: number;
  readonly count: number;
}

/** Batches that cover the extents (of whole chunks, ascending). */
async function* batchesOf(
  sizeBytes: number,
  extents: Iterable<Extent> | AsyncIterable<Extent> | null,
): AsyncGenerator<Batch> {
  for await (const { offset, length } of extents ?? [{ offset: 0, length: sizeBytes }]) {
    const end = chunkCount(offset + length);
    for (let first = Math.floor(offset / CHUNK_BYTES); first < end; first += BATCH_CHUNKS) {
      yield { first, count: Math.min(BATCH_CHUNKS, end - first) };
    }
  }
}

const isSet = (map: Uint8Array, bit: number): boolean => ((map[bit >> 3]! >> (bit & 7)) & 1) === 1;

/** One disk and one point. Two batches are in memory: while staging is asked of one, the next is read. */
class Walk {
  private readonly source: HomeSource;
  private readonly target: DiskFile;
  private readonly memory = [0, 1].map(() => alignedMemory(BATCH_CHUNKS * CHUNK_BYTES));
  private readonly stop: AbortSignal;

  constructor(source: HomeSource, target: DiskFile, stop: AbortSignal) {
    this.source = source;
    this.target = target;
    this.stop = stop;
  }

  /** Calls `use` with each batch, what the disk holds there, and what staging says of it. */
  async through(
    extents: Iterable<Extent> | AsyncIterable<Extent> | null,
    use: (batch: Batch, bytes: Uint8Array, found: ChunkComparison) => Promise<void>,
  ): Promise<void> {
    let asked: Promise<[Batch, Uint8Array, ChunkComparison]> | null = null;
    let turn = 0;
    const finish = async () => {
      if (asked !== null) await use(...(await asked));
      asked = null;
    };
    for await (const batch of batchesOf(this.source.sizeBytes, extents)) {
      this.stop.throwIfAborted();
      const bytes = await this.read(batch, this.memory[turn % 2]!);
      turn += 1;
      await finish();
      asked = this.ask(batch, bytes);
      // Awaited in the next turn; a failure before that is not unhandled.
      asked.catch(() => undefined);
    }
    await finish();
  }

  private async read({ first, count }: Batch, memory: Uint8Array): Promise<Uint8Array> {
    const at = first * CHUNK_BYTES;
    const bytes = memory.subarray(0, Math.min(count * CHUNK_BYTES, this.source.sizeBytes - at));
    const got = await this.target.read(bytes, at);
    if (got === bytes.length) return bytes;
    const { path } = this.target;
    throw new UnderstudyError('ERR_DISK_IO', `${path} ends at byte ${at + got}`, { path });
  }

  private async ask(
    batch: Batch,
    bytes: Uint8Array,
  ): Promise<[Batch, Uint8Array, ChunkComparison]> {
    const digests = Buffer.alloc(32 * batch.count);
    for (let i = 0; i < batch.count; i += 1) {
      const chunk = bytes.subarray(i * CHUNK_BYTES, (i + 1) * CHUNK_BYTES);
      hash('sha256', chunk, 'buffer').copy(digests, 32 * i);
    }
    return [batch, bytes, await this.source.compare(batch.first, digests)];
  }
}

/**
 * Writes what differs, of all the volume or of `extents` alone, and syncs. Throws what source and target
 * throw; `stop` ends it between two batches.
 */
export async function writeHome(
  source: HomeSource,
  target: DiskFile,
  extents: Iterable<Extent> | AsyncIterable<Extent> | null,
  { undo, stop, onProgress, onWrite = () => undefined }: HomeOptions,
): Promise<HomeReport> {
  const report = { chunks: 0, different: 0, writtenBytes: 0, fetchedBytes: 0 };
  const total = chunkCount(source.sizeBytes);
  const walk = new Walk(source, target, stop);
  await walk.through(extents, async (batch, bytes, found) => {
    report.chunks += batch.count;
    const difference = { batch, bytes, found };
    if (found.count > 0) await writeBatch(source, target, { undo, onWrite }, difference, report);
    onProgress('comparing', Math.min(report.chunks, total) * CHUNK_BYTES, total * CHUNK_BYTES);
  });
  await target.sync();
  return report;
}

async function writeBatch(
  source: HomeSource,
  target: DiskFile,
  { undo, onWrite }: Required<Pick<HomeOptions, 'undo' | 'onWrite'>>,
  { batch, bytes, found }: { batch: Batch; bytes: Uint8Array; found: ChunkComparison },
  report: { different: number; writtenBytes: number; fetchedBytes: number },
): Promise<void> {
  const chunks = Array.from({ length: batch.count }, (_, i) => i).filter((i) =>
    isSet(found.different, i),
  );
  const part = (i: number) =>
    bytes.subarray(
      i * CHUNK_BYTES,
      i * CHUNK_BYTES + chunkLength(batch.first + i, source.sizeBytes),
    );
  const offsetOf = (i: number) => (batch.first + i) * CHUNK_BYTES;
  // Before anything is overwritten, and before the memory is used again.
  await undo?.keep(chunks.map((i) => ({ offset: offsetOf(i), content: part(i) })));
  const wanted = chunks.filter((i) => !isSet(found.zero, i));
  for (const i of chunks) if (isSet(found.zero, i)) part(i).fill(0);
  await inParallel(runsOf(wanted), async (run) => {
    const [start, end] = [run[0]!, run.at(-1)!];
    const length = offsetOf(end) + part(end).length - offsetOf(start);
    const fetched = await source.read(offsetOf(start), length);
    bytes.set(fetched, start * CHUNK_BYTES);
    report.fetchedBytes += fetched.length;
  });
  for (const run of runsOf(chunks)) {
    const [start, end] = [run[0]!, run.at(-1)!];
    const piece = bytes.subarray(start * CHUNK_BYTES, end * CHUNK_BYTES + part(end).length);
    onWrite({ offset: offsetOf(start), length: piece.length });
    await target.write([piece], offsetOf(start));
    report.writtenBytes += piece.length;
  }
  report.different += chunks.length;
}

/** Neighbours together. */
function runsOf(chunks: readonly number[]): number[][] {
  const runs: number[][] = [];
  for (const chunk of chunks) {
    const last = runs.at(-1);
    if (last !== undefined && last.at(-1) === chunk - 1 && last.length < RUN_CHUNKS) {
      last.push(chunk);
    } else runs.push([chunk]);
  }
  return runs;
}

async function inParallel<Item>(
  items: readonly Item[],
  work: (item: Item) => Promise<void>,
): Promise<void> {
  const queue = [...items];
  const worker = async () => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: FETCHES }, worker));
}

/**
 * Reads the target back, all of it or `extents` alone, and compares it. ERR_FAILBACK_MISMATCH names the first
 * chunk that is not right.
 */
export async function verifyHome(
  source: HomeSource,
  target: DiskFile,
  extents: readonly Extent[] | null,
  { stop, onProgress }: Pick<HomeOptions, 'stop' | 'onProgress'>,
): Promise<{ chunks: number }> {
  const all = [{ offset: 0, length: source.sizeBytes }];
  const total = (extents ?? all).reduce((sum, { length }) => sum + chunkCount(length), 0);
  let chunks = 0;
  await new Walk(source, target, stop).through(extents, async (batch, _bytes, found) => {
    if (found.count > 0) {
      const first = Array.from({ length: batch.count }).findIndex((_, i) =>
        isSet(found.different, i),
      );
      const offset = (batch.first + first) * CHUNK_BYTES;
      const { path } = target;
      const message = `${path} differs from the point at byte ${offset} (${found.count} chunks there)`;
      throw new UnderstudyError('ERR_FAILBACK_MISMATCH', message, { path, offset });
    }
    chunks += batch.count;
    onProgress('verifying', chunks * CHUNK_BYTES, total * CHUNK_BYTES);
  });
  return { chunks };
}
