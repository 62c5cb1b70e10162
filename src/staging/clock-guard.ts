/**
 * Keeps what clock-state.ts judges by: DATA/clock has the last time that was noted and, where the clock is
 * in doubt, why; so a doubt outlives a restart, and a leap while the service was down is seen. Small, and
 * rewritten whole (write, sync, rename, sync of the folder).
 *
 *   line 1  "understudy-clock 1 <length of the rest> <SHA-256 of the rest, hex>"
 *   rest    JSON: {seenMs, doubt}
 */
import { hash } from 'node:crypto';
import type { Clock } from '../base/clock.ts';
import type { Disk } from '../base/disk.ts';
import { UnderstudyError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { replaceFile } from '../base/replace-file.ts';
import { type ClockReading, doubtAtStart, doubtSince } from './clock-state.ts';

const NAME = 'clock';
const MAGIC = 'understudy-clock 1';
/** Noted so often while all is well. */
const NOTE_MS = 300_000;

interface Noted {
  readonly seenMs: number | null;
  readonly doubt: string | null;
}

export interface ClockGuardOptions {
  readonly disk: Disk;
  /** The data directory. */
  readonly folder: string;
  readonly clock: Clock;
  readonly log: Log;
  /** When the newest point was committed, by our clock: counts where nothing later was noted. */
  readonly newestMs: number | null;
  /** The operator has looked at the clock: what was doubted is trusted from now on. */
  readonly isTrusted: boolean;
}

function encode(noted: Noted): Uint8Array {
  const body = Buffer.from(JSON.stringify(noted));
  const head = `${MAGIC} ${body.length} ${hash('sha256', body)}\n`;
  return Buffer.concat([Buffer.from(head), body]);
}

function decode(bytes: Uint8Array): Noted | null {
  const all = Buffer.from(bytes);
  const end = all.indexOf(0x0a);
  const body = all.subarray(end + 1);
  const head = all.toString('latin1', 0, Math.max(0, end));
  if (head !== `${MAGIC} ${body.length} ${hash('sha256', body)}`) return null;
  return JSON.parse(body.toString('utf8')) as Noted;
}

export class ClockGuard {
  private readonly options: ClockGuardOptions;
  private start: ClockReading;
  private doubted: string | null;
  private notedMs: number | null = null;

  private constructor(options: ClockGuardOptions, doubt: string | null) {
    this.options = options;
    this.doubted = doubt;
    this.start = this.reading();
  }

  /** ERR_DISK_*. */
  static async open(options: ClockGuardOptions): Promise<ClockGuard> {
    const { isTrusted, clock } = options;
    const doubt = isTrusted ? null : await firstDoubt(options, clock.wallMs());
    const guard = new ClockGuard(options, doubt);
    if (doubt !== null) guard.tell(doubt);
    await guard.note();
    return guard;
  }

  /** Why no point may be dropped now; null: the clock is trusted. */
  get doubt(): string | null {
    return this.doubted;
  }

  /** Looks at the clock, and notes the time now and then. */
  async look(): Promise<void> {
    if (this.doubted !== null) return;
    this.doubted = doubtSince(this.start, this.reading());
    if (this.doubted !== null) this.tell(this.doubted);
    const { monotonicMs } = this.reading();
    const isDue = this.notedMs === null || monotonicMs - this.notedMs >= NOTE_MS;
    if (this.doubted !== null || isDue) await this.note();
  }

  /** An operator has agreed: the clock is right as it is now. Durable once it resolves. */
  async resume(): Promise<void> {
    await this.write({ seenMs: this.options.clock.wallMs(), doubt: null });
    this.doubted = null;
    this.start = this.reading();
    this.options.log.warn('an operator trusts the clock: points are dropped by the rules again');
  }

  private tell(reason: string): void {
    this.options.log.error('no point is dropped until an operator agrees', { reason });
  }

  private reading(): ClockReading {
    const { clock } = this.options;
    return { wallMs: clock.wallMs(), monotonicMs: clock.monotonicMs() };
  }

  /** On a full disk retention must go on: it is what makes room. */
  private async note(): Promise<void> {
    const { log, clock } = this.options;
    // A time that is doubted is not noted: the doubt is.
    const seenMs = this.doubted === null ? clock.wallMs() : null;
    try {
      await this.write({ seenMs, doubt: this.doubted });
      this.notedMs = clock.monotonicMs();
    } catch (error) {
      if (!(error instanceof UnderstudyError) || error.code !== 'ERR_DISK_FULL') throw error;
      log.warn('the time cannot be noted: the disk is full', {});
    }
  }

  private async write(noted: Noted): Promise<void> {
    const { disk, folder } = this.options;
    const path = `${folder}/${NAME}`;
    await replaceFile(disk, path, [encode(noted)]);
  }
}

async function firstDoubt(options: ClockGuardOptions, nowMs: number): Promise<string | null> {
  const { disk, folder, newestMs } = options;
  const path = `${folder}/${NAME}`;
  if (!(await disk.exists(path))) return doubtAtStart(newestMs, nowMs);
  const noted = decode(await disk.readFile(path));
  if (noted === null) return `${path} is damaged: the last time that was noted is not known`;
  if (noted.doubt !== null) return noted.doubt;
  const known = [noted.seenMs, newestMs].filter((ms) => ms !== null);
  return doubtAtStart(known.length === 0 ? null : Math.max(...known), nowMs);
}
