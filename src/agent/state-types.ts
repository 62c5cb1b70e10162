/**
 * The words of the replication state machine: what it knows (state), what it is told (events), what it
 * asks for (effects). SPEC.md beside this file numbers the invariants. Pure types; the transitions are in
 * `replication-state.ts` and the modules that it calls.
 */
import type { LogLevel } from '../base/log.ts';
import type { Extent } from '../model/geometry.ts';
import type { CutInfo } from '../model/replication.ts';
import type { PassResult, ReadFault } from '../native/types.ts';
import type { WelcomeVolume } from '../protocol/messages.ts';

/** The two clocks at one moment: intervals are counted on the first, points are named by the second. */
export interface Instant {
  readonly monotonicMs: number;
  readonly wallMs: number;
}

export type Connection =
  | { readonly kind: 'idle' }
  | { readonly kind: 'connecting' }
  /** Connected, but a job of the former session still runs: its reads must not reach this one. */
  | { readonly kind: 'settling' }
  /** Hello sent. */
  | { readonly kind: 'greeting' }
  | { readonly kind: 'open' }
  | { readonly kind: 'backoff'; readonly untilMs: number };

/** A first full pass, or one after lost history. Null once the map is whole. */
export interface SyncProgress {
  readonly isRescan: boolean;
  /** All chunks below have been read. */
  readonly nextChunk: number;
  /** All chunks below have been offered, answered and sent. */
  readonly sentChunk: number;
  /** Where and when this process took it up, for the rate. */
  readonly startChunk: number;
  readonly startedMs: number;
}

export type VolumePhase = 'waiting' | 'active' | 'failed';

export interface VolumeState {
  readonly name: string;
  readonly sizeBytes: number;
  readonly generation: string;
  readonly committedEpoch: number;
  /** The position was read from the tracker's pinned header, not made in this process. */
  readonly isTakenOver: boolean;
  readonly isScanned: boolean;
  readonly phase: VolumePhase;
  readonly sync: SyncProgress | null;
  /** Why the state is what it is; empty when all is well. */
  readonly reason: string;
  /** A failed volume is tried again at this moment. */
  readonly retryAtMs: number;
  readonly failures: number;
  /** The last commit sent and not answered: recognises a lost acknowledgement. */
  readonly sent: { readonly epoch: number; readonly contentDigest: string } | null;
  /** Not empty: a new generation is due, and why. */
  readonly renewal: string;
  readonly missingRounds: number;
  readonly health: VolumeHealth;
}

/** What the engine and the device say of a volume, gathered by the shell. */
export interface VolumeHealth {
  /** Size now; -1 where the device is gone. */
  readonly sizeBytes: number;
  /** Why the device is gone, else empty. */
  readonly fault: string;
  readonly taint: string;
  /** To be read by the next pass: harvested blocks and a lower bound of what was written since. */
  readonly pendingBytes: number;
  /** Changed and not committed. */
  readonly dirtyBytes: number;
  readonly missedCompletions: number;
  readonly suspectBlocks: number;
}

export type Job =
  | {
      readonly kind: 'sync';
      readonly id: number;
      readonly volume: number;
      /** Part of a scan pass rather than of a sync. */
      readonly isPass: boolean;
    }
  | { readonly kind: 'drain' | 'cut'; readonly id: number; readonly volumes: readonly number[] }
  /** Its session has ended: what it reads is thrown away. */
  | { readonly kind: 'orphan'; readonly id: number }
  /** A new generation is being begun; the engine must be at rest for it. */
  | { readonly kind: 'renewal'; readonly volume: number };

export type CutState =
  | { readonly kind: 'none' }
  | { readonly kind: 'cutting'; readonly requestId: string }
  | {
      readonly kind: 'committing';
      readonly requestId: string;
      readonly timeMs: number;
      readonly cut: CutInfo;
      readonly blocks: number;
      readonly volumes: readonly EpochName[];
    };

/** A pass over all scanned volumes; it is a cut when nothing differs from the pass before. */
export interface ScanPass {
  readonly beganWallMs: number;
  readonly beganMs: number;
  readonly requestId: string;
  readonly volume: number;
  readonly nextChunk: number;
  readonly hasChanged: boolean;
  /** Volumes that were read from the first chunk to the last. */
  readonly complete: readonly number[];
}

export interface EpochName {
  readonly volume: number;
  readonly generation: string;
  readonly epoch: number;
}

export interface LastCut {
  readonly timeMs: number;
  readonly cut: CutInfo;
  readonly blocks: number;
  readonly pointId: string;
  readonly commitMs: number;
}

export interface AgentSettings {
  readonly cutIntervalMs: number;
  readonly cutDeadlineMs: number;
  /** A drain is due when this much waits to be read. */
  readonly drainThresholdBytes: number;
  /** A slice of a sync is read when this many buffers are free. */
  readonly syncBuffers: number;
  readonly observeIntervalMs: number;
  readonly backoffBaseMs: number;
  readonly backoffCapMs: number;
  /** Between two tries of a machine that may be let in yet. */
  readonly refusedWaitMs: number;
  readonly retryVolumeMs: number;
}

