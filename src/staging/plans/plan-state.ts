/**
 * A run of a plan. Pure: (run, event, now) -> run and effects; `plan-runner.ts` makes the new run durable
 * first and then carries the effects out, so every effect may be carried out twice, after a restart.
 *
 * 1. Steps of one stage run beside each other (members at most `parallel` at once); a stage begins when
 *    every step of those before it has ended, and no critical one has failed.
 * 2. After a critical failure nothing more is begun, what runs goes on to its end; then the run is halted
 *    until the step is retried or the plan is stopped. Others do not stop it.
 * 3. A retry begins that one step, and only when no critical failure is left, what comes after. A failed
 *    step that an operator accepts counts as done; its error stays to be seen.
 * 4. A member's job has an id made of the plan's job, the step and the attempt, remembered before it is
 *    launched: after a restart the same id is asked for, so nothing is launched twice.
 * 5. A script is run by a keeper that outlives staging (scripts.ts): after a restart the same run is asked
 *    for, and followed. Of a run that a former version began nobody knows whether its script was done.
 */
import type { JobError } from '../jobs/job-state.ts';
import type { Plan, PlanScript } from './plan-file.ts';

export type StepKind = 'wait' | 'script' | 'member';
export type StepState = 'waiting' | 'running' | 'done' | 'failed';
/** `stopped`: the plan ended while it ran; `skipped`: before its turn. Shown of a plan that is over. */
export type ShownStepState = StepState | 'stopped' | 'skipped';
export const stepKinds: readonly StepKind[] = ['wait', 'script', 'member'];
export const stepStates: readonly ShownStepState[] = [
  ...(['waiting', 'running', 'done', 'failed', 'stopped', 'skipped'] as const),
];

export interface PlanStep {
  /** From 1. */
  readonly number: number;
  readonly stage: number;
  readonly group: string;
  readonly kind: StepKind;
  /** "wait 30s", the script, the server. */
  readonly name: string;
  readonly isCritical: boolean;
  readonly state: StepState;
  /** How often it was begun. */
  readonly attempt: number;
  /** Of a member: the job of the last attempt. */
  readonly job: string | null;
  readonly point: string | null;
  readonly pointTime: string | null;
  /** Of a member that cannot be launched: what its turn will end with. */
  readonly problem: JobError | null;
  readonly isRetry: boolean;
  readonly waitMs: number;
  readonly error: JobError | null;
  readonly startedAt: string | null;
  readonly endedAt: string | null;
}

export interface PlanRun {
  /** The plan's own job. */
  readonly job: string;
  readonly parallel: number;
  readonly isStopped: boolean;
  /** Its scripts have keepers; absent where a former version began the run. */
  readonly hasKeepers?: boolean;
  readonly steps: readonly PlanStep[];
}

export interface ChosenPoint {
  readonly point: string | null;
  readonly pointTime: string | null;
  readonly problem: JobError | null;
}

export type PlanEvent =
  /** It begins, or staging was started again. */
  | { readonly type: 'begin' }
  | { readonly type: 'ended'; readonly step: number; readonly attempt: number }
  | {
      readonly type: 'failed';
      readonly step: number;
      readonly attempt: number;
      readonly error: JobError;
    }
  | { readonly type: 'retry'; readonly step: number; readonly chosen: ChosenPoint | null }
  /** An operator has put it right by hand. */
  | { readonly type: 'accept'; readonly step: number }
  | { readonly type: 'stop' };

export type PlanEffect =
  /** Launch the job of this id, or follow it where it is there. */
  | { readonly type: 'launch'; readonly step: PlanStep; readonly job: string }
  | { readonly type: 'script'; readonly step: PlanStep }
  | { readonly type: 'wait'; readonly step: PlanStep; readonly untilMs: number }
  | { readonly type: 'say'; readonly line: string };

export type PlanStatus = 'running' | 'halted' | 'finished' | 'stopped';

export interface PlanTransition {
  readonly run: PlanRun;
  readonly effects: readonly PlanEffect[];
}

const isSettled = ({ state }: PlanStep): boolean => state === 'done' || state === 'failed';
const hasHalted = ({ steps }: PlanRun): boolean =>
  steps.some((step) => step.state === 'failed' && step.isCritical);

