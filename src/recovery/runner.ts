/**
 * What a job does stands behind a runner: one for each kind that is not the launch of a recovery point
 * (failback, plan). Launches are run by launchers (launcher.ts), which are adapted to the same work by
 * staging's jobs. Staging keeps what a runner writes down, and calls `run` again after a restart.
 *
 * Contract of runners and launchers:
 * - `check` makes nothing. It refuses what cannot work, and returns the options completed by defaults.
 * - `run` is idempotent: called again with what an earlier life wrote down, it finds what still runs, or
 *   goes on where that stopped, or throws. It resolves when the job has come to its end ('done'), or
 *   when `leave` was aborted and what runs was left running ('left'). When `stop` is aborted it ends what
 *   runs and resolves or throws.
 * - Each thing that outlives the call is told to `making`, and durable there, before it is made.
 * - `clean` removes what is in the list, in any state, as often as it is called; products stay where told.
 */
import type { Clock } from '../base/clock.ts';

/** drill, failover: launches of a point. */
export type JobKind = LaunchKind | WorkKind;
export type LaunchKind = 'drill' | 'failover';
export type WorkKind = 'failback' | 'plan';
export const jobKinds: readonly JobKind[] = ['drill', 'failover', 'failback', 'plan'];

/** Something that a job has made, or was about to make. */
export interface Made {
  /** 'process' (name: its pidfile), 'folder', 'file'; a runner may have others of its own. */
  readonly kind: string;
  readonly name: string;
  /** What the job was for: stays when the job is done, goes when it failed or was cancelled. */
  readonly isProduct?: boolean;
}

/** Options, and what is remembered: plain values, as JSON keeps them. */
export type LaunchOptions = Readonly<Record<string, string | number | boolean>>;

export interface StopReason {
  /** So long an orderly shutdown may take; undefined: the launcher's own. */
  readonly timeoutMs: number | undefined;
}

/** What staging is to a job. */
export interface Work {
  readonly jobId: string;
  readonly kind: JobKind;
  /** The source server; empty where the job is about several. */
  readonly server: string;
  readonly options: LaunchOptions;
  /** Exists; what lies here is evidence and stays with the job. */
  readonly folder: string;
  /** A folder of the job's own for what is large and goes with it; to be made by it. */
  readonly workFolder: string;
  /** The same with a short path, for sockets; gone after a reboot. */
  readonly runFolder: string;
  /** Where products are to lie; to be made by the runner. */
  readonly productFolder: string;
  readonly made: readonly Made[];
  /** What the runner has remembered in this job, over all its lives. */
  readonly notes: LaunchOptions;
  /** 1, and one more each time that what was kept of it is started again. */
  readonly starts: number;
  readonly clock: Clock;
  /** Aborted with a StopReason. */
  readonly stop: AbortSignal;
  readonly leave: AbortSignal;
  /** Durable when it resolves. */
  making(made: Made): Promise<void>;
  remember(notes: LaunchOptions): Promise<void>;
  /** A line for the job's log. */
  say(line: string): void;
  /** What is being done now; 'up' is what `--wait` waits for. */
  phase(name: string): Promise<void>;
  progress(done: number, total: number): void;
  /** It runs, and this is how to reach it. */
  up(access: Readonly<Record<string, string>>): Promise<void>;
}

export type LaunchEnd = 'done' | 'left';

export interface Runner {
  /** The kind of job that it runs. */
  readonly kind: WorkKind;
  /** Before anything is made: errors are the caller's answer. `server` as it was asked for. */
  check(options: Readonly<Record<string, unknown>>, server: string): Promise<LaunchOptions>;
  run(work: Work): Promise<LaunchEnd>;
  clean(made: readonly Made[]): Promise<void>;
}
