/** The plans of the real service: their files, their scripts, and the runner of their jobs. */
import type { Clock } from '../../base/clock.ts';
import type { Disk } from '../../base/disk.ts';
import type { Log } from '../../base/log.ts';
import type { Store } from '../../store/types.ts';
import type { Jobs } from '../jobs/jobs.ts';
import { PlanRunner } from './plan-runner.ts';
import { PlanStore } from './plan-store.ts';
import { Scripts } from './scripts.ts';
import { Verdicts } from './verdicts.ts';

export interface OpenPlans {
  readonly plans: PlanStore;
  readonly runner: PlanRunner;
  readonly verdicts: Verdicts;
}

export interface OpenPlansOptions {
  readonly disk: Disk;
  /** The data directory. */
  readonly folder: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly store: Store;
  readonly scriptsDir: string | null;
}

export function openPlans(jobs: Jobs, options: OpenPlansOptions): OpenPlans {
  const { disk, folder, clock, log, store, scriptsDir } = options;
  const plans = new PlanStore(disk, folder, clock);
  const verdicts = new Verdicts(jobs, log);
  const scripts = new Scripts(scriptsDir, clock);
  return {
    plans,
    verdicts,
    runner: new PlanRunner({ clock, store, jobs, plans, scripts, verdicts }),
  };
}
