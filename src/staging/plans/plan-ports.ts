/** What plans need of the service, and what the job of a plan was made with. */
import { type Clock, sleep } from '../../base/clock.ts';
import { UnderstudyError } from '../../base/errors.ts';
import type { LaunchOptions } from '../../recovery/runner.ts';
import type { Store } from '../../store/types.ts';
import type { Jobs, ShownJob } from '../jobs/jobs.ts';
import { type Plan, type PlanKind, parsePlan } from './plan-file.ts';
import type { ChosenPoint } from './plan-state.ts';
import type { PlanStore } from './plan-store.ts';
import type { Scripts } from './scripts.ts';
import type { Verdicts } from './verdicts.ts';

/** What a plan's job has made: another job, by its id. */
export const MADE_JOB = 'job';
/** Likewise the run of a script, by its folder. */
export const MADE_SCRIPT = 'script';

export type PlanJobs = Pick<
  Jobs,
  ('start' | 'find' | 'stop' | 'cancel' | 'check' | 'readOptions') | ('refuseTwice' | 'isStopping')
>;

export interface PlanPorts {
  readonly clock: Clock;
  readonly store: Pick<Store, 'point' | 'points' | 'lastCommitted' | 'servers' | 'openImage'>;
  readonly jobs: PlanJobs;
  readonly plans: PlanStore;
  readonly scripts: Scripts;
  readonly verdicts: Verdicts;
}

export interface PlanJobOptions {
  readonly plan: Plan;
  readonly kind: PlanKind;
  readonly atMs: number | null;
  readonly points: Readonly<Record<string, ChosenPoint>>;
}

export const planOptionsOf = ({ file, kind, at, points }: LaunchOptions): PlanJobOptions => ({
  plan: parsePlan(JSON.parse(String(file))),
  kind: kind as PlanKind,
  atMs: at === undefined ? null : Date.parse(String(at)),
  points: JSON.parse(String(points)) as Record<string, ChosenPoint>,
});

/** A job may end by itself between the look and the stop. */
export function unlessEnded(error: unknown): void {
  if (!(error instanceof UnderstudyError) || error.code !== 'ERR_JOB_STATE') throw error;
}

/** Null: there is none, or it was forgotten. */
export function findJob(jobs: Pick<Jobs, 'find'>, id: string | null): ShownJob | null {
  if (id === null) return null;
  try {
    return jobs.find(id);
  } catch (error) {
    if (error instanceof UnderstudyError && error.code === 'ERR_JOB_NOT_FOUND') return null;
    throw error;
  }
}

const POLL_MS = 200;

/** Ends a job, and waits until it is cleaned up. ERR_JOB_STATE where that fails: it is tried again by itself. */
export async function endJob(
  { jobs, clock }: Pick<PlanPorts, 'jobs' | 'clock'>,
  id: string,
): Promise<void> {
  // None: it was written down before it was started, and never started; or it was forgotten since.
  if (findJob(jobs, id)?.outcome === null) await jobs.stop(id).catch(unlessEnded);
  for (;;) {
    const now = findJob(jobs, id);
    if (now === null || now.state === 'cleaned') return;
    if (now.cleanError !== null) {
      const message = `job ${id} cannot be cleaned up: ${now.cleanError}`;
      throw new UnderstudyError('ERR_JOB_STATE', message);
    }
    // It may have been left running: both are ended when staging starts.
    if (jobs.isStopping) throw new UnderstudyError('ERR_STAGING_STOPPING', `job ${id} runs on`);
    await sleep(clock, POLL_MS);
  }
}
