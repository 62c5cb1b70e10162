/** What is told of the steps of a plan's job, and what a member's job says of its step. Pure. */
import type { LaunchOptions } from '../../recovery/runner.ts';
import type { Job, JobError } from '../jobs/job-state.ts';
import type { ShownStep } from '../jobs/job-steps.ts';
import type { PlanMember } from './plan-file.ts';
import type { PlanRun, PlanStep, ShownStepState, StepState } from './plan-state.ts';

/** The run as the job remembers it; null before it has begun. */
export function runOf(notes: LaunchOptions): PlanRun | null {
  return typeof notes.planRun === 'string' ? (JSON.parse(notes.planRun) as PlanRun) : null;
}

/** Null where the job is none of a plan, or has not begun. */
export function stepsOf({
  kind,
  notes,
  endedAt,
}: Pick<Job, 'kind' | 'notes' | 'endedAt'>): readonly ShownStep[] | null {
  if (kind !== 'plan') return null;
  return runOf(notes)?.steps.map((step) => shownStep(step, endedAt)) ?? null;
}

const overStates: Readonly<Record<StepState, ShownStepState>> = {
  ...{ waiting: 'skipped', running: 'stopped', done: 'done', failed: 'failed' },
};

/** Nothing runs of a plan that is over; of a failover's member that was being launched its own job tells. */
function shownStep(step: PlanStep, overAt: string | null): ShownStep {
  const { stage: _stage, problem: _problem, isRetry: _isRetry, waitMs: _waitMs, ...shown } = step;
  if (overAt === null) return shown;
  const endedAt = step.state === 'running' ? overAt : step.endedAt;
  return { ...shown, state: overStates[step.state], endedAt };
}

export type MemberVerdict = 'done' | JobError | null;

type Seen = Pick<Job, 'state' | 'phase' | 'outcome' | 'check' | 'error' | 'id'>;

/** Null: not yet. */
export function memberVerdict(job: Seen, waitFor: PlanMember['waitFor']): MemberVerdict {
  if (job.outcome === 'failed') return job.error;
  if (waitFor === 'check' && job.check !== null) {
    const { passed, detail } = job.check;
    if (passed) return 'done';
    return ended('ERR_BOOT_CHECK', `the boot check failed: ${detail}`, job);
  }
  if (job.outcome === 'cancelled') {
    return ended('ERR_JOB_CANCELLED', `job ${job.id} was cancelled`, job);
  }
  if (waitFor === 'check') {
    const message = `job ${job.id} ended before its check`;
    return job.outcome === null ? null : ended('ERR_LAUNCH_GONE', message, job);
  }
  const isUp = job.state === 'running' && job.phase === 'up';
  return isUp || job.outcome === 'done' ? 'done' : null;
}

const ended = (code: string, message: string, { id }: Seen): JobError => ({
  ...{ code, message, hint: `job log ${id} tells what happened.` },
});

/** What the job is doing, in a line. */
export function phaseOf({ steps }: PlanRun): string {
  const named = steps.filter(({ state }) => state === 'running').map(nameOf);
  return named.length === 0 ? 'ending' : `running ${named.join(', ')}`;
}

export function haltedPhase({ steps }: PlanRun): string {
  const failed = steps.filter(({ state, isCritical }) => state === 'failed' && isCritical);
  return `halted: ${failed.map(nameOf).join(', ')} failed`;
}

const nameOf = ({ number, name }: PlanStep): string => `step ${number} (${name})`;

/** Done, and all. */
export const progressOf = ({ steps }: PlanRun): readonly [number, number] => [
  steps.filter(({ state }) => state === 'done' || state === 'failed').length,
  steps.length,
];
