/**
 * The journal: where everything that arrives is written once and made durable (P4). Appends are queued
 * and written in order by one writer, many at a time; callers of `durable` share one fdatasync of the
 * segment and one of the watermark. A segment is ended at its size or on demand and handed on to be sealed.
 *
 * Failures: a full disk rejects the appends of that batch with ERR_DISK_FULL, the segment is cut back to
 * its last whole record, and the next append tries again. Any other failed write, a cut that fails, and
 * every failed sync, also one that says the disk is full, is fatal: what was written may be lost though it
 * still reads well. Nothing is synced or acknowledged after it and every call rejects with
 * ERR_STORE_FAILED.
 * Does not know what entries and commits mean; see ingest.ts, replay.ts and sealer.ts.
 */
import type { Disk } from '../../base/disk.ts';
import { UnderstudyError } from '../../base/errors.ts';
import type { Paths } from '../format/layout.ts';
import { Mutex } from '../mutex.ts';
import { MAX_PACK_BYTES } from '../packs/digest-table.ts';
import type { Batch, Segment } from '../packs/segment.ts';
import type { Watermark } from './watermark.ts';

/** Most bytes of one write call. */
const MAX_WRITE_BYTES = 16 * 1024 * 1024;
/** A segment is ended once the next write would pass its size; offsets beyond must still fit a u32. */
const MAX_SEGMENT_BYTES = MAX_PACK_BYTES / 2;

interface Append {
  readonly batch: Batch;
  readonly bytes: number;
  readonly resolve: (segment: Segment) => void;
  readonly reject: (error: unknown) => void;
}

interface Waiter {
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

interface SyncWaiter extends Waiter {
  /** Appends that were queued before it. */
  readonly after: number;
}

interface JournalOptions {
  readonly disk: Disk;
  readonly paths: Paths;
  readonly segmentBytes: number;
  readonly watermark: Watermark;
  /** Sequence of the next segment. */
  readonly nextSequence: number;
  /** Makes a segment's file, table and number. */
  readonly createSegment: (sequence: number) => Promise<Segment>;
  /** Called once a segment is ended and durable. */
  readonly onEnded: (segment: Segment) => void;
  readonly onFailed: (error: UnderstudyError) => void;
}

const isFull = (error: unknown): boolean =>
  error instanceof UnderstudyError && error.code === 'ERR_DISK_FULL';

export class Journal {
  private readonly options: JournalOptions;
  private active: Segment | null = null;
  private nextSequence: number;
  private queue: Append[] = [];
  /** Appends that were ever queued, and those of them that are written or rejected. */
  private queued = 0;
  private settled = 0;
  private syncWaiters: SyncWaiter[] = [];
  private endWaiters: Waiter[] = [];
  private isWriting = false;
  private isSyncing = false;
  /** Syncs one after the other; the end of a segment takes its turn among them. */
  private readonly syncs = new Mutex();
  private failure: UnderstudyError | null = null;
  private onStopped: (error: UnderstudyError) => void = () => undefined;

  constructor(options: JournalOptions) {
    if (!(options.segmentBytes <= MAX_SEGMENT_BYTES)) {
      const message = `segments of ${options.segmentBytes} bytes: at most ${MAX_SEGMENT_BYTES}`;
      throw new UnderstudyError('ERR_USAGE', message);
    }
    this.options = options;
    this.nextSequence = options.nextSequence;
  }

  get activeSequence(): number {
    return this.active?.sequence ?? this.nextSequence;
  }

  get activeBytes(): number {
    return this.active?.size ?? 0;
  }

  /** Resolves with the segment once written (visible, not yet durable). */
  append(batch: Batch): Promise<Segment> {
    const bytes = batch.pieces.reduce((sum, piece) => sum + piece.stored.length, 0);
    return new Promise((resolve, reject) => {
      if (this.failure !== null) return reject(this.failure);
      this.queue.push({ batch, bytes, resolve, reject });
      this.queued += 1;
      this.kickWriter();
    });
  }

