/**
 * The JSON of the REST API as types, for the service that answers and the command line that asks; the
 * OpenAPI document says the same in public. Answers only grow. Errors are
 * `{ "error": { "code": "ERR_...", "message": "...", "hint": "..." } }` with a status that fits the kind.
 */
import type { Extent } from '../model/geometry.ts';
import type { Finding as MachineFinding, MachineReport, Severity } from '../model/machine.ts';
import type { ReplicationState } from '../model/replication.ts';
import type { PieceDigests } from '../store/images/image-digests.ts';
import type {
  CheckReport,
  CopyProgress,
  CopyReport,
  Finding,
  FreedEstimate,
  ListedPoint,
  StoreStatistics,
  Usage,
} from '../store/types.ts';
import type { ApiError } from './api-errors.ts';
import type { BootCheck } from './jobs/job-files.ts';
import type { ShownJob } from './jobs/jobs.ts';
import type { FailbackPhase, FormerHolder, WrittenHome } from './lineage-state.ts';
import type { ShownServerCheck } from './plans/checker.ts';
import type { PlanCheck } from './plans/plan-check.ts';
import type { AppliedPlan } from './plans/plan-runner.ts';
import type { ShownPlan } from './plans/plan-store.ts';

/** A failback and where it stands: GET /v1/failbacks/:job, GET /v1/failbacks -> { failbacks: [...] }. */
export interface ApiFailback {
  job: string;
  server: string;
  phase: FailbackPhase | 'ready';
  /** What it waits for, or what is to be done next. */
  message: string;
  /** Hardware ids: who had the name before and gets it back, and the recovery instance ('': not seen yet). */
  original: string;
  instance: string;
  /** The last points of the original and (null before the fence) of the instance; both are held. */
  fromPoint: string | null;
  lastPoint: string | null;
  newestPoint: string | null;
  /** Of whoever has the name now. */
  connected: boolean;
  state: ReplicationState;
  lagMs: number | null;
  syncedBytes: number;
  totalBytes: number;
  /** What was written on the original machine last, by volume. */
  written: readonly (WrittenHome & { volume: string })[];
}

/** POST /v1/failbacks/preview: who would be refused from then on, and who let in. */
export interface ApiFailbackPreview {
  server: string;
  /** Hardware id of the machine that has the name now, since when (null: not noted), and where it stands. */
  original: string;
  since: string | null;
  connected: boolean;
  state: ReplicationState;
  lagMs: number | null;
  /** Its newest, which would be held. */
  newestPoint: { id: string; time: string } | null;
  /** The launch whose machine is the recovery instance, and its phase; null: a hardware id was given. */
  job: string | null;
  jobPhase: string | null;
  /** Hardware id of the instance, and when its agent asked last; null: it has not shown itself yet. */
  instance: string | null;
  lastSeen: string | null;
}

/** POST /v1/points/:point/volumes/:volume/compare: bitmaps in base64, the lowest bit first. */
export interface ApiComparison {
  /** 1: the point has something else there. */
  different: string;
  /** 1: it differs, and the point has zeros there. */
  zero: string;
  /** How many differ. */
  count: number;
}

/** A machine that came under a server's name, and was not it. */
export interface RefusedMachine {
  readonly hardwareId: string;
  /** Its firmware's UUID and the like, as it says itself. */
  readonly words: readonly string[];
  readonly peer: string;
  /** ISO 8601. */
  readonly first: string;
  readonly last: string;
  readonly attempts: number;
}

export interface ApiServerVolume {
  volume: string;
  sizeBytes: number;
  sectorBytes: number;
  generation: string;
  /** Epochs committed of this generation. */
  epoch: number;
  state: ReplicationState;
  /** Why the state is what it is; empty when all is well. */
  reason: string;
  backlogBytes: number;
  syncedBytes: number;
  totalBytes: number;
  missedCompletions: number;
  suspectBlocks: number;
}

export type Durability = 'local' | 'object';

/** What a source server is, as its agent told last; `counts` of findings by severity. */
export type ApiMachine = Omit<MachineReport, 'timeMs' | 'findings'> & {
  /** When the agent looked, ISO 8601. */
  time: string;
  counts: Record<Severity, number>;
};

/** GET /v1/servers/:server/machine; ERR_MACHINE_UNKNOWN before the first report. */
export type ApiMachineReport = ApiMachine & { findings: readonly MachineFinding[] };

