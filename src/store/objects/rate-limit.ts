/** A bound on bytes a second, shared by all who take from it: they wait in the order in which they came. */
import { type Clock, sleep } from '../../base/clock.ts';
import { TokenBucket } from '../../base/token-bucket.ts';

export class RateLimit {
  private readonly clock: Clock;
  private readonly bucket: TokenBucket;
  private turn: Promise<void> = Promise.resolve();

  /** `bytesPerSecond` 0: no limit. */
  constructor(bytesPerSecond: number, clock: Clock) {
    this.clock = clock;
    this.bucket = new TokenBucket(bytesPerSecond, clock.monotonicMs());
  }

  /** Resolves once `bytes` may be moved; what is more than was saved up is paid for by those who follow. */
  take(bytes: number): Promise<void> {
    const mine = this.turn.then(() => this.wait(bytes));
    this.turn = mine;
    return mine;
  }

  /** Counts what has been moved already: who comes next waits for it. */
  spend(bytes: number): void {
    this.bucket.take(bytes, this.clock.monotonicMs());
  }

  private async wait(bytes: number): Promise<void> {
    for (;;) {
      const waitMs = this.bucket.waitMs(this.clock.monotonicMs());
      if (waitMs === 0) break;
      await sleep(this.clock, waitMs);
    }
    this.bucket.take(bytes, this.clock.monotonicMs());
  }
}
