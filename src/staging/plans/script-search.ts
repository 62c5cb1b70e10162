/**
 * Finds a script that its keeper had started and had not written down yet when it was killed: by a word that the
 * keeper puts into the environment of this run alone. What the script has itself started is not meant: only the
 * head of the group, which runs the script's file.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { diskError } from '../../base/node-disk.ts';
import { markOf, type ProcessMark } from './script-folder.ts';

const RUN = 'UNDERSTUDY_RUN';

/** What the script of this folder finds in its environment besides its own. */
export const runMark = (folder: string): Record<string, string> => ({ [RUN]: folder });

/** `path`: of the script. Null: it was never started, or has ended. */
export function searchScript(folder: string, path: string): ProcessMark | null {
  for (const name of readdirSync('/proc')) {
    const pid = Number(name);
    if (!Number.isSafeInteger(pid) || pid <= 1) continue;
    const isIts = wordsOf(pid, 'environ').includes(`${RUN}=${folder}`);
    if (!isIts || !wordsOf(pid, 'cmdline').includes(path)) continue;
    const mark = markOf(pid);
    if (mark !== null && isHead(pid)) return mark;
  }
  return null;
}

/** Of another user's, and of what has ended, nothing. */
function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (['ENOENT', 'ESRCH', 'EACCES', 'EPERM'].includes(code ?? '')) return '';
    throw diskError(cause, path);
  }
}

const wordsOf = (pid: number, name: 'environ' | 'cmdline'): string[] =>
  read(`/proc/${pid}/${name}`).split('\0');

/** proc(5): behind the name, in brackets: state, parent, group. */
function isHead(pid: number): boolean {
  const stat = read(`/proc/${pid}/stat`);
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[2]) === pid;
}
