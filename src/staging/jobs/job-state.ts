/**
 * The states of a job. Pure: (job, event, now) -> job and effects; `jobs.ts` makes the new state durable
 * first and then carries the effects out, so that a crash between the two repeats an effect and never
 * forgets one: every effect may be carried out twice.
 *
 *   planned --begin--> running --ended--> done ------+
 *      |                 |  |                         |
 *      |               stop failed--> failed ---------+--cleaned--> cleaned (`outcome` tells the former)
 *      |                 |                            |
 *      +---cancel--> (ending) --ended/failed--> cancelled
 *
 * A failover that has come up keeps: its products hold data that is nowhere else. Whatever its end, they
 * stay, and it cannot be cancelled; `again` leads from cleaned to running, on the same disks; `discard`
 * cleans once more, products too. Until it stands alone they need the point.
 *
 * A cleanup that fails is tried again by itself, after a pause that doubles up to half an hour, for as long
 * as it takes: what is left may cost money. Staging's next life tries at once.
 */
import { formatDuration } from '../../base/units.ts';
import { type DamagedPlace, damageText, withPlace } from '../../recovery/damage.ts';
import type { CheckResult, LaunchOptions, Made } from '../../recovery/launcher.ts';
import type { JobKind } from '../../recovery/runner.ts';
import type { ListedPoint } from '../../store/types.ts';

export type JobState = 'planned' | 'running' | 'done' | 'failed' | 'cancelled' | 'cleaned';
export type JobOutcome = 'done' | 'failed' | 'cancelled';
export const jobStates: readonly JobState[] = [
  ...(['planned', 'running', 'done', 'failed', 'cancelled', 'cleaned'] as const),
];

export interface JobError {
  readonly code: string;
  readonly message: string;
  readonly hint: string;
}

export interface Job {
  /** Sorts by time. */
  readonly id: string;
  readonly kind: JobKind;
  /** Of a launch: the launcher's word. Else empty. */
  readonly target: string;
  /** Empty where the job is about several. */
  readonly server: string;
  /** Empty where the job is no launch of a point. */
  readonly point: string;
  /** T of the point, ISO 8601; empty without one. */
  readonly pointTime: string;
  /** The point as it was when the launch began; null without one, and of former versions. */
  readonly pointFacts: ListedPoint | null;
  readonly options: LaunchOptions;
  readonly state: JobState;
  /** How it ended; null before. */
  readonly outcome: JobOutcome | null;
  /** Asked to end: what it will have been then. */
  readonly ending: JobOutcome | null;
  readonly phase: string;
  /** How to reach what runs, or where what was made lies; null before it is up. */
  readonly access: Readonly<Record<string, string>> | null;
  readonly check: CheckResult | null;
  readonly error: JobError | null;
  /** Why the last try to clean up failed. */
  readonly cleanError: string | null;
  /** So many tries to clean up have failed, one after the other. */
  readonly cleanTries: number;
  /** When the next one is, ISO 8601; null: none is wanted. */
  readonly cleanAgainAt: string | null;
  readonly made: readonly Made[];
  /** What it made as a product holds data of its own: it goes by a discard alone. */
  readonly keeps: boolean;
  /** Nothing of the point is needed any more, though it lasts. */
  readonly standsAlone: boolean;
  /** Places of the point that were found damaged while the job read from it; none once it stands alone. */
  readonly damage: readonly DamagedPlace[];
  readonly isDiscarded: boolean;
  /** 1, and one more each time it is started again. */
  readonly starts: number;
  /** The launcher's own. */
  readonly notes: LaunchOptions;
  readonly createdAt: string;
  readonly endedAt: string | null;
}

const isClean = { cleanError: null, cleanTries: 0, cleanAgainAt: null } as const;

/** What a job is asked for with. */
export type JobSubject = Pick<
  Job,
  'kind' | 'target' | 'server' | 'point' | 'pointTime' | 'pointFacts' | 'options'
>;

export const newJob = (id: string, what: JobSubject, nowMs: number): Job => ({
  ...{ id, ...what, state: 'planned', outcome: null, ending: null, phase: 'planned' },
  ...{ access: null, check: null, error: null, made: [], notes: {}, ...isClean },
  ...{ keeps: false, standsAlone: false, isDiscarded: false, starts: 1, damage: [] },
  ...{ createdAt: new Date(nowMs).toISOString(), endedAt: null },
});

/** What a former version did not write down. */
export const formerJob = {
  ...{ kind: 'drill', keeps: false, standsAlone: false, isDiscarded: false, starts: 1 },
  ...{ pointFacts: null, damage: [] as readonly DamagedPlace[], ...isClean },
} as const;