export function statusOf(run: PlanRun): PlanStatus {
  if (run.isStopped) return 'stopped';
  if (run.steps.some((step) => step.state === 'running' || step.isRetry)) return 'running';
  if (hasHalted(run)) return 'halted';
  return run.steps.every(isSettled) ? 'finished' : 'running';
}

type Blank = Pick<PlanStep, 'kind' | 'name' | 'isCritical'> & Partial<PlanStep>;

/** The steps of a plan, none begun. `pointOf`: what was chosen for each server. */
export function newRun(job: string, plan: Plan, pointOf: (server: string) => ChosenPoint): PlanRun {
  const steps: PlanStep[] = [];
  let stage = 0;
  const add = (group: string, blanks: readonly Blank[]) => {
    for (const blank of blanks) {
      steps.push({
        ...{ number: steps.length + 1, stage, group, state: 'waiting', attempt: 0, job: null },
        ...{ point: null, pointTime: null, problem: null, isRetry: false, waitMs: 0 },
        ...{ error: null, startedAt: null, endedAt: null },
        ...blank,
      });
    }
    if (blanks.length > 0) stage += 1;
  };
  const scriptStep = ({ script, isCritical }: PlanScript): Blank => ({
    ...{ kind: 'script', name: script, isCritical },
  });
  for (const { name, waitBeforeMs, waitAfterMs, pre, post, members } of plan.groups) {
    if (waitBeforeMs > 0) add(name, [waitStep(waitBeforeMs)]);
    for (const each of pre) add(name, [scriptStep(each)]);
    add(
      name,
      members.map(({ server, isCritical }) => ({
        ...{ kind: 'member', name: server, isCritical, ...pointOf(server) },
      })),
    );
    for (const each of post) add(name, [scriptStep(each)]);
    if (waitAfterMs > 0) add(name, [waitStep(waitAfterMs)]);
  }
  return { job, parallel: plan.parallel, isStopped: false, hasKeepers: true, steps };
}

const waitStep = (waitMs: number): Blank => ({
  ...{ kind: 'wait', name: `wait ${waitMs / 1000} s`, isCritical: false, waitMs },
});

export function planTransition(run: PlanRun, event: PlanEvent, nowMs: number): PlanTransition {
  switch (event.type) {
    case 'begin':
      return begin(run, nowMs);
    case 'ended':
      return settle(run, event, null, nowMs);
    case 'failed':
      return settle(run, event, event.error, nowMs);
    case 'retry':
      return retry(run, event, nowMs);
    case 'accept':
      return accept(run, event.step, nowMs);
    case 'stop':
      return { run: { ...run, isStopped: true }, effects: [] };
  }
}

const replaced = (run: PlanRun, step: PlanStep): PlanRun => ({
  ...run,
  steps: run.steps.map((each) => (each.number === step.number ? step : each)),
});

const label = ({ number, kind, name }: PlanStep): string =>
  `step ${number} (${kind === 'wait' ? name : `${kind} ${name}`})`;

/** What was running is taken up again, or has failed; then what can be begun. */
function begin(given: PlanRun, nowMs: number): PlanTransition {
  if (given.isStopped) return { run: given, effects: [] };
  let run = given;
  const effects: PlanEffect[] = [];
  for (const step of given.steps.filter(({ state }) => state === 'running')) {
    if (step.kind === 'member') effects.push({ type: 'launch', step, job: step.job! });
    else if (step.kind === 'wait') effects.push(waitEffect(step));
    else if (given.hasKeepers === true) effects.push({ type: 'script', step });
    else {
      const message = 'staging was stopped while it ran: whether it was done is not known';
      const hint = 'Look, then plan retry JOB --step N runs it again.';
      const failed = failedStep(step, { code: 'ERR_PLAN_SCRIPT', message, hint }, nowMs);
      run = replaced(run, failed.step);
      effects.push(failed.effect);
    }
  }
  // From here on scripts have keepers, also of a run that another version began.
  run = { ...run, hasKeepers: true };
  return advance(run, effects, nowMs);
}

const waitEffect = (step: PlanStep): PlanEffect => ({
  ...{ type: 'wait', step, untilMs: Date.parse(step.startedAt!) + step.waitMs },
});

