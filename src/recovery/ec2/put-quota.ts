/**
 * The account's quota of PutSnapshotBlock, shared by all uploads of a service: one bucket of tokens, filled
 * at a fixed rate, and a lane for each upload. Lanes that wait are served in turn, so that a large volume
 * does not starve a small one. What a launch uploads goes before what is prepared in the background; that
 * has a rate of its own besides, and a bound on the blocks that it holds in memory.
 */
import type { Clock, Timer } from '../../base/clock.ts';
import { Turns } from './turns.ts';

/** What AWS gives an account by default. */
export const DEFAULT_PUTS_PER_SECOND = 1000;
const BURST_SECONDS = 0.1;
/** Blocks of background uploads on their way at once, all of them together: 32 MiB. */
const BACKGROUND_BLOCKS = 64;

export interface Lane {
  /** Resolves when one put may be made. Rejects with the signal's reason. */
  take(stop: AbortSignal): Promise<void>;
  /** Resolves when a block may be read; what it gives is called once the block is put. */
  room(stop: AbortSignal): Promise<() => void>;
}

export interface QuotaOptions {
  readonly putsPerSecond?: number;
  /** Of it, for background uploads. */
  readonly backgroundPerSecond?: number;
}

/** Tokens that come at a rate; some are saved up. */
class Bucket {
  private readonly clock: Clock;
  private readonly perMs: number;
  private readonly burst: number;
  private tokens: number;
  private filledMs: number;

  constructor(clock: Clock, perSecond: number) {
    this.clock = clock;
    this.perMs = perSecond / 1000;
    this.burst = Math.max(1, perSecond * BURST_SECONDS);
    this.tokens = this.burst;
    this.filledMs = clock.monotonicMs();
  }

  /** How long until there is a token; 0: now. */
  waitMs(): number {
    const nowMs = this.clock.monotonicMs();
    this.tokens = Math.min(this.burst, this.tokens + (nowMs - this.filledMs) * this.perMs);
    this.filledMs = nowMs;
    return this.tokens >= 1 ? 0 : (1 - this.tokens) / this.perMs;
  }

  take(): void {
    this.tokens -= 1;
  }
}

export class PutQuota {
  private readonly clock: Clock;
  private readonly all: Bucket;
  private readonly slow: Bucket;
  private readonly urgent = new Turns();
  private readonly background = new Turns();
  private readonly rooms = new Turns();
  private freeRooms = BACKGROUND_BLOCKS;
  private timer: Timer | null = null;

  constructor(clock: Clock, options: QuotaOptions = {}) {
    const { putsPerSecond = DEFAULT_PUTS_PER_SECOND, backgroundPerSecond = putsPerSecond } =
      options;
    this.clock = clock;
    this.all = new Bucket(clock, putsPerSecond);
    this.slow = new Bucket(clock, backgroundPerSecond);
  }

  /** A lane for one upload of a launch; it needs no closing. */
  lane(): Lane {
    const lane = this.urgent.lane();
    return { take: (stop) => this.wait(lane(stop)), room: async () => () => undefined };
  }

  /** The same for an upload that nobody waits for. */
  backgroundLane(): Lane {
    const lane = this.background.lane();
    const room = this.rooms.lane();
    return {
      take: (stop) => this.wait(lane(stop)),
      room: async (stop) => {
        const turn = room(stop);
        this.giveRooms();
        await turn;
        return () => {
          this.freeRooms += 1;
          this.giveRooms();
        };
      },
    };
  }

  private wait(turn: Promise<void>): Promise<void> {
    this.serve();
    return turn;
  }

  private giveRooms(): void {
    while (this.freeRooms > 0 && this.rooms.next()) this.freeRooms -= 1;
  }

  private serve(): void {
    let waitMs = this.serveOne();
    while (waitMs === 0) waitMs = this.serveOne();
    // Anew each time: a launch must not wait for what the background waits for.
    this.timer?.cancel();
    this.timer = waitMs === null ? null : this.clock.after(Math.max(1, waitMs), () => this.serve());
  }

  /** 0: somebody was served; else how long to wait for it; null where nobody waits. */
  private serveOne(): number | null {
    if (this.urgent.isEmpty && this.background.isEmpty) return null;
    const waitMs = this.all.waitMs();
    const slowMs = this.urgent.isEmpty ? Math.max(waitMs, this.slow.waitMs()) : waitMs;
    if (slowMs > 0) return slowMs;
    if (this.urgent.isEmpty) this.slow.take();
    this.all.take();
    if (!this.urgent.next()) this.background.next();
    return 0;
  }
}
