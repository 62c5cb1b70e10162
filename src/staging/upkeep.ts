/**
 * What the service does by itself from time to time: retention by the keep rules, then collection of what
 * nothing needs any more. One run at a time. A full disk or another passing trouble is logged and tried
 * again at the next turn; damage and defects go to the service.
 *
 * Retention trusts the wall clock: when that leaps against the monotonic one, points would be dropped for
 * an age that they do not have, so retention waits for the operator (a restart).
 */
import type { Clock, Timer } from '../base/clock.ts';
import type { UnderstudyError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { KeepRule, Store } from '../store/types.ts';
import { asError } from './session-errors.ts';

export interface UpkeepOptions {
  readonly clock: Clock;
  readonly log: Log;
  readonly store: Store;
  readonly keep: readonly KeepRule[];
  readonly retentionMs: number;
  readonly collectionMs: number;
  /** Points of this server are gone. */
  readonly onDropped: (server: string, points: number) => void;
  readonly onBroken: (error: UnderstudyError) => void;
}

const MAX_LEAP_MS = 3_600_000;

export class Upkeep {
  private readonly options: UpkeepOptions;
  private timer: Timer | null = null;
  private running: Promise<void> = Promise.resolve();
  private isStopped = false;
  private isClockTrusted = true;
  private nextCollectionMs: number;
  private offsetMs: number;

  constructor(options: UpkeepOptions) {
    this.options = options;
    const { clock, collectionMs } = options;
    this.nextCollectionMs = clock.monotonicMs() + collectionMs;
    this.offsetMs = clock.wallMs() - clock.monotonicMs();
    this.arm();
  }

  async stop(): Promise<void> {
    this.isStopped = true;
    this.timer?.cancel();
    await this.running;
  }

  private arm(): void {
    const { clock, retentionMs } = this.options;
    this.timer = clock.after(retentionMs, () => {
      this.running = this.run().then(() => {
        if (!this.isStopped) this.arm();
      });
    });
  }

  private async run(): Promise<void> {
    const { clock, log, collectionMs } = this.options;
    try {
      await this.retain();
      if (this.isStopped || clock.monotonicMs() < this.nextCollectionMs) return;
      this.nextCollectionMs = clock.monotonicMs() + collectionMs;
      const { removedObjects, freedBytes } = await this.options.store.collect();
      if (removedObjects > 0) log.info('collected', { removedObjects, freedBytes });
    } catch (cause) {
      const error = asError(cause);
      const { kind } = error.spec;
      if (kind === 'corruption' || kind === 'bug') this.options.onBroken(error);
      else if (!this.isStopped)
        log.warn('upkeep failed', { code: error.code, reason: error.message });
    }
  }

  private async retain(): Promise<void> {
    const { clock, store, keep, log, onDropped } = this.options;
    this.watchClock();
    if (!this.isClockTrusted) return;
    const { drop } = await store.planRetention(keep, clock.wallMs());
    if (drop.length === 0) return;
    const counts = new Map<string, number>();
    for (const id of drop) {
      const { server } = await store.point(id);
      counts.set(server, (counts.get(server) ?? 0) + 1);
    }
    await store.applyRetention({ drop });
    for (const [server, points] of counts) onDropped(server, points);
    log.info('points dropped by the keep rules', { points: drop.length });
  }

  private watchClock(): void {
    const { clock, log } = this.options;
    const offsetMs = clock.wallMs() - clock.monotonicMs();
    const leapMs = offsetMs - this.offsetMs;
    this.offsetMs = offsetMs;
    if (!this.isClockTrusted || Math.abs(leapMs) <= MAX_LEAP_MS) return;
    this.isClockTrusted = false;
    log.error('the clock has leapt: no point is dropped until staging is started again', {
      leapMs,
    });
  }
}