  /** Resolves once everything appended before the call is acknowledged: synced, and the watermark too. */
  durable(): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.failure !== null) return reject(this.failure);
      this.syncWaiters.push({ after: this.queued, resolve, reject });
      this.kickSync();
    });
  }

  /** Ends the active segment if it holds anything; resolves once it is durable and handed on. */
  end(): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.failure !== null) return reject(this.failure);
      this.endWaiters.push({ resolve, reject });
      this.kickWriter();
    });
  }

  /** Says that segments below `first` are no longer needed; durable once it resolves. */
  async advance(first: number): Promise<void> {
    if (this.failure !== null) throw this.failure;
    try {
      await this.options.watermark.update({ first });
    } catch (error) {
      throw this.fail(error);
    }
  }

  /** Makes every later call reject; used for a failure of what depends on the journal, too. */
  fail(cause: unknown): UnderstudyError {
    if (this.failure === null) {
      const detail = cause instanceof Error ? cause.message : String(cause);
      this.failure = new UnderstudyError(
        'ERR_STORE_FAILED',
        `the store stopped: ${detail}`,
        {},
        cause,
      );
      this.options.onFailed(this.failure);
      this.onStopped(this.failure);
    }
    this.rejectAll(this.failure);
    return this.failure;
  }

  /** Called once it has failed, also where nobody asks for anything; at once where it has already. */
  watchFailure(listener: (error: UnderstudyError) => void): void {
    this.onStopped = listener;
    if (this.failure?.code === 'ERR_STORE_FAILED') listener(this.failure);
  }

  /** What comes later is refused, and what waits; a write that is under way is let end. */
  async close(): Promise<void> {
    this.failure ??= new UnderstudyError('ERR_STORE_CLOSED', 'the store is closed');
    this.rejectAll(this.failure);
    await this.active?.file.close();
    await this.options.watermark.close();
  }

  private rejectAll(failure: UnderstudyError): void {
    for (const { reject } of this.queue.splice(0)) reject(failure);
    for (const { reject } of this.syncWaiters.splice(0)) reject(failure);
    for (const { reject } of this.endWaiters.splice(0)) reject(failure);
  }

  private kickWriter(): void {
    if (this.isWriting) return;
    this.isWriting = true;
    this.runWriter().catch((error: unknown) => this.fail(error));
  }

  /** Writes what is queued; ends the segment once nothing is and somebody wants it. */
  private async runWriter(): Promise<void> {
    try {
      while (this.failure === null && this.queue.length + this.endWaiters.length > 0) {
        if (this.queue.length > 0) await this.writeSome();
        else await this.endWanted();
        this.kickSync();
      }
    } finally {
      this.isWriting = false;
    }
  }

  private async writeSome(): Promise<void> {
    const appends: Append[] = [];
    let bytes = 0;
    while (this.queue.length > 0 && (appends.length === 0 || bytes < MAX_WRITE_BYTES)) {
      const next = this.queue.shift()!;
      appends.push(next);
      bytes += next.bytes;
    }
    try {
      await this.write(appends, bytes);
    } catch (error) {
      const reason = isFull(error) ? error : this.fail(error);
      for (const { reject } of appends) reject(reason);
    }
    this.settled += appends.length;
  }

  private kickSync(): void {
    if (this.isSyncing) return;
    this.isSyncing = true;
    this.runSync().catch((error: unknown) => this.fail(error));
  }

  /** One sync for all who wait for what is written by now; writing goes on meanwhile. */
  private async runSync(): Promise<void> {
    try {
      for (;;) {
        const isReady = ({ after }: SyncWaiter) => after <= this.settled;
        const ready = this.syncWaiters.filter(isReady);
        if (ready.length === 0 || this.failure !== null) return;
        this.syncWaiters = this.syncWaiters.filter((waiter) => !isReady(waiter));
        try {
          await this.syncs.run(() => this.syncActive());
        } catch (failure) {
          for (const { reject } of ready) reject(failure);
          return;
        }
        for (const { resolve } of ready) resolve();
      }
    } finally {
      this.isSyncing = false;
    }
  }

  private async write(appends: readonly Append[], pieceBytes: number): Promise<void> {
    const { segmentBytes } = this.options;
    if (this.active !== null && this.active.size + pieceBytes > segmentBytes)
      await this.endActive();
    if (this.active === null) await this.openNext();
    const segment = this.active!;
    const start = segment.size;
    let end = start;
    const prepared = appends.map(({ batch }) => {
      const part = segment.prepare(batch, end);
      end += part.bytes;
      return part;
    });
    try {
      await segment.file.write(
        prepared.flatMap(({ buffers }) => buffers),
        start,
      );
    } catch (error) {
      segment.forgetWrite();
      throw await this.cutBack(segment, error);
    }
    let at = start;
    for (const [i, { batch, resolve }] of appends.entries()) {
      segment.register(batch, at);
      at += prepared[i]!.bytes;
      segment.size = at;
      resolve(segment);
    }
  }

  private async openNext(): Promise<void> {
    this.active = await this.options.createSegment(this.nextSequence);
    this.nextSequence += 1;
  }

  /** Makes everything written so far acknowledged. Whatever fails here fails the store. */
  private async syncActive(): Promise<void> {
    if (this.failure !== null) throw this.failure; // of the sync before, whose turn came first
    if (this.active === null) return;
    const { sequence, size, file } = this.active;
    const { mark } = this.options.watermark;
    if (mark.last === sequence && mark.offset === size) return;
    try {
      await file.sync();
      await this.options.watermark.update({ last: sequence, offset: size });
    } catch (error) {
      throw this.fail(error);
    }
  }

  private async endWanted(): Promise<void> {
    const waiters = this.endWaiters.splice(0);
    try {
      if (this.active !== null) await this.endActive();
    } catch (error) {
      const reason = isFull(error) ? error : this.fail(error);
      for (const { reject } of waiters) reject(reason);
      return;
    }
    for (const { resolve } of waiters) resolve();
  }

  /** After this the segment is whole and durable, and the watermark says so. */
  private async endActive(): Promise<void> {
    const segment = this.active!;
    if (!segment.isEnded) {
      try {
        await segment.end();
      } catch (error) {
        throw await this.cutBack(segment, error);
      }
    }
    await this.syncs.run(() => this.syncActive());
    this.active = null;
    this.options.onEnded(segment);
  }

  /** After a write for which there was no room: no part of it stays. Returns what is to be thrown. */
  private async cutBack(segment: Segment, error: unknown): Promise<unknown> {
    if (!isFull(error)) return error;
    try {
      await segment.file.truncate(segment.size);
    } catch (reason) {
      return this.fail(reason); // what is left of the write would lie behind whole records
    }
    return error;
  }
}
