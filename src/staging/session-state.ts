/**
 * One agent's session as a pure function: (state, event) -> {state, effects}. The shell (session.ts) does
 * what the effects say and reports what came of it. Rules that it keeps:
 *
 *   S1 nothing but Hello opens a session, once; nothing is given to the store before.
 *   S2 batches are numbered without a gap; contents belong to an answered offer that asked for them.
 *   S3 `stored` is said only of batches before which everything is durable (P4), in order.
 *   S4 a commit names volumes of the session once, the next epoch, and exactly the entries that came; no
 *      batch of its volumes is open, and none comes until it is answered.
 *   S5 more contents in flight than the window (and one frame) end the session; memory is bounded (P5).
 *   S6 whatever breaks a rule ends the session with a code, and changes nothing.
 */
import { type ErrorCode, UnderstudyError } from '../base/errors.ts';
import { checkEntriesWithin } from '../model/entry-codec.ts';
import { chunkCount, chunkLength } from '../model/geometry.ts';
import { MAX_FRAME_BYTES } from '../protocol/limits.ts';
import {
  type Commit,
  type Hello,
  type Offer,
  type Patch,
  type Pieces,
  PROTOCOL_VERSION,
  type Status,
} from '../protocol/messages.ts';
import type { CommitOutcome, CommitRequest } from '../store/types.ts';
import type {
  Batch,
  SessionEffect,
  SessionEvent,
  SessionLimits,
  SessionState,
  SessionStep,
  SessionVolume,
} from './session-types.ts';

export const startSession = (limits: SessionLimits): SessionState => ({
  phase: 'greeting',
  limits,
  volumes: [],
  lastSeq: 0,
  batches: [],
  storedSeq: 0,
  syncingSeq: null,
  inFlightBytes: 0,
  commit: null,
});

const stay = (state: SessionState, ...effects: SessionEffect[]): SessionStep => ({
  state,
  effects,
});

const end = (state: SessionState, error: UnderstudyError, isToldWhy = true): SessionStep =>
  stay({ ...state, phase: 'ended' }, { type: 'end', error, isToldWhy });

const refuse = (state: SessionState, code: ErrorCode, detail: string): SessionStep =>
  end(state, new UnderstudyError(code, detail));

export function reduceSession(state: SessionState, event: SessionEvent): SessionStep {
  if (state.phase === 'ended') return stay(state);
  switch (event.type) {
    case 'arrived':
      return arrived(state, event.contentBytes);
    case 'message':
      return spoken(state, event);
    case 'opened':
      return opened(state, event);
    case 'answered':
      return answered(state, event);
    case 'durable':
      return durable(state);
    case 'commit-done':
      return commitDone(state, event.outcome);
    case 'cut-wanted':
      return state.phase === 'open'
        ? stay(state, {
            type: 'send',
            message: { type: 'cut-request', requestId: event.requestId },
          })
        : stay(state);
    case 'failed':
      return end(state, event.error);
    case 'disconnected':
      return end(state, event.error, false);
  }
}

/** True while no more must be taken from the network: what is taken already has to end first. */
export function mustWait({ batches, limits }: SessionState): boolean {
  let unanswered = 0;
  let waiting = 0;
  let bytes = 0;
  for (const batch of batches) {
    if (batch.asked !== null) unanswered += 1;
    if (!isComplete(batch)) continue;
    waiting += 1;
    bytes += batch.frameBytes;
  }
  return (
    unanswered >= limits.unansweredOffers ||
    waiting >= limits.waitingBatches ||
    bytes >= limits.windowBytes + MAX_FRAME_BYTES
  );
}

const isComplete = (batch: Batch): boolean => batch.asked === null && batch.wanted.size === 0;

function arrived(state: SessionState, contentBytes: number): SessionStep {
  const inFlightBytes = state.inFlightBytes + contentBytes;
  if (inFlightBytes > state.limits.windowBytes + MAX_FRAME_BYTES) {
    return refuse(state, 'ERR_PROTOCOL_WINDOW', `${inFlightBytes} bytes in flight`);
  }
  return stay({ ...state, inFlightBytes });
}

type MessageEvent = Extract<SessionEvent, { type: 'message' }>;

