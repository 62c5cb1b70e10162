/**
 * A volume as an EBS snapshot, by the EBS direct API: started, its blocks put, sealed, and waited for until
 * EC2 calls it completed. Every step is written down before it is made and can be made again, so a run that
 * was killed anywhere is gone on with by the next one with the same journal.
 *
 * Without a parent, blocks of zeros are left out: what was never put reads as zero. With a parent, every
 * block of the ranges that changed is put, zeros too: else the parent's block would come back.
 */

import type { Clock } from '../../base/clock.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { formatDuration } from '../../base/units.ts';
import type { Extent } from '../../model/geometry.ts';
import { isZeroFilled } from '../../store/images/image-digests.ts';
import type { BlockImage } from '../image-overlay.ts';
import type { AwsConnection } from './aws-connection.ts';
import { blocksOf, extentsOf, readBlock, sha256 } from './block-image.ts';
import { EbsCalls } from './ebs-calls.ts';
import { Ec2Calls } from './ec2-calls.ts';
import { Frontier } from './frontier.ts';
import type { Lane } from './put-quota.ts';
import { pause } from './retry.ts';
import { sha256Finish } from './running-sha256.ts';
import {
  advanced,
  newRecord,
  startedOver,
  startRequest,
  type UploadRecord,
  type UploadRequest,
  withPhase,
} from './upload-record.ts';

/** Where the record of an upload lives; `save` resolves once it would survive a crash. */
export interface UploadJournal {
  load(): Promise<UploadRecord | null>;
  save(record: UploadRecord): Promise<void>;
}

export interface UploadOptions {
  readonly image: BlockImage;
  readonly request: UploadRequest;
  /** With a parent: what differs from it, ascending, each time the same. */
  readonly changed: (() => AsyncIterable<Extent> | Iterable<Extent>) | null;
  readonly journal: UploadJournal;
  readonly lane: Lane;
  readonly stop: AbortSignal;
  /** Puts under way at once; each holds a block of 512 KiB. */
  readonly concurrency?: number;
  /** How long AWS may take to complete a sealed snapshot. */
  readonly completionMs?: number;
  readonly onProgress?: (doneBytes: number, putBlocks: number) => void;
  readonly onNote?: (text: string) => void;
}

export const DEFAULT_CONCURRENCY = 64;
const COMPLETION_MS = 6 * 3600e3;
const SAVE_EVERY_MS = 2000;
const POLL_FIRST_MS = 1000;
const POLL_CAP_MS = 15_000;
/** So long a snapshot that refuses to be sealed again may take to show that it was sealed before. */
const SEALED_BEFORE_MS = 120_000;

export interface UploadedSnapshot {
  readonly snapshotId: string;
  readonly putBlocks: number;
}

/** Throws ERR_AWS_*, ERR_EC2_SNAPSHOT_GONE, ERR_EC2_SNAPSHOT_FAILED, and what the image and journal throw. */
export async function uploadSnapshot(
  aws: AwsConnection,
  options: UploadOptions,
): Promise<UploadedSnapshot> {
  return new Upload(aws, options).run();
}

class Upload {
  private readonly options: UploadOptions;
  private readonly clock: Clock;
  private readonly ebs: EbsCalls;
  private readonly ec2: Ec2Calls;
  private record: UploadRecord;
  private isNew = false;

  constructor(aws: AwsConnection, options: UploadOptions) {
    this.options = options;
    this.clock = aws.world.clock;
    this.ebs = new EbsCalls(aws, options.stop);
    this.ec2 = new Ec2Calls(aws, options.stop);
    this.record = newRecord(options.request);
  }

  async run(): Promise<UploadedSnapshot> {
    const { journal } = this.options;
    const held = await journal.load();
    if (held === null) await this.save(this.record);
    else this.record = fitting(held, this.options.request);
    this.isNew = this.record.putBlocks === 0;
    if (this.record.snapshotId !== null) await this.lookAgain(this.record.snapshotId);
    if (this.record.phase === 'planned') await this.start();
    if (this.record.phase === 'putting') await this.putAll();
    if (this.record.phase === 'completing') await this.complete();
    return { snapshotId: this.record.snapshotId!, putBlocks: this.record.putBlocks };
  }

  private async save(record: UploadRecord): Promise<void> {
    this.record = record;
    await this.options.journal.save(record);
  }

  /** A snapshot of an earlier run may be gone or given up by now: then another one is begun. */
  private async lookAgain(snapshotId: string): Promise<void> {
    const state = (await this.ec2.snapshot(snapshotId))?.State;
    if (state === 'pending' || state === 'completed') return;
    const what = state === undefined ? 'is gone' : `is in state ${state}`;
    this.options.onNote?.(`${snapshotId} ${what}: its upload begins anew`);
    // Deleted before it is forgotten.
    if (state !== undefined) await this.ec2.deleteSnapshot(snapshotId);
    await this.save(startedOver(this.record));
  }

  private async start(): Promise<void> {
    const snapshotId = await this.ebs.start(startRequest(this.record));
    if (snapshotId === null) {
      const parent = this.record.request.parentSnapshotId;
      const message = `the parent snapshot ${parent} is gone: a new chain has to begin`;
      throw new UnderstudyError('ERR_EC2_SNAPSHOT_GONE', message);
    }
    await this.save({ ...withPhase(this.record, 'putting'), snapshotId });
  }

