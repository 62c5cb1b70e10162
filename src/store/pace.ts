/**
 * How fast upkeep may work beside ingest and images: at most so many bytes a second of what it reads, and
 * at most a part of the time. It is asked between two steps, with what the last one read, and waits on the
 * injected clock; whoever waits holds nothing but the lane of upkeep. A store that closes does not wait.
 */
import type { Clock, Timer } from '../base/clock.ts';

export interface PaceSettings {
  /** Infinity: no limit. */
  readonly upkeepBytesPerSecond: number;
  /** Above 0, up to 1 (no limit): so much of the time it may work. */
  readonly upkeepShare: number;
}

/** It may work so long without a pause. */
const STRIDE_MS = 20;
/** No pause is longer: a step that took long (a slow disk) is not paid for all at once. */
const MAX_PAUSE_MS = 1000;

export class Pace {
  private readonly clock: Clock;
  private readonly settings: PaceSettings;
  /** When the stride began, and what was read in it. */
  private sinceMs = Number.NEGATIVE_INFINITY;
  private bytes = 0;
  private isOver = false;
  private waiting: { timer: Timer; resume: () => void } | null = null;

  constructor(clock: Clock, settings: PaceSettings) {
    this.clock = clock;
    this.settings = settings;
  }

  /** A step has read so many bytes. Waits where that was too fast. */
  async spend(bytes: number): Promise<void> {
    const { upkeepBytesPerSecond, upkeepShare } = this.settings;
    const nowMs = this.clock.monotonicMs();
    // After idle time a stride begins anew.
    if (nowMs - this.sinceMs > MAX_PAUSE_MS + STRIDE_MS) {
      this.sinceMs = nowMs;
      this.bytes = 0;
    }
    this.bytes += bytes;
    const workedMs = nowMs - this.sinceMs;
    const byShareMs = workedMs * (1 / upkeepShare - 1);
    const byBytesMs = (this.bytes / upkeepBytesPerSecond) * 1000 - workedMs;
    const pauseMs = Math.min(MAX_PAUSE_MS, Math.max(byShareMs, byBytesMs));
    if (this.isOver || pauseMs < STRIDE_MS) return;
    await this.pause(pauseMs);
    this.sinceMs = this.clock.monotonicMs();
    this.bytes = 0;
  }

  /** Nobody waits any more, now or later. */
  end(): void {
    this.isOver = true;
    this.waiting?.timer.cancel();
    this.waiting?.resume();
  }

  private pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const resume = () => {
        this.waiting = null;
        resolve();
      };
      this.waiting = { timer: this.clock.after(ms, resume), resume };
    });
  }
}