function spoken(state: SessionState, event: MessageEvent): SessionStep {
  const { message, frameBytes } = event;
  if (message.type === 'refusal') {
    const said = `the agent refuses: ${message.code}: ${message.message}`;
    return end(state, new UnderstudyError('ERR_CONNECTION_CLOSED', said), false);
  }
  if (message.type === 'hello') return hello(state, message);
  if (state.phase !== 'open') {
    return refuse(state, 'ERR_PROTOCOL_ORDER', `${message.type} before Welcome`);
  }
  switch (message.type) {
    case 'offer':
      return offer(state, message, frameBytes);
    case 'patch':
      return patch(state, message, frameBytes);
    case 'pieces':
      return pieces(state, message, frameBytes);
    case 'commit':
      return commit(state, message, event.digests ?? []);
    case 'status':
      return status(state, message);
    case 'machine':
      return stay(state, { type: 'machine', report: message.report });
    default:
      return refuse(state, 'ERR_PROTOCOL_ORDER', 'a message that only staging may send');
  }
}

function hello(state: SessionState, message: Hello): SessionStep {
  if (state.phase !== 'greeting') return refuse(state, 'ERR_PROTOCOL_ORDER', 'a second Hello');
  if (message.version !== PROTOCOL_VERSION) {
    const detail = `the agent speaks version ${message.version}, this staging ${PROTOCOL_VERSION}`;
    return refuse(state, 'ERR_PROTOCOL_VERSION', detail);
  }
  if (message.volumes.length === 0) {
    return refuse(state, 'ERR_PROTOCOL_MESSAGE', 'a server without volumes');
  }
  const volumes = message.volumes.map(
    ({ volume, sizeBytes, generation }): SessionVolume => ({
      volume,
      sizeBytes,
      generation,
      committedEpoch: 0,
      contentDigest: '',
    }),
  );
  return stay({ ...state, phase: 'opening', volumes }, { type: 'open', hello: message });
}

function opened(
  state: SessionState,
  event: Extract<SessionEvent, { type: 'opened' }>,
): SessionStep {
  if (state.phase !== 'opening') return stay(state);
  const { positions, sessionId, version } = event;
  const volumes = state.volumes.map((volume, i): SessionVolume => {
    const committed = positions[i]?.committed ?? null;
    if (committed === null || committed.generation !== volume.generation) return volume;
    const { epoch, contentDigest } = committed;
    return { ...volume, committedEpoch: epoch, contentDigest };
  });
  return stay(
    { ...state, phase: 'open', volumes },
    {
      type: 'send',
      message: {
        type: 'welcome',
        version: PROTOCOL_VERSION,
        stagingVersion: version,
        sessionId,
        windowBytes: state.limits.windowBytes,
        volumes: [...positions],
      },
    },
  );
}

/** What is wrong with the next batch, or null. */
function batchFault(
  state: SessionState,
  { seq, volume, entries }: Offer | Patch,
): UnderstudyError | null {
  const target = state.volumes[volume];
  if (target === undefined) {
    return new UnderstudyError('ERR_PROTOCOL_VOLUME', `there is no volume ${volume}`);
  }
  if (seq !== state.lastSeq + 1) {
    return new UnderstudyError('ERR_PROTOCOL_ORDER', `batch ${seq} after ${state.lastSeq}`);
  }
  if (state.commit?.volumes.some((each) => each.volume === volume)) {
    const detail = `a batch of volume ${volume} while its commit is open`;
    return new UnderstudyError('ERR_PROTOCOL_ORDER', detail);
  }
  try {
    checkEntriesWithin(entries, target.sizeBytes);
  } catch (error) {
    if (error instanceof UnderstudyError) return error;
    throw error;
  }
  return null;
}

