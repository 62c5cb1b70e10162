/**
 * A line on the terminal while a repository is opened: a large one in a bucket takes minutes. Only where it takes a
 * while, gone when it is open; none with --json, nor without a terminal.
 */
import type { Timer } from '../base/clock.ts';
import type { CommandContext } from './command.ts';

/** Nobody reads what is gone again sooner. */
const LATE_MS = 500;

export const openingText = (what: string, done: number, total: number): string =>
  `opening the repository: ${total > 0 ? `${done} of ${total} ${what}` : what}`;

export interface OpeningLine {
  readonly told: (what: string, done: number, total: number) => void;
  end(): void;
}

export function openingLine(
  context: Pick<CommandContext, 'progress' | 'clock'>,
  isJson: boolean,
): OpeningLine {
  const progress = context.progress('opening', 'objects');
  if (isJson || !progress.isSeen) return { told: () => undefined, end: () => undefined };
  let text = 'opening the repository';
  let isLate = false;
  const timer: Timer = context.clock.after(LATE_MS, () => {
    isLate = true;
    progress.show(text);
  });
  return {
    told(what, done, total) {
      text = openingText(what, done, total);
      if (isLate) progress.show(text);
    },
    end() {
      isLate = false;
      timer.cancel();
      progress.clear();
    },
  };
}