/** GET /v1/servers -> { servers: ApiServer[] }, GET /v1/servers/:server -> ApiServer. */
export interface ApiServer {
  server: string;
  connected: boolean;
  /** Worst state of its volumes; 'disconnected' without an agent. */
  state: ReplicationState;
  /** Milliseconds since T of the newest whole point; null where there is none. */
  lagMs: number | null;
  backlogBytes: number;
  /** Hex; `pendingHardwareId` is other hardware that was refused and waits for `server admit`. */
  hardwareId: string;
  pendingHardwareId: string | null;
  /** Machines that were refused since staging began; `job`: whose machine it is, where that is known. */
  refused: readonly (RefusedMachine & { job: string | null })[];
  /** Since when the machine has the name, ISO 8601, and the newest point then; null: not noted. */
  since: string | null;
  fromPoint: string | null;
  /** Machines that had it before, oldest first. */
  former: readonly FormerHolder[];
  agentVersion: string;
  /** Bytes that came over the wire, and bytes of contents that the answer "have" spared, since staging began. */
  receivedBytes: number;
  /** Of them, bytes of contents, as sent (compressed). */
  contentBytes: number;
  dedupeHits: number;
  dedupedBytes: number;
  /** When a point is acknowledged to the agent: durable in staging, or sealed in the repository. */
  durability: Durability;
  /** Recovery points that are kept. */
  points: number;
  /** The policy by which they are kept. */
  keep: string;
  volumes: ApiServerVolume[];
  newestPoint: ListedPoint | null;
  /** null until an agent has told. */
  machine: ApiMachine | null;
  /** EBS snapshots that are kept ready of it; null: staging was started without. */
  prestage: ApiPrestagedServer | null;
  /** The scheduled boot checks. */
  check: ApiServerCheck;
}

/** GET and POST /v1/servers/:server/check. */
export type ApiServerCheck = ShownServerCheck;

/** Whether a boot check of it passed; null: there was none. Left out where it was not looked for. */
export type ApiPoint = ListedPoint & { readonly isVerified?: boolean | null };

/** GET /v1/points?server&from&to&limit&after (ISO 8601 times; newest first). */
export interface ApiPoints {
  points: ApiPoint[];
  /** Value of `after` for the next page; null on the last. */
  next: string | null;
}

/** POST /v1/points; with `wait` answered when the point is committed (`point` set) or ERR_POINT_TIMEOUT. */
export interface ApiPointRequested {
  requestId: string;
  point: ListedPoint | null;
}

/** GET /v1/points/:point/volumes/:volume/digests?offset=N: what an export is resumed and verified by. */
export type ApiDigests = PieceDigests & { sizeBytes: number };

/** GET /v1/points/:point/volumes/:volume/differences?from=POINT&offset=N. */
export interface ApiDifferences {
  extents: Extent[];
  next: number | null;
}

export interface ApiPrestagedVolume {
  volume: string;
  /** The newest completed snapshot, and the point that it holds; null: none yet. */
  snapshotId: string | null;
  point: string | null;
  sizeGiB: number | null;
  /** What its chain was begun with; null: as the account had it. */
  encryption: { kmsKeyArn: string | null } | null;
}

/** The rolling chain of EBS snapshots of one server. */
export interface ApiPrestagedServer {
  server: string;
  isOn: boolean;
  state: 'off' | 'waiting' | 'uploading' | 'current' | 'failing';
  /** Why it waits; empty otherwise. */
  reason: string;
  volumes: ApiPrestagedVolume[];
  /** Of the turn that is under way. */
  progress: { volume: string; doneBytes: number; totalBytes: number } | null;
  /** Of the last turn that ended well, by staging's clock; blocks of 512 KiB that it put. */
  endedMs: number | null;
  putBlocks: number | null;
  nextMs: number | null;
  /** Why the last turn failed, and how many did so one after the other. */
  error: ApiError['error'] | null;
  failures: number;
}

/** GET /v1/ec2/prestage; POST /v1/ec2/prestage/:server { isOn, endsChain } and .../run -> ApiPrestagedServer. */
export interface ApiPrestage {
  /** Null: staging was started without --ec2-prestage. */
  everyMs: number | null;
  region: string | null;
  bytesPerSecond: number | null;
  servers: ApiPrestagedServer[];
}

/** GET /v1/statistics. */
export type ApiStatistics = StoreStatistics & {
  receivedBytes: number;
  /** With `by=server` or `by=point`. */
  usage: Usage | null;
};

