/**
 * The agent's decisions as one pure function: (state, event, now) -> {state, effects}. The shell
 * (`agent.ts`) performs the effects and reports what came of them. SPEC.md numbers the invariants; the
 * parts are in connection-, volume-, cut- and schedule-state.
 */
import { assert } from '../base/errors.ts';
import { connected, dial, disconnected, greet, reconnect, welcomed } from './connection-state.ts';
import { commitSent, committed, cutDone, missing } from './cut-state.ts';
import { schedule, syncDone } from './schedule-state.ts';
import type {
  AgentEvent,
  AgentSettings,
  AgentState,
  Instant,
  Step,
  VolumeHealth,
  VolumeState,
} from './state-types.ts';
import { andThen, eachVolume, setVolume, stay } from './step-state.ts';
import {
  fail,
  judge,
  renewed,
  retry,
  startVolume,
  syncSent,
  type VolumeStart,
} from './volume-state.ts';

/** Requests for points that may wait; more are dropped, as each of them would be cut at once. */
const MAX_REQUESTS = 64;

export const defaultSettings: AgentSettings = {
  cutIntervalMs: 5000,
  cutDeadlineMs: 2000,
  drainThresholdBytes: 10 * 2 ** 20,
  syncBuffers: 8,
  observeIntervalMs: 200,
  backoffBaseMs: 250,
  backoffCapMs: 15_000,
  refusedWaitMs: 5000,
  retryVolumeMs: 5000,
};

export function startState(
  volumes: readonly VolumeStart[],
  settings: AgentSettings,
  freeBuffers: number,
): AgentState {
  return {
    settings,
    connection: { kind: 'idle' },
    attempts: 0,
    wasOpen: false,
    isClosing: false,
    volumes: volumes.map(startVolume),
    job: null,
    lastJob: null,
    lastSynced: -1,
    nextJobId: 1,
    cut: { kind: 'none' },
    cutBeganMs: 0,
    nextCutMs: 0,
    cutFailures: 0,
    drainsBeforeCut: 0,
    mustDrain: false,
    requests: [],
    nextDrainOfSyncingMs: 0,
    nextObserveMs: 0,
    freeBuffers,
    pass: null,
    passesInCut: 0,
    lastCut: null,
  };
}

/** One transition, then the choice of what to do next. */
export function reduce(state: AgentState, event: AgentEvent, now: Instant): Step {
  if (state.isClosing) return stay(state);
  return andThen(transition(state, event, now), (next) => schedule(next, now));
}

function transition(state: AgentState, event: AgentEvent, now: Instant): Step {
  switch (event.type) {
    case 'start':
      return state.connection.kind === 'idle' ? dial(state) : stay(state);
    case 'close':
      return stay(
        { ...state, isClosing: true, connection: { kind: 'idle' } },
        { type: 'hang-up', reason: 'the agent stops' },
        { type: 'stopped' },
      );
    case 'tick':
      return tick(state, now);
    case 'connected':
      return connected(state);
    case 'disconnected':
      return disconnected(state, event, now);
    case 'welcome':
      return welcomed(state, event.volumes, now);
    case 'job-done':
    case 'sync-done':
      return jobDone(state, event, now);
    case 'sync-sent':
      return stay(
        setVolume(state, event.volume, syncSent(state.volumes[event.volume]!, event.chunk)),
      );
    case 'observed':
      return observed({ ...state, freeBuffers: event.freeBuffers }, event.health, now);
    case 'freed':
      return stay({ ...state, freeBuffers: event.freeBuffers });
    case 'commit-sent':
      return commitSent(state, event);
    case 'committed':
      return committed(state, event, now);
    case 'missing':
      return missing(state, event, now);
    case 'cut-requested':
      return cutRequested(state, event.requestId);
    case 'renewed':
      return volumeRenewed(state, event);
    case 'renewal-failed':
      return renewalFailed(state, event.volume, event.reason, now);
  }
}