  private async putAll(): Promise<void> {
    const { image, changed, concurrency = DEFAULT_CONCURRENCY } = this.options;
    const extents = changed === null ? extentsOf(image) : changed();
    const blocks = blocksOf(extents, image.sizeBytes, this.record.nextBlock);
    const frontier = new Frontier(this.record.nextBlock);
    const failure = new AbortController();
    const stop = AbortSignal.any([this.options.stop, failure.signal]);
    const keeper = this.keepRecord(frontier, stop, (error) => failure.abort(error));
    const worker = async () => {
      try {
        for (;;) {
          stop.throwIfAborted();
          const { value: index, done } = await blocks.next();
          if (done === true) return;
          const ended = frontier.begin(index);
          ended(await this.putBlock(index, stop));
        }
      } catch (error) {
        failure.abort(error);
      }
    };
    await Promise.all(Array.from({ length: concurrency }, worker));
    await keeper.end();
    stop.throwIfAborted();
    await this.save(withPhase(this.record, 'completing'));
  }

  /** The block's digest; null where it was left out. */
  private async putBlock(index: number, stop: AbortSignal): Promise<Buffer | null> {
    const leave = await this.options.lane.room(stop);
    try {
      return await this.putInRoom(index, stop);
    } finally {
      leave();
    }
  }

  private async putInRoom(index: number, stop: AbortSignal): Promise<Buffer | null> {
    const { image, changed, lane } = this.options;
    const bytes = await readBlock(image, index);
    if (changed === null && isZeroFilled(bytes)) return null;
    const digest = await sha256(bytes);
    const snapshotId = this.record.snapshotId!;
    const { meaning } = await this.ebs.put(
      { snapshotId, index, bytes, digest },
      { isNew: this.isNew, stop, take: (signal) => lane.take(signal) },
    );
    if (meaning === 'not-found') {
      const message = `${snapshotId} is gone: deleted, or without blocks for too long`;
      throw new UnderstudyError('ERR_EC2_SNAPSHOT_GONE', message);
    }
    this.isNew = false;
    return digest;
  }

  /** Writes down from time to time, and at the end, how far all blocks are put. */
  private keepRecord(
    frontier: Frontier,
    stop: AbortSignal,
    fail: (error: unknown) => void,
  ): { end: () => Promise<void> } {
    const ended = new AbortController();
    const save = async () => {
      const { next, digests } = frontier.take();
      if (next === this.record.nextBlock) return;
      await this.save(advanced(this.record, next, digests));
      const { onProgress, image } = this.options;
      onProgress?.(Math.min(next * 2 ** 19, image.sizeBytes), this.record.putBlocks);
    };
    const tick = async () => {
      const over = AbortSignal.any([ended.signal, stop]);
      while (!over.aborted) {
        await pause(this.clock, SAVE_EVERY_MS, over).catch(() => undefined);
        await save();
      }
    };
    const ticking = tick().catch(fail);
    return {
      end: async () => {
        ended.abort();
        await ticking;
        await save();
      },
    };
  }

  private async complete(): Promise<void> {
    const { putBlocks, checksum, snapshotId } = this.record;
    const id = snapshotId!;
    // A run before this one may have sealed it, and been killed before it heard so.
    if ((await this.ec2.snapshot(id))?.State !== 'completed') {
      const { refusal } = await this.ebs.complete(id, putBlocks, sha256Finish(checksum));
      const { completionMs = COMPLETION_MS } = this.options;
      await this.completed(id, refusal === null ? completionMs : SEALED_BEFORE_MS, refusal);
    }
    await this.save(withPhase(this.record, 'completed'));
  }

  /** `refusal`: of a snapshot that would not be sealed; it stands unless the snapshot completes soon. */
  private async completed(
    id: string,
    limitMs: number,
    refusal: UnderstudyError | null,
  ): Promise<void> {
    const untilMs = this.clock.monotonicMs() + limitMs;
    for (let waitMs = POLL_FIRST_MS; ; waitMs = Math.min(POLL_CAP_MS, waitMs * 1.5)) {
      const snapshot = await this.ec2.snapshot(id);
      if (snapshot?.State === 'completed') return;
      if (snapshot === null) {
        throw new UnderstudyError('ERR_EC2_SNAPSHOT_GONE', `${id} is gone: deleted`);
      }
      if (snapshot.State !== 'pending') {
        const why = snapshot.StateMessage ?? '';
        const message = `${id} is in state ${snapshot.State} ${why}`.trim();
        throw new UnderstudyError('ERR_EC2_SNAPSHOT_FAILED', message);
      }
      if (this.clock.monotonicMs() > untilMs) {
        if (refusal !== null) throw refusal;
        const message = `${id} is pending after ${formatDuration(limitMs)}`;
        throw new UnderstudyError('ERR_EC2_SNAPSHOT_FAILED', message);
      }
      await pause(this.clock, waitMs, this.options.stop);
    }
  }
}

/** The record of this very request: with another parent, other blocks would have to be put. */
function fitting(held: UploadRecord, request: UploadRequest): UploadRecord {
  const told = held.request;
  const isSame =
    told.key === request.key &&
    told.sizeGiB === request.sizeGiB &&
    told.parentSnapshotId === request.parentSnapshotId;
  if (isSame) return held;
  const message = `the record is of the upload ${told.key} (${told.sizeGiB} GiB), not ${request.key}`;
  throw new UnderstudyError('ERR_EC2_RECORD', message);
}
