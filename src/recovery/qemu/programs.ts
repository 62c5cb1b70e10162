/**
 * Starting the programs of a drill. They are sessions of their own with their output in files: they
 * outlive staging, which finds them again by their pidfiles.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { type Clock, sleep } from '../../base/clock.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { diskError } from '../../base/node-disk.ts';
import { processOf } from '../made.ts';

const START_MS = 60_000;
const POLL_MS = 20;
const SHOWN_CHARACTERS = 600;

export const missingProgram = (name: string, cause?: unknown): UnderstudyError =>
  new UnderstudyError('ERR_LAUNCH_PROGRAM', `${name} is not installed here`, {}, cause);

/** What a program said last, in one line. */
export function lastWords(logPath: string): string {
  try {
    const text = readFileSync(logPath, 'utf8').trim();
    return text.slice(-SHOWN_CHARACTERS).replace(/\s*\n\s*/g, '; ');
  } catch (cause) {
    return `no output (${(cause as NodeJS.ErrnoException).code})`;
  }
}

/** Runs a short program; its standard output. ERR_LAUNCH_PROGRAM, ERR_LAUNCH_FAILED. */
export function runProgram(
  name: string,
  words: readonly string[],
  encoding: BufferEncoding = 'utf8',
): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(name, words, { stdio: ['ignore', 'pipe', 'pipe'] });
    let out = '';
    let err = '';
    child.stdout.setEncoding(encoding);
    child.stdout.on('data', (data: string) => {
      out += data;
    });
    child.stderr.on('data', (data: Buffer) => {
      err = (err + data.toString()).slice(-SHOWN_CHARACTERS);
    });
    child.on('error', (cause: NodeJS.ErrnoException) => {
      reject(cause.code === 'ENOENT' ? missingProgram(name, cause) : startFailed(name, cause));
    });
    child.on('close', (code, by) => {
      if (code === 0) resolve(out);
      else {
        const why = err.trim().replace(/\s*\n\s*/g, '; ') || `exit ${code ?? by}`;
        reject(new UnderstudyError('ERR_LAUNCH_FAILED', `${name}: ${why}`));
      }
    });
  });
}

const startFailed = (name: string, cause: unknown): UnderstudyError =>
  new UnderstudyError('ERR_LAUNCH_FAILED', `${name} cannot be started`, {}, cause);

export interface LongProgram {
  readonly name: string;
  readonly words: readonly string[];
  readonly pidfile: string;
  readonly logPath: string;
  readonly clock: Clock;
  /** Gets processor and disk when nobody else wants them. */
  readonly isLow?: boolean;
}

/** Starts a program that writes `pidfile` when it is ready, and waits for that. As `runProgram`. */
export async function startProgram(program: LongProgram): Promise<void> {
  const { name, logPath, pidfile, clock } = program;
  const child = spawnDetached(program);
  const ended = Promise.withResolvers<never>();
  ended.promise.catch(() => undefined);
  child.on('error', (cause: NodeJS.ErrnoException) => {
    ended.reject(cause.code === 'ENOENT' ? missingProgram(name, cause) : startFailed(name, cause));
  });
  child.on('exit', (code) => {
    // A program that goes on as a daemon ends its first process in peace.
    if (code !== 0)
      ended.reject(new UnderstudyError('ERR_LAUNCH_FAILED', `${name}: ${lastWords(logPath)}`));
  });
  child.unref();
  const endMs = clock.monotonicMs() + START_MS;
  while (processOf(pidfile) === null) {
    if (clock.monotonicMs() > endMs) {
      child.kill('SIGKILL');
      throw new UnderstudyError('ERR_LAUNCH_FAILED', `${name} did not start in time`);
    }
    await Promise.race([sleep(clock, POLL_MS), ended.promise]);
  }
}

/** Each program of the line becomes the next one: what runs in the end is the last, under its own name. */
const lowly = ['nice', '-n', '19', 'ionice', '-c', '3'];

function spawnDetached({ name, words, logPath, isLow = false }: LongProgram): ChildProcess {
  let log: number;
  try {
    log = openSync(logPath, 'a', 0o600);
  } catch (cause) {
    throw diskError(cause, logPath);
  }
  try {
    const [program, ...rest] = [...(isLow ? lowly : []), name, ...words];
    return spawn(program!, rest, { detached: true, stdio: ['ignore', log, log] });
  } finally {
    closeSync(log);
  }
}
