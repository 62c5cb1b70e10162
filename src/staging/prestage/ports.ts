/** What the keeping of rolling chains stands on, and how it is set. */
import type { Clock } from '../../base/clock.ts';
import type { Disk } from '../../base/disk.ts';
import type { Log } from '../../base/log.ts';
import type { PrestagePlan } from '../../recovery/ec2/prestage-turn.ts';
import type { PutQuota } from '../../recovery/ec2/put-quota.ts';
import type { Store } from '../../store/types.ts';

type PrestageStore = Pick<
  Store,
  'servers' | 'points' | 'lastCommitted' | 'point' | 'openImage' | 'differences'
>;

export interface PrestagePorts {
  readonly clock: Clock;
  readonly log: Log;
  readonly disk: Disk;
  /** The data directory. */
  readonly folder: string;
  readonly store: PrestageStore;
  /** That of launches, too. */
  readonly quota: PutQuota;
  /** A name that was never used before. */
  readonly newId: () => string;
}

export interface PrestageSettings {
  readonly everyMs: number;
  readonly plan: PrestagePlan;
  /** Those that are on unless they were switched off; empty: all. */
  readonly servers: readonly string[];
  readonly bytesPerSecond: number;
}
