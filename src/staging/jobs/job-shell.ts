/**
 * Carries out what job-state.ts decides: a state is made durable first, then its effects follow: the work
 * and the cleanup of a job, the next try of a cleanup that has failed, lines of its log.
 */
import type { Clock } from '../../base/clock.ts';
import type { Log } from '../../base/log.ts';
import { CHUNK_BYTES } from '../../model/geometry.ts';
import { damageText, isLoss } from '../../recovery/damage.ts';
import type { CheckResult } from '../../recovery/launcher.ts';
import type { Made } from '../../recovery/runner.ts';
import type { Store } from '../../store/types.ts';
import { errorBody } from '../api-errors.ts';
import type { ImageDoor } from './image-door.ts';
import type { JobFiles } from './job-files.ts';
import {
  cleanPauseMs,
  type Job,
  type JobEffect,
  type JobError,
  type JobEvent,
  needsPoint,
  transition,
} from './job-state.ts';
import { holdPoint, type Live, releasePoint, type WorkPorts } from './live-job.ts';
import type { Workers } from './workers.ts';

export interface ShellPorts {
  readonly dataDir: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly store: Store;
  readonly door: ImageDoor;
}

/** Before a state that could not be written down is tried again. */
const SAVE_PAUSE_MS = 5000;

export class JobShell {
  private readonly ports: ShellPorts;
  private readonly files: JobFiles;
  private readonly workers: Workers;
  private readonly work: WorkPorts;

  constructor(ports: ShellPorts, files: JobFiles, workers: Workers) {
    this.ports = ports;
    this.files = files;
    this.workers = workers;
    this.work = {
      ...ports,
      folder: (id) => files.folder(id),
      tell: (live, event) => this.apply(live, event),
      say: (live, line) => this.say(live, line),
      saveCheck: (job, check) => this.saveCheck(job, check),
    };
  }

  /** Staging stops: what runs is left running, and nothing more is tried. */
  leave(live: Live): void {
    live.leave.abort();
    live.cleanTimer?.cancel();
  }

  /** After a restart. Where it cannot be, the launch tries again, and tells. */
  async holdAgain(live: Live): Promise<void> {
    if (!needsPoint(live.job)) return;
    await holdPoint(live, this.ports.store).catch((error: Error) => {
      const { id, point } = live.job;
      this.ports.log.error('a point cannot be held', { job: id, point, reason: error.message });
    });
  }

  /** Durable, then carried out. A state that cannot be made durable is thrown, its effects left. */
  private async apply(live: Live, event: JobEvent): Promise<void> {
    const { job, effects } = transition(live.job, event, this.ports.clock.wallMs());
    const isChanged = job !== live.job;
    live.job = job;
    // At once: one that ends before this is durable speaks of another state.
    if (effects.some(({ type }) => type === 'clean')) live.cleanRound += 1;
    if (isChanged) await this.queued(live, () => this.save(live, job));
    for (const effect of effects) this.perform(live, effect);
  }

  /** For what is asked for: where it cannot be made durable it was not asked. */
  async applyOrNot(live: Live, event: JobEvent): Promise<void> {
    const before = live.job;
    // A try meanwhile would act on what may not come to be.
    live.cleanTimer?.cancel();
    try {
      await this.apply(live, event);
    } catch (error) {
      live.job = before;
      if (before.cleanTries > 0) this.cleanLater(live, cleanPauseMs(before.cleanTries));
      // One that has ended meanwhile was not heard.
      else void this.settle(live, { type: 'cleanDue' });
      throw error;
    }
  }

  /** For events whose effects must follow even where the disk takes no more: ends and cleanups. */
  async settle(live: Live, event: JobEvent): Promise<void> {
    const before = live.job;
    try {
      await this.apply(live, event);
    } catch (error) {
      this.ports.log.error('a job could not be written down', {
        ...{ job: before.id, event: event.type, reason: String(error) },
      });
      const { effects } = transition(before, event, this.ports.clock.wallMs());
      for (const effect of effects) this.perform(live, effect);
    }
  }

  /** What cannot be written down is known from memory, and tried again until it is. */
  private async save(live: Live, job: Job): Promise<void> {
    try {
      await this.files.save(job);
      live.unwritten = null;
    } catch (error) {
      if (live.unwritten === null) this.saveLater(live);
      live.unwritten = error instanceof Error ? error.message : String(error);
      throw error;
    }
  }

  private saveLater(live: Live): void {
    this.ports.clock.after(SAVE_PAUSE_MS, () => {
      if (live.unwritten === null || live.leave.signal.aborted) return;
      const again = () => this.files.save(live.job);
      this.queued(live, again).then(
        () => {
          live.unwritten = null;
        },
        () => this.saveLater(live), // it tells why as long as it lasts
      );
    });
  }

