/**
 * The life of one volume: waiting for staging's word, first pass or rescan, continuous, failed, renewed.
 * Pure. Keeps P6: whatever casts doubt on the history ends in a new generation, never in a guess
 * (SPEC.md, V1..V9). Which volume is read when is decided in `schedule-state.ts`.
 */
import { formatSize } from '../base/units.ts';
import { CHUNK_BYTES, chunkCount } from '../model/geometry.ts';
import type { ReadFault } from '../native/types.ts';
import type { WelcomeVolume } from '../protocol/messages.ts';
import type {
  AgentSettings,
  Effect,
  Instant,
  SyncProgress,
  VolumeHealth,
  VolumeState,
} from './state-types.ts';

export interface VolumeStep {
  readonly volume: VolumeState;
  readonly effects: readonly Effect[];
}

export interface VolumeStart {
  readonly name: string;
  readonly sizeBytes: number;
  readonly generation: string;
  readonly committedEpoch: number;
  readonly isTakenOver: boolean;
  readonly isScanned: boolean;
}

const QUIET: Omit<VolumeHealth, 'sizeBytes'> = {
  fault: '',
  taint: '',
  pendingBytes: 0,
  dirtyBytes: 0,
  missedCompletions: 0,
  suspectBlocks: 0,
};

export const startVolume = (start: VolumeStart): VolumeState => ({
  ...start,
  phase: 'waiting',
  sync: null,
  reason: '',
  retryAtMs: 0,
  failures: 0,
  sent: null,
  renewal: '',
  missingRounds: 0,
  health: { ...QUIET, sizeBytes: start.sizeBytes },
});

export const isUsable = (volume: VolumeState): boolean =>
  volume.phase === 'active' && volume.renewal === '';
export const isSyncing = (volume: VolumeState): boolean => isUsable(volume) && volume.sync !== null;
/** Takes part in cuts. */
export const isContinuous = (volume: VolumeState): boolean =>
  isUsable(volume) && volume.sync === null;

const log = (
  level: 'info' | 'warn' | 'error',
  message: string,
  fields: Record<string, unknown>,
): Effect => ({ type: 'log', level, message, fields });

/** A new generation is due; the first reason stands. */
export function doubt(volume: VolumeState, reason: string): VolumeStep {
  if (volume.renewal !== '') return { volume, effects: [] };
  return {
    volume: { ...volume, renewal: reason, reason, retryAtMs: 0 },
    effects: [
      log('error', 'history in doubt: a new generation begins', { volume: volume.name, reason }),
    ],
  };
}

/** Left out of cuts until it is tried again; the wait doubles up to sixteen times the first. */
export function fail(
  volume: VolumeState,
  reason: string,
  now: Instant,
  settings: AgentSettings,
): VolumeStep {
  const wait = settings.retryVolumeMs * 2 ** Math.min(4, volume.failures);
  return {
    volume: {
      ...volume,
      phase: 'failed',
      reason,
      failures: volume.failures + 1,
      retryAtMs: now.monotonicMs + wait,
    },
    effects: [log('error', 'volume failed', { volume: volume.name, reason, retryInMs: wait })],
  };
}

/** What staging holds against what we know (SPEC.md, table "Welcome"). */
export function reconcile(
  volume: VolumeState,
  index: number,
  held: WelcomeVolume,
  now: Instant,
): VolumeStep {
  const pend: Effect[] = volume.isScanned ? [] : [{ type: 'pend-outstanding', volume: index }];
  const awake = volume.phase === 'waiting' ? { ...volume, phase: 'active' as const } : volume;
  const committed = held.committed !== null && held.committed.epoch > 0 ? held.committed : null;
  if (committed === null || committed.generation !== volume.generation) {
    if (volume.committedEpoch > 0) {
      const what = committed === null ? 'nothing' : 'another generation';
      return withEffects(pend, doubt(awake, `staging is behind: it holds ${what}`));
    }
    const sync = beginSync(awake, committed !== null, held.syncedChunks, now);
    return { volume: { ...awake, sync }, effects: pend };
  }
  if (committed.epoch === volume.committedEpoch) {
    return { volume: { ...awake, sync: resync(awake, now) }, effects: pend };
  }
  if (committed.epoch === volume.committedEpoch + 1 && isOurCommit(volume, committed)) {
    return {
      volume: {
        ...awake,
        committedEpoch: committed.epoch,
        sent: null,
        sync: resync(awake, now),
      },
      effects: [...pend, { type: 'acknowledge', volume: index, epoch: committed.epoch }],
    };
  }
  const ours = volume.committedEpoch;
  const side = committed.epoch < ours ? 'behind' : 'ahead';
  return withEffects(
    pend,
    doubt(awake, `staging is ${side}: epoch ${committed.epoch} there, ${ours} here`),
  );
}

