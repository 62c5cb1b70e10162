/**
 * What a job is doing while a command waits for it, in one line of a terminal: its phase, how long, what is
 * copied, and what its machine has printed last.
 */
import { UnderstudyError } from '../base/errors.ts';
import { formatDuration } from '../base/units.ts';
import type { ApiJob } from '../staging/api-types.ts';
import type { CommandContext } from './command.ts';
import { plainLog, readJobLog } from './job-log.ts';
import type { RestClient } from './rest-client.ts';

const CONSOLE_MS = 1000;
const TAIL_BYTES = 4096;

export interface JobProgress {
  /** Called with each new state. */
  tell(job: ApiJob): Promise<void>;
  finish(): void;
}

export function jobProgress(
  context: CommandContext,
  client: RestClient,
  first: ApiJob,
): JobProgress {
  const { clock } = context;
  const label = first.target === '' ? first.kind : first.target;
  const progress = context.progress(label, first.kind === 'plan' ? 'steps' : 'bytes');
  const startMs = clock.monotonicMs();
  let readMs = Number.NEGATIVE_INFINITY;
  let line = '';
  return {
    async tell(job) {
      if (!progress.isSeen) return;
      const nowMs = clock.monotonicMs();
      if (nowMs - readMs >= CONSOLE_MS && hasConsole(job)) {
        readMs = nowMs;
        line = await lastLine(client, job.id);
      }
      const text = waitingText(job.phase || job.state, nowMs - startMs, line);
      if (job.progress === null) progress.show(`${label}: ${text}`);
      else progress.update(job.progress.done, job.progress.total, text);
    },
    finish: () => progress.finish(),
  };
}

/** "checking, 12 s: Starting ssh.service". Pure. */
export function waitingText(phase: string, elapsedMs: number, line: string): string {
  const whole = Math.floor(elapsedMs / 1000);
  const since = whole < 60 ? `${whole} s` : formatDuration(whole * 1000);
  return `${phase}, ${since}${line === '' ? '' : `: ${line}`}`;
}

const hasConsole = ({ target, state }: ApiJob): boolean => target === 'qemu' && state === 'running';

async function lastLine(client: RestClient, id: string): Promise<string> {
  try {
    const text = await readJobLog(client, id, { of: 'console', tail: TAIL_BYTES });
    return plainLog(text).split('\n').at(-1)!.trim();
  } catch (error) {
    // It has printed nothing yet.
    if (error instanceof UnderstudyError && error.code === 'ERR_JOB_NOT_FOUND') return '';
    throw error;
  }
}
