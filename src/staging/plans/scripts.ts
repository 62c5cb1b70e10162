/**
 * Scripts of plans: programs that the administrator of the staging machine has put into one folder. A plan
 * names a file there, never a path, and whoever can apply a plan cannot bring a program in: the folder, what
 * leads to it and the file must belong to root or to the service's own user, and nobody else may write.
 *
 * A script gets its arguments as a list (no shell), a small environment of its own, JSON on standard input,
 * and a time. Its output goes to the job's log, its exit code decides. It is run by a keeper (script-keeper.ts)
 * that outlives staging: whoever asks for the same folder again follows the same run, and none is begun twice.
 */
import { spawn } from 'node:child_process';
import { closeSync, lstatSync, openSync, realpathSync, type Stats, statSync } from 'node:fs';
import { dirname, extname, join } from 'node:path';
import { type Clock, sleep } from '../../base/clock.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { nodeDisk } from '../../base/node-disk.ts';
import { formatDuration } from '../../base/units.ts';
import type { PlanScript } from './plan-file.ts';
import {
  claim,
  isAlive,
  type ProcessMark,
  readBegun,
  readEnd,
  readScript,
  readSpec,
  type ScriptEnd,
  send,
  signalGroup,
  TERM_MS,
  writeSpec,
} from './script-folder.ts';
import type { KeeperWords } from './script-keeper.ts';
import { ScriptOutput } from './script-output.ts';
import { searchScript } from './script-search.ts';

const LOOK_MS = 100;
/** A keeper that was told to end, and does not. */
const GRACE_MS = 3 * TERM_MS;
const OTHERS_WRITE = 0o022;
const STICKY = 0o1000;

export interface ScriptRun {
  readonly script: PlanScript;
  /** Of this run alone: what lies there says whether it was begun, and how it ended. */
  readonly folder: string;
  readonly environment: Readonly<Record<string, string>>;
  /** For standard input. */
  readonly input: string;
  /** Ends it. */
  readonly stop: AbortSignal;
  /** Leaves it running. */
  readonly leave: AbortSignal;
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

  /**
   * Begins it, or follows what an earlier life has begun in the folder. Resolves when it has ended well, or
   * was left ('left'). ERR_PLAN_SCRIPT, and what `pathOf` refuses.
   */
  async run(run: ScriptRun): Promise<'done' | 'left'> {
    const { folder, script, stop, leave, say } = run;
    const keeper = (await readBegun(folder)) === null ? await this.begin(run) : null;
    const output = new ScriptOutput(folder, (line) => say(`${script.script}: ${line}`));
    for (;;) {
      // In this order: what was alive before the end was looked for has not ended unseen.
      const isKept = await this.isKept(folder, keeper);
      const end = await readEnd(folder);
      await output.tell();
      if (stop.aborted) {
        await this.end(folder);
        await output.tell();
        throw failed(run, 'was ended');
      }
      if (end !== null) return verdict(run, end);
      if (leave.aborted) return 'left';
      if (!isKept) return await this.lost(run);
      await sleep(this.clock, LOOK_MS);
    }
  }

  /** Ends what runs in the folder, and sees to it that nothing begins there. */
  async end(folder: string): Promise<void> {
    if (!(await nodeDisk.exists(folder))) return;
    // What runs is ended on a full disk, too, where nothing can be claimed.
    if ((await readBegun(folder)) === null && (await claim(folder, null))) return;
    const keeper = await readBegun(folder);
    const startMs = this.clock.monotonicMs();
    if (isAlive(keeper)) send(keeper!.pid, 'SIGTERM');
    while (isAlive(keeper)) {
      if (this.clock.monotonicMs() - startMs > GRACE_MS) send(keeper!.pid, 'SIGKILL');
      await sleep(this.clock, LOOK_MS);
    }
    if ((await readEnd(folder)) === null) signalGroup(await this.left(folder), 'SIGKILL');
  }

  /** The script that a killed keeper has left. */
  private async left(folder: string): Promise<ProcessMark | null> {
    const noted = await readScript(folder);
    if (noted !== null) return noted;
    const spec = await readSpec(folder);
    return spec === null ? null : searchScript(folder, spec.path);
  }

  /** Its keeper. What lies in the folder may be what a life left that died before it was begun. */
  private async begin(run: ScriptRun): Promise<{ hasEnded: boolean }> {
    const { folder, script, environment, input } = run;
    const path = this.pathOf(script.script);
    if (run.stop.aborted) throw failed(run, 'was ended');
    await nodeDisk.makeDirectory(folder);
    const { arguments: words, timeoutMs } = script;
    await writeSpec(folder, { path, arguments: words, environment, input, timeoutMs });
    const keeper = { hasEnded: false };
    const log = openSync(join(folder, 'keeper.log'), 'a', 0o600);
    try {
      const words: KeeperWords = [folder];
      const child = spawn(process.execPath, [KEEPER, ...words], {
        ...{ cwd: folder, env: {}, detached: true, stdio: ['ignore', 'ignore', log] },
      });
      child.on('error', () => {
        keeper.hasEnded = true;
      });
      child.on('exit', () => {
        keeper.hasEnded = true;
      });
      child.unref();
    } finally {
      closeSync(log);
    }
    return keeper;
  }

  private async isKept(folder: string, keeper: { hasEnded: boolean } | null): Promise<boolean> {
    const wasThere = keeper !== null && !keeper.hasEnded;
    const begun: ProcessMark | null = await readBegun(folder);
    return begun === null ? wasThere : isAlive(begun);
  }

  /** Nobody knows how it ended, or whether it did: what is left of it is ended, and an operator looks. */
  private async lost(run: ScriptRun): Promise<never> {
    await this.end(run.folder);
    const wasBegun = (await readBegun(run.folder))?.pid !== 0;
    const what = wasBegun
      ? 'what ran it is gone: whether it was done is not known'
      : 'could not be begun';
    throw failed(run, `${what} (see ${join(run.folder, 'keeper.log')})`);
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

const KEEPER = join(import.meta.dirname, `script-keeper${extname(import.meta.filename)}`);

function verdict(run: ScriptRun, { code, signal, isLate, problem }: ScriptEnd): 'done' {
  if (problem !== null) throw failed(run, problem);
  if (isLate) throw failed(run, `did not end within ${formatDuration(run.script.timeoutMs)}`);
  if (signal !== null) throw failed(run, `ended by ${signal}`);
  if (code !== 0) throw failed(run, `exit code ${code}`);
  return 'done';
}

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
