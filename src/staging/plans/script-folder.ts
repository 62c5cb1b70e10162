/**
 * What lies on disk of one run of a script: how staging, the script's keeper and staging's next life know of
 * each other. DATA/jobs/JOB/scripts/STEP.ATTEMPT/
 *
 *   spec    record: what is to be run; staging writes it
 *   begun   record: the keeper. Made once, by a link: whoever makes it runs the script, and nobody else ever
 *           does. Staging makes it with no process in it, so that the script is never begun
 *   script  record: the head of the script's group of processes
 *   output  what the script says: lines, bounded
 *   end     record: how it ended
 *   told    so many bytes of the output are in the job's log
 *   keeper.log   what went wrong with the keeper itself
 */
import { readFileSync } from 'node:fs';
import type { Disk } from '../../base/disk.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { diskError, nodeDisk } from '../../base/node-disk.ts';
import { readRecord, writeRecord } from '../jobs/record-file.ts';

const disk: Disk = nodeDisk;

/** So long a script has after SIGTERM. */
export const TERM_MS = 5000;

export interface ScriptSpec {
  readonly path: string;
  readonly arguments: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  /** For standard input. */
  readonly input: string;
  readonly timeoutMs: number;
}

/** A process, and the instant of its start: the number alone may have gone to another one since. */
export interface ProcessMark {
  readonly pid: number;
  readonly start: string;
}

export interface ScriptEnd {
  readonly code: number | null;
  readonly signal: string | null;
  /** It was ended because its time was over. */
  readonly isLate: boolean;
  /** Why it could not be started; null: it was. */
  readonly problem: string | null;
}

const NOBODY: ProcessMark = { pid: 0, start: '' };
const magicOf = (name: string): string => `understudy-script-${name} 1`;

async function read<Value>(folder: string, name: string): Promise<Value | null> {
  const path = `${folder}/${name}`;
  return (await disk.exists(path)) ? readRecord<Value>(disk, path, magicOf(name)) : null;
}

const write = (folder: string, name: string, value: unknown): Promise<void> =>
  writeRecord(disk, `${folder}/${name}`, magicOf(name), value);

export const readSpec = (folder: string) => read<ScriptSpec>(folder, 'spec');
export const readBegun = (folder: string) => read<ProcessMark>(folder, 'begun');
export const readScript = (folder: string) => read<ProcessMark>(folder, 'script');
export const readEnd = (folder: string) => read<ScriptEnd>(folder, 'end');
export const writeSpec = (folder: string, spec: ScriptSpec) => write(folder, 'spec', spec);
export const writeScript = (folder: string, mark: ProcessMark) => write(folder, 'script', mark);
export const writeEnd = (folder: string, end: ScriptEnd) => write(folder, 'end', end);

/** True: the script is the caller's to run, or (`mark` null) nobody's for ever. Durable. */
export async function claim(folder: string, mark: ProcessMark | null): Promise<boolean> {
  const own = `begun.${mark?.pid ?? 'nobody'}`;
  await writeRecord(disk, `${folder}/${own}`, magicOf('begun'), mark ?? NOBODY);
  try {
    await disk.link(`${folder}/${own}`, `${folder}/begun`);
  } catch (error) {
    if (error instanceof UnderstudyError && error.code === 'ERR_DISK_EXISTS') return false;
    throw error;
  } finally {
    await disk.remove(`${folder}/${own}`);
  }
  await disk.syncDirectory(folder);
  return true;
}

/** Null: no such process, or it has ended and was not waited for. */
export function markOf(pid: number): ProcessMark | null {
  if (pid <= 1) return null;
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ESRCH') return null;
    throw diskError(cause, `/proc/${pid}/stat`);
  }
  // proc(5): the name, in brackets, may hold anything; behind it the fields from the third on.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const [state, start] = [fields[0]!, fields[19]!];
  return state === 'Z' || state === 'X' ? null : { pid, start: `${boot}/${start}` };
}

export const isAlive = (mark: ProcessMark | null): boolean =>
  mark !== null && markOf(mark.pid)?.start === mark.start;

/** To the group that the process heads; it is still the one that is meant. False: it is gone. */
export function signalGroup(mark: ProcessMark | null, signal: NodeJS.Signals): boolean {
  return mark !== null && isAlive(mark) && send(-mark.pid, signal);
}

/** False: there is none. */
export function send(pid: number, signal: NodeJS.Signals): boolean {
  try {
    return process.kill(pid, signal);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ESRCH') return false;
    throw diskError(cause, `process ${pid}`);
  }
}
