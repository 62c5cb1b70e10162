/**
 * A launcher makes something that runs (or stands ready to) out of a recovery point: a local virtual
 * machine, files for another hypervisor, an instance in a cloud. Staging runs each launch as a job: it
 * keeps what the launcher writes down, holds the point, and calls `run` again after a restart.
 * The contract is that of runner.ts; one suite of tests holds it for all launchers.
 *
 * A drill leaves nothing behind. A failover's machine holds new production data from its `up` on: what was
 * told as a product stays, whatever becomes of the job; `stop` shuts it down in order; `run` with a higher
 * `starts` brings it up again from what it left; `clean` with the products in the list throws it away.
 */
import type { ImageReader, ListedPoint } from '../store/types.ts';
import type { DamagedPlace } from './damage.ts';
import type { LaunchEnd, LaunchKind, LaunchOptions, Made, Work } from './runner.ts';

export type { LaunchEnd, LaunchOptions, Made } from './runner.ts';

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

/** What staging is to a launch: runner.ts, and the point. */
export interface Launch extends Work {
  readonly kind: LaunchKind;
  readonly point: ListedPoint;
  openImage(volume: string): Promise<ImageReader>;
  imageAddress(volume: string): Promise<ImageAddress>;
  /** What of the point was found damaged by now, by whoever has read it. */
  damage(): readonly DamagedPlace[];
  /** The verdict of the boot check, durable when it resolves. */
  checked(result: CheckResult): Promise<void>;
  /** From now on nothing is read of the point, also when it is started again. */
  standsAlone(): Promise<void>;
}

export interface Launcher {
  /** The word by which it is chosen. */
  readonly target: string;
  /** What can be said of options without a point; completed by defaults. ERR_LAUNCH_OPTIONS, ERR_EC2_PLAN. */
  readOptions(options: Readonly<Record<string, unknown>>, kind: LaunchKind): Promise<LaunchOptions>;
  /** As `readOptions`, and whether the point can be launched. ERR_LAUNCH_*: before anything is made. */
  check(
    options: Readonly<Record<string, unknown>>,
    point: ListedPoint,
    openImage: (volume: string) => Promise<ImageReader>,
    kind: LaunchKind,
  ): Promise<LaunchOptions>;
  run(launch: Launch): Promise<LaunchEnd>;
  clean(made: readonly Made[]): Promise<void>;
}
