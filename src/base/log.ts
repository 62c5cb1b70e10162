/**
 * Structured log lines, one JSON object a line on standard error (or into a sink that a test supplies).
 * A log line is never the only trace of an error: errors go to their owner as values.
 */
import { type Clock, systemClock } from './clock.ts';

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';
export type LogFields = Record<string, unknown>;

export interface Log {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  /** A log that adds `fields` to every line. */
  with(fields: LogFields): Log;
}

const rank: Record<LogLevel, number> = { debug: 0, info: 1, warn: 2, error: 3 };

export interface LogOptions {
  level?: LogLevel;
  clock?: Clock;
  sink?: (line: string) => void;
  fields?: LogFields;
}

export function createLog(options: LogOptions = {}): Log {
  const { level = 'info', clock = systemClock, fields: fixed = {} } = options;
  const sink = options.sink ?? ((line) => process.stderr.write(`${line}\n`));
  const write = (at: LogLevel, message: string, fields?: LogFields) => {
    if (rank[at] < rank[level]) return;
    const time = new Date(clock.wallMs()).toISOString();
    sink(JSON.stringify({ time, level: at, message, ...fixed, ...fields }));
  };
  return {
    debug: (message, fields) => write('debug', message, fields),
    info: (message, fields) => write('info', message, fields),
    warn: (message, fields) => write('warn', message, fields),
    error: (message, fields) => write('error', message, fields),
    with: (fields) => createLog({ ...options, fields: { ...fixed, ...fields } }),
  };
}

export const silentLog: Log = createLog({ sink: () => undefined, level: 'error' });