function tick(state: AgentState, now: Instant): Step {
  const retried = {
    ...state,
    volumes: state.volumes.map((volume) => retry(volume, now)),
  };
  const { connection } = state;
  const isDialDue = connection.kind === 'backoff' && now.monotonicMs >= connection.untilMs;
  const step = isDialDue ? dial(retried) : stay(retried);
  if (now.monotonicMs < state.nextObserveMs) return step;
  const nextObserveMs = now.monotonicMs + state.settings.observeIntervalMs;
  return andThen(step, (next) => stay({ ...next, nextObserveMs }, { type: 'observe' }));
}

const observed = (state: AgentState, health: readonly VolumeHealth[], now: Instant): Step =>
  eachVolume(state, (volume, index) => judge(volume, health[index]!, now, state.settings));

type JobEvent = Extract<AgentEvent, { type: 'job-done' | 'sync-done' }>;

function jobDone(state: AgentState, event: JobEvent, now: Instant): Step {
  const job = state.job;
  const id = event.type === 'job-done' ? event.result.job : event.job;
  assert(job !== null && job.kind !== 'renewal' && job.id === id, `job ${id} is not the one`);
  const { freeBuffers } = event;
  const idle: AgentState = { ...state, job: null, lastJob: job.kind, freeBuffers };
  const seen = observed(idle, event.health, now);
  if (job.kind === 'orphan') {
    return andThen(seen, (next) =>
      next.connection.kind === 'settling' ? greet(next) : stay(next),
    );
  }
  const after = andThen(seen, (next) => applyFaults(next, event, now));
  return andThen(after, (next) => {
    if (job.kind === 'sync' && event.type === 'sync-done') {
      return syncDone(next, job.volume, job.isPass, event, now);
    }
    if (job.kind === 'cut' && event.type === 'job-done') {
      return cutDone(next, job.volumes, event, now);
    }
    return stay(next);
  });
}

/** What could not be read stays to be read, and its volume is left out until it can be. */
function applyFaults(state: AgentState, event: JobEvent, now: Instant): Step {
  if (event.faults.length === 0) return stay(state);
  return eachVolume(state, (volume, index) => {
    const mine = event.faults.filter((fault) => fault.volume === index);
    if (mine.length === 0) return { volume, effects: [] };
    const first = mine[0]!;
    const reason = `read error ${first.errno} at byte ${first.offset}`;
    const failed = fail(volume, reason, now, state.settings);
    const extents = mine.map(({ offset, length }) => ({ offset, length }));
    if (volume.isScanned) return failed;
    return {
      volume: failed.volume,
      effects: [{ type: 'pend', volume: index, extents }, ...failed.effects],
    };
  });
}

function cutRequested(state: AgentState, requestId: string): Step {
  const isKnown =
    state.requests.includes(requestId) ||
    (state.cut.kind !== 'none' && state.cut.requestId === requestId);
  if (isKnown || state.requests.length >= MAX_REQUESTS) return stay(state);
  return stay({ ...state, requests: [...state.requests, requestId] });
}

function volumeRenewed(state: AgentState, event: Extract<AgentEvent, { type: 'renewed' }>): Step {
  const before: VolumeState = state.volumes[event.volume]!;
  const volume = renewed(before, event.generation, event.sizeBytes);
  const next = { ...setVolume(state, event.volume, volume), job: null };
  return reconnect(next, `new generation of ${volume.name}: ${before.renewal}`);
}

function renewalFailed(state: AgentState, index: number, reason: string, now: Instant): Step {
  const step = fail(state.volumes[index]!, reason, now, state.settings);
  return stay({ ...setVolume(state, index, step.volume), job: null }, ...step.effects);
}

/** When the shell must say `tick` at the latest. */
export function nextTickMs(state: AgentState, now: Instant): number {
  const times = [state.nextObserveMs];
  if (state.connection.kind === 'backoff') times.push(state.connection.untilMs);
  if (state.connection.kind === 'open' && state.nextCutMs > now.monotonicMs) {
    times.push(state.nextCutMs);
  }
  return Math.min(...times);
}
