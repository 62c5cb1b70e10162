/**
 * The scrub: reads the whole repository once in a period, one pack after the other, at a gentle rate and
 * beside all else. Where it is, and what it and the checks have found last, lies in DATA/scrub, so that a
 * restart goes on in the middle. At the end of a round, and soon after damage was found, the structure is
 * checked, which tells the points that are hurt.
 */
import type { Clock, Timer } from '../base/clock.ts';
import type { Disk } from '../base/disk.ts';
import { UnderstudyError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { TokenBucket } from '../base/token-bucket.ts';
import type { CheckReport, Finding, Store } from '../store/types.ts';
import type { ApiScrub } from './api-types.ts';
import { readScrubFile, type ScrubRecord, writeScrubFile } from './scrub-record.ts';
import { asError } from './session-errors.ts';

export interface ScrubberOptions {
  readonly clock: Clock;
  readonly log: Log;
  readonly store: Store;
  readonly disk: Disk;
  /** The data directory. */
  readonly folder: string;
  /** A round begins so long after the one before; 0: there is none. */
  readonly everyMs: number;
  /** 0: no limit. */
  readonly bytesPerSecond: number;
  readonly onBroken: (error: UnderstudyError) => void;
}

/** A look at the time, and the wait after a passing failure. */
const TICK_MS = 60_000;
/** The place is written at the latest so long after it has moved. */
const SAVE_MS = 10_000;
/** Damage is checked for its points at once, and then no more often; what is known, to see it heal. */
const CHECK_MS = 600_000;
const RECHECK_MS = 3_600_000;
const MAX_LOGGED = 20;

const isHarm = ({ kind }: Finding): boolean => kind !== 'stale-index' && kind !== 'stale-catalog';

export class Scrubber {
  private readonly options: ScrubberOptions;
  private readonly bucket: TokenBucket;
  private record: ScrubRecord;
  private timer: Timer | null = null;
  private wake: (() => void) | null = null;
  private running: Promise<void> = Promise.resolve();
  private isStopped = false;
  private isReading = false;
  private nextCheckMs = 0;
  private checkedAtMs = Number.NEGATIVE_INFINITY;
  private savedMs = 0;

  private constructor(options: ScrubberOptions, record: ScrubRecord) {
    this.options = options;
    this.record = record;
    this.bucket = new TokenBucket(options.bytesPerSecond, options.clock.monotonicMs());
    this.running = this.run();
  }

  static async open(options: ScrubberOptions): Promise<Scrubber> {
    const record = await readScrubFile(options.disk, options.folder, options.log);
    return new Scrubber(options, record);
  }

  get status(): ApiScrub {
    const { everyMs, bytesPerSecond } = this.options;
    const { startedMs, bytes, packs, finished, findings, checkedMs } = this.record;
    const state = everyMs === 0 ? 'off' : this.isReading ? 'reading' : 'waiting';
    const hurt = new Set(findings.flatMap(({ points }) => points));
    return {
      ...{ state, everyMs, bytesPerSecond, startedMs, packs, bytes, finished, checkedMs },
      ...{ findings: [...findings], hurtPoints: [...hurt].sort() },
    };
  }

  /** What a check that an operator has asked for has found counts, too. */
  async noted(report: CheckReport): Promise<void> {
    this.keep(report.findings);
    await this.save();
  }

  async stop(): Promise<void> {
    this.isStopped = true;
    this.timer?.cancel();
    this.wake?.();
    await this.running;
    await this.save();
  }

  private async run(): Promise<void> {
    while (!this.isStopped) {
      try {
        await this.turn();
      } catch (cause) {
        this.failed(asError(cause));
      }
      this.isReading = false;
      if (!this.isStopped) await this.pause(TICK_MS);
    }
  }

  /** To the end of the round that is due, if one is. */
  private async turn(): Promise<void> {
    const { clock, everyMs, log } = this.options;
    const sinceCheckMs = clock.monotonicMs() - this.checkedAtMs;
    if (this.record.findings.some(isHarm) && sinceCheckMs >= RECHECK_MS) await this.check();
    if (everyMs === 0) return;
    const { startedMs, finished } = this.record;
    const isUnderWay = startedMs !== null && finished?.startedMs !== startedMs;
    const sinceMs = clock.wallMs() - (startedMs ?? Number.NEGATIVE_INFINITY);
    // A clock that was set back must not keep rounds from coming.
    if (!isUnderWay && sinceMs >= 0 && sinceMs < everyMs) return;
    if (!isUnderWay) await this.begin();
    this.isReading = true;
    while (!this.isStopped && (await this.next()));
    if (this.isStopped) return;
    await this.finish();
    const { packs, bytes } = this.record;
    log.info('the repository was read', { packs, bytes });
  }

  private async begin(): Promise<void> {
    const startedMs = this.options.clock.wallMs();
    this.record = { ...this.record, startedMs, place: null, packs: 0, bytes: 0, seen: [] };
    await this.save();
  }

  /** Reads one pack; false after the last one. */
  private async next(): Promise<boolean> {
    const { store, log, clock } = this.options;
    const read = await store.scrub({ after: this.record.place, pace: (n) => this.pace(n) });
    if (read === null) return false;
    const { pack, bytesRead, findings, damaged, lost } = read;
    const { packs, bytes, seen } = this.record;
    this.record = { ...this.record, place: pack, packs: packs + 1, bytes: bytes + bytesRead };
    if (findings.length > 0) this.record = { ...this.record, seen: [...seen, ...findings] };
    for (const { object, detail } of findings) log.error('damage was found', { object, detail });
    if (damaged > 0) log.error('contents of a pack are damaged', { pack, damaged, lost });
    if (damaged + findings.length > 0) await this.check();
    if (clock.monotonicMs() - this.savedMs >= SAVE_MS) await this.save();
    return true;
  }

  private async finish(): Promise<void> {
    this.nextCheckMs = 0;
    await this.check();
    const { startedMs, packs, bytes } = this.record;
    const endedMs = this.options.clock.wallMs();
    const finished = { startedMs: startedMs!, endedMs, packs, bytes };
    this.record = { ...this.record, place: null, finished };
    await this.save();
  }

  private async check(): Promise<void> {
    const { clock, store, log } = this.options;
    if (clock.monotonicMs() < this.nextCheckMs) return;
    this.checkedAtMs = clock.monotonicMs();
    this.nextCheckMs = this.checkedAtMs + CHECK_MS;
    const { findings } = await store.check({ readData: false });
    const known = new Set(this.record.findings.map(({ object, detail }) => object + detail));
    const fresh = findings.filter((each) => isHarm(each) && !known.has(each.object + each.detail));
    for (const { kind, object, detail, points } of fresh.slice(0, MAX_LOGGED)) {
      log.error('damage was found', { kind, object, detail, points: points.length });
    }
    const told = new Set(findings.map(({ object }) => object));
    this.keep([...findings, ...this.record.seen.filter(({ object }) => !told.has(object))]);
    await this.save();
  }

  private keep(findings: readonly Finding[]): void {
    this.record = { ...this.record, findings, checkedMs: this.options.clock.wallMs() };
  }

  private async pace(bytes: number): Promise<void> {
    const { clock } = this.options;
    for (;;) {
      if (this.isStopped) throw new UnderstudyError('ERR_STORE_CLOSED', 'staging is stopped');
      const waitMs = this.bucket.waitMs(clock.monotonicMs());
      if (waitMs === 0) break;
      await this.pause(waitMs);
    }
    this.bucket.take(bytes, clock.monotonicMs());
  }

  private pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      this.wake = resolve;
      this.timer = this.options.clock.after(ms, resolve);
    });
  }

  private async save(): Promise<void> {
    const { clock, disk, folder } = this.options;
    this.savedMs = clock.monotonicMs();
    await writeScrubFile(disk, folder, this.record);
  }

  private failed(error: UnderstudyError): void {
    const { log, onBroken } = this.options;
    if (this.isStopped) return;
    if (error.spec.kind === 'bug') onBroken(error);
    else log.warn('the scrub waits', { code: error.code, reason: error.message });
  }
}
