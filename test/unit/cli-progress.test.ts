// The progress bar: what it says, and how often.
import { describe, expect, it } from 'vitest';
import { formatDuration, formatSize } from '../../src/base/units.ts';
import { createProgress, progressLine } from '../../src/cli/progress.ts';
import { VirtualClock } from '../simulation/virtual-clock.ts';

const state = { done: 3 << 30, total: 12 << 28, elapsedMs: 2000, note: '' };

it.each([
  [0, '0 B', '0 ms'],
  [999.6, '999.6 B', '1.0 s'],
  [1023, '1023 B', '1.0 s'],
  [1536, '1.50 KiB', '1.5 s'],
  [20_480, '20.0 KiB', '20.5 s'],
  [10_237, '10.0 KiB', '10.2 s'],
  [59_960, '58.6 KiB', '1m'],
  [65_000, '63.5 KiB', '1m 5s'],
  [1_048_570, '1.00 MiB', '17m 29s'],
  [86_399_700, '82.4 MiB', '1d'],
])('%d is %s of bytes, %s of time: nothing is rounded up past its unit', (value, size, time) => {
  expect([formatSize(value), formatDuration(value)]).toEqual([size, time]);
});

describe('a progress line', () => {
  it('says how much, how fast and how long still', () => {
    const half = { done: 2 ** 30, total: 2 ** 31, elapsedMs: 2000, note: 'writing' };
    expect(progressLine('image', half)).toBe(
      'image [##########..........] 50% 1.00 GiB of 2.00 GiB 512.0 MiB/s, 2.0 s left writing',
    );
  });

  it('takes what was done before for no speed', () => {
    const resumed = { done: 2 ** 30, total: 2 ** 31, elapsedMs: 2000, note: '', before: 2 ** 29 };
    expect(progressLine('image', resumed)).toContain(' 256.0 MiB/s, 4.0 s left');
    const ready = { done: 2 ** 31, total: 2 ** 31, elapsedMs: 3, note: 'ready', before: 2 ** 31 };
    expect(progressLine('failback', ready)).toMatch(/2\.00 GiB of 2\.00 GiB ready$/);
  });

  it('counts objects where these are counted', () => {
    const line = progressLine('check', { ...state, done: 12, total: 12 }, 'objects');
    expect(line).toBe('check [####################]100% 12 of 12 objects');
  });

  it('of nothing to do is full', () => {
    const line = progressLine('check', { ...state, done: 0, total: 0, elapsedMs: 0 }, 'objects');
    expect(line).toBe('check [####################]100% 0 of 0 objects');
  });
});

describe('a progress bar', () => {
  it('measures each part by itself, and from where it began', async () => {
    const clock = new VirtualClock();
    const lines: string[] = [];
    const progress = createProgress('root', clock, 'bytes', (text) => lines.push(text));
    const at = async (ms: number, done: number) => {
      await clock.runUntil(ms);
      progress.update(done, 2 ** 30);
    };
    await at(0, 2 ** 29);
    await at(1000, 2 ** 29 + 2 ** 20);
    await at(9000, 0);
    await at(10_000, 2 ** 21);
    expect(lines[0]).not.toContain('/s');
    expect(lines[1]).toContain(' 1.00 MiB/s');
    expect(lines[3]).toContain(' 2.00 MiB/s');
  });

  it('is drawn ten times a second at most, and at its end', () => {
    const clock = new VirtualClock();
    const drawn: boolean[] = [];
    const progress = createProgress('image', clock, 'bytes', (_, isLast) => drawn.push(isLast));
    for (let i = 0; i < 20; i += 1) progress.update(i, 20);
    expect(drawn).toEqual([false]);
    progress.finish();
    expect(drawn).toEqual([false, true]);
  });
});
