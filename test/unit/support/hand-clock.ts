import type { Clock } from '../../../src/base/clock.ts';

/** A clock that only moves when told. */
export function handClock(): Clock & { advance(ms: number): Promise<void> } {
  let nowMs = 0;
  let timers: { atMs: number; run: () => void }[] = [];
  return {
    wallMs: () => nowMs,
    monotonicMs: () => nowMs,
    after(delayMs, run) {
      const timer = { atMs: nowMs + delayMs, run };
      timers.push(timer);
      return { cancel: () => (timers = timers.filter((held) => held !== timer)) };
    },
    async advance(ms) {
      const endMs = nowMs + ms;
      for (;;) {
        await new Promise((done) => setImmediate(done));
        const due = timers
          .filter((timer) => timer.atMs <= endMs)
          .sort((a, b) => a.atMs - b.atMs)[0];
        if (due === undefined) break;
        nowMs = due.atMs;
        timers = timers.filter((held) => held !== due);
        due.run();
      }
      nowMs = endMs;
    },
  };
}
