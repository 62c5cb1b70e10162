/**
 * A bandwidth limit: bytes may leave as long as the debt is paid off, which happens at a fixed rate. Pure
 * in time: the caller passes the monotonic clock in. Debt rather than credit, so that a frame larger than
 * any burst passes and is paid for afterwards.
 */
export class TokenBucket {
  private readonly bytesPerMs: number;
  private readonly burstBytes: number;
  private level: number;
  private at: number;

  /** `bytesPerSecond` 0: no limit. */
  constructor(bytesPerSecond: number, nowMs: number) {
    this.bytesPerMs = bytesPerSecond / 1000;
    this.burstBytes = bytesPerSecond / 10;
    this.level = this.burstBytes;
    this.at = nowMs;
  }

  /** Milliseconds until something may leave; 0 when it may leave now. */
  waitMs(nowMs: number): number {
    if (this.bytesPerMs === 0) return 0;
    this.refill(nowMs);
    return this.level > 0 ? 0 : Math.max(1, (1 - this.level) / this.bytesPerMs);
  }

  take(bytes: number, nowMs: number): void {
    if (this.bytesPerMs === 0) return;
    this.refill(nowMs);
    this.level -= bytes;
  }

  private refill(nowMs: number): void {
    const grown = this.level + (nowMs - this.at) * this.bytesPerMs;
    this.level = Math.min(this.burstBytes, grown);
    this.at = nowMs;
  }
}