/** The commit that staging holds is the one whose acknowledgement we lost. */
function isOurCommit(
  volume: VolumeState,
  committed: { epoch: number; contentDigest: string },
): boolean {
  if (volume.sent?.epoch === committed.epoch) {
    return volume.sent.contentDigest === committed.contentDigest;
  }
  return volume.isTakenOver;
}

/** A scanned volume has no marks: after any break it is read whole again. */
const resync = (volume: VolumeState, now: Instant): SyncProgress | null =>
  volume.isScanned ? beginSync(volume, true, 0, now) : null;

function beginSync(
  volume: VolumeState,
  isRescan: boolean,
  fromChunk: number,
  now: Instant,
): SyncProgress | null {
  if (fromChunk >= chunkCount(volume.sizeBytes) && !volume.isScanned) return null;
  return {
    isRescan,
    nextChunk: fromChunk,
    sentChunk: fromChunk,
    startChunk: fromChunk,
    startedMs: now.monotonicMs,
  };
}

/** A slice of the sync has been read; a fault sets the cursor back to the chunk that it hit. */
export function syncRead(
  volume: VolumeState,
  nextChunk: number,
  faults: readonly ReadFault[],
): VolumeState {
  if (volume.sync === null) return volume;
  const bad = faults.map((fault) => Math.floor(fault.offset / CHUNK_BYTES));
  const next = Math.min(nextChunk, ...bad);
  return {
    ...volume,
    sync: { ...volume.sync, nextChunk: next, sentChunk: Math.min(volume.sync.sentChunk, next) },
  };
}

/** Everything below `chunk` has been offered, answered and sent. At the end the map is whole. */
export function syncSent(volume: VolumeState, chunk: number): VolumeState {
  if (volume.sync === null) return volume;
  const sentChunk = Math.min(Math.max(volume.sync.sentChunk, chunk), volume.sync.nextChunk);
  if (sentChunk >= chunkCount(volume.sizeBytes)) return { ...volume, sync: null, failures: 0 };
  return { ...volume, sync: { ...volume.sync, sentChunk } };
}

/** Judges what the engine and the device say. */
export function judge(
  volume: VolumeState,
  health: VolumeHealth,
  now: Instant,
  settings: AgentSettings,
): VolumeStep {
  const seen = { ...volume, health };
  if (health.fault !== '') {
    if (volume.phase === 'failed') return { volume: seen, effects: [] };
    return fail(seen, `vanished: ${health.fault}`, now, settings);
  }
  if (volume.health.fault !== '') return doubt(seen, 'the device came back');
  if (health.sizeBytes !== volume.sizeBytes) {
    const how = health.sizeBytes > volume.sizeBytes ? 'grown' : 'shrunk';
    const sizes = `${formatSize(volume.sizeBytes)} to ${formatSize(health.sizeBytes)}`;
    return doubt(seen, `${how} from ${sizes}`);
  }
  if (health.taint !== '') return doubt(seen, `tracking lost: ${health.taint}`);
  return { volume: seen, effects: [] };
}

/** The time to try a failed volume again. A vanished one waits until its device is back. */
export function retry(volume: VolumeState, now: Instant): VolumeState {
  const isDue = volume.phase === 'failed' && now.monotonicMs >= volume.retryAtMs;
  if (!isDue || volume.health.fault !== '') return volume;
  return { ...volume, phase: 'active', reason: volume.renewal };
}

/** A new generation has begun: nothing of it is committed, staging's word is awaited. */
export function renewed(volume: VolumeState, generation: string, sizeBytes: number): VolumeState {
  return {
    ...startVolume({
      name: volume.name,
      sizeBytes,
      generation,
      committedEpoch: 0,
      isTakenOver: false,
      isScanned: volume.isScanned,
    }),
    reason: volume.renewal,
  };
}

const withEffects = (first: readonly Effect[], step: VolumeStep): VolumeStep => ({
  volume: step.volume,
  effects: [...first, ...step.effects],
});
