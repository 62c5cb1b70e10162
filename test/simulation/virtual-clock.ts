/**
 * Virtual time for the simulator. Timers fire in order of (due time, creation), each followed by a drain
 * of all microtasks, so that a run is a pure function of its seed. Nothing here waits for real time.
 */
import type { Clock, Timer } from '../../src/base/clock.ts';

interface Pending {
  dueMs: number;
  order: number;
  run: () => void;
  cancelled: boolean;
}

/** 2026-01-01T00:00:00Z: where virtual wall clocks start. */
export const START_WALL_MS = Date.UTC(2026, 0, 1);

export class VirtualClock implements Clock {
  private nowMs = 0;
  private order = 0;
  private readonly queue: Pending[] = [];

  wallMs(): number {
    return START_WALL_MS + Math.floor(this.nowMs + 1e-6);
  }

  monotonicMs(): number {
    return this.nowMs;
  }

  after(delayMs: number, run: () => void): Timer {
    const pending = {
      dueMs: this.nowMs + Math.max(0, delayMs),
      order: this.order,
      run,
      cancelled: false,
    };
    this.order += 1;
    this.insert(pending);
    return {
      cancel: () => {
        pending.cancelled = true;
      },
    };
  }

  /** Runs everything that is due up to `untilMs` (monotonic), draining microtasks after each timer. */
  async runUntil(untilMs: number): Promise<void> {
    await drainMicrotasks();
    for (;;) {
      const next = this.queue[0];
      if (next === undefined || next.dueMs > untilMs) break;
      this.queue.shift();
      if (next.cancelled) continue;
      this.nowMs = Math.max(this.nowMs, next.dueMs);
      next.run();
      await drainMicrotasks();
    }
    this.nowMs = Math.max(this.nowMs, untilMs);
  }

  private insert(pending: Pending): void {
    let low = 0;
    let high = this.queue.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const other = this.queue[middle]!;
      const before =
        other.dueMs < pending.dueMs ||
        (other.dueMs === pending.dueMs && other.order < pending.order);
      if (before) low = middle + 1;
      else high = middle;
    }
    this.queue.splice(low, 0, pending);
  }
}

/** All promise reactions that can run without real input or output have run when this resolves. */
function drainMicrotasks(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
