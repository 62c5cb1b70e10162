/**
 * Scripts of plans: programs that the administrator of the staging machine has put into one folder. A plan
 * names a file there, never a path, and whoever can apply a plan cannot bring a program in: the folder, what
 * leads to it and the file must belong to root or to the service's own user, and nobody else may write.
 *
 * A script gets its arguments as a list (no shell), a small environment of its own, JSON on standard input,
 * and a time. Its output goes to the job's log, its exit code decides. Run in a group of processes of its
 * own, which is ended with it.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { lstatSync, realpathSync, type Stats, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Clock, Timer } from '../../base/clock.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { formatDuration } from '../../base/units.ts';
import type { PlanScript } from './plan-file.ts';

const TERM_MS = 5000;
const MAX_LINES = 1000;
const MAX_LINE = 500;
const OTHERS_WRITE = 0o022;
const STICKY = 0o1000;

export interface ScriptRun {
  readonly script: PlanScript;
  readonly environment: Readonly<Record<string, string>>;
  /** For standard input. */
  readonly input: string;
  /** Ends it. */
  readonly stop: AbortSignal;
  say(line: string): void;
}

export class Scripts {
  private readonly folder: string | null;
  private readonly clock: Clock;

  /** `folder`: null where the service was given none. */
  constructor(folder: string | null, clock: Clock) {
    this.folder = folder;
    this.clock = clock;
  }

  /** The file that would be run. ERR_PLAN_SCRIPTS_DIR, ERR_PLAN_SCRIPT. */
  pathOf(name: string): string {
    if (this.folder === null) {
      const message = `script ${name}: this service runs no scripts (staging run --scripts-dir)`;
      throw new UnderstudyError('ERR_PLAN_SCRIPTS_DIR', message);
    }
    const folder = this.trustedFolder(this.folder);
    const path = join(folder, name);
    const found = look(() => lstatSync(path));
    if (found === null) throw refuse('ERR_PLAN_SCRIPT', `there is no script ${name} in ${folder}`);
    if (!found.isFile()) throw refuse('ERR_PLAN_SCRIPTS_DIR', `${path} is no plain file`);
    requireTrust(path, found);
    if ((found.mode & 0o111) === 0) throw refuse('ERR_PLAN_SCRIPT', `${path} is not executable`);
    return path;
  }

  /** Resolves when it has ended well. ERR_PLAN_SCRIPT, and what `pathOf` refuses. */
  async run(run: ScriptRun): Promise<void> {
    const path = this.pathOf(run.script.script);
    if (run.stop.aborted) throw stopped(run);
    const child = begun(path, run);
    const end = endOf(child, path);
    tellOutput(child, run);
    feed(child, run.input);
    let isLate = false;
    let killer = this.clock.after(run.script.timeoutMs, () => {
      isLate = true;
      killer = this.endGroup(child, run);
    });
    const onStop = () => {
      killer.cancel();
      killer = this.endGroup(child, run);
    };
    run.stop.addEventListener('abort', onStop);
    try {
      const how = await end;
      if (run.stop.aborted) throw stopped(run);
      const limit = formatDuration(run.script.timeoutMs);
      if (isLate) throw failed(run, `did not end within ${limit}`);
      if (how !== 0) throw failed(run, typeof how === 'number' ? `exit code ${how}` : how);
    } finally {
      killer.cancel();
      run.stop.removeEventListener('abort', onStop);
      killGroup(child, 'SIGKILL', run); // what it has left behind
      for (const stream of child.stdio) stream?.destroy();
    }
  }

  private endGroup(child: ChildProcess, run: ScriptRun): Timer {
    killGroup(child, 'SIGTERM', run);
    return this.clock.after(TERM_MS, () => killGroup(child, 'SIGKILL', run));
  }

