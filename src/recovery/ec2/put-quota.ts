/**
 * The account's quota of PutSnapshotBlock, shared fairly: one bucket of tokens, filled at a fixed rate, and
 * a lane for each upload. Where several lanes wait, they are served in turn, so that a large volume does not
 * starve the small ones of another server.
 */
import type { Clock, Timer } from '../../base/clock.ts';

/** What AWS gives an account by default. */
export const DEFAULT_PUTS_PER_SECOND = 1000;
const BURST_SECONDS = 0.1;

interface Waiter {
  readonly go: () => void;
}

export interface Lane {
  /** Resolves when one put may be made. Rejects with the signal's reason. */
  take(stop: AbortSignal): Promise<void>;
}

export class PutQuota {
  private readonly clock: Clock;
  private readonly perMs: number;
  private readonly burst: number;
  private tokens: number;
  private filledMs: number;
  private timer: Timer | null = null;
  /** Lanes with waiters, the one to be served next first. */
  private readonly waiting: Waiter[][] = [];

  constructor(clock: Clock, perSecond = DEFAULT_PUTS_PER_SECOND) {
    this.clock = clock;
    this.perMs = perSecond / 1000;
    this.burst = Math.max(1, perSecond * BURST_SECONDS);
    this.tokens = this.burst;
    this.filledMs = clock.monotonicMs();
  }

  /** A lane for one upload; it needs no closing. */
  lane(): Lane {
    const waiters: Waiter[] = [];
    return { take: (stop) => this.take(waiters, stop) };
  }

  private take(waiters: Waiter[], stop: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (stop.aborted) return reject(stop.reason);
      const leave = () => {
        waiters.splice(waiters.indexOf(waiter), 1);
        if (waiters.length === 0) this.waiting.splice(this.waiting.indexOf(waiters), 1);
        reject(stop.reason);
      };
      const go = () => {
        stop.removeEventListener('abort', leave);
        resolve();
      };
      const waiter: Waiter = { go };
      stop.addEventListener('abort', leave, { once: true });
      if (waiters.push(waiter) === 1) this.waiting.push(waiters);
      this.serve();
    });
  }

  private serve(): void {
    this.fill();
    while (this.tokens >= 1 && this.waiting.length > 0) {
      const waiters = this.waiting.shift()!;
      const waiter = waiters.shift()!;
      if (waiters.length > 0) this.waiting.push(waiters);
      this.tokens -= 1;
      waiter.go();
    }
    if (this.waiting.length === 0 || this.timer !== null) return;
    this.timer = this.clock.after(Math.max(1, (1 - this.tokens) / this.perMs), () => {
      this.timer = null;
      this.serve();
    });
  }

  private fill(): void {
    const nowMs = this.clock.monotonicMs();
    this.tokens = Math.min(this.burst, this.tokens + (nowMs - this.filledMs) * this.perMs);
    this.filledMs = nowMs;
  }
}
