/**
 * What commands print to, ask and are stopped by: the process's streams and signals behind one object,
 * so that tests can run commands without a process. Progress and questions go to standard error, results
 * to standard output; without a terminal there is no progress, and a question is refused.
 */
import { createInterface } from 'node:readline/promises';
import type { Readable } from 'node:stream';
import type { Clock } from '../base/clock.ts';
import { UnderstudyError } from '../base/errors.ts';
import { createLog } from '../base/log.ts';
import type { CommandContext } from './command.ts';
import { createProgress, silentProgress } from './progress.ts';
import { tellReady } from './supervisor.ts';

export interface Output {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
}

/** The outside of a command: streams, environment, clock, stop signal. */
export interface Surroundings {
  readonly stdout: Output;
  readonly stderr: Output;
  readonly stdin: Readable & { isTTY?: boolean };
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
  readonly stop: AbortSignal;
}

const CLEAR_LINE = '\r\u001b[2K';
const CLEAR_SCREEN = '\u001b[H\u001b[J';

async function ask(surroundings: Surroundings, question: string): Promise<void> {
  const { stdin, stderr, stop } = surroundings;
  if (stdin.isTTY !== true) {
    throw new UnderstudyError('ERR_CLI_CONFIRMATION', `${question} Not without a yes.`);
  }
  const reader = createInterface({ input: stdin, output: stderr as NodeJS.WritableStream });
  try {
    const answer = await reader.question(`${question} [y/N] `, { signal: stop });
    if (/^y(es)?$/i.test(answer.trim())) return;
  } catch (cause) {
    if ((cause as Error).name !== 'AbortError') throw cause;
    // Ctrl+C (the terminal is in raw mode: no signal comes), Ctrl+D, or a signal: no answer is no yes.
    stderr.write('\n');
    if (stop.aborted) throw cause;
  } finally {
    reader.close();
  }
  throw new UnderstudyError('ERR_CLI_CONFIRMATION', 'nothing was done');
}

export function createContext(surroundings: Surroundings, verbose: boolean): CommandContext {
  const { stdout, stderr, clock, stop, environment } = surroundings;
  const log = createLog({ level: verbose ? 'debug' : 'info', clock, sink: (line) => tell(line) });
  const width = (stderr.columns ?? 80) - 1;
  let isBarDrawn = false;
  const tell = (line: string): void => {
    stderr.write(`${isBarDrawn ? CLEAR_LINE : ''}${line}\n`);
    isBarDrawn = false;
  };
  return {
    columns: stdout.isTTY === true ? (stdout.columns ?? null) : null,
    print: (text) => void stdout.write(`${text}\n`),
    note: tell,
    redraw: (text) => void stdout.write(`${stdout.isTTY === true ? CLEAR_SCREEN : ''}${text}\n`),
    progress: (label, unit = 'bytes') =>
      stderr.isTTY === true
        ? createProgress(label, clock, unit, (text, isLast) => {
            stderr.write(`${CLEAR_LINE}${text.slice(0, width)}${isLast ? '\n' : ''}`);
            isBarDrawn = !isLast;
          })
        : silentProgress,
    confirm: (question) => ask(surroundings, question),
    ready: () => tellReady({ environment, clock, log }),
    clock,
    log,
    stop,
  };
}
