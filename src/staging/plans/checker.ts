/**
 * Boot checks by themselves: the newest whole point of each server that is due (check-schedule.ts decides)
 * is booted as a drill with a check, at low priority, one at a time, while no other drill or plan runs. What
 * fails is told loudly. A check is written down before its job is made, by the job's id, so that a restart
 * goes on with it; the verdict itself is the point's (DATA/boot-checks).
 */
import type { Clock, Timer } from '../../base/clock.ts';
import { UnderstudyError } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { qemuOptions } from '../../recovery/qemu/options.ts';
import type { LaunchOptions } from '../../recovery/runner.ts';
import type { Store } from '../../store/types.ts';
import type { Jobs, ShownJob } from '../jobs/jobs.ts';
import { asError } from '../session-errors.ts';
import type { CheckPolicy, CheckRecord, CheckRecords } from './check-records.ts';
import {
  begun,
  type CheckOutcome,
  dueMs,
  ended,
  type LastCheck,
  type NewestPoint,
  nextServer,
} from './check-schedule.ts';
import { newest } from './choose-point.ts';
import { findJob } from './plan-ports.ts';
import type { Verdicts } from './verdicts.ts';

export interface CheckerOptions {
  readonly clock: Clock;
  readonly log: Log;
  readonly store: Pick<Store, 'servers' | 'points' | 'lastCommitted' | 'point'>;
  readonly jobs: Pick<Jobs, 'start' | 'find' | 'list' | 'newId' | 'forgetVerdicts'>;
  readonly verdicts: Verdicts;
  readonly records: CheckRecords;
  /** Of servers that have no policy of their own. */
  readonly standard: { readonly everyMs: number; readonly options: LaunchOptions };
  readonly onBroken: (error: UnderstudyError) => void;
  readonly tickMs?: number;
}

const TICK_MS = 15_000;
/** Some point, where only the time is asked about. */
const ANY: NewestPoint = { id: '', isVerified: false };
const NOT_OURS = ['check', 'keepRunning', 'priority'];

/** Where the checks of a server stand. */
export interface ShownServerCheck {
  server: string;
  /** 0: never. */
  everyMs: number;
  /** Of the target qemu. */
  options: LaunchOptions;
  /** The policy is that of the service. */
  isDefault: boolean;
  defaultEveryMs: number;
  state: 'off' | 'waiting' | 'running';
  /** When the next is due, ms since 1970, if there is a point by then that has not booted yet. */
  nextMs: number | null;
  /** The job for whose end a check that is due waits. */
  waitsFor: string | null;
  /** In a row. */
  failures: number;
  last: LastCheck | null;
}

export class Checker {
  private readonly options: CheckerOptions;
  private timer: Timer | null = null;
  private running: Promise<void> = Promise.resolve();
  private isStopped = false;
  /** A job that a check that is due waits for. */
  private waitsFor: string | null = null;

  constructor(options: CheckerOptions) {
    this.options = options;
    this.running = this.turn();
  }

  async stop(): Promise<void> {
    this.isStopped = true;
    this.timer?.cancel();
    await this.running;
  }

  status(server: string): ShownServerCheck {
    const { clock, records, standard } = this.options;
    const record = records.get(server);
    const { everyMs, options } = this.settingsOf(record);
    const isRunning = record.last !== null && record.last.outcome === null;
    const due = dueMs(record, everyMs, ANY, clock.wallMs());
    return {
      ...{ server, everyMs, options, isDefault: record.policy === null },
      defaultEveryMs: standard.everyMs,
      state: isRunning ? 'running' : everyMs === 0 ? 'off' : 'waiting',
      nextMs: due === null ? null : Math.round(due),
      waitsFor: due !== null && due <= clock.wallMs() ? this.waitsFor : null,
      failures: record.failures,
      last: record.last,
    };
  }

  /** Null: as the service does. Durable when it resolves. ERR_LAUNCH_OPTIONS, ERR_SERVER_NOT_FOUND. */
  async setPolicy(server: string, policy: CheckPolicy | null): Promise<ShownServerCheck> {
    const { store, records, standard } = this.options;
    if (!(await store.servers()).some((known) => known.server === server)) {
      throw new UnderstudyError('ERR_SERVER_NOT_FOUND', `no server "${server}"`);
    }
    if (policy !== null) checkedOptions({ ...standard.options, ...policy.options });
    await records.update(server, () => ({ policy }));
    return this.status(server);
  }

  private settingsOf({ policy }: CheckRecord): { everyMs: number; options: LaunchOptions } {
    const { standard } = this.options;
    return {
      everyMs: policy?.everyMs ?? standard.everyMs,
      options: { ...standard.options, ...policy?.options },
    };
  }

  private async turn(): Promise<void> {
    try {
      await this.look();
    } catch (cause) {
      this.failed(asError(cause));
    }
    if (this.isStopped) return;
    this.timer = this.options.clock.after(this.options.tickMs ?? TICK_MS, () => {
      this.running = this.turn();
    });
  }

  private failed(error: UnderstudyError): void {
    if (error.spec.kind === 'bug') this.options.onBroken(error);
    else if (!this.isStopped) {
      const { code, message: reason } = error;
      this.options.log.error('boot checks cannot be made', { code, reason });
    }
  }

  private async look(): Promise<void> {
    const servers = (await this.options.store.servers()).map(({ server }) => server);
    for (const server of servers) await this.follow(this.options.records.get(server));
    const due: { server: string; dueMs: number | null }[] = [];
    for (const server of servers) due.push({ server, dueMs: await this.dueOf(server) });
    const next = nextServer(due, this.options.clock.wallMs());
    this.waitsFor = this.busyJob();
    if (next === null || this.waitsFor !== null || this.isStopped) return;
    await this.begin(next);
  }