export type JobEvent =
  /** Staging begins with the job, or has been started again. */
  | { readonly type: 'begin' }
  | { readonly type: 'phase'; readonly phase: string }
  | { readonly type: 'making'; readonly made: Made }
  | { readonly type: 'notes'; readonly notes: LaunchOptions }
  | { readonly type: 'up'; readonly access: Readonly<Record<string, string>> }
  | { readonly type: 'checked'; readonly check: CheckResult }
  | { readonly type: 'standsAlone' }
  /** Somebody has met it who reads the point. */
  | { readonly type: 'damaged'; readonly place: DamagedPlace }
  | { readonly type: 'stop' }
  | { readonly type: 'cancel' }
  | { readonly type: 'again' }
  | { readonly type: 'discard' }
  | { readonly type: 'ended' }
  | { readonly type: 'failed'; readonly error: JobError }
  /** It is time to clean up once more, or somebody does not want to wait for it. */
  | { readonly type: 'cleanDue' }
  | { readonly type: 'cleaned' }
  | { readonly type: 'cleanFailed'; readonly message: string };

export type JobEffect =
  /** Hold the point, where there is one, and run the launcher or runner. */
  | { readonly type: 'launch' }
  /** Tell the running launcher to end. */
  | { readonly type: 'endLaunch' }
  | { readonly type: 'clean'; readonly made: readonly Made[] }
  /** `cleanDue`, after so long. */
  | { readonly type: 'cleanLater'; readonly delayMs: number }
  | { readonly type: 'say'; readonly line: string };

export interface Transition {
  readonly job: Job;
  readonly effects: readonly JobEffect[];
}

const isOutcome = (state: JobState): state is JobOutcome =>
  state === 'done' || state === 'failed' || state === 'cancelled';

export const hasEnded = (job: Job): boolean => job.outcome !== null;

export const canStartAgain = (job: Job): boolean =>
  job.state === 'cleaned' && job.keeps && !job.isDiscarded;

/** It reads from the point, or what it left behind does. */
export const needsPoint = (job: Job): boolean =>
  job.point !== '' && !job.standsAlone && (!hasEnded(job) || (job.keeps && !job.isDiscarded));

/** What is to go when a job has come to this end. */
export function toClean(job: Job, outcome: JobOutcome): Made[] {
  const isKept = job.isDiscarded ? false : job.keeps || outcome === 'done';
  return job.made.filter((made) => !isKept || made.isProduct !== true);
}

function end(job: Job, outcome: JobOutcome, nowMs: number, error: JobError | null): Transition {
  const endedAt = new Date(nowMs).toISOString();
  const why = error === null ? '' : `: ${error.message} (${error.code})`;
  return {
    job: { ...job, state: outcome, outcome, endedAt, error, phase: 'cleaning up' },
    effects: [
      { type: 'say', line: `${outcome}${why}` },
      { type: 'clean', made: toClean(job, outcome) },
    ],
  };
}

/** A machine that is wanted up has done its work when it is stopped; anything else was cut short. */
function stoppedAs(job: Job): JobOutcome {
  const isCheckOpen = job.options.check === true && job.check === null;
  return job.access !== null && !isCheckOpen ? 'done' : 'cancelled';
}

const FIRST_PAUSE_MS = 5000;
const LONGEST_PAUSE_MS = 30 * 60_000;

/** Before the next try, after so many that have failed. */
export const cleanPauseMs = (tries: number): number =>
  Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.min(tries - 1, 20));

function cleanAgain(job: Job): Transition {
  if (!isOutcome(job.state)) return { job, effects: [] };
  return { job, effects: [{ type: 'clean', made: toClean(job, job.state) }] };
}

function cleanFailed(job: Job, message: string, nowMs: number): Transition {
  if (!isOutcome(job.state)) return { job, effects: [] };
  const cleanTries = job.cleanTries + 1;
  const delayMs = cleanPauseMs(cleanTries);
  const cleanAgainAt = new Date(nowMs + delayMs).toISOString();
  const line = `cleaning up failed: ${message}; tried again in ${formatDuration(delayMs)}`;
  return {
    job: { ...job, cleanError: message, cleanTries, cleanAgainAt },
    effects: [
      { type: 'say', line },
      { type: 'cleanLater', delayMs },
    ],
  };
}

