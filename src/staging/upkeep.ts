/**
 * What the service does by itself from time to time: it takes in data keys that were made beside it, then
 * retention by the keep rules, then collection of what nothing needs any more. One run at a time. A full
 * disk or another passing trouble is logged and tried again at the next turn; damage and defects go to the
 * service.
 *
 * Retention trusts the wall clock: when that is in doubt (clock-guard.ts) no point is dropped until an
 * operator agrees.
 */
import type { Clock, Timer } from '../base/clock.ts';
import { UnderstudyError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { DroppedPoint, KeepRule, Store } from '../store/types.ts';
import type { ClockGuard } from './clock-guard.ts';
import { asError } from './session-errors.ts';

export interface UpkeepOptions {
  readonly clock: Clock;
  readonly log: Log;
  readonly store: Store;
  readonly guard: ClockGuard;
  /** For servers that have no policy of their own. */
  readonly keep: readonly KeepRule[];
  readonly retentionMs: number;
  readonly collectionMs: number;
  /** Points of this server are gone. */
  readonly onDropped: (server: string, points: number) => void;
  readonly onBroken: (error: UnderstudyError) => void;
  /** Moves old packs to a colder class; returns how many. */
  readonly cool?: () => Promise<number>;
}

const COOLING_MS = 24 * 3_600_000;

export class Upkeep {
  private readonly options: UpkeepOptions;
  private timer: Timer | null = null;
  private running: Promise<void> = Promise.resolve();
  private isStopped = false;
  private nextCollectionMs: number;
  private nextCoolingMs = Number.NEGATIVE_INFINITY;

  constructor(options: UpkeepOptions) {
    this.options = options;
    const { clock, collectionMs } = options;
    this.nextCollectionMs = clock.monotonicMs() + collectionMs;
    this.arm();
  }

  async stop(): Promise<void> {
    this.isStopped = true;
    this.timer?.cancel();
    await this.running;
  }

  /** Retention at once, for an operator. ERR_CLOCK_DOUBTED. */
  async retainNow(): Promise<DroppedPoint[]> {
    const { guard } = this.options;
    await guard.look();
    if (guard.doubt !== null) throw new UnderstudyError('ERR_CLOCK_DOUBTED', guard.doubt);
    return this.dropByRules();
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
    const { clock, log, guard, collectionMs } = this.options;
    try {
      await guard.look();
      const key = await this.options.store.refreshKeys();
      if (key !== null) log.info('what is written from now on is sealed with a new key', { key });
      if (guard.doubt === null) await this.dropByRules();
      if (this.isStopped || clock.monotonicMs() < this.nextCollectionMs) return;
      this.nextCollectionMs = clock.monotonicMs() + collectionMs;
      const { removedObjects, freedBytes, lockedObjects } = await this.options.store.collect();
      if (removedObjects > 0) log.info('collected', { removedObjects, freedBytes, lockedObjects });
      await this.coolWhereDue();
    } catch (cause) {
      const error = asError(cause);
      const { kind } = error.spec;
      if (kind === 'corruption' || kind === 'bug') this.options.onBroken(error);
      else if (!this.isStopped)
        log.warn('upkeep failed', { code: error.code, reason: error.message });
    }
  }

  /** After a collection, never beside one: a pack that is copied must not be deleted meanwhile. */
  private async coolWhereDue(): Promise<void> {
    const { clock, log, cool } = this.options;
    if (cool === undefined || this.isStopped || clock.monotonicMs() < this.nextCoolingMs) return;
    this.nextCoolingMs = clock.monotonicMs() + COOLING_MS;
    const moved = await cool();
    if (moved > 0) log.info('packs moved to a colder class', { packs: moved });
  }

  private async dropByRules(): Promise<DroppedPoint[]> {
    const { clock, store, keep, log, onDropped } = this.options;
    const plan = await store.planRetention(keep, clock.wallMs());
    if (plan.drop.length === 0) return [];
    const gone = await store.applyRetention(plan);
    const counts = new Map<string, number>();
    for (const { server } of gone) counts.set(server, (counts.get(server) ?? 0) + 1);
    for (const [server, points] of counts) onDropped(server, points);
    if (gone.length > 0) log.info('points dropped by the keep rules', { points: gone.length });
    return gone;
  }
}