/** POST /v1/check { readData } -> { jobId }; GET /v1/checks/:jobId until `state` is not 'running'. */
export interface ApiCheckJob {
  jobId: string;
  state: 'running' | 'done' | 'failed';
  done: number;
  total: number;
  report: CheckReport | null;
  error: ApiError['error'] | null;
}

/** GET /v1/retention?server&freed. */
export interface ApiRetentionPlan {
  /** Ids, oldest first. */
  keep: string[];
  drop: string[];
  points: ApiPlannedPoint[];
  /** With `freed=true`. */
  freed: FreedEstimate | null;
  state: ApiRetentionState;
}
export interface ApiPlannedPoint {
  point: string;
  server: string;
  time: string;
  /** Rules, `newest`, `hold`, `future`, `policy unknown`; empty: it goes. */
  keptBy: readonly string[];
}
/** POST /v1/retention/resume, and a part of GET /v1/status. */
export interface ApiRetentionState {
  /** Nothing is dropped until an operator agrees; `reason` says why. */
  isWaiting: boolean;
  reason: string;
  /** The policy of servers that have none of their own. */
  keep: string;
}
/** POST /v1/retention/run: the ids of the points that went. */
export interface ApiRetentionRun {
  dropped: string[];
}
/** GET and POST /v1/servers/:server/keep. */
export interface ApiKeepPolicy {
  server: string;
  keep: string;
  isDefault: boolean;
  isDamaged: boolean;
}
/** POST /v1/points/:point/release. */
export interface ApiReleased {
  released: string;
}

/** POST /v1/copies { to, server?, sinceMs?, newest?, verify? }; GET /v1/copies/:jobId until done. */
export interface ApiCopyJob {
  jobId: string;
  place: string;
  state: 'running' | 'done' | 'failed' | 'stopped';
  startedMs: number;
  progress: CopyProgress;
  report: CopyReport | null;
  error: ApiError['error'] | null;
}

/** GET /v1/copies -> { copies: ApiCopyPlace[] }: one for each place that staging was started with. */
export interface ApiCopyPlace {
  place: string;
  /** Null: only when asked. */
  everyMs: number | null;
  nextMs: number | null;
  /** Of the last copy; null where there was none. */
  repository: string | null;
  copiedMs: number | null;
  /** When all that lies there had been read back; null: parts of it never were. */
  verifiedMs: number | null;
  points: number;
  /** The copy that is under way. */
  jobId: string | null;
  /** Why the last copy failed. */
  error: ApiError['error'] | null;
}
export interface ApiCopies {
  copies: ApiCopyPlace[];
}

export interface ApiScrubRound {
  startedMs: number;
  endedMs: number;
  packs: number;
  bytes: number;
}

/** GET /v1/scrub: how far the repository is read, and what was found last, by it or by a check. */
export interface ApiScrub {
  state: 'off' | 'waiting' | 'reading';
  everyMs: number;
  bytesPerSecond: number;
  /** Of the round that is under way, or of the last one; times in ms since 1970. */
  startedMs: number | null;
  packs: number;
  bytes: number;
  finished: ApiScrubRound | null;
  checkedMs: number | null;
  findings: Finding[];
  hurtPoints: string[];
}

/**
 * POST /v1/drills, POST /v1/failovers, GET /v1/jobs -> { jobs: ApiJob[] }, GET /v1/jobs/:jobId and what
 * ends, starts again, discards or forgets it.
 */
export type ApiJob = ShownJob;

/** A part of GET /v1/status: what a job has made and could not take away; in a cloud it costs money. */
export interface ApiUncleaned {
  job: string;
  kind: ApiJob['kind'];
  server: string;
  target: string;
  error: string;
  /** So many have failed. */
  tries: number;
  againAt: string | null;
}

/** GET /v1/plans -> { plans: ApiPlan[] }, POST /v1/plans (a plan file), GET and DELETE /v1/plans/:plan. */
export type ApiPlan = ShownPlan;
/** As POST /v1/plans answers it. */
export type ApiAppliedPlan = AppliedPlan;
export interface ApiPlans {
  plans: ApiPlan[];
}
/** GET /v1/plans/:plan/check?kind&at. */
export type ApiPlanCheck = PlanCheck;

/** GET /v1/points/:point/boot-check; null where there was none. */
export interface ApiBootCheck {
  check: BootCheck | null;
}

/** POST /v1/servers/:server/token. */
export interface ApiAgentToken {
  server: string;
  token: string;
}
/** POST /v1/servers/:server/revoke. */
export interface ApiAgentRevoked {
  server: string;
}