function begin(job: Job, nowMs: number): Transition {
  if (job.state === 'cleaned') return { job, effects: [] };
  if (isOutcome(job.state)) return cleanAgain(job);
  if (job.ending !== null && job.keeps) {
    // Shut down in order, not cut off: its launcher knows how.
    return {
      job: { ...job, state: 'running' },
      effects: [{ type: 'launch' }, { type: 'endLaunch' }],
    };
  }
  // Asked to end, and staging was stopped before it had: cleaning ends what still runs.
  if (job.ending !== null) return end(job, job.ending, nowMs, null);
  const line = job.state === 'planned' ? 'begun' : 'staging was started again';
  return {
    job: { ...job, state: 'running' },
    effects: [{ type: 'say', line }, { type: 'launch' }],
  };
}

function again(job: Job): Transition {
  if (!canStartAgain(job)) return { job, effects: [] };
  const made = job.made.filter(({ isProduct }) => isProduct === true);
  return {
    job: {
      ...{ ...job, made, state: 'running', outcome: null, ending: null, phase: 'starting again' },
      ...{ access: null, error: null, endedAt: null, starts: job.starts + 1 },
    },
    effects: [{ type: 'say', line: 'started again' }, { type: 'launch' }],
  };
}

function discard(job: Job): Transition {
  if (job.outcome === null || job.isDiscarded) return { job, effects: [] };
  const discarded: Job = {
    ...{ ...job, ...isClean, isDiscarded: true, state: job.outcome, phase: 'cleaning up' },
  };
  return {
    job: discarded,
    effects: [
      { type: 'say', line: 'discarded' },
      { type: 'clean', made: toClean(discarded, job.outcome) },
    ],
  };
}

function askToEnd(job: Job, wanted: JobOutcome): Transition {
  if (hasEnded(job) || (wanted === 'cancelled' && job.keeps)) return { job, effects: [] };
  // A cancel outweighs a stop; asking twice changes nothing.
  const ending = job.ending === 'cancelled' ? 'cancelled' : wanted;
  return {
    job: { ...job, ending, phase: 'ending' },
    effects: [
      { type: 'say', line: wanted === 'cancelled' ? 'cancelled' : 'stopped' },
      { type: 'endLaunch' },
    ],
  };
}

function damaged(job: Job, place: DamagedPlace): Transition {
  const damage = withPlace(job.damage, place);
  if (!needsPoint(job) || damage === job.damage) return { job, effects: [] };
  const line = `WARNING ${damageText(job.point, [place])}`;
  return { job: { ...job, damage }, effects: [{ type: 'say', line }] };
}

/** What the launcher tells while it runs. */
function told(job: Job, event: JobEvent): Job {
  if (event.type === 'phase') return job.ending === null ? { ...job, phase: event.phase } : job;
  if (event.type === 'making') {
    const isKnown = job.made.some(({ name }) => name === event.made.name);
    return isKnown ? job : { ...job, made: [...job.made, event.made] };
  }
  if (event.type === 'notes') return { ...job, notes: { ...job.notes, ...event.notes } };
  if (event.type === 'up') {
    return { ...job, access: event.access, keeps: job.keeps || job.kind === 'failover' };
  }
  // What was damaged was mended, or written over: all is here.
  if (event.type === 'standsAlone') return { ...job, standsAlone: true, damage: [] };
  if (event.type === 'checked') return { ...job, check: event.check };
  return job;
}

export function transition(job: Job, event: JobEvent, nowMs: number): Transition {
  switch (event.type) {
    case 'begin':
      return begin(job, nowMs);
    case 'cancel':
      return askToEnd(job, 'cancelled');
    case 'stop':
      return askToEnd(job, job.keeps ? 'done' : stoppedAs(job));
    case 'again':
      return again(job);
    case 'discard':
      return discard(job);
    case 'ended':
      return hasEnded(job) ? { job, effects: [] } : end(job, job.ending ?? 'done', nowMs, null);
    case 'failed':
      if (hasEnded(job)) return { job, effects: [] };
      return end(job, job.ending ?? 'failed', nowMs, job.ending === null ? event.error : null);
    case 'damaged':
      return damaged(job, event.place);
    case 'cleanDue':
      return cleanAgain(job);
    case 'cleaned':
      if (!isOutcome(job.state)) return { job, effects: [] };
      return {
        job: { ...job, ...isClean, state: 'cleaned', phase: '' },
        effects: [{ type: 'say', line: 'cleaned up' }],
      };
    case 'cleanFailed':
      return cleanFailed(job, event.message, nowMs);
    default:
      return { job: hasEnded(job) ? job : told(job, event), effects: [] };
  }
}
