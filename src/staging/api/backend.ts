/**
 * What the REST API needs of the running service beyond the store: live sessions, cut requests, admission
 * of other hardware. The service implements it; tests use a fake.
 */
import type { Clock } from '../../base/clock.ts';
import type { Log } from '../../base/log.ts';
import type { MachineReport } from '../../model/machine.ts';
import type { ServerId } from '../../model/replication.ts';
import type { CheckReport, DroppedPoint, KeepRule, Store } from '../../store/types.ts';
import type { ApiScrub, ApiServer, Durability } from '../api-types.ts';
import type { Copies } from '../copies.ts';
import type { Failbacks } from '../failbacks.ts';
import type { Jobs } from '../jobs/jobs.ts';
import type { Checker } from '../plans/checker.ts';
import type { PlanRunner } from '../plans/plan-runner.ts';
import type { PlanStore } from '../plans/plan-store.ts';
import type { Verdicts } from '../plans/verdicts.ts';
import type { PointsInUse } from '../points-in-use.ts';
import type { Prestage } from '../prestage/prestage.ts';

export interface ApiPlans {
  readonly plans: Pick<PlanStore, 'list' | 'find' | 'remove'>;
  readonly runner: Pick<PlanRunner, 'apply' | 'dryRun' | 'retry' | 'accept'>;
  readonly verdicts: Pick<Verdicts, 'of'>;
}

export interface ApiBackend {
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Log;
  readonly keep: readonly KeepRule[];
  readonly stagingVersion: string;
  /** Where it is: a directory, or `s3://bucket/prefix`. */
  readonly repository: string;
  readonly durability: Durability;
  /** All servers that have points or a session. */
  servers(): Promise<ApiServer[]>;
  /**
   * Asks the server's agent for a cut; resolves with the point's id once it is committed.
   * ERR_SERVER_NOT_FOUND, ERR_SERVER_OFFLINE, ERR_POINT_TIMEOUT.
   */
  requestPoint(
    server: ServerId,
    timeoutMs: number,
  ): { requestId: string; committed: Promise<string> };
  /** What its agent told of the machine; null: nothing yet. ERR_SERVER_NOT_FOUND. */
  machine(server: ServerId): MachineReport | null;
  /** Lets the refused other hardware take the server over. ERR_SERVER_NOT_FOUND, ERR_HARDWARE_NOT_PENDING. */
  admit(server: ServerId, hardwareId: string): Promise<void>;
  /** Tokens of agents; ERR_AGENT_NAME. */
  readonly agentTokens: {
    tokenOf(server: ServerId): string;
    /** As which server it lets an agent in; null: none. */
    serverOf(presented: string): ServerId | null;
    /** None that was made so far is good any more, and who is there by one is sent away. */
    revoke(server: ServerId): Promise<void>;
  };
  /** Retention at work; `doubt`: why it waits for an operator, null where it does not. */
  readonly retention: {
    readonly doubt: string | null;
    /** ERR_CLOCK_DOUBTED. */
    run(): Promise<DroppedPoint[]>;
    resume(): Promise<void>;
  };
  /** Copies of the repository in other places. */
  readonly copies: Pick<Copies, 'start' | 'find' | 'stopJob' | 'list'>;
  /** The scrub, and what it and checks have found last. */
  readonly scrub: {
    readonly status: ApiScrub;
    noted(report: CheckReport): Promise<void>;
  };
  /** Launches of points, and their states. */
  readonly jobs: Pick<
    Jobs,
    | ('start' | 'startWork' | 'list' | 'find' | 'cancel' | 'stop' | 'startAgain' | 'discard')
    | ('remove' | 'log' | 'evidence' | 'bootCheck' | 'uncleaned' | 'damaged' | 'refuseWork')
  >;
  /** Plans, their runs, and verdicts of many points. */
  readonly plans: ApiPlans;
  /** EBS snapshots that are kept ready. */
  readonly prestage: Pick<Prestage, 'list' | 'switch' | 'run'>;
  /** Boot checks that are made by themselves. */
  readonly checker: Pick<Checker, 'status' | 'setPolicy'>;
  /** Held for those who ask about them again and again. */
  readonly pointsInUse: Pick<PointsInUse, 'touch'>;
  readonly failbacks: Pick<Failbacks, 'list' | 'find' | 'preview' | 'finish' | 'written'>;
  /** Bytes received from agents since the start. */
  receivedBytes(): number;
}
