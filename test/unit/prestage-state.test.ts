/** When chains of snapshots have their turns, and what is told of them: the table of ends. */
import { describe, expect, it } from 'vitest';
import {
  afterTurn,
  FIRST_MS,
  freshTurn,
  retryMs,
  stateOf,
} from '../../src/staging/prestage/prestage-state.ts';

const HOUR = 3_600_000;
const error = { code: 'ERR_AWS_DENIED', message: 'no', hint: 'ask' };
const at = { startedMs: 1000, nowMs: 5000, everyMs: HOUR };
const failing = { ...freshTurn(0), failures: 3, error };

describe('after a turn', () => {
  it.each([
    ['done: the interval from its begin', { type: 'done' } as const, 1000 + HOUR, 0, null],
    ['nothing to do: soon', { type: 'nothing', reason: 'r' } as const, 5000 + FIRST_MS, 0, null],
    ['interrupted: as before, at once', { type: 'interrupted' } as const, 5000, 3, error],
    ['failed: later each time', { type: 'failed', error } as const, 5000 + 480_000, 4, error],
  ])('%s', (_what, end, dueMs, failures, told) => {
    expect(afterTurn(failing, end, at, 0.5)).toMatchObject({ dueMs, failures, error: told });
  });

  it('a turn that took longer than the interval is followed by the next one', () => {
    const long = { ...at, nowMs: 1000 + 2 * HOUR };
    expect(afterTurn(failing, { type: 'done' }, long, 0).dueMs).toBe(long.nowMs);
  });

  it('waits double, up to an hour and the interval', () => {
    const waits = [1, 2, 3, 10].map((failures) => retryMs(failures, 24 * HOUR, 0.5));
    expect(waits).toEqual([60_000, 120_000, 240_000, HOUR]);
    expect(retryMs(10, 300_000, 1)).toBe(300_000);
    expect([retryMs(1, HOUR, 0), retryMs(1, HOUR, 0.99)].map(Math.round)).toEqual([45_000, 74_700]);
  });
});

it.each([
  ['off', { isOn: false, isRunning: true, hasHead: true }, failing],
  ['uploading', { isOn: true, isRunning: true, hasHead: true }, failing],
  ['failing', { isOn: true, isRunning: false, hasHead: true }, failing],
  ['waiting', { isOn: true, isRunning: false, hasHead: false }, freshTurn(0)],
  ['waiting', { isOn: true, isRunning: false, hasHead: true }, { ...freshTurn(0), reason: 'r' }],
  ['current', { isOn: true, isRunning: false, hasHead: true }, freshTurn(0)],
] as const)('%s', (word, now, state) => {
  expect(stateOf(state, now)).toBe(word);
});