function failedStep(step: PlanStep, error: JobError, nowMs: number) {
  const how = step.isCritical ? 'failed' : 'failed, and is optional';
  const endedAt = new Date(nowMs).toISOString();
  const failed: PlanStep = { ...step, state: 'failed', error, isRetry: false, endedAt };
  const line = `${label(step)} ${how}: ${error.message} (${error.code})`;
  return { step: failed, effect: { type: 'say', line } as const };
}

/** Of another attempt than the one that runs, or of a step that has ended: nothing. */
function settle(
  run: PlanRun,
  { step: number, attempt }: { readonly step: number; readonly attempt: number },
  error: JobError | null,
  nowMs: number,
): PlanTransition {
  const step = run.steps.find((each) => each.number === number);
  if (step?.state !== 'running' || step.attempt !== attempt) return { run, effects: [] };
  if (error !== null) {
    const failed = failedStep(step, error, nowMs);
    return advance(replaced(run, failed.step), [failed.effect], nowMs);
  }
  const done: PlanStep = { ...step, state: 'done', endedAt: new Date(nowMs).toISOString() };
  return advance(replaced(run, done), [{ type: 'say', line: `${label(step)} done` }], nowMs);
}

export const canRetry = (run: PlanRun, number: number): boolean =>
  !run.isStopped && run.steps.some((step) => step.number === number && step.state === 'failed');

function retry(
  run: PlanRun,
  { step: number, chosen }: Extract<PlanEvent, { type: 'retry' }>,
  nowMs: number,
): PlanTransition {
  if (!canRetry(run, number)) return { run, effects: [] };
  const step = run.steps.find((each) => each.number === number)!;
  const again: PlanStep = {
    ...{ ...step, ...chosen },
    ...{ state: 'waiting', isRetry: true, error: null, startedAt: null, endedAt: null },
  };
  return advance(replaced(run, again), [{ type: 'say', line: `${label(step)} is retried` }], nowMs);
}

function accept(run: PlanRun, number: number, nowMs: number): PlanTransition {
  if (!canRetry(run, number)) return { run, effects: [] };
  const step = run.steps.find((each) => each.number === number)!;
  const done: PlanStep = { ...step, state: 'done', endedAt: new Date(nowMs).toISOString() };
  return advance(replaced(run, done), [{ type: 'say', line: `${label(step)} is accepted` }], nowMs);
}

/** Begins what may be begun now. */
function advance(given: PlanRun, before: readonly PlanEffect[], nowMs: number): PlanTransition {
  let run = given;
  const effects = [...before];
  for (let next = nextStep(run); next !== undefined; next = nextStep(run)) {
    if (next.problem !== null) {
      const failed = failedStep({ ...next, attempt: next.attempt + 1 }, next.problem, nowMs);
      run = replaced(run, failed.step);
      effects.push(failed.effect);
      continue;
    }
    const step = begunStep(run, next, nowMs);
    run = replaced(run, step);
    effects.push({ type: 'say', line: `${label(step)} begun` }, effectOf(step));
  }
  return { run, effects };
}

function nextStep(run: PlanRun): PlanStep | undefined {
  if (run.isStopped) return undefined;
  const retried = run.steps.find((step) => step.isRetry && step.state === 'waiting');
  if (retried !== undefined) return retried;
  if (hasHalted(run)) return undefined;
  const first = run.steps.find((step) => !isSettled(step));
  const members = run.steps.filter((step) => step.kind === 'member' && step.state === 'running');
  if (members.length >= run.parallel) return undefined;
  return run.steps.find((step) => step.stage === first?.stage && step.state === 'waiting');
}

function begunStep(run: PlanRun, step: PlanStep, nowMs: number): PlanStep {
  const attempt = step.attempt + 1;
  return {
    ...{ ...step, state: 'running', isRetry: false, attempt },
    job: step.kind === 'member' ? `${run.job}.${step.number}.${attempt}` : null,
    startedAt: new Date(nowMs).toISOString(),
  };
}

function effectOf(step: PlanStep): PlanEffect {
  if (step.kind === 'member') return { type: 'launch', step, job: step.job! };
  return step.kind === 'script' ? { type: 'script', step } : waitEffect(step);
}
