/** The clock by which points are dropped: leaps are seen while the service runs and across restarts. */
import { describe, expect, it } from 'vitest';
import type { Clock } from '../../src/base/clock.ts';
import { silentLog } from '../../src/base/log.ts';
import { ClockGuard } from '../../src/staging/clock-guard.ts';
import { doubtAtStart, doubtSince } from '../../src/staging/clock-state.ts';
import { Random } from '../simulation/random.ts';
import { FaultyDisk } from './support/faulty-disk.ts';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const START = 1_700_000_000_000;

/** A machine: its wall clock can be set, and it can be started again (monotonic time begins anew). */
class Machine {
  readonly disk = new FaultyDisk();
  wallMs = START;
  monotonicMs = 0;
  newestMs: number | null = null;

  async start(isTrusted = false): Promise<ClockGuard> {
    this.monotonicMs = 0;
    if (!(await this.disk.exists('/data'))) await this.disk.makeDirectory('/data');
    await this.disk.syncDirectory('/');
    const clock: Clock = {
      wallMs: () => this.wallMs,
      monotonicMs: () => this.monotonicMs,
      after: () => ({ cancel: () => undefined }),
    };
    const { disk, newestMs } = this;
    return ClockGuard.open({ disk, folder: '/data', clock, log: silentLog, newestMs, isTrusted });
  }

  pass(ms: number): void {
    this.wallMs += ms;
    this.monotonicMs += ms;
  }
}

describe('the clock at start', () => {
  it.each([
    [null, null],
    [START, null],
    [START + HOUR, null],
    [START - 23 * HOUR, null],
    [START + 2 * HOUR, /2h behind/],
    [START - 2 * DAY, /2d ahead/],
  ])('seen %d', (seenMs, reason) => {
    const doubt = doubtAtStart(seenMs, START);
    if (reason === null) expect(doubt).toBeNull();
    else expect(doubt).toMatch(reason);
  });

  it('is trusted on a new machine, and after a night off', async () => {
    const machine = new Machine();
    expect((await machine.start()).doubt).toBeNull();
    machine.wallMs += 10 * HOUR;
    expect((await machine.start()).doubt).toBeNull();
  });

  it.each([-3 * HOUR, 30 * DAY])('set by %d ms while off waits, over restarts', async (leapMs) => {
    const machine = new Machine();
    await machine.start();
    machine.wallMs += leapMs;
    expect((await machine.start()).doubt).not.toBeNull();
    // It may be set right again: the doubt was told, and waits for the operator all the same.
    machine.wallMs -= leapMs;
    const guard = await machine.start();
    expect(guard.doubt).not.toBeNull();
    await guard.resume();
    expect(guard.doubt).toBeNull();
    expect((await machine.start()).doubt).toBeNull();
  });

  it('is held against the newest point where the machine was lost and only the repository is left', async () => {
    const machine = new Machine();
    machine.newestMs = START - 30 * DAY;
    expect((await machine.start()).doubt).not.toBeNull();
    const other = new Machine();
    other.newestMs = START + 30 * DAY;
    expect((await other.start()).doubt).not.toBeNull();
    expect((await other.start(true)).doubt).toBeNull();
    expect((await other.start()).doubt).not.toBeNull(); // as long as its newest point is of the future
  });

  it('is doubted where what was noted is damaged', async () => {
    const machine = new Machine();
    await machine.start();
    const file = await machine.disk.open('/data/clock', 'write');
    await file.write([Buffer.from('x')], 5);
    await file.close();
    expect((await machine.start()).doubt).toContain('damaged');
  });

  it('reads whole after a power cut at any step of a note', async () => {
    for (let call = 1; call < 20; call += 1) {
      const machine = new Machine();
      await machine.start();
      machine.wallMs += 40 * DAY;
      machine.disk.cutPowerAt(machine.disk.calls + call);
      const isCut = await machine.start().then(
        () => false,
        () => true,
      );
      machine.disk.restart(new Random(call));
      expect((await machine.start()).doubt).not.toBeNull();
      if (!isCut) return;
    }
  });
});

describe('the clock of a running service', () => {
  it('is doubted after a leap of more than an hour, not for drift', async () => {
    const start = { wallMs: START, monotonicMs: 0 };
    const later = (ms: number, leapMs: number) =>
      doubtSince(start, { wallMs: START + ms + leapMs, monotonicMs: ms });
    expect(later(60_000, 50 * 60_000)).toBeNull();
    expect(later(60_000, 2 * HOUR)).toMatch(/forward by 2h/);
    expect(later(60_000, -2 * HOUR)).toMatch(/back by 2h/);
    expect(later(100 * DAY, 2 * HOUR)).toBeNull();
  });

  it('stays doubted when it leaps back, and the doubt outlives a restart', async () => {
    const machine = new Machine();
    const guard = await machine.start();
    machine.pass(HOUR);
    await guard.look();
    expect(guard.doubt).toBeNull();
    machine.wallMs += 5 * HOUR;
    await guard.look();
    expect(guard.doubt).not.toBeNull();
    machine.wallMs -= 5 * HOUR;
    await guard.look();
    expect(guard.doubt).not.toBeNull();
    expect((await machine.start()).doubt).not.toBeNull();
  });

  it('many small leaps are one', async () => {
    const machine = new Machine();
    const guard = await machine.start();
    for (let i = 0; i < 3; i += 1) {
      machine.pass(60_000);
      machine.wallMs += 50 * 60_000;
      await guard.look();
    }
    expect(guard.doubt).not.toBeNull();
  });

  it('goes on where the time cannot be noted for want of room', async () => {
    const machine = new Machine();
    const guard = await machine.start();
    machine.disk.capacityBytes = 0;
    machine.pass(DAY);
    await guard.look();
    expect(guard.doubt).toBeNull();
  });
});
