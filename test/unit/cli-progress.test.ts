// The progress bar: what it says, and how often.
import { describe, expect, it } from 'vitest';
import { createProgress, progressLine } from '../../src/cli/progress.ts';
import { VirtualClock } from '../simulation/virtual-clock.ts';

const state = { done: 3 << 30, total: 12 << 28, elapsedMs: 2000, note: '' };

describe('a progress line', () => {
  it('says how much, how fast and how long still', () => {
    const half = { done: 2 ** 30, total: 2 ** 31, elapsedMs: 2000, note: 'writing' };
    expect(progressLine('image', half)).toBe(
      'image [##########..........] 50% 1.00 GiB of 2.00 GiB 512.0 MiB/s, 2.0 s left writing',
    );
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