  private queued(live: Live, write: () => Promise<void>): Promise<void> {
    const written = live.writing.then(write);
    live.writing = written.catch(() => undefined);
    return written;
  }

  private perform(live: Live, effect: JobEffect): void {
    if (effect.type === 'say') this.say(live, effect.line);
    if (effect.type === 'endLaunch') live.stop.abort(live.stopReason);
    // What staging's end has overtaken is launched by its next life.
    const isLeft = live.leave.signal.aborted;
    if (effect.type === 'launch' && !isLeft) live.running = this.launch(live);
    if (effect.type === 'clean') this.cleanNow(live, effect.made);
    if (effect.type === 'cleanLater') this.cleanLater(live, effect.delayMs);
  }

  private cleanNow(live: Live, made: readonly Made[]): void {
    live.cleanTimer?.cancel();
    const round = live.cleanRound;
    live.cleaning = live.cleaning.then(() => this.clean(live, made, round));
    live.running = live.cleaning;
  }

  private cleanLater(live: Live, delayMs: number): void {
    if (live.leave.signal.aborted) return;
    live.cleanTimer = this.ports.clock.after(delayMs, () => {
      void this.settle(live, { type: 'cleanDue' });
    });
  }

  private say(live: Live, line: string): void {
    const { clock, log } = this.ports;
    const time = new Date(clock.wallMs()).toISOString();
    const { id } = live.job;
    log.info(line, { job: id });
    this.queued(live, () => this.files.append(id, `${time} ${line}`)).catch((error: unknown) => {
      log.warn('a line of a job log was lost', { job: id, reason: String(error) });
    });
  }

  private async launch(live: Live): Promise<void> {
    let event: JobEvent | null;
    try {
      // What serves does not end for want of its point.
      if (live.job.keeps) await this.holdAgain(live);
      else await holdPoint(live, this.ports.store);
      const end = await this.workers.of(live.job, this.work).run(live);
      event = end === 'done' ? { type: 'ended' } : null;
    } catch (error) {
      // What stopping staging has interrupted is gone on with when it starts.
      event = live.leave.signal.aborted
        ? null
        : { type: 'failed', error: await this.why(live, error) };
      if (event !== null && live.job.ending === null) this.report(live, error);
    }
    // Not awaited as a part of itself: the end begins the cleaning, which is then what runs.
    if (event !== null) await this.settleAndFollow(live, event);
  }

  /** Of what fails where its point is damaged that is the reason, however it shows. */
  private async why(live: Live, error: unknown): Promise<JobError> {
    if (isLoss(error)) {
      const { volume, offset } = error.context;
      if (typeof volume === 'string' && typeof offset === 'number') {
        const place = { volume, offset, length: CHUNK_BYTES - (offset % CHUNK_BYTES) };
        await this.settle(live, { type: 'damaged', place });
      }
    }
    const { code, message, hint } = errorBody(error).error;
    const { damage, point } = live.job;
    const isTold = damage.length === 0 || message.includes(`point ${point} is damaged`);
    return { code, message: isTold ? message : `${message}; ${damageText(point, damage)}`, hint };
  }

  private async settleAndFollow(live: Live, event: JobEvent): Promise<void> {
    const before = live.running;
    await this.settle(live, event);
    if (live.running !== before) await live.running;
  }

  private report(live: Live, error: unknown): void {
    const cause = error instanceof Error ? (error.stack ?? error.message) : String(error);
    this.ports.log.warn('a launch failed', { job: live.job.id, cause });
  }

  /** Only the newest says how it went: one that was asked for since takes away more. */
  private async clean(live: Live, made: readonly Made[], round: number): Promise<void> {
    const { door, log } = this.ports;
    try {
      await this.workers.of(live.job, this.work).clean(made);
      door.forget(`${door.folder}/${live.job.id}`);
      if (!needsPoint(live.job)) releasePoint(live);
    } catch (error) {
      // What stopping staging has interrupted is gone on with when it starts.
      if (live.leave.signal.aborted) return;
      const message = error instanceof Error ? error.message : String(error);
      const { id, kind, target } = live.job;
      log.error('WHAT A JOB HAS MADE IS STILL THERE', { job: id, kind, target, reason: message });
      if (round === live.cleanRound) await this.settle(live, { type: 'cleanFailed', message });
      return;
    }
    if (round === live.cleanRound) await this.settle(live, { type: 'cleaned' });
  }

  private saveCheck({ point, server, id }: Job, check: CheckResult): Promise<void> {
    const time = new Date(this.ports.clock.wallMs()).toISOString();
    return this.files.saveCheck({ ...check, point, server, job: id, time });
  }
}
