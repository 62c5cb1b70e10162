/** Which points have booted: the verdicts of boot checks below DATA/boot-checks, looked up for many points. */
import { UnderstudyError } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import type { BootCheck } from '../jobs/job-files.ts';

export interface VerdictSource {
  /** Ids of the points that have a verdict. */
  checkedPoints(): Promise<ReadonlySet<string>>;
  bootCheck(point: string): Promise<BootCheck | null>;
}

export class Verdicts {
  private readonly source: VerdictSource;
  private readonly log: Log;

  constructor(source: VerdictSource, log: Log) {
    this.source = source;
    this.log = log;
  }

  /** Those of `points` that have one: passed or not. What is damaged is told to the log, and none. */
  async of(points: readonly string[]): Promise<Map<string, boolean>> {
    const found = new Map<string, boolean>();
    if (points.length === 0) return found;
    const checked = await this.source.checkedPoints();
    for (const point of points) {
      const check = checked.has(point) ? await this.find(point) : null;
      if (check !== null) found.set(point, check.passed);
    }
    return found;
  }

  async find(point: string): Promise<BootCheck | null> {
    try {
      return await this.source.bootCheck(point);
    } catch (error) {
      if (!(error instanceof UnderstudyError) || error.code !== 'ERR_JOB_DAMAGED') throw error;
      this.log.error('the verdict of a boot check is damaged', { point, reason: error.message });
      return null;
    }
  }
}
