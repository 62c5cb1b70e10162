/** Upkeep beside ingest: at most so many bytes a second, and at most a part of the time. */
import { describe, expect, it } from 'vitest';
import type { Clock } from '../../src/base/clock.ts';
import { Pace } from '../../src/store/pace.ts';

/** A clock that is moved by work, and by the pauses that are asked for. */
function makeClock() {
  let nowMs = 0;
  const pauses: number[] = [];
  const clock: Clock = {
    wallMs: () => nowMs,
    monotonicMs: () => nowMs,
    after(ms, run) {
      pauses.push(ms);
      queueMicrotask(() => {
        nowMs += ms;
        run();
      });
      return { cancel: () => undefined };
    },
  };
  return { clock, pauses, work: (ms: number) => (nowMs += ms), now: () => nowMs };
}

describe('the pace of upkeep', () => {
  it('keeps to the bytes a second', async () => {
    const { clock, now } = makeClock();
    const pace = new Pace(clock, { upkeepBytesPerSecond: 1_000_000, upkeepShare: 1 });
    for (let i = 0; i < 500; i += 1) await pace.spend(10_000);
    expect(now()).toBeGreaterThan(4900);
    expect(now()).toBeLessThan(5100);
  });

  it('keeps to its part of the time', async () => {
    const { clock, work, now } = makeClock();
    const pace = new Pace(clock, { upkeepBytesPerSecond: Infinity, upkeepShare: 0.25 });
    let worked = 0;
    for (let i = 0; i < 1000; i += 1) {
      await pace.spend(1);
      worked += work(3) > 0 ? 3 : 0;
    }
    expect(worked / now()).toBeGreaterThan(0.22);
    expect(worked / now()).toBeLessThan(0.3);
  });

  it('asks for no pause without limits, nor after idle time', async () => {
    const { clock, work, pauses } = makeClock();
    const free = new Pace(clock, { upkeepBytesPerSecond: Infinity, upkeepShare: 1 });
    const limited = new Pace(clock, { upkeepBytesPerSecond: 1_000_000, upkeepShare: 0.5 });
    for (let i = 0; i < 10; i += 1) {
      work(5000);
      await free.spend(1e9);
      await limited.spend(1000);
    }
    expect(pauses).toEqual([]);
  });

  it('lets go of who waits when the store closes', async () => {
    const clock: Clock = {
      wallMs: () => 0,
      monotonicMs: () => 0,
      after: () => ({ cancel: () => undefined }),
    };
    const pace = new Pace(clock, { upkeepBytesPerSecond: 1, upkeepShare: 1 });
    const waiting = pace.spend(1_000_000);
    pace.end();
    await waiting;
    await pace.spend(1_000_000);
  });
});
