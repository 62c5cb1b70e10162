/**
 * What an operator is told of the state: names of the field, lag, progress, what is left. Pure.
 */
import { CHUNK_BYTES } from '../model/geometry.ts';
import { type CutInfo, type ReplicationState, worstState } from '../model/replication.ts';
import type { TrackerBackend } from '../native/types.ts';
import type { VolumeStatus } from '../protocol/messages.ts';
import type { AgentPorts, AgentVolume } from './ports.ts';
import type { AgentState, Instant, VolumeState } from './state-types.ts';

export interface AgentStatus {
  readonly server: string;
  readonly pid: number;
  readonly state: ReplicationState;
  /** Time since T of the newest durable point; -1 before the first of this process. */
  readonly lagMs: number;
  readonly backlogBytes: number;
  readonly volumes: readonly AgentVolumeStatus[];
  readonly wireBytes: number;
  readonly dedupeHits: number;
  readonly neededChunks: number;
  readonly patchedBytes: number;
  readonly cuts: number;
  readonly lastCut: (CutInfo & CutOutcome) | null;
  /** Set while staging takes another machine for this server: nothing of this one is replicated. */
  readonly refused: RefusalReport | null;
}
export interface RefusalReport {
  readonly code: string;
  readonly message: string;
  /** ISO 8601. */
  readonly since: string;
}
export interface CutOutcome {
  readonly time: string;
  readonly pointId: string;
  readonly blocks: number;
  readonly commitMs: number;
}
export interface AgentVolumeStatus {
  readonly volume: string;
  /** Where it is here and now. */
  readonly path: string;
  readonly state: ReplicationState;
  readonly reason: string;
  readonly sizeBytes: number;
  readonly epoch: number;
  readonly syncedBytes: number;
  /** Of a sync that runs; -1 where it cannot be told. */
  readonly etaMs: number;
  readonly backlogBytes: number;
  readonly tracker: TrackerReport;
}
export interface TrackerReport {
  readonly backend: TrackerBackend;
  readonly granularityBytes: number;
  readonly generation: string;
  readonly missedCompletions: number;
  readonly suspectBlocks: number;
}

/** The state of volume `volume` under the field's names. */
export function stateOf(state: AgentState, volume: VolumeState): ReplicationState {
  if (state.isClosing) return 'stopped';
  if (volume.phase === 'failed') return 'stalled';
  if (state.connection.kind !== 'open') return state.wasOpen ? 'disconnected' : 'initiating';
  if (volume.phase === 'waiting' || volume.renewal !== '') return 'initiating';
  if (volume.sync !== null) return volume.sync.isRescan ? 'rescan' : 'initial-sync';
  if (volume.committedEpoch === 0) return 'creating-recovery-point';
  const isBehind =
    state.cutFailures > 0 ||
    state.drainsBeforeCut > 1 ||
    volume.health.pendingBytes > 4 * state.settings.drainThresholdBytes;
  return isBehind ? 'backlog' : 'continuous';
}

export const syncedBytes = (volume: VolumeState): number =>
  Math.min(
    volume.sizeBytes,
    volume.phase === 'waiting'
      ? 0
      : volume.sync === null
        ? volume.sizeBytes
        : volume.sync.sentChunk * CHUNK_BYTES,
  );

/** Changed and not committed; the part of a sync that is left is told as its progress. */
export const backlogBytes = (volume: VolumeState): number => volume.health.dirtyBytes;

/** From the rate since this process took the sync up. */
export function etaMs(volume: VolumeState, now: Instant): number {
  if (volume.sync === null) return 0;
  const { sentChunk, startChunk, startedMs } = volume.sync;
  const done = (sentChunk - startChunk) * CHUNK_BYTES;
  if (done <= 0) return -1;
  const left = volume.sizeBytes - syncedBytes(volume);
  return Math.round((left * (now.monotonicMs - startedMs)) / done);
}

export const lagMs = (state: AgentState, now: Instant): number =>
  state.lastCut === null ? -1 : Math.max(0, Math.round(now.wallMs - state.lastCut.timeMs));

/** What staging is told every few seconds. */
export const wireStatus = (state: AgentState): VolumeStatus[] =>
  state.volumes.map((volume, index) => ({
    volume: index,
    state: stateOf(state, volume),
    backlogBytes: backlogBytes(volume),
    syncedBytes: syncedBytes(volume),
    totalBytes: volume.sizeBytes,
    reason: volume.reason,
    missedCompletions: volume.health.missedCompletions,
    suspectBlocks: volume.health.suspectBlocks,
  }));

export interface ReportContext {
  readonly ports: Pick<AgentPorts, 'identity' | 'volumes'>;
  readonly counts: {
    readonly dedupeHits: number;
    readonly neededChunks: number;
    readonly patchedBytes: number;
  };
  readonly wireBytes: number;
  readonly cuts: number;
  readonly pid: number;
  readonly refused: RefusalReport | null;
}

export function agentStatus(state: AgentState, now: Instant, context: ReportContext): AgentStatus {
  const volumes = state.volumes.map((volume, index) =>
    volumeStatus(state, volume, now, context.ports.volumes[index]!),
  );
  const last = state.lastCut;
  return {
    server: context.ports.identity.server,
    pid: context.pid,
    state: worstState(volumes.map((volume) => volume.state)),
    lagMs: lagMs(state, now),
    backlogBytes: volumes.reduce((sum, volume) => sum + volume.backlogBytes, 0),
    volumes,
    wireBytes: context.wireBytes,
    ...context.counts,
    cuts: context.cuts,
    refused: context.refused,
    lastCut:
      last === null
        ? null
        : {
            ...last.cut,
            time: new Date(last.timeMs).toISOString(),
            pointId: last.pointId,
            blocks: last.blocks,
            commitMs: Math.round(last.commitMs),
          },
  };
}

function volumeStatus(
  state: AgentState,
  volume: VolumeState,
  now: Instant,
  { device, tracked, isScanned }: AgentVolume,
): AgentVolumeStatus {
  return {
    volume: volume.name,
    path: device.path,
    state: stateOf(state, volume),
    reason: volume.reason,
    sizeBytes: volume.sizeBytes,
    epoch: volume.committedEpoch,
    syncedBytes: syncedBytes(volume),
    etaMs: etaMs(volume, now),
    backlogBytes: backlogBytes(volume),
    tracker: {
      backend: isScanned ? 'scan' : 'bpf',
      granularityBytes: tracked.granularityBytes,
      generation: volume.generation,
      missedCompletions: volume.health.missedCompletions,
      suspectBlocks: volume.health.suspectBlocks,
    },
  };
}
