/**
 * From filled buffers to batches on their way to staging: picks the chunks out of a buffer, has the
 * pipeline work on them, puts offers and patches into the outbox in the order of the reads, and gives
 * each buffer back when what came of it has been sent. Main-thread code: it touches batches, not bytes.
 */
import { assert } from '../base/errors.ts';
import { encodeEntries } from '../model/entry-codec.ts';
import { BLOCK_BYTES, chunkCount, DIGEST_BYTES } from '../model/geometry.ts';
import type { FilledBuffer } from '../native/types.ts';
import { encodeMessage } from '../protocol/codec.ts';
import { EpochDigests } from '../protocol/epoch-digests.ts';
import type { Answer, Commit } from '../protocol/messages.ts';
import { batchesOf, type ChunkPart, type VolumeBatch } from './batch.ts';
import type { BufferHolds, Hold } from './buffer-holds.ts';
import { type BuiltPatch, type Digested, frameOverheadBytes } from './content-work.ts';
import {
  changedOnly,
  type Hole,
  nameParts,
  OfferItem,
  OpenOffers,
  type WantedPiece,
} from './offers.ts';
import type { Outbox } from './outbox.ts';
import type { Pipeline } from './pipeline.ts';
import type { ScanTable } from './scan-table.ts';
import { Speculation } from './speculation.ts';
import type { SyncCursor } from './sync-cursor.ts';

export interface FeederPorts {
  readonly pipeline: Pipeline;
  readonly outbox: Outbox;
  readonly holds: BufferHolds;
  sizeBytes(volume: number): number;
  /** All of the volume's sync below `chunk` has been offered, answered and sent. */
  onSyncSent(volume: number, chunk: number): void;
  onFailure(error: unknown): void;
}

/** The slice of a sync that is being read. */
export interface OpenSlice {
  readonly volume: number;
  readonly cursor: SyncCursor;
  /** The sync cursor goes along with the offers. */
  readonly isResumable: boolean;
  /** Set for scanned volumes: offers only what differs from it. */
  readonly table: ScanTable | null;
  hasChanged: boolean;
  /** Up to where the cursor had come with the last batch that was sent without asking. */
  toldChunk: number;
}

/** A commit without its digests. */
export type CommitPlan = Omit<Commit, 'volumes'> & {
  readonly volumes: readonly Omit<Commit['volumes'][number], 'contentDigest'>[];
};

const nothing: Digested = { digests: new Uint8Array(0), zeros: new Uint8Array(0) };

export class Feeder {
  readonly digests = new EpochDigests();
  /** Since the process began. */
  readonly counts = { dedupeHits: 0, neededChunks: 0, patchedBytes: 0 };
  private readonly ports: FeederPorts;
  private readonly offers = new OpenOffers();
  private speculation = new Speculation();
  /** Numbers the sessions: what was begun in a former one must not reach this one. */
  private session = 0;
  private digesting: Promise<void>[] = [];

  constructor(ports: FeederPorts) {
    this.ports = ports;
  }

  /** Something that was sent has not been answered, or is not durable yet. */
  get isWaiting(): boolean {
    return this.offers.isAnyOpen || this.ports.outbox.inFlightBytes > 0;
  }

  /** The session has ended. */
  reset(): void {
    this.session += 1;
    this.ports.outbox.drop();
    this.offers.clear();
    this.digests.clear();
    this.speculation = new Speculation();
    this.digesting = [];
    this.ports.holds.dropAll();
  }

  /** A buffer whose session is gone. */
  discard(filled: FilledBuffer): void {
    this.ports.holds.take(filled.buffer, 1)[0]!.letGo();
  }

  /** A buffer of a drain or a cut: everything in it is sent unasked. */
  feedPatches(filled: FilledBuffer): void {
    const batches = this.batches(filled);
    if (batches.length === 0) this.discard(filled);
    const holds = batches.length === 0 ? [] : this.ports.holds.take(filled.buffer, batches.length);
    let frameAt = 0;
    for (const [i, batch] of batches.entries()) {
      holds[i]!.frameAt = frameAt;
      frameAt += frameBytes(batch.parts);
      this.patch(holds[i]!, batch);
    }
  }

