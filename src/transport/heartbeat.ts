/**
 * Finds connections that are open on one side only. Says `ping` at every interval and gives up when
 * nothing at all was heard for the limit; whatever arrives is a sign of life. While this side itself has
 * stopped reading (`hold`), silence proves nothing and is not counted.
 */
import type { Clock, Timer } from '../base/clock.ts';

export interface HeartbeatOptions {
  readonly clock: Clock;
  readonly intervalMs: number;
  readonly limitMs: number;
  readonly sendPing: (id: number) => void;
  /** Called once, then the heartbeat stands still. */
  readonly onSilent: (silentMs: number) => void;
}

export class Heartbeat {
  private readonly options: HeartbeatOptions;
  private timer: Timer | null = null;
  private heardMs: number;
  private isHeld = false;
  private nextId = 1;

  constructor(options: HeartbeatOptions) {
    this.options = options;
    this.heardMs = options.clock.monotonicMs();
    this.arm();
  }

  heard(): void {
    this.heardMs = this.options.clock.monotonicMs();
  }

  hold(isHeld: boolean): void {
    this.isHeld = isHeld;
    this.heard();
  }

  stop(): void {
    this.timer?.cancel();
    this.timer = null;
  }

  private arm(): void {
    const { clock, intervalMs, limitMs } = this.options;
    this.timer = clock.after(intervalMs, () => {
      const silentMs = this.isHeld ? 0 : clock.monotonicMs() - this.heardMs;
      if (silentMs >= limitMs) {
        this.timer = null;
        this.options.onSilent(silentMs);
        return;
      }
      this.options.sendPing(this.nextId);
      this.nextId = (this.nextId % 0x7fffffff) + 1;
      this.arm();
    });
  }
}
