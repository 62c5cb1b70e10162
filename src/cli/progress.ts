/**
 * A progress bar on standard error: done of total, rate and time left. Drawn on a terminal only, at most
 * ten times a second; piped, it stays silent.
 */
import type { Clock } from '../base/clock.ts';
import { formatDuration, formatSize } from '../base/units.ts';

export interface Progress {
  /** `done` of `total` bytes (or items); `note` is shown behind the bar. */
  update(done: number, total: number, note?: string): void;
  /** A line in the place of the bar, where nothing is counted. */
  show(text: string): void;
  finish(): void;
  /** Takes the line away: nobody needs to have seen it. */
  clear(): void;
  /** Somebody sees it: what it costs to know more is worth it. */
  readonly isSeen: boolean;
}

const BAR_CELLS = 20;
const REDRAW_MS = 100;

/** What is counted: "1.5 GiB of 3.0 GiB", "12 of 40 objects". */
export type ProgressUnit = 'bytes' | 'objects' | 'steps';

/** The text of one state of the bar; `before` was done when it began, and says nothing of the rate. Pure. */
export function progressLine(
  label: string,
  state: { done: number; total: number; elapsedMs: number; note: string; before?: number },
  unit: ProgressUnit = 'bytes',
): string {
  const { done, total, elapsedMs, note, before = 0 } = state;
  const share = total > 0 ? Math.min(1, done / total) : 1;
  const filled = Math.round(share * BAR_CELLS);
  const bar = '#'.repeat(filled) + '.'.repeat(BAR_CELLS - filled);
  const percent = `${Math.floor(share * 100)}%`.padStart(4);
  const perMs = elapsedMs > 0 ? Math.max(0, done - before) / elapsedMs : 0;
  const left = perMs > 0 && share < 1 ? `, ${formatDuration((total - done) / perMs)} left` : '';
  const isBytes = unit === 'bytes';
  const rate = isBytes && perMs > 0 ? ` ${formatSize(Math.round(perMs * 1000))}/s` : '';
  const behind = note === '' ? '' : ` ${note}`;
  const counted = isBytes
    ? `${formatSize(done)} of ${formatSize(total)}`
    : `${done} of ${total} ${unit}`;
  return `${label} [${bar}]${percent} ${counted}${rate}${left}${behind}`;
}

export const silentProgress: Progress = {
  ...{ update: () => undefined, show: () => undefined, isSeen: false },
  ...{ finish: () => undefined, clear: () => undefined },
};

export function createProgress(
  label: string,
  clock: Clock,
  unit: ProgressUnit,
  draw: (text: string, isLast: boolean) => void,
): Progress {
  let startMs = clock.monotonicMs();
  let drawnMs = Number.NEGATIVE_INFINITY;
  let before: number | undefined;
  let state = { done: 0, total: 0, elapsedMs: 0, note: '', before: 0 };
  let line = '';
  const drawSometimes = (text: string): void => {
    line = text;
    const nowMs = clock.monotonicMs();
    if (nowMs - drawnMs < REDRAW_MS) return;
    drawnMs = nowMs;
    draw(text, false);
  };
  return {
    isSeen: true,
    show: drawSometimes,
    update(done, total, note = '') {
      const nowMs = clock.monotonicMs();
      const isNewPart = done < state.done;
      if (isNewPart) startMs = nowMs;
      if (isNewPart || before === undefined) before = done;
      state = { done, total, elapsedMs: nowMs - startMs, note, before };
      drawSometimes(progressLine(label, state, unit));
    },
    finish() {
      if (drawnMs > Number.NEGATIVE_INFINITY) draw(line, true);
    },
    clear() {
      if (drawnMs > Number.NEGATIVE_INFINITY) draw('', false);
      drawnMs = Number.NEGATIVE_INFINITY;
    },
  };
}