  private trustedFolder(given: string): string {
    const folder = look(() => realpathSync(given));
    if (folder === null) throw refuse('ERR_PLAN_SCRIPTS_DIR', `there is no folder ${given}`);
    const stats = statSync(folder);
    if (!stats.isDirectory()) throw refuse('ERR_PLAN_SCRIPTS_DIR', `${folder} is no folder`);
    requireTrust(folder, stats);
    for (let above = dirname(folder); ; above = dirname(above)) {
      const isSticky = (statSync(above).mode & STICKY) !== 0;
      if (!isSticky) requireTrust(above, statSync(above));
      if (above === dirname(above)) return folder;
    }
  }
}

const refuse = (code: 'ERR_PLAN_SCRIPT' | 'ERR_PLAN_SCRIPTS_DIR', message: string) =>
  new UnderstudyError(code, message);
const failed = ({ script }: ScriptRun, why: string): UnderstudyError =>
  refuse('ERR_PLAN_SCRIPT', `script ${script.script}: ${why}`);
const stopped = (run: ScriptRun): UnderstudyError => failed(run, 'was ended');

/** Null: not there. */
function look<Value>(ask: () => Value): Value | null {
  try {
    return ask();
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return null;
    throw new UnderstudyError('ERR_PLAN_SCRIPTS_DIR', (cause as Error).message, {}, cause);
  }
}

function requireTrust(path: string, { uid, mode }: Stats): void {
  if (uid !== 0 && uid !== process.getuid?.()) {
    throw refuse('ERR_PLAN_SCRIPTS_DIR', `${path} belongs to user ${uid}`);
  }
  if ((mode & OTHERS_WRITE) !== 0) {
    throw refuse('ERR_PLAN_SCRIPTS_DIR', `${path} can be written by others`);
  }
}

/** What is wrong with the file itself is told by the child; other reasons are thrown. ERR_PLAN_SCRIPT. */
function begun(path: string, { script, environment }: ScriptRun): ChildProcess {
  try {
    return spawn(path, script.arguments, {
      ...{ cwd: dirname(path), env: environment, detached: true, stdio: 'pipe' },
    });
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    const message = `script ${script.script}: ${path} cannot be started: ${code}`;
    throw new UnderstudyError('ERR_PLAN_SCRIPT', message, {}, cause);
  }
}

/** The exit code, or what ended it. */
function endOf(child: ChildProcess, path: string): Promise<number | string> {
  return new Promise((resolve) => {
    child.on('error', (cause: NodeJS.ErrnoException) => {
      resolve(`${path} cannot be started: ${cause.code}`);
    });
    child.on('exit', (code, signal) => resolve(code ?? `ended by ${signal}`));
  });
}

function killGroup({ pid }: ChildProcess, signal: NodeJS.Signals, { script, say }: ScriptRun) {
  if (pid === undefined) return;
  try {
    process.kill(-pid, signal);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    // Gone: that is what was wanted.
    if (code !== 'ESRCH') say(`${script.script}: cannot be ended: ${code}`);
  }
}

/** A script that does not read what it is told is none the worse for it. */
function feed({ stdin }: ChildProcess, input: string): void {
  stdin?.on('error', () => stdin.destroy());
  stdin?.end(input);
}

function tellOutput(child: ChildProcess, { script, say }: ScriptRun): void {
  let lines = 0;
  const tell = (line: string) => {
    lines += 1;
    if (lines <= MAX_LINES) say(`${script.script}: ${line.slice(0, MAX_LINE)}`);
    if (lines === MAX_LINES + 1) say(`${script.script}: it says more, which is left out`);
  };
  for (const stream of [child.stdout, child.stderr]) {
    let rest = '';
    stream?.setEncoding('utf8');
    stream?.on('data', (text: string) => {
      const parts = (rest + text).split('\n');
      rest = parts.pop()!.slice(0, MAX_LINE);
      for (const line of parts) tell(line);
    });
    stream?.on('close', () => {
      if (rest !== '') tell(rest);
    });
  }
}
