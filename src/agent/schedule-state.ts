/**
 * What is read next. Pure. One job at a time: a new generation that is due, then a cut, drains, a scan
 * pass, slices of syncs; nobody starves (SPEC.md, J1..J7).
 */
import { chunkCount } from '../model/geometry.ts';
import { commit } from './cut-state.ts';
import type { AgentEvent, AgentState, Instant, Step } from './state-types.ts';
import { indexesOf, setVolume, stay } from './step-state.ts';
import { isContinuous, isSyncing, isUsable, syncRead } from './volume-state.ts';

/** Drains in a row that a due cut waits for, before it is tried with what there is. */
const MAX_DRAINS_BEFORE_CUT = 8;
/** A cut that keeps missing its deadline is given up to this many times the first. */
const MAX_DEADLINE_FACTOR = 4;

export function schedule(state: AgentState, now: Instant): Step {
  if (state.connection.kind !== 'open' || state.job !== null || state.isClosing) {
    return stay(state);
  }
  const doubted = state.volumes.findIndex((v) => v.renewal !== '' && v.phase !== 'failed');
  if (doubted >= 0 && state.cut.kind !== 'committing') {
    const reason = state.volumes[doubted]!.renewal;
    return stay(
      { ...state, job: { kind: 'renewal', volume: doubted } },
      { type: 'renew', volume: doubted, reason },
    );
  }
  return (
    cutOrDrainFirst(state, now) ??
    drainWhatWaits(state, now) ??
    scanPass(state, now) ??
    syncSlice(state) ??
    stay(state)
  );
}

const pendingBytes = (state: AgentState, volumes: readonly number[]): number =>
  volumes.reduce((sum, index) => sum + state.volumes[index]!.health.pendingBytes, 0);

const cutVolumes = (state: AgentState): number[] =>
  indexesOf(state, (v) => isContinuous(v) && !v.isScanned);

const isCutDue = (state: AgentState, now: Instant): boolean =>
  state.cut.kind === 'none' && (state.requests.length > 0 || now.monotonicMs >= state.nextCutMs);

function cutOrDrainFirst(state: AgentState, now: Instant): Step | null {
  const volumes = cutVolumes(state);
  if (volumes.length === 0 || !isCutDue(state, now)) return null;
  const waits = pendingBytes(state, volumes) > state.settings.drainThresholdBytes;
  if (state.mustDrain || (waits && state.drainsBeforeCut < MAX_DRAINS_BEFORE_CUT)) {
    // A sync gets its turn between two drains.
    const turn = state.lastJob === 'drain' ? syncSlice(state) : null;
    return turn ?? drain({ ...state, drainsBeforeCut: state.drainsBeforeCut + 1 }, volumes);
  }
  const { cutIntervalMs, cutDeadlineMs } = state.settings;
  const factor = Math.min(MAX_DEADLINE_FACTOR, 1 + state.cutFailures);
  const [requestId = '', ...requests] = state.requests;
  const id = state.nextJobId;
  return stay(
    {
      ...state,
      nextJobId: id + 1,
      job: { kind: 'cut', id, volumes },
      cut: { kind: 'cutting', requestId },
      requests,
      cutBeganMs: now.monotonicMs,
      nextCutMs: now.monotonicMs + cutIntervalMs,
      drainsBeforeCut: 0,
    },
    { type: 'cut', job: id, volumes, deadlineMs: cutDeadlineMs * factor },
  );
}

function drain(state: AgentState, volumes: readonly number[]): Step {
  const id = state.nextJobId;
  return stay(
    { ...state, nextJobId: id + 1, job: { kind: 'drain', id, volumes }, mustDrain: false },
    { type: 'drain', job: id, volumes },
  );
}

/** Volumes in a commit are left alone until it is answered. */
function drainWhatWaits(state: AgentState, now: Instant): Step | null {
  const busy = state.cut.kind === 'committing' ? state.cut.volumes.map((v) => v.volume) : [];
  const isFree = (index: number) => !busy.includes(index);
  const continuous = cutVolumes(state).filter(isFree);
  const syncing = indexesOf(state, (v) => isSyncing(v) && !v.isScanned);
  const isSyncingDue = now.monotonicMs >= state.nextDrainOfSyncingMs;
  const due = isSyncingDue ? [...continuous, ...syncing] : continuous;
  const waits =
    pendingBytes(state, continuous) > state.settings.drainThresholdBytes ||
    (isSyncingDue && pendingBytes(state, syncing) > 0);
  if (!waits) return null;
  const turn = state.lastJob === 'drain' ? syncSlice(state) : null;
  if (turn !== null) return turn;
  const later = isSyncingDue
    ? { ...state, nextDrainOfSyncingMs: now.monotonicMs + state.settings.cutIntervalMs }
    : state;
  return drain(later, due);
}