function offer(state: SessionState, message: Offer, frameBytes: number): SessionStep {
  const fault = batchFault(state, message);
  if (fault !== null) return end(state, fault);
  const { seq, volume, entries, synced } = message;
  if (synced > chunkCount(state.volumes[volume]!.sizeBytes)) {
    return refuse(state, 'ERR_PROTOCOL_MESSAGE', `synced to chunk ${synced}, beyond the volume`);
  }
  const incomplete = state.batches.filter((batch) => !isComplete(batch)).length;
  if (incomplete >= state.limits.incompleteOffers) {
    return refuse(state, 'ERR_PROTOCOL_WINDOW', `${incomplete} offers wait for contents`);
  }
  const { sizeBytes } = state.volumes[volume]!;
  const asked = entries.flatMap(({ index, entry: { whole } }) =>
    whole === null || whole === 'zero'
      ? []
      : [{ digest: hexOf(whole), length: chunkLength(index, sizeBytes) }],
  );
  const batch = { seq, volume, contentBytes: 0, frameBytes, asked, wanted: new Set<string>() };
  return stay(
    { ...state, lastSeq: seq, batches: [...state.batches, batch] },
    { type: 'offer', seq, volume, entries, synced },
  );
}

const hexOf = (digest: Uint8Array): string =>
  Buffer.from(digest.buffer, digest.byteOffset, digest.length).toString('hex');

const storedBytes = (message: Patch | Pieces): number =>
  message.pieces.reduce((sum, piece) => sum + piece.stored.length, 0);

function patch(state: SessionState, message: Patch, frameBytes: number): SessionStep {
  const fault = batchFault(state, message);
  if (fault !== null) return end(state, fault);
  const { seq, volume, entries } = message;
  const contentBytes = storedBytes(message);
  const batch = { seq, volume, contentBytes, frameBytes, asked: null, wanted: new Set<string>() };
  const next = { ...state, lastSeq: seq, batches: [...state.batches, batch] };
  const { state: synced, effects } = sync(next);
  return stay(synced, { type: 'patch', volume, entries, pieces: message.pieces }, ...effects);
}

function pieces(state: SessionState, message: Pieces, frameBytes: number): SessionStep {
  const { seq } = message;
  const batch = state.batches.find((each) => each.seq === seq);
  if (batch === undefined || batch.asked !== null || batch.wanted.size === 0) {
    return refuse(state, 'ERR_PROTOCOL_ORDER', `contents for batch ${seq}, which waits for none`);
  }
  const wanted = new Set(batch.wanted);
  for (const { digest } of message.pieces) {
    if (!wanted.delete(hexOf(digest))) {
      return refuse(state, 'ERR_PROTOCOL_ORDER', `contents that batch ${seq} was not asked for`);
    }
  }
  const filled: Batch = {
    ...batch,
    wanted,
    contentBytes: batch.contentBytes + storedBytes(message),
    frameBytes: batch.frameBytes + frameBytes,
  };
  const { state: next, effects } = sync(replace(state, filled));
  return stay(next, { type: 'pieces', pieces: message.pieces }, ...effects);
}

const replace = (state: SessionState, batch: Batch): SessionState => ({
  ...state,
  batches: state.batches.map((each) => (each.seq === batch.seq ? batch : each)),
});

function answered(
  state: SessionState,
  { seq, need, changed }: Extract<SessionEvent, { type: 'answered' }>,
): SessionStep {
  const batch = state.batches.find((each) => each.seq === seq);
  if (batch?.asked == null) return stay(state);
  const { asked } = batch;
  const needed = asked.filter((_, i) => need[i] !== 0);
  const wanted = new Set(needed.map(({ digest }) => digest));
  const spared = asked.filter((_, i) => need[i] === 0);
  const { state: next, effects } = sync(replace(state, { ...batch, asked: null, wanted }));
  const told: SessionEffect = { type: 'send', message: { type: 'answer', seq, need, changed } };
  if (spared.length === 0) return stay(next, told, ...effects);
  const bytes = spared.reduce((sum, { length }) => sum + length, 0);
  return stay(next, told, { type: 'deduped', hits: spared.length, bytes }, ...effects);
}

/** Asks for durability of what is complete, one request at a time: many batches share one. */
function sync(state: SessionState): SessionStep {
  if (state.syncingSeq !== null) return stay(state);
  const open = state.batches.findIndex((batch) => !isComplete(batch));
  const complete = open === -1 ? state.batches : state.batches.slice(0, open);
  const last = complete.at(-1);
  if (last === undefined) return stay(state);
  return stay({ ...state, syncingSeq: last.seq }, { type: 'sync' });
}