  /** A buffer of a sync: whole chunks are offered (or told), holes before them are told. */
  feedSlice(filled: FilledBuffer, slice: OpenSlice): void {
    const batches = this.batches(filled);
    assert(batches.length <= 1, 'a slice of a sync is of one volume');
    const parts = batches[0]?.parts ?? [];
    const end = parts.at(-1)?.chunk ?? -1;
    const holes = slice.cursor.holesBefore(end);
    cover(slice.cursor, parts, holes);
    const isFirst = slice.isResumable && slice.table === null && parts.length > 0;
    if (isFirst && holes.length === 0 && this.speculation.mayTell()) {
      slice.toldChunk = slice.cursor.chunk;
      const [hold] = this.ports.holds.take(filled.buffer, 1);
      this.patch(hold!, { volume: slice.volume, parts });
      return;
    }
    const partial = parts.filter((part) => part.mask !== 0);
    const whole = parts.filter((part) => part.mask === 0);
    const [first, second] = this.ports.holds.take(filled.buffer, partial.length > 0 ? 2 : 1);
    if (second !== undefined) {
      slice.hasChanged = true;
      first!.frameAt = frameBytes(partial);
      this.patch(second, { volume: slice.volume, parts: partial });
    }
    this.offer(first!, slice, whole, holes);
  }

  /** The slice has been read: tells the holes that are left. Resolves when `hasChanged` is known. */
  async endSlice(slice: OpenSlice): Promise<void> {
    const holes = slice.cursor.holesBefore(Number.POSITIVE_INFINITY);
    cover(slice.cursor, [], holes);
    // What was told moves the cursor by an offer that says nothing more.
    const isTold = slice.toldChunk === slice.cursor.chunk;
    if (holes.length > 0 || isTold) this.offer(null, slice, [], holes);
    const digesting = this.digesting;
    this.digesting = [];
    if (slice.table !== null) await Promise.all(digesting);
  }

  /** Goes out after all that was taken in before, once no offer of its volumes is open. */
  commit(plan: CommitPlan, onSent: (sent: Commit) => void): void {
    let sent: Commit | null = null;
    this.ports.outbox.add({
      isReady: true,
      seq: null,
      isNumbered: false,
      isNeeded: true,
      roomBytes: 0,
      isHeld: () => plan.volumes.some(({ volume }) => this.offers.isOpen(volume)),
      frame: () => {
        const volumes = plan.volumes.map((each) => ({
          ...each,
          contentDigest: this.digests.current(each.volume),
        }));
        sent = { ...plan, volumes };
        return encodeMessage(sent);
      },
      onSent: () => onSent(sent!),
    });
    this.ports.outbox.pump();
  }

  /** False where the answer fits no offer: the peer is broken. */
  answered(answer: Answer): boolean {
    const { outbox, pipeline } = this.ports;
    const offer = this.offers.take(answer.seq);
    if (offer === undefined || answer.need.length !== offer.wanted.length) return false;
    const wanted = offer.wanted.filter((_, i) => answer.need[i] !== 0);
    this.speculation.answered(offer.wanted.length, wanted.length);
    this.counts.neededChunks += wanted.length;
    this.counts.dedupeHits += offer.wanted.length - wanted.length;
    const hold = offer.hold;
    if (wanted.length === 0 || hold === null) {
      offer.letGo();
      this.finish(offer);
      outbox.settle(answer.seq);
      return true;
    }
    const { buffer, frameAt } = hold;
    const task = { kind: 'pieces' as const, buffer, frameAt, seq: answer.seq, ...flatten(wanted) };
    void this.work(hold, pipeline.pieces(task), ({ frame, pieceBytes }) =>
      outbox.reply(answer.seq, pieceBytes, {
        frame,
        onSent: () => this.finish(offer),
        onGone: () => hold.letGo(),
      }),
    );
    return true;
  }

  private finish(offer: OfferItem): void {
    const chunk = this.offers.end(offer);
    if (chunk !== null) this.ports.onSyncSent(offer.volume, chunk);
  }

  private batches(filled: FilledBuffer): VolumeBatch[] {
    const sizes: number[] = [];
    for (const { volume } of filled.pieces) sizes[volume] ??= this.ports.sizeBytes(volume);
    return batchesOf(filled.pieces, sizes);
  }

