/** A step of a job that has several, as it is told. Which jobs have them is known to who runs them. */
import type { Job, JobError } from './job-state.ts';

export interface ShownStep {
  /** From 1. */
  readonly number: number;
  readonly group: string;
  readonly kind: 'wait' | 'script' | 'member';
  /** "wait 30s", the script, the server. */
  readonly name: string;
  readonly isCritical: boolean;
  readonly state: 'waiting' | 'running' | 'done' | 'failed' | 'stopped' | 'skipped';
  /** How often it was begun. */
  readonly attempt: number;
  /** Of a member: the job of the last attempt. */
  readonly job: string | null;
  readonly point: string | null;
  readonly pointTime: string | null;
  readonly error: JobError | null;
  readonly startedAt: string | null;
  readonly endedAt: string | null;
}

/** Null where the job has none, or has not begun. */
export type StepsOf = (job: Pick<Job, 'kind' | 'notes' | 'endedAt'>) => readonly ShownStep[] | null;