function durable(state: SessionState): SessionStep {
  const seq = state.syncingSeq;
  if (seq === null) return stay(state);
  const done = state.batches.filter((batch) => batch.seq <= seq);
  const bytes = done.reduce((sum, batch) => sum + batch.contentBytes, 0);
  const { state: next, effects } = sync({
    ...state,
    syncingSeq: null,
    storedSeq: seq,
    inFlightBytes: state.inFlightBytes - bytes,
    batches: state.batches.slice(done.length),
  });
  return stay(next, { type: 'send', message: { type: 'stored', seq, bytes } }, ...effects);
}

function commit(state: SessionState, message: Commit, digests: readonly string[]): SessionStep {
  const { timeMs, cut, requestId } = message;
  if (state.commit !== null) return refuse(state, 'ERR_PROTOCOL_ORDER', 'a second commit');
  for (const named of message.volumes) {
    const fault = commitFault(state, named, digests[named.volume] ?? '');
    if (fault !== null) return end(state, fault);
  }
  const inCut = new Set(message.volumes.map(({ volume }) => volume));
  const request: CommitRequest = {
    timeMs,
    cut,
    requestId,
    volumes: message.volumes,
    missingVolumes: state.volumes.filter((_, i) => !inCut.has(i)).map(({ volume }) => volume),
  };
  return stay({ ...state, commit: request }, { type: 'commit', request });
}

function commitFault(
  state: SessionState,
  named: Commit['volumes'][number],
  counted: string,
): UnderstudyError | null {
  const { volume, generation, epoch, contentDigest } = named;
  const held = state.volumes[volume];
  if (held === undefined) {
    return new UnderstudyError('ERR_PROTOCOL_VOLUME', `there is no volume ${volume}`);
  }
  if (state.batches.some((batch) => batch.volume === volume && !isComplete(batch))) {
    return new UnderstudyError('ERR_PROTOCOL_ORDER', 'a commit before its contents');
  }
  const context = { volume: held.volume, epoch };
  if (generation !== held.generation) {
    const detail = 'a commit of another generation than that of Hello';
    return new UnderstudyError('ERR_COMMIT_POSITION', detail, context);
  }
  // The answer to the last commit may have been lost; the store knows it again.
  const isRepeated = epoch === held.committedEpoch && contentDigest === held.contentDigest;
  if (isRepeated && epoch > 0) return null;
  if (epoch !== held.committedEpoch + 1) {
    const detail = `commit of epoch ${epoch}, after ${held.committedEpoch}`;
    return new UnderstudyError('ERR_COMMIT_POSITION', detail, context);
  }
  if (contentDigest !== counted) {
    const detail = 'the commit names other entries than those that came';
    return new UnderstudyError('ERR_PROTOCOL_DIGEST', detail, context);
  }
  return null;
}

function commitDone(state: SessionState, outcome: CommitOutcome): SessionStep {
  const request = state.commit;
  if (request === null) return stay(state);
  const next = { ...state, commit: null };
  if (outcome.kind === 'missing') {
    const volumes = outcome.volumes.map((each) => ({ ...each }));
    return stay(next, { type: 'send', message: { type: 'missing', volumes } });
  }
  const volumes = state.volumes.map((held, i): SessionVolume => {
    const named = request.volumes.find((each) => each.volume === i);
    if (named === undefined) return held;
    return { ...held, committedEpoch: named.epoch, contentDigest: named.contentDigest };
  });
  const told = request.volumes.map(({ volume, generation, epoch }) => ({
    volume,
    generation,
    epoch,
  }));
  return stay(
    { ...next, volumes },
    { type: 'committed', outcome, request },
    { type: 'send', message: { type: 'committed', pointId: outcome.point.id, volumes: told } },
  );
}

function status(state: SessionState, message: Status): SessionStep {
  const stranger = message.volumes.find(({ volume }) => state.volumes[volume] === undefined);
  if (stranger !== undefined) {
    return refuse(state, 'ERR_PROTOCOL_VOLUME', `there is no volume ${stranger.volume}`);
  }
  return stay(state, { type: 'report', volumes: message.volumes });
}
