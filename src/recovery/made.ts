/**
 * Taking away what a launch on this machine has made: processes, files, folders. A process is known by
 * its pidfile and by a word in its command line: the number alone may have gone to another one since.
 */
import { readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { type Clock, sleep } from '../base/clock.ts';
import { UnderstudyError } from '../base/errors.ts';
import { diskError } from '../base/node-disk.ts';
import type { Made } from './launcher.ts';

const TERM_MS = 5000;
const KILL_MS = 10_000;
const POLL_MS = 50;

function readIfThere(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'ESRCH') return null;
    throw diskError(cause, path);
  }
}

/** True where process `pid` runs (is no zombie) and names `mark` in its command line. */
export function isProcess(pid: number, mark: string): boolean {
  const words = readIfThere(`/proc/${pid}/cmdline`);
  return words?.includes(mark) === true;
}

/** The process of a pidfile, where it still is that one: it must name the pidfile's folder. */
export function processOf(pidfile: string): number | null {
  const pid = Number(readIfThere(pidfile)?.trim());
  if (!Number.isSafeInteger(pid) || pid <= 1) return null;
  return isProcess(pid, dirname(pidfile)) ? pid : null;
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ESRCH') throw diskError(cause, `process ${pid}`);
  }
}

/** Ends the process of a pidfile: asks, then insists. ERR_LAUNCH_FAILED where it will not go. */
export async function endProcess(pidfile: string, clock: Clock): Promise<void> {
  const pid = processOf(pidfile);
  if (pid === null) return;
  const mark = dirname(pidfile);
  for (const [name, limitMs] of [
    ['SIGTERM', TERM_MS],
    ['SIGKILL', KILL_MS],
  ] as const) {
    signal(pid, name);
    const endMs = clock.monotonicMs() + limitMs;
    while (clock.monotonicMs() < endMs) {
      if (!isProcess(pid, mark)) return;
      await sleep(clock, POLL_MS);
    }
  }
  throw new UnderstudyError('ERR_LAUNCH_FAILED', `process ${pid} cannot be ended`, { pid });
}

/** Removes everything in the list, the last made first; what is gone already is no error. */
export async function removeMade(made: readonly Made[], clock: Clock): Promise<void> {
  for (const { kind, name } of [...made].reverse()) {
    if (kind === 'process') await endProcess(name, clock);
    else
      await rm(name, { recursive: true, force: true }).catch((cause: unknown) => {
        throw diskError(cause, name);
      });
  }
}