  /** Of the check that runs, if one does: how it ended. */
  private async follow(record: CheckRecord): Promise<void> {
    const { last } = record;
    if (last === null || last.outcome !== null) return;
    const { jobs, records, clock, log } = this.options;
    const job = findJob(jobs, last.job);
    if (job === null) {
      // Staging was ended between the two, or somebody has made the job forgotten: it counts for nothing.
      log.warn('a boot check was never made', { server: record.server, job: last.job });
      await records.update(record.server, () => ({ last: null }));
      return;
    }
    if (job.outcome === null) return;
    const verdict = verdictOf(job);
    await records.update(record.server, (now) => ended(now, verdict, clock.wallMs()));
    this.tell(record.server, last.point, verdict);
    await this.forgetOld();
  }

  private tell(server: string, point: string, verdict: Verdict): void {
    const { log, records } = this.options;
    const { outcome, detail, hasBooted } = verdict;
    const { failures } = records.get(server);
    const message = hasBooted ? 'A POINT DOES NOT BOOT' : 'A POINT COULD NOT BE BOOTED';
    if (outcome === 'failed') log.error(message, { server, point, detail, failures });
    else log.info('a boot check has ended', { server, point, outcome, detail });
  }

  private async dueOf(server: string): Promise<number | null> {
    const { records, clock } = this.options;
    const record = records.get(server);
    const { everyMs } = this.settingsOf(record);
    const nowMs = clock.wallMs();
    const soonest = dueMs(record, everyMs, ANY, nowMs);
    if (soonest === null || soonest > nowMs) return soonest;
    return dueMs(record, everyMs, await this.newestOf(server), nowMs);
  }

  private async newestOf(server: string): Promise<(NewestPoint & { time: string }) | null> {
    const { store, verdicts } = this.options;
    const point = await newest({ store, verdicts }, { server, atMs: null, isVerified: false });
    if (point === null) return null;
    const isVerified = (await verdicts.of([point.id])).get(point.id) === true;
    return { id: point.id, time: point.time, isVerified };
  }

  /** A check must not take from those that matter more what the machine has. */
  private busyJob(): string | null {
    const isBusy = ({ kind, outcome, access }: ShownJob) =>
      outcome === null && (kind === 'drill' || kind === 'plan' || (kind === 'failover' && !access));
    return this.options.jobs.list().find(isBusy)?.id ?? null;
  }

  private async begin(server: string): Promise<void> {
    const { jobs, records, clock, log } = this.options;
    const point = await this.newestOf(server);
    if (point === null) return;
    const before = records.get(server);
    const id = jobs.newId();
    const started = { point: point.id, pointTime: point.time, job: id };
    await records.update(server, (now) => begun(now, started, clock.wallMs()));
    try {
      const options = checkedOptions(this.settingsOf(before).options);
      await jobs.start({ point: point.id, target: 'qemu', options, id });
      log.info('a boot check begins', { server, point: point.id, job: id });
    } catch (error) {
      await this.refused(before, started, asError(error));
    }
  }

  private async refused(
    before: CheckRecord,
    started: { point: string; pointTime: string },
    error: UnderstudyError,
  ): Promise<void> {
    const { records, clock } = this.options;
    // Dropped just now, or staging stops: as if it had not been tried.
    if (['ERR_POINT_NOT_FOUND', 'ERR_STAGING_STOPPING'].includes(error.code)) {
      await records.update(before.server, () => ({ last: before.last }));
      return;
    }
    const nowMs = clock.wallMs();
    const detail = `${error.message} (${error.code})`;
    const verdict: Verdict = { outcome: 'failed', detail, hasBooted: false };
    const tried = begun(before, { ...started, job: null }, nowMs);
    await records.update(before.server, () => ended(tried, verdict, nowMs));
    this.tell(before.server, started.point, verdict);
    if (error.spec.kind === 'bug') throw error;
  }

  /** Verdicts of points that are gone. */
  private async forgetOld(): Promise<void> {
    const { jobs, store } = this.options;
    await jobs.forgetVerdicts(async (point) => {
      try {
        await store.point(point);
        return true;
      } catch (error) {
        if (error instanceof UnderstudyError && error.code === 'ERR_POINT_NOT_FOUND') return false;
        throw error;
      }
    });
  }
}

interface Verdict {
  readonly outcome: CheckOutcome;
  readonly detail: string;
  /** It was tried: false where there was no machine to try it on. */
  readonly hasBooted: boolean;
}

function verdictOf({ check, outcome, error }: ShownJob): Verdict {
  const hasBooted = check !== null;
  if (check !== null) {
    return { outcome: check.passed ? 'passed' : 'failed', detail: check.detail, hasBooted };
  }
  if (outcome !== 'failed') {
    return { outcome: 'cancelled', detail: 'ended before its verdict', hasBooted };
  }
  return { outcome: 'failed', detail: `${error?.message} (${error?.code})`, hasBooted };
}

/** ERR_LAUNCH_OPTIONS. */
export function checkedOptions(options: LaunchOptions): LaunchOptions {
  const foreign = NOT_OURS.find((name) => Object.hasOwn(options, name));
  if (foreign !== undefined) {
    const message = `\`${foreign}\` is decided by the schedule of boot checks`;
    throw new UnderstudyError('ERR_LAUNCH_OPTIONS', message);
  }
  const whole = { ...options, check: true, priority: 'low' };
  qemuOptions(whole, 'drill');
  return whole;
}