/** The next slice of the next syncing volume, round robin. */
function syncSlice(state: AgentState): Step | null {
  const syncing = indexesOf(
    state,
    (v) => isSyncing(v) && v.sync!.nextChunk < chunkCount(v.sizeBytes),
  );
  if (syncing.length === 0 || state.freeBuffers < state.settings.syncBuffers) return null;
  const volume = syncing.find((index) => index > state.lastSynced) ?? syncing[0]!;
  const { sync, committedEpoch } = state.volumes[volume]!;
  const next = { ...state, lastSynced: volume };
  return startSync(next, volume, sync!.nextChunk, committedEpoch === 0, false);
}

function startSync(
  state: AgentState,
  volume: number,
  fromChunk: number,
  isResumable: boolean,
  isPass: boolean,
): Step {
  const id = state.nextJobId;
  return stay(
    { ...state, nextJobId: id + 1, job: { kind: 'sync', id, volume, isPass } },
    { type: 'sync', job: id, volume, fromChunk, isResumable },
  );
}

/** Scanned volumes, once their maps are whole, are read over and over, all of them in one pass. */
function scanPass(state: AgentState, now: Instant): Step | null {
  const scanned = indexesOf(state, (v) => isContinuous(v) && v.isScanned);
  if (scanned.length === 0 || state.volumes.some((v) => isSyncing(v) && v.isScanned)) return null;
  if (state.freeBuffers < state.settings.syncBuffers) return null;
  if (state.pass === null) {
    if (!isCutDue(state, now)) return null;
    const [requestId = '', ...requests] = state.requests;
    const began: AgentState = {
      ...state,
      requests,
      nextCutMs: now.monotonicMs + state.settings.cutIntervalMs,
      cutBeganMs: state.passesInCut === 0 ? now.monotonicMs : state.cutBeganMs,
      pass: {
        beganWallMs: now.wallMs,
        beganMs: now.monotonicMs,
        requestId,
        volume: scanned[0]!,
        nextChunk: 0,
        hasChanged: false,
        complete: [],
      },
    };
    return startSync(began, scanned[0]!, 0, false, true);
  }
  if (!isContinuous(state.volumes[state.pass.volume]!)) return stay(passFailed(state, now));
  return startSync(state, state.pass.volume, state.pass.nextChunk, false, true);
}

/** The pass says nothing: another one is due at once, for the same request. */
function passFailed(state: AgentState, now: Instant): AgentState {
  const requestId = state.pass?.requestId ?? '';
  return {
    ...state,
    pass: null,
    passesInCut: state.passesInCut + 1,
    requests: requestId === '' ? state.requests : [requestId, ...state.requests],
    nextCutMs: now.monotonicMs,
  };
}

type SyncDone = Extract<AgentEvent, { type: 'sync-done' }>;

/** A slice of a sync or of a scan pass has been read. */
export function syncDone(
  state: AgentState,
  volume: number,
  isPass: boolean,
  event: SyncDone,
  now: Instant,
): Step {
  if (!isPass) {
    return stay(
      setVolume(state, volume, syncRead(state.volumes[volume]!, event.nextChunk, event.faults)),
    );
  }
  return passRead(state, event, now);
}

function passRead(state: AgentState, event: SyncDone, now: Instant): Step {
  if (state.pass === null) return stay(state);
  const held = state.volumes[state.pass.volume]!;
  const isLost = !isUsable(held);
  const isRead = event.nextChunk >= chunkCount(held.sizeBytes);
  const pass = {
    ...state.pass,
    nextChunk: event.nextChunk,
    hasChanged: state.pass.hasChanged || event.hasChanged,
  };
  if (!isLost && !isRead) return stay({ ...state, pass });
  const complete = isLost ? pass.complete : [...pass.complete, pass.volume];
  const next = indexesOf(
    state,
    (v, index) => index > pass.volume && isContinuous(v) && v.isScanned,
  ).at(0);
  if (next !== undefined) {
    return stay({ ...state, pass: { ...pass, volume: next, nextChunk: 0, complete } });
  }
  return passDone({ ...state, pass: { ...pass, complete } }, now);
}

/** Nothing differs from the pass before: the state at this pass's begin is known. */
function passDone(state: AgentState, now: Instant): Step {
  const pass = state.pass!;
  const good = pass.complete.filter((index) => isContinuous(state.volumes[index]!));
  const tookMs = now.monotonicMs - pass.beganMs;
  if (pass.hasChanged || good.length === 0) return stay(passFailed(state, now));
  const ended: AgentState = {
    ...state,
    pass: null,
    passesInCut: 0,
    // Reading takes at most every other moment.
    nextCutMs: Math.max(state.nextCutMs, now.monotonicMs + tookMs),
  };
  const cut = { method: 'scan' as const, passes: state.passesInCut + 1, durationMs: tookMs };
  const { beganWallMs: timeMs, requestId } = pass;
  return commit(ended, good, { timeMs, cut, requestId, blocks: 0 });
}
