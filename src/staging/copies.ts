/**
 * Copies of the repository to the places that the service was started with: by schedule, and when an
 * operator asks. One at a time. What fails is logged, told by the API and tried again at the next turn;
 * replication never waits for it. Nobody can have the service copy to a place that it was not started
 * with: whoever has the token could otherwise have everything sent anywhere.
 *
 * A place's turn comes `everyMs` after its last copy began, also over a restart: the repository has a note
 * of it.
 */
import { resolve } from 'node:path';
import type { Clock, Timer } from '../base/clock.ts';
import { UnderstudyError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { CopyDestination, CopyOptions, CopyReport, KeepRule, Store } from '../store/types.ts';
import type { ApiCopyJob, ApiCopyPlace } from './api-types.ts';
import { asError } from './session-errors.ts';

const KEPT_JOBS = 16;
/** After a start, and after a failure that may pass. */
const FIRST_MS = 10_000;
const RETRY_MS = 300_000;

export interface CopiesOptions {
  readonly clock: Clock;
  readonly log: Log;
  readonly store: Pick<Store, 'copy' | 'copies'>;
  readonly places: readonly CopyDestination[];
  /** Null: only when asked. */
  readonly everyMs: number | null;
  /** Retention at the places; undefined: all points stay there. */
  readonly keep?: readonly KeepRule[] | undefined;
  /** 0: as fast as it goes. */
  readonly bytesPerSecond: number;
  readonly verify: NonNullable<CopyOptions['verify']>;
  /** False while the clock of this machine is in doubt: then nothing is dropped. */
  readonly isClockTrusted: () => boolean;
  readonly newId: () => string;
}

/** What an operator may ask of one copy. */
export type CopyRequest = Pick<CopyOptions, 'server' | 'sinceMs' | 'newest' | 'verify'>;

interface Place {
  readonly place: CopyDestination;
  /** Monotonic; null: not by schedule. */
  dueMs: number | null;
  error: ApiCopyPlace['error'];
}

interface Job {
  readonly shown: ApiCopyJob;
  readonly stop: AbortController;
}

export class Copies {
  private readonly options: CopiesOptions;
  private readonly places: readonly Place[];
  private readonly jobs = new Map<string, Job>();
  private running: Promise<void> | null = null;
  private timer: Timer | null = null;
  private isStopped = false;

  constructor(options: CopiesOptions) {
    this.options = options;
    this.places = options.places.map((place) => ({
      ...{ place, dueMs: this.firstTurn(place), error: null },
    }));
    this.arm();
  }

  /** Ends what is under way: what was copied by then counts at the next copy. */
  async stop(): Promise<void> {
    this.isStopped = true;
    this.timer?.cancel();
    for (const { stop } of this.jobs.values()) stop.abort();
    await this.running;
  }

  /** ERR_COPY_PLACE for a place that the service was not started with; ERR_JOB_RUNNING. */
  start(to: string, request: CopyRequest): ApiCopyJob {
    const asked = to.replace(/\/+$/, '');
    const found = this.places.find(
      ({ place: { name } }) => name === asked || name === resolve(asked),
    );
    if (found === undefined) {
      const message =
        `staging was not started with --copy-to ${to}; ` +
        'with --repo points are copied without the service';
      throw new UnderstudyError('ERR_COPY_PLACE', message, { path: to });
    }
    if (this.running !== null) {
      throw new UnderstudyError('ERR_JOB_RUNNING', 'a copy is running already');
    }
    return this.begin(found, request);
  }

  /** ERR_JOB_NOT_FOUND. */
  find(jobId: string): ApiCopyJob {
    return this.jobOf(jobId).shown;
  }

  /** The job ends soon, as `stopped`. ERR_JOB_NOT_FOUND. */
  stopJob(jobId: string): ApiCopyJob {
    const { shown, stop } = this.jobOf(jobId);
    stop.abort();
    return shown;
  }

  list(): ApiCopyPlace[] {
    const { clock, everyMs, store } = this.options;
    const nowMs = clock.monotonicMs();
    const known = store.copies();
    return this.places.map(({ place: { name }, dueMs, error }) => {
      const copy = known.find((each) => each.place === name);
      const jobs = [...this.jobs.values()].map(({ shown }) => shown);
      const job = jobs.filter((each) => each.place === name).at(-1);
      return {
        place: name,
        everyMs,
        nextMs: dueMs === null ? null : Math.round(clock.wallMs() + Math.max(0, dueMs - nowMs)),
        repository: copy?.repository ?? null,
        copiedMs: copy?.timeMs ?? null,
        verifiedMs: copy?.verifiedMs ?? null,
        points: copy?.points ?? 0,
        jobId: job?.state === 'running' ? job.jobId : null,
        error,
      };
    });
  }

  private jobOf(jobId: string): Job {
    const job = this.jobs.get(jobId);
    if (job === undefined) throw new UnderstudyError('ERR_JOB_NOT_FOUND', `no copy "${jobId}"`);
    return job;
  }

  private firstTurn({ name }: CopyDestination): number | null {
    const { clock, everyMs, store } = this.options;
    if (everyMs === null) return null;
    const last = store.copies().find((each) => each.place === name);
    const agoMs = last === undefined ? everyMs : clock.wallMs() - last.timeMs;
    // A clock that was turned back must not put the copy off for ever.
    const leftMs = Math.min(Math.max(FIRST_MS, everyMs - agoMs), Math.max(FIRST_MS, everyMs));
    return clock.monotonicMs() + leftMs;
  }

  /** Wakes at the next turn. */
  private arm(): void {
    this.timer?.cancel();
    const turns = this.places.flatMap(({ dueMs }) => dueMs ?? []);
    if (this.isStopped || this.running !== null || turns.length === 0) return;
    const { clock } = this.options;
    const waitMs = Math.max(0, Math.min(...turns) - clock.monotonicMs());
    this.timer = clock.after(Math.min(waitMs, 2 ** 31 - 1), () => {
      const nowMs = clock.monotonicMs();
      const due = this.places.find(({ dueMs }) => dueMs !== null && dueMs <= nowMs);
      if (due === undefined) this.arm();
      else this.begin(due, {});
    });
  }

  private begin(place: Place, request: CopyRequest): ApiCopyJob {
    const { clock, newId, everyMs } = this.options;
    const shown: ApiCopyJob = {
      ...{ jobId: newId(), place: place.place.name, state: 'running', startedMs: clock.wallMs() },
      progress: { points: 0, ofPoints: 0, bytesRead: 0, bytesWritten: 0 },
      ...{ report: null, error: null },
    };
    const job = { shown, stop: new AbortController() };
    this.jobs.set(shown.jobId, job);
    const oldest = this.jobs.keys().next().value;
    if (this.jobs.size > KEPT_JOBS && oldest !== undefined) this.jobs.delete(oldest);
    if (everyMs !== null) place.dueMs = clock.monotonicMs() + everyMs;
    this.timer?.cancel();
    this.running = this.run(place, job, request).finally(() => {
      this.running = null;
      this.arm();
    });
    return shown;
  }

  private async run(place: Place, { shown, stop }: Job, request: CopyRequest): Promise<void> {
    const { keep, bytesPerSecond, verify, isClockTrusted, log } = this.options;
    try {
      shown.report = await this.copy(place.place, {
        ...{ keep, bytesPerSecond, verify, ...request },
        ...{ isDropping: isClockTrusted(), signal: stop.signal },
        onProgress: (progress) => {
          shown.progress = progress;
        },
      });
      shown.state = 'done';
      place.error = null;
      tell(log, shown.report);
    } catch (cause) {
      if (stop.signal.aborted) shown.state = 'stopped';
      else this.failed(place, shown, asError(cause));
    }
  }

  private async copy(destination: CopyDestination, options: CopyOptions): Promise<CopyReport> {
    const place = await destination.open();
    try {
      return await this.options.store.copy(place, options);
    } finally {
      await place.close();
    }
  }

  private failed(place: Place, shown: ApiCopyJob, error: UnderstudyError): void {
    const { clock, log } = this.options;
    shown.state = 'failed';
    shown.error = { code: error.code, message: error.message, hint: error.spec.hint };
    place.error = shown.error;
    const { kind, retryable } = error.spec;
    const fields = { place: shown.place, code: error.code, reason: error.message };
    if (kind === 'operational' || kind === 'usage') log.warn('a copy failed', fields);
    else log.error('a copy failed', fields);
    if (place.dueMs === null || !retryable) return;
    place.dueMs = Math.min(place.dueMs, clock.monotonicMs() + RETRY_MS);
  }
}

function tell(log: Log, report: CopyReport): void {
  const { place, points, held, skipped, bytesWritten, dropped, verified, tookMs } = report;
  const damaged = skipped.filter(({ reason }) => reason === 'damaged').length;
  const findings = verified?.findings.length ?? 0;
  const fields = { place, points, held, bytesWritten, dropped, damaged, findings, tookMs };
  if (damaged + findings > 0) log.error('a copy met damage', fields);
  else if (points + dropped > 0) log.info('copied', fields);
}
