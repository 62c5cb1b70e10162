/**
 * The connection to staging: dial, settle, greet, open, back off. Pure. A session's end orphans the job
 * that runs, so that nothing read in one session is ever sent in the next (SPEC.md, C1..C4).
 */
import type { WelcomeVolume } from '../protocol/messages.ts';
import type { AgentEvent, AgentState, Instant, Step } from './state-types.ts';
import { andThen, eachVolume, logEffect, stay } from './step-state.ts';
import { reconcile } from './volume-state.ts';

const isLive = (state: AgentState): boolean =>
  ['connecting', 'settling', 'greeting', 'open'].includes(state.connection.kind);

export function dial(state: AgentState): Step {
  return stay(
    { ...state, connection: { kind: 'connecting' }, attempts: state.attempts + 1 },
    { type: 'dial' },
  );
}

export function connected(state: AgentState): Step {
  if (state.connection.kind !== 'connecting') return stay(state);
  if (state.job !== null) return stay({ ...state, connection: { kind: 'settling' } });
  return greet(state);
}

export const greet = (state: AgentState): Step =>
  stay({ ...state, connection: { kind: 'greeting' } }, { type: 'greet' });

export function welcomed(state: AgentState, held: readonly WelcomeVolume[], now: Instant): Step {
  if (state.connection.kind !== 'greeting') return stay(state);
  if (held.length !== state.volumes.length) {
    return abandon(state, 'Welcome names another number of volumes', now);
  }
  const step = eachVolume(state, (volume, index) => reconcile(volume, index, held[index]!, now));
  return andThen(step, (next) =>
    stay({ ...next, connection: { kind: 'open' }, attempts: 0, wasOpen: true }),
  );
}

/** Nothing of the session is left but the job that may still run. */
function endSession(state: AgentState): AgentState {
  const open = state.cut.kind === 'none' ? (state.pass?.requestId ?? '') : state.cut.requestId;
  const job = state.job;
  return {
    ...state,
    job: job === null || job.kind === 'renewal' ? job : { kind: 'orphan', id: job.id },
    cut: { kind: 'none' },
    pass: null,
    passesInCut: 0,
    mustDrain: false,
    drainsBeforeCut: 0,
    requests: open === '' ? state.requests : [open, ...state.requests.filter((r) => r !== open)],
  };
}

export function disconnected(
  state: AgentState,
  event: Extract<AgentEvent, { type: 'disconnected' }>,
  now: Instant,
): Step {
  if (!isLive(state)) return stay(state);
  const ended = endSession(state);
  if (event.isFatal && !state.wasOpen && event.mayBeAdmitted !== true) {
    return stay(
      { ...ended, connection: { kind: 'idle' }, isClosing: true },
      { type: 'give-up', reason: event.reason },
    );
  }
  const { backoffBaseMs, backoffCapMs, refusedWaitMs } = state.settings;
  const doubled = backoffBaseMs * 2 ** Math.min(20, Math.max(0, state.attempts - 1));
  const refusedMs = event.mayBeAdmitted === true ? refusedWaitMs : backoffCapMs;
  const ceiling = event.isFatal ? refusedMs : Math.min(backoffCapMs, doubled);
  const waitMs = ceiling * (0.5 + event.random / 2);
  return stay(
    { ...ended, connection: { kind: 'backoff', untilMs: now.monotonicMs + waitMs } },
    logEffect('warn', 'disconnected from staging', {
      reason: event.reason,
      retryInMs: Math.round(waitMs),
    }),
  );
}

/** Ends the session on purpose and dials at once: the next Hello says what has changed. */
export function reconnect(state: AgentState, reason: string): Step {
  if (!isLive(state)) return stay(state);
  return andThen(stay(endSession(state), { type: 'hang-up', reason }), dial);
}

/** The peer broke the protocol: hang up, and come back when it may have been mended. */
export function abandon(state: AgentState, reason: string, now: Instant): Step {
  const untilMs = now.monotonicMs + state.settings.backoffCapMs;
  return stay(
    { ...endSession(state), connection: { kind: 'backoff', untilMs } },
    { type: 'hang-up', reason },
    logEffect('error', 'staging broke the protocol', { reason }),
  );
}
