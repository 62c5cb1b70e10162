/** The quota of puts, who goes first and how it is shared; and trying again. */
import { describe, expect, it } from 'vitest';
import { type Lane, PutQuota } from '../../src/recovery/ec2/put-quota.ts';
import { longestWaitMs, retrying } from '../../src/recovery/ec2/retry.ts';
import { handClock } from './support/hand-clock.ts';

describe('the quota of puts', () => {
  it('is kept, and shared fairly by uploads of different size', async () => {
    const clock = handClock();
    const quota = new PutQuota(clock, { putsPerSecond: 1000 });
    const never = new AbortController().signal;
    const taken = [0, 0];
    for (const [at, wanted] of [5000, 300].entries()) {
      const lane = quota.lane();
      for (let i = 0; i < wanted; i += 1) {
        lane.take(never).then(() => (taken[at]! += 1));
      }
    }
    await clock.advance(400);
    // A tenth of a second's worth was saved up.
    expect(taken[0]! + taken[1]!).toBeLessThanOrEqual(501);
    expect(taken[0]! + taken[1]!).toBeGreaterThan(490);
    // The large one had the saved ones, the small one its half of the rest.
    expect(taken[1]).toBeGreaterThan(190);
    await clock.advance(600);
    expect(taken[1]).toBe(300);
    expect(taken[0]! + taken[1]!).toBeLessThanOrEqual(1101);
  });

  it('a launch goes before what is prepared in the background, which has a rate of its own', async () => {
    const clock = handClock();
    const quota = new PutQuota(clock, { putsPerSecond: 1000, backgroundPerSecond: 100 });
    const never = new AbortController().signal;
    const taken = { launch: 0, huge: 0, small: 0 };
    const want = (name: keyof typeof taken, lane: Lane, wanted: number) => {
      for (let i = 0; i < wanted; i += 1) lane.take(never).then(() => (taken[name] += 1));
    };
    want('huge', quota.backgroundLane(), 5000);
    want('small', quota.backgroundLane(), 20);
    await clock.advance(300);
    // The huge one had what was saved up: the two share the rest.
    expect(taken.huge + taken.small).toBeGreaterThan(35);
    expect(taken.huge + taken.small).toBeLessThanOrEqual(41);
    expect(taken.small).toBeGreaterThan(13);
    const before = taken.huge + taken.small;
    want('launch', quota.lane(), 900);
    await clock.advance(800);
    expect(taken.launch).toBeGreaterThan(890);
    expect(taken.huge + taken.small).toBe(before);
    await clock.advance(1000);
    expect(taken.launch).toBe(900);
    expect(taken.small).toBe(20);
  });

  it('a launch does not wait for the turn of a slow background', async () => {
    const clock = handClock();
    const quota = new PutQuota(clock, { putsPerSecond: 100, backgroundPerSecond: 0.1 });
    const never = new AbortController().signal;
    const background = quota.backgroundLane();
    for (let i = 0; i < 3; i += 1) background.take(never).catch(() => undefined);
    const lane = quota.lane();
    let taken = 0;
    for (let i = 0; i < 50; i += 1) lane.take(never).then(() => (taken += 1));
    await clock.advance(500);
    expect(taken).toBe(50);
  });

  it('background uploads hold no more blocks than there is room, and share it', async () => {
    const quota = new PutQuota(handClock());
    const never = new AbortController().signal;
    const [huge, small] = [quota.backgroundLane(), quota.backgroundLane()];
    const leaves: (() => void)[] = [];
    let smallOnes = 0;
    for (let i = 0; i < 200; i += 1) huge.room(never).then((leave) => leaves.push(leave));
    for (let i = 0; i < 5; i += 1) {
      small.room(never).then((leave) => {
        smallOnes += 1;
        leaves.push(leave);
      });
    }
    const settled = () => new Promise((done) => setImmediate(done));
    await settled();
    expect(leaves).toHaveLength(64);
    for (const leave of leaves.slice(0, 10)) leave();
    await settled();
    expect(leaves).toHaveLength(74);
    expect(smallOnes).toBe(5);
    // A launch is bounded by itself alone.
    await quota.lane().room(never);
  });

  it('one that waits is let go when it is stopped, and leaves nothing behind', async () => {
    const clock = handClock();
    const quota = new PutQuota(clock, { putsPerSecond: 1 });
    const lane = quota.lane();
    await lane.take(new AbortController().signal);
    const stop = new AbortController();
    const waiting = lane.take(stop.signal);
    stop.abort(new Error('enough'));
    await expect(waiting).rejects.toThrow('enough');
    const next = lane.take(new AbortController().signal);
    await clock.advance(1100);
    await next;
  });
});

describe('trying again', () => {
  const policy = { tries: 5, firstMs: 100, capMs: 1000 };
  it('waits any part of a time that doubles, and ends', async () => {
    const clock = handClock();
    const waits: number[] = [];
    const slow = {
      ...clock,
      after: (ms: number, run: () => void) => {
        waits.push(ms);
        return clock.after(ms, run);
      },
    };
    const random = () => 0.5;
    const never = new AbortController().signal;
    const failing = retrying(
      { clock: slow, random },
      policy,
      never,
      () => true,
      async () => {
        throw new Error('busy');
      },
    );
    const ended = expect(failing).rejects.toThrow('busy');
    await clock.advance(10_000);
    await ended;
    expect(waits).toEqual([50, 100, 200, 400]);
    expect(longestWaitMs(policy, 9)).toBe(1000);
  });

  it('an abort ends the wait', async () => {
    const stop = new AbortController();
    const world = { clock: handClock(), random: () => 1 };
    const failing = retrying(
      world,
      policy,
      stop.signal,
      () => true,
      async () => {
        setImmediate(() => stop.abort(new Error('stopped')));
        throw new Error('busy');
      },
    );
    await expect(failing).rejects.toThrow('stopped');
  });
});
