/** A process's own view of the virtual clock: once it is killed, none of its timers fires any more. */
import type { Clock, Timer } from '../../src/base/clock.ts';

export class ProcessClock implements Clock {
  private readonly clock: Clock;
  private isAlive = true;

  constructor(clock: Clock) {
    this.clock = clock;
  }

  wallMs(): number {
    return this.clock.wallMs();
  }

  monotonicMs(): number {
    return this.clock.monotonicMs();
  }

  after(delayMs: number, run: () => void): Timer {
    return this.clock.after(delayMs, () => {
      if (this.isAlive) run();
    });
  }

  kill(): void {
    this.isAlive = false;
  }
}
