/**
 * Keeps one script of a plan, as a process of its own: neither a stop nor the death of staging ends the
 * script, lets it run beyond its time, or loses how it ended. Staging follows by what lies in the folder
 * (script-folder.ts), in this life or the next.
 *
 *   node script-keeper.js FOLDER
 *
 * SIGTERM ends the script: its group gets SIGTERM, and 5 s later SIGKILL. What a script leaves running in
 * its group is ended with it.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { dirname } from 'node:path';
import { holdProcess, sleep, systemClock } from '../../base/clock.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { nodeDisk } from '../../base/node-disk.ts';
import {
  claim,
  markOf,
  readSpec,
  type ScriptEnd,
  type ScriptSpec,
  send,
  TERM_MS,
  writeEnd,
  writeScript,
} from './script-folder.ts';
import { runMark } from './script-search.ts';

/** What it is started with. */
export type KeeperWords = readonly [folder: string];

/** Somebody wants it ended. */
const asked = new AbortController();
const DRAIN_MS = 1000;
const RETRY_MS = 1000;
const MAX_LINES = 1000;
const MAX_LINE = 500;

/** Lines, in the order in which they come, each appended at once; no more than anybody would read. */
class Output {
  private readonly path: string;
  private writing: Promise<void> = Promise.resolve();
  private lines = 0;

  constructor(folder: string) {
    this.path = `${folder}/output`;
  }

  follow(stream: NodeJS.ReadableStream | null): void {
    let rest = '';
    stream?.setEncoding('utf8');
    stream?.on('data', (text: string) => {
      const parts = (rest + text).split('\n');
      rest = parts.pop()!.slice(0, MAX_LINE);
      for (const line of parts) this.say(line);
    });
    stream?.on('close', () => {
      if (rest !== '') this.say(rest);
    });
  }

  written(): Promise<void> {
    return this.writing;
  }

  private say(line: string): void {
    this.lines += 1;
    if (this.lines <= MAX_LINES) this.append(line.slice(0, MAX_LINE));
    if (this.lines === MAX_LINES + 1) this.append('it says more, which is left out');
  }

  /** A full disk loses lines, and never the script. */
  private append(line: string): void {
    this.writing = this.writing
      .then(async () => {
        const file = await nodeDisk.open(this.path, 'write');
        try {
          await file.write([Buffer.from(`${line}\n`)], await file.size());
        } finally {
          await file.close();
        }
      })
      .catch((error: Error) => void process.stderr.write(`${error.message}\n`));
  }
}

/** What is wrong with the file itself is told by the child; other reasons are thrown. */
function begun(spec: ScriptSpec, folder: string): ChildProcess {
  const { path, environment } = spec;
  // By it the script is found where this process ends before it can write it down.
  const env = { ...environment, ...runMark(folder) };
  return spawn(path, spec.arguments, { cwd: dirname(path), env, detached: true, stdio: 'pipe' });
}

const cannotStart = (path: string, cause: unknown): ScriptEnd => ({
  ...{ code: null, signal: null, isLate: false },
  problem: `${path} cannot be started: ${(cause as NodeJS.ErrnoException).code}`,
});

async function run(spec: ScriptSpec, folder: string): Promise<ScriptEnd> {
  const output = new Output(folder);
  let child: ChildProcess;
  try {
    child = begun(spec, folder);
    const exit = once(child, 'exit') as Promise<[number | null, string | null]>;
    // An error before it runs ends this wait, too.
    const end = exit.catch((error: unknown) => error);
    const closed = Promise.allSettled([child.stdout!, child.stderr!].map((s) => once(s, 'close')));
    for (const stream of [child.stdout, child.stderr]) output.follow(stream);
    // A script that does not read what it is told is none the worse for it.
    child.stdin!.on('error', () => child.stdin!.destroy());
    child.stdin!.end(spec.input);
    return await followed(spec, { child, end, closed, output, folder });
  } catch (cause) {
    if (cause instanceof UnderstudyError) throw cause;
    return cannotStart(spec.path, cause);
  }
}

/** A full disk makes it wait: it must neither end the keeper nor lose what there is to tell. */
async function written(write: () => Promise<void>, isVain = () => false): Promise<void> {
  while (!isVain()) {
    try {
      await write();
      return;
    } catch (error) {
      // With its folder has gone whoever would ask.
      if (error instanceof UnderstudyError && error.code === 'ERR_DISK_NOT_FOUND') return;
      process.stderr.write(`${(error as Error).message}: tried again\n`);
      await sleep(systemClock, RETRY_MS);
    }
  }
}

interface Running {
  readonly child: ChildProcess;
  readonly end: Promise<unknown>;
  readonly closed: Promise<unknown>;
  readonly output: Output;
  readonly folder: string;
}

async function followed(
  { path, timeoutMs }: ScriptSpec,
  { child, end, closed, output, folder }: Running,
): Promise<ScriptEnd> {
  const { pid } = child;
  const mark = pid === undefined ? null : markOf(pid);
  let isLate = false;
  const endGroup = (signal: NodeJS.Signals) => pid !== undefined && send(-pid, signal);
  const endSoon = () => {
    endGroup('SIGTERM');
    return systemClock.after(TERM_MS, () => endGroup('SIGKILL'));
  };
  let killer = systemClock.after(timeoutMs, () => {
    isLate = true;
    killer = endSoon();
  });
  const onAsked = () => {
    killer.cancel();
    killer = endSoon();
  };
  if (asked.signal.aborted) onAsked();
  else asked.signal.addEventListener('abort', onAsked);
  let hasEnded = false;
  const marked =
    mark !== null &&
    written(
      () => writeScript(folder, mark),
      () => hasEnded,
    );
  const how = await end;
  hasEnded = true;
  await marked;
  killer.cancel();
  if (!Array.isArray(how)) return cannotStart(path, how);
  endGroup('SIGKILL'); // what it has left behind
  await Promise.race([closed, sleep(systemClock, DRAIN_MS)]);
  for (const stream of child.stdio) (stream as { destroy(): void } | null)?.destroy();
  await output.written();
  const [code, signal] = how as [number | null, string | null];
  return { code, signal, isLate, problem: null };
}

async function keep(folder: string): Promise<void> {
  const spec = await readSpec(folder);
  const mark = markOf(process.pid);
  if (spec === null || mark === null || !(await claim(folder, mark))) return;
  const end = await run(spec, folder);
  await written(() => writeEnd(folder, end));
}

const release = holdProcess();
process.on('SIGTERM', () => asked.abort());
try {
  const [folder] = process.argv.slice(2) as unknown as KeeperWords;
  await keep(folder);
} finally {
  release();
}
