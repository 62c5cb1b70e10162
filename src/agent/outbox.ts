/**
 * The order of what goes to staging. Batches leave in the order in which they were taken in, whatever
 * order the pipeline finishes them in; contents that an answer asked for go first, as room was reserved
 * for them. The window, the bandwidth limit and the connection's own backlog each hold it back; whoever
 * fills it holds on to its buffers until `onSent`, so a slow staging slows the reads (P5).
 */
import type { Clock, Timer } from '../base/clock.ts';
import type { TokenBucket } from '../base/token-bucket.ts';
import { FlowWindow } from './flow-window.ts';

/** One batch or commit in the queue. `frame` is asked for when its turn has come and it is ready. */
export interface OutItem {
  isReady: boolean;
  /** Null: not numbered yet (or never: a commit). */
  seq: number | null;
  readonly isNumbered: boolean;
  /** False: nothing to say after all; dropped unless it has its number already. */
  isNeeded: boolean;
  /** Room in the window that it takes. */
  roomBytes: number;
  /** True while the item has to wait for something else than its turn. */
  isHeld?(): boolean;
  frame(seq: number): Uint8Array;
  onSent(seq: number | null): void;
  /** The frame's memory is free again. */
  onGone?(): void;
}

export interface FrameSink {
  /** `onGone`: the frame has left; never called where the session ends before. */
  send(frame: Uint8Array, onGone?: () => void): void;
  /** Bytes accepted and not yet handed to the network. */
  bufferedBytes(): number;
}

export interface Reply {
  readonly frame: Uint8Array;
  readonly onSent: () => void;
  readonly onGone: () => void;
}

/** The connection's own backlog above which we wait for it to drain. */
const MAX_BUFFERED_BYTES = 4 * 2 ** 20;

export class Outbox {
  private readonly clock: Clock;
  private readonly bucket: TokenBucket;
  private sink: FrameSink | null = null;
  private window = new FlowWindow(0);
  private queue: OutItem[] = [];
  private replies: Reply[] = [];
  private nextSeq = 1;
  private timer: Timer | null = null;
  /** Since the process began. */
  sentBytes = 0;

  constructor(clock: Clock, bucket: TokenBucket) {
    this.clock = clock;
    this.bucket = bucket;
  }

  get inFlightBytes(): number {
    return this.window.inFlightBytes;
  }

  open(sink: FrameSink, windowBytes: number): void {
    this.drop();
    this.sink = sink;
    this.window = new FlowWindow(windowBytes);
    this.nextSeq = 1;
  }

  /** Forgets everything: the session has ended. */
  drop(): void {
    this.sink = null;
    this.queue = [];
    this.replies = [];
    this.timer?.cancel();
    this.timer = null;
  }

  add(item: OutItem): void {
    this.queue.push(item);
  }

  /** Takes an item in with its number; all that were taken in before get theirs. */
  addNumbered(item: OutItem): number {
    this.queue.push(item);
    for (const each of this.queue) this.number(each);
    return item.seq!;
  }

  /** Contents for offer `seq`, for which it reserved room. */
  reply(seq: number, pieceBytes: number, reply: Reply): void {
    this.window.settle(seq, pieceBytes);
    this.replies.push(reply);
    this.pump();
  }

  /** Offer `seq` was answered: nothing is asked for. */
  settle(seq: number): void {
    this.window.settle(seq, 0);
    this.pump();
  }

  stored(seq: number): void {
    this.window.stored(seq);
    this.pump();
  }

  /** Sends what may go now. Called whenever something may have changed. */
  pump(): void {
    while (this.sink !== null && !this.mustWait(this.sink)) {
      const reply = this.replies.shift();
      if (reply !== undefined) {
        this.send(reply.frame, reply.onGone);
        reply.onSent();
      } else if (!this.sendHead()) {
        return;
      }
    }
  }

  private sendHead(): boolean {
    const item = this.queue[0];
    if (item === undefined || !item.isReady || item.isHeld?.() === true) return false;
    if (!item.isNeeded && item.seq === null) {
      this.queue.shift();
      item.onSent(null);
      return true;
    }
    if (!this.window.hasRoom(item.roomBytes)) return false;
    this.queue.shift();
    this.number(item);
    if (item.isNumbered) this.window.add(item.seq!, item.roomBytes);
    this.send(item.frame(item.seq ?? 0), () => item.onGone?.());
    item.onSent(item.seq);
    return true;
  }

  private number(item: OutItem): void {
    if (!item.isNumbered || item.seq !== null) return;
    item.seq = this.nextSeq;
    this.nextSeq += 1;
  }

  private send(frame: Uint8Array, onGone: () => void): void {
    this.bucket.take(frame.length, this.clock.monotonicMs());
    this.sentBytes += frame.length;
    this.sink?.send(frame, onGone);
  }

  private mustWait(sink: FrameSink): boolean {
    if (this.timer !== null || sink.bufferedBytes() > MAX_BUFFERED_BYTES) return true;
    if (this.queue.length + this.replies.length === 0) return true;
    const waitMs = this.bucket.waitMs(this.clock.monotonicMs());
    if (waitMs === 0) return false;
    this.timer = this.clock.after(waitMs, () => {
      this.timer = null;
      this.pump();
    });
    return true;
  }
}