  private patch(hold: Hold, { volume, parts }: VolumeBatch): void {
    const { outbox, pipeline } = this.ports;
    let built: BuiltPatch | null = null;
    const item = {
      isReady: false,
      seq: null,
      isNumbered: true,
      isNeeded: true,
      roomBytes: 0,
      frame: () => built!.frame,
      onSent: () => this.digests.add(volume, built!.entries),
      onGone: () => hold.letGo(),
    };
    const { buffer, frameAt } = hold;
    const seq = outbox.addNumbered(item);
    const patch = pipeline.patch({ kind: 'patch', buffer, frameAt, seq, volume, parts });
    void this.work(hold, patch, (result) => {
      built = result;
      this.counts.patchedBytes += result.pieceBytes;
      item.roomBytes = result.pieceBytes;
      item.isReady = true;
      outbox.pump();
    });
  }

  private offer(
    hold: Hold | null,
    slice: OpenSlice,
    parts: readonly ChunkPart[],
    holes: readonly Hole[],
  ): void {
    const { volume, table, cursor } = slice;
    const { outbox, pipeline } = this.ports;
    const place = { volume, chunk: cursor.chunk, synced: slice.isResumable ? cursor.chunk : 0 };
    const offer = new OfferItem(place, hold, (sent, entries) => {
      if (sent.seq === null) {
        this.finish(sent);
      } else {
        this.offers.sent(sent);
        this.digests.add(volume, encodeEntries(entries));
      }
    });
    this.offers.begin(offer);
    outbox.add(offer);
    const isEmpty = hold === null || parts.length === 0;
    const task = isEmpty
      ? Promise.resolve(nothing)
      : pipeline.digest({ kind: 'digest', buffer: hold.buffer, ranges: rangesOf(parts) });
    const done = this.work(hold, task, (digested) => {
      const all = { named: nameParts(parts, digested), holes: [...holes] };
      const end = chunkCount(this.ports.sizeBytes(volume));
      const said = table === null ? all : changedOnly(table, all.named, holes, end);
      if (said.named.length + said.holes.length > 0) slice.hasChanged = true;
      offer.say(said.named, said.holes);
      outbox.pump();
    });
    if (table !== null) this.digesting.push(done);
  }

  /** `next` runs in the session in which the task was begun, or not at all. */
  private async work<T>(
    hold: Hold | null,
    task: Promise<T>,
    next: (result: T) => void,
  ): Promise<void> {
    const session = this.session;
    try {
      const result = await (hold === null ? task : hold.during(task));
      if (session === this.session) next(result);
    } catch (error) {
      this.ports.onFailure(error);
    }
  }
}

/** At most what the frame of a patch takes. */
const frameBytes = (parts: readonly ChunkPart[]): number =>
  parts.reduce(
    (sum, part) => sum + (part.at.length - 1) * BLOCK_BYTES + part.length + 96 * part.at.length,
    frameOverheadBytes(0),
  );

const rangesOf = (parts: readonly ChunkPart[]): Uint32Array =>
  Uint32Array.from(parts.flatMap(({ at, length }) => [at[0]!, length]));

/** In memory of their own: what goes to a thread is copied with all that it is a view of. */
function flatten(wanted: readonly WantedPiece[]): { ranges: Uint32Array; digests: Uint8Array } {
  const digests = new Uint8Array(wanted.length * DIGEST_BYTES);
  for (const [i, { digest }] of wanted.entries()) digests.set(digest, i * DIGEST_BYTES);
  return { ranges: Uint32Array.from(wanted.flatMap(({ at, length }) => [at, length])), digests };
}

/** Moves the cursor over holes and parts, both ascending, in their common order. */
function cover(cursor: SyncCursor, parts: readonly ChunkPart[], holes: readonly Hole[]): void {
  let next = 0;
  for (const part of parts) {
    for (; next < holes.length && holes[next]!.from < part.chunk; next += 1) {
      cursor.coverRun(holes[next]!.from, holes[next]!.to);
    }
    cursor.coverPart(part);
  }
  for (const hole of holes.slice(next)) cursor.coverRun(hole.from, hole.to);
}
