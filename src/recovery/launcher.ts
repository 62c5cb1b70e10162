/**
 * A launcher makes something that runs (or stands ready to) out of a recovery point: a local virtual
 * machine, files for another hypervisor, an instance in a cloud. Staging runs each launch as a job: it
 * keeps what the launcher writes down, holds the point, and calls `run` again after a restart.
 *
 * Contract, held by one suite of tests for all launchers:
 * - `check` makes nothing. It refuses what cannot work, and returns the options completed by defaults.
 * - `run` is idempotent: called again with what an earlier life wrote down, it finds what still runs, or
 *   goes on where that stopped, or throws. It resolves when the launch has come to its end ('done'), or
 *   when `leave` was aborted and what runs was left running ('left'). When `stop` is aborted it ends what
 *   runs and resolves or throws.
 * - Each thing that outlives the call is told to `making`, and durable there, before it is made.
 * - `clean` removes what is in the list, in any state, as often as it is called; products stay where told.
 */
import type { Clock } from '../base/clock.ts';
import type { ImageReader, ListedPoint } from '../store/types.ts';

/** Something that a launch has made, or was about to make. */
export interface Made {
  /** 'process' (name: its pidfile), 'folder', 'file'; a launcher may have others of its own. */
  readonly kind: string;
  readonly name: string;
  /** What the launch was for: stays when the job is done, goes when it failed or was cancelled. */
  readonly isProduct?: boolean;
}

export type LaunchOptions = Readonly<Record<string, string | number | boolean>>;

/** Where the bytes of a volume are served, to programs that read HTTP with ranges. */
export interface ImageAddress {
  readonly url: string;
  /** The service's unix socket: only the service's own user reaches it. */
  readonly socketPath: string;
  /** Holds "name=value", a cookie for this point alone; it is renewed in place before it expires. */
  readonly cookieFile: string;
}

export interface CheckResult {
  readonly passed: boolean;
  /** "console", "tcp:22", "http:80/health". */
  readonly probe: string;
  /** From the start of the machine to the verdict. */
  readonly bootMs: number;
  readonly detail: string;
}

/** What staging is to a launch. */
export interface Launch {
  readonly jobId: string;
  readonly options: LaunchOptions;
  readonly point: ListedPoint;
  /** Exists; what lies here is evidence and stays with the job. */
  readonly folder: string;
  /** A folder of the launch's own for what is large and goes with it; to be made by it. */
  readonly workFolder: string;
  /** The same with a short path, for sockets; gone after a reboot. */
  readonly runFolder: string;
  /** Where products are to lie; to be made by the launch. */
  readonly productFolder: string;
  readonly made: readonly Made[];
  /** What the launcher has remembered in this launch, over all its lives. */
  readonly notes: LaunchOptions;
  readonly clock: Clock;
  readonly stop: AbortSignal;
  readonly leave: AbortSignal;
  openImage(volume: string): Promise<ImageReader>;
  imageAddress(volume: string): Promise<ImageAddress>;
  /** Durable when it resolves. */
  making(made: Made): Promise<void>;
  remember(notes: LaunchOptions): Promise<void>;
  /** A line for the job's log. */
  say(line: string): void;
  /** What is being done now. */
  phase(name: string): Promise<void>;
  progress(done: number, total: number): void;
  /** It runs, and this is how to reach it. */
  up(access: Readonly<Record<string, string>>): Promise<void>;
  /** The verdict of the boot check, durable when it resolves. */
  checked(result: CheckResult): Promise<void>;
}

export type LaunchEnd = 'done' | 'left';

export interface Launcher {
  /** The word by which it is chosen. */
  readonly target: string;
  /** ERR_LAUNCH_*: before anything is made. */
  check(
    options: Readonly<Record<string, unknown>>,
    point: ListedPoint,
    openImage: (volume: string) => Promise<ImageReader>,
  ): Promise<LaunchOptions>;
  run(launch: Launch): Promise<LaunchEnd>;
  clean(made: readonly Made[]): Promise<void>;
}
