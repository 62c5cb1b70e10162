/** Time for services that are stopped and wake up again, over one virtual clock. */
import type { Clock, Timer } from '../../../src/base/clock.ts';
import type { VirtualClock } from '../../simulation/virtual-clock.ts';

/** The clock of a process that can be stopped (SIGSTOP): its timers wait, time goes on. */
export class PausedClock implements Clock {
  isPaused = false;
  private readonly clock: VirtualClock;
  private readonly waiting: (() => void)[] = [];

  constructor(clock: VirtualClock) {
    this.clock = clock;
  }

  wallMs = () => this.clock.wallMs();
  monotonicMs = () => this.clock.monotonicMs();

  after(delayMs: number, run: () => void): Timer {
    return this.clock.after(delayMs, () => {
      if (this.isPaused) this.waiting.push(run);
      else run();
    });
  }

  resume(): void {
    this.isPaused = false;
    for (const run of this.waiting.splice(0)) run();
  }
}

/** Runs the clock until the promise has settled. */
export async function settled<T>(clock: VirtualClock, promise: Promise<T>): Promise<T> {
  let isDone = false;
  const done = promise.finally(() => {
    isDone = true;
  });
  done.catch(() => undefined);
  for (let i = 0; i < 10_000 && !isDone; i += 1) await clock.runUntil(clock.monotonicMs() + 1000);
  return done;
}