export interface AgentState {
  readonly settings: AgentSettings;
  readonly connection: Connection;
  /** Dials since the last Welcome. */
  readonly attempts: number;
  readonly wasOpen: boolean;
  readonly isClosing: boolean;
  readonly volumes: readonly VolumeState[];
  readonly job: Job | null;
  readonly lastJob: Job['kind'] | null;
  /** The volume that had the last slice of a sync. */
  readonly lastSynced: number;
  readonly nextJobId: number;
  readonly cut: CutState;
  /** When the cut in hand was begun. */
  readonly cutBeganMs: number;
  readonly nextCutMs: number;
  /** Cuts that did not end before their deadline, in a row. */
  readonly cutFailures: number;
  /** Drains in a row while a cut is due. */
  readonly drainsBeforeCut: number;
  readonly mustDrain: boolean;
  readonly requests: readonly string[];
  readonly nextDrainOfSyncingMs: number;
  readonly nextObserveMs: number;
  readonly freeBuffers: number;
  readonly pass: ScanPass | null;
  readonly passesInCut: number;
  readonly lastCut: LastCut | null;
}

export type AgentEvent =
  | { readonly type: 'start' }
  | { readonly type: 'tick' }
  | { readonly type: 'close' }
  | { readonly type: 'connected' }
  | {
      readonly type: 'disconnected';
      readonly reason: string;
      /** Trying again cannot help: the peer refused us for what we are. */
      readonly isFatal: boolean;
      /** An operator may let this machine in yet: it is worth waiting for. */
      readonly mayBeAdmitted?: boolean;
      /** In [0, 1), drawn by the shell. */
      readonly random: number;
    }
  | { readonly type: 'welcome'; readonly volumes: readonly WelcomeVolume[] }
  | {
      readonly type: 'job-done';
      readonly result: PassResult;
      readonly faults: readonly ReadFault[];
      readonly health: readonly VolumeHealth[];
      readonly freeBuffers: number;
    }
  | {
      readonly type: 'sync-done';
      readonly job: number;
      readonly nextChunk: number;
      /** Set where something differs from what an earlier pass of this session found. */
      readonly hasChanged: boolean;
      readonly faults: readonly ReadFault[];
      readonly health: readonly VolumeHealth[];
      readonly freeBuffers: number;
    }
  | { readonly type: 'sync-sent'; readonly volume: number; readonly chunk: number }
  | {
      readonly type: 'observed';
      readonly health: readonly VolumeHealth[];
      readonly freeBuffers: number;
    }
  | { readonly type: 'freed'; readonly freeBuffers: number }
  | {
      readonly type: 'commit-sent';
      readonly volumes: readonly { volume: number; epoch: number; contentDigest: string }[];
    }
  | {
      readonly type: 'committed';
      readonly pointId: string;
      readonly volumes: readonly EpochName[];
    }
  | {
      readonly type: 'missing';
      readonly volumes: readonly { volume: number; chunks: readonly number[]; more: boolean }[];
    }
  | { readonly type: 'cut-requested'; readonly requestId: string }
  | {
      readonly type: 'renewed';
      readonly volume: number;
      readonly generation: string;
      readonly sizeBytes: number;
    }
  | { readonly type: 'renewal-failed'; readonly volume: number; readonly reason: string };

export type Effect =
  | { readonly type: 'dial' }
  | { readonly type: 'greet' }
  | { readonly type: 'hang-up'; readonly reason: string }
  | {
      readonly type: 'sync';
      readonly job: number;
      readonly volume: number;
      readonly fromChunk: number;
      /** The sync cursor goes along: the first epoch of a generation. */
      readonly isResumable: boolean;
    }
  | { readonly type: 'drain'; readonly job: number; readonly volumes: readonly number[] }
  | {
      readonly type: 'cut';
      readonly job: number;
      readonly volumes: readonly number[];
      readonly deadlineMs: number;
    }
  | {
      readonly type: 'commit';
      readonly timeMs: number;
      readonly cut: CutInfo;
      readonly requestId: string;
      readonly volumes: readonly EpochName[];
    }
  | { readonly type: 'pend'; readonly volume: number; readonly extents: readonly Extent[] }
  | { readonly type: 'pend-outstanding'; readonly volume: number }
  | { readonly type: 'acknowledge'; readonly volume: number; readonly epoch: number }
  | { readonly type: 'renew'; readonly volume: number; readonly reason: string }
  | { readonly type: 'observe' }
  | {
      readonly type: 'log';
      readonly level: LogLevel;
      readonly message: string;
      readonly fields: Readonly<Record<string, unknown>>;
    }
  | { readonly type: 'give-up'; readonly reason: string }
  | { readonly type: 'stopped' };

/** What every transition returns. */
export interface Step {
  readonly state: AgentState;
  readonly effects: readonly Effect[];
}
