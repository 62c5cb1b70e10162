/**
 * Epochs: a cut that ended, its commit, staging's answer. Pure. Keeps P2 and P4 on the agent's side: what is
 * committed is one validated set of whole volumes, and nothing of them is read between commit and answer
 * (SPEC.md, E1..E8).
 */
import { CHUNK_BYTES, chunkLength } from '../model/geometry.ts';
import type { CutInfo } from '../model/replication.ts';
import { abandon } from './connection-state.ts';
import type {
  AgentEvent,
  AgentState,
  EpochName,
  Instant,
  Step,
  VolumeState,
} from './state-types.ts';
import { andThen, eachVolume, logEffect, setVolume, stay } from './step-state.ts';
import { doubt, isContinuous } from './volume-state.ts';

/** Rounds of "missing" without an end in sight before the generation is given up. */
const MAX_MISSING_ROUNDS = 8;

type JobDone = Extract<AgentEvent, { type: 'job-done' }>;

/** The engine's cut has ended; faults and health have been applied to the volumes already. */
export function cutDone(
  state: AgentState,
  volumes: readonly number[],
  event: JobDone,
  now: Instant,
): Step {
  const { result } = event;
  const requestId = state.cut.kind === 'cutting' ? state.cut.requestId : '';
  if (result.outcome !== 'valid') return cutFailed(state, requestId, event, now);
  const faulty = new Set(event.faults.map((fault) => fault.volume));
  const good = volumes.filter((i) => !faulty.has(i) && isContinuous(state.volumes[i]!));
  if (good.length === 0) return stay(retryCut(state, requestId, now));
  const cut: CutInfo = {
    method: 'validated',
    passes: result.passes,
    durationMs: result.durationMs,
  };
  const calm = { ...state, cutFailures: 0 };
  return commit(calm, good, { timeMs: result.timeMs, cut, requestId, blocks: result.firstBlocks });
}

/** Its request goes back to the queue, and the cut is due again now. */
const retryCut = (state: AgentState, requestId: string, now: Instant): AgentState => ({
  ...state,
  cut: { kind: 'none' },
  requests: requestId === '' ? state.requests : [requestId, ...state.requests],
  nextCutMs: now.monotonicMs,
});

function cutFailed(state: AgentState, requestId: string, event: JobDone, now: Instant): Step {
  const next = retryCut(state, requestId, now);
  if (event.faults.length > 0 || event.result.outcome === 'aborted') return stay(next);
  return stay(
    { ...next, cutFailures: state.cutFailures + 1, mustDrain: true, drainsBeforeCut: 0 },
    logEffect('warn', 'cut did not end before its deadline', {
      passes: event.result.passes,
      contestedBlocks: event.result.contestedBlocks,
      durationMs: Math.round(event.result.durationMs),
    }),
  );
}

export function commit(
  state: AgentState,
  indexes: readonly number[],
  point: { timeMs: number; cut: CutInfo; requestId: string; blocks: number },
): Step {
  const volumes: EpochName[] = indexes.map((index) => {
    const { generation, committedEpoch } = state.volumes[index]!;
    return { volume: index, generation, epoch: committedEpoch + 1 };
  });
  const { timeMs, cut, requestId } = point;
  return stay(
    { ...state, cut: { kind: 'committing', ...point, volumes } },
    { type: 'commit', timeMs, cut, requestId, volumes },
  );
}

/** The digests as they went out, to recognise a lost acknowledgement by. */
export function commitSent(
  state: AgentState,
  event: Extract<AgentEvent, { type: 'commit-sent' }>,
): Step {
  return stay(
    event.volumes.reduce((next, { volume, epoch, contentDigest }) => {
      const held = next.volumes[volume]!;
      return setVolume(next, volume, { ...held, sent: { epoch, contentDigest } });
    }, state),
  );
}

export function committed(
  state: AgentState,
  event: Extract<AgentEvent, { type: 'committed' }>,
  now: Instant,
): Step {
  if (state.cut.kind !== 'committing') {
    return stay(state, logEffect('warn', 'an answer to no commit', { pointId: event.pointId }));
  }
  const cut = state.cut;
  const isSame =
    event.volumes.length === cut.volumes.length &&
    cut.volumes.every((ours) => event.volumes.some((theirs) => isEqualEpoch(ours, theirs)));
  if (!isSame) {
    return abandon(state, 'committed names other epochs than the commit', now);
  }
  const step = eachVolume(state, (volume, index) => {
    const mine = cut.volumes.find((entry) => entry.volume === index);
    if (mine === undefined) return { volume, effects: [] };
    return {
      volume: advance(volume, mine.epoch),
      effects: [{ type: 'acknowledge', volume: index, epoch: mine.epoch }],
    };
  });
  const lastCut = {
    timeMs: cut.timeMs,
    cut: cut.cut,
    blocks: cut.blocks,
    pointId: event.pointId,
    commitMs: now.monotonicMs - state.cutBeganMs,
  };
  return andThen(step, (next) => stay({ ...next, cut: { kind: 'none' }, lastCut }));
}

const isEqualEpoch = (a: EpochName, b: EpochName): boolean =>
  a.volume === b.volume && a.generation === b.generation && a.epoch === b.epoch;

const advance = (volume: VolumeState, epoch: number): VolumeState => ({
  ...volume,
  committedEpoch: epoch,
  isTakenOver: false,
  sent: null,
  reason: volume.phase === 'failed' ? volume.reason : volume.renewal,
  failures: 0,
  missingRounds: 0,
});

/** Staging lacks wholes: these chunks are read whole, and the cut is made again at a new T. */
export function missing(
  state: AgentState,
  event: Extract<AgentEvent, { type: 'missing' }>,
  now: Instant,
): Step {
  if (state.cut.kind !== 'committing') {
    return stay(state, logEffect('warn', 'missing, but no commit is open'));
  }
  const step = eachVolume(state, (volume, index) => {
    const lacks = event.volumes.find((entry) => entry.volume === index);
    if (lacks === undefined) return { volume, effects: [] };
    const rounds = volume.missingRounds + 1;
    if (rounds > MAX_MISSING_ROUNDS && !lacks.more) {
      return doubt(volume, 'staging keeps missing chunks');
    }
    if (volume.isScanned) return doubt(volume, 'staging misses chunks of a scanned volume');
    const extents = lacks.chunks
      .filter((chunk) => chunk * CHUNK_BYTES < volume.sizeBytes)
      .map((chunk) => ({
        offset: chunk * CHUNK_BYTES,
        length: chunkLength(chunk, volume.sizeBytes),
      }));
    return {
      volume: { ...volume, missingRounds: rounds },
      effects: [
        { type: 'pend', volume: index, extents },
        logEffect('info', 'staging asks for whole chunks', {
          volume: volume.name,
          chunks: lacks.chunks.length,
        }),
      ],
    };
  });
  const requestId = state.cut.requestId;
  return andThen(step, (next) => stay(retryCut(next, requestId, now)));
}
