/**
 * Removing objects that an object store may keep for a time (Object Lock). What is kept is left where it is,
 * and not asked for again before an hour has gone: there may be many of them.
 */
import type { Clock } from '../../base/clock.ts';
import type { Disk } from '../../base/disk.ts';
import { type ErrorCode, UnderstudyError } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';

const LOOK_AGAIN_MS = 3_600_000;

const isCode = (error: unknown, code: ErrorCode): boolean =>
  error instanceof UnderstudyError && error.code === code;

/** False where the object store keeps it. One that is gone already is removed. */
export async function removeUnlessKept(disk: Disk, path: string): Promise<boolean> {
  try {
    await disk.remove(path);
  } catch (error) {
    if (isCode(error, 'ERR_OBJECTS_LOCKED')) return false;
    if (!isCode(error, 'ERR_DISK_NOT_FOUND')) throw error;
  }
  return true;
}

export class Removal {
  private readonly clock: Clock;
  private readonly log: Log;
  /** Path -> when it is tried again, by the monotonic clock. */
  private readonly kept = new Map<string, number>();
  private told = 0;

  constructor(clock: Clock, log: Log) {
    this.clock = clock;
    this.log = log;
  }

  /** How many are known to be kept. */
  get lockedCount(): number {
    return this.kept.size;
  }

  /** False where it is kept. One that is gone already is removed. */
  async remove(disk: Disk, path: string): Promise<boolean> {
    const againMs = this.kept.get(path);
    if (againMs !== undefined && this.clock.monotonicMs() < againMs) return false;
    const isGone = await removeUnlessKept(disk, path);
    if (isGone) this.kept.delete(path);
    else this.kept.set(path, this.clock.monotonicMs() + LOOK_AGAIN_MS);
    return isGone;
  }

  /** Once for each new number of them. */
  tell(): void {
    if (this.kept.size === this.told) return;
    this.told = this.kept.size;
    this.log.info('objects stay until their lock ends', { lockedObjects: this.kept.size });
  }
}
