/** The states of a job: what leads where, and what holds over every order of events. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Made } from '../../src/recovery/launcher.ts';
import {
  hasEnded,
  type Job,
  type JobEffect,
  type JobEvent,
  toClean,
  transition,
} from '../../src/staging/jobs/job-state.ts';
import { fakeJob } from './support/fake-backend.ts';

const NOW = Date.parse('2026-11-21T16:00:00Z');
const error = { code: 'ERR_LAUNCH_FAILED', message: 'no', hint: 'look' };
const check = { passed: true, probe: 'console', bootMs: 1, detail: 'login:' };
const overlay: Made = { kind: 'folder', name: '/work' };
const product: Made = { kind: 'file', name: '/out', isProduct: true };

function planned(changes: Partial<Job> = {}): Job {
  const { progress: _p, folder: _f, ...job } = fakeJob();
  return {
    ...{ ...job, notes: {}, made: [], access: null, check: null, options: {} },
    ...{ state: 'planned', phase: 'planned' },
    ...changes,
  };
}

function through(job: Job, ...events: JobEvent[]): { job: Job; effects: JobEffect[] } {
  let now = job;
  let effects: readonly JobEffect[] = [];
  for (const event of events) ({ job: now, effects } = transition(now, event, NOW));
  return { job: now, effects: effects.filter(({ type }) => type !== 'say') };
}
const begin: JobEvent = { type: 'begin' };
const up: JobEvent = { type: 'up', access: { serial: 'x' } };

describe('a job', () => {
  it('begins, makes, comes up, ends and is cleaned up; what it was for stays', () => {
    const running = through(planned(), begin);
    expect(running.effects).toEqual([{ type: 'launch' }]);
    const made = [overlay, product, overlay].map(
      (thing): JobEvent => ({ type: 'making', made: thing }),
    );
    const ended = through(running.job, ...made, up, { type: 'ended' });
    expect(ended.job).toMatchObject({ state: 'done', outcome: 'done', made: [overlay, product] });
    expect(ended.effects).toEqual([{ type: 'clean', made: [overlay] }]);
    const cleaned = through(ended.job, { type: 'cleaned' });
    expect(cleaned.job).toMatchObject({ state: 'cleaned', outcome: 'done' });
    expect(cleaned.effects).toEqual([]);
  });

  it('that fails keeps its error and loses what it was for, too', () => {
    const failed = through(
      planned(),
      begin,
      { type: 'making', made: product },
      { type: 'failed', error },
    );
    expect(failed.job).toMatchObject({ state: 'failed', error });
    expect(failed.effects).toEqual([{ type: 'clean', made: [product] }]);
  });

  it('that is cancelled ends as cancelled, however the launcher ends', () => {
    for (const last of [{ type: 'ended' }, { type: 'failed', error }] as const) {
      const asked = through(planned(), begin, up, { type: 'cancel' });
      expect(asked.effects).toEqual([{ type: 'endLaunch' }]);
      expect(through(asked.job, last).job).toMatchObject({ state: 'cancelled', error: null });
    }
  });

  it.each([
    ['up', {}, [up], 'done'],
    ['not up yet', {}, [], 'cancelled'],
    ['before its check', { options: { check: true } }, [up], 'cancelled'],
    ['after its check', { options: { check: true } }, [up, { type: 'checked', check }], 'done'],
    ['after a cancel', {}, [up, { type: 'cancel' }], 'cancelled'],
  ] as const)('that is stopped %s', (_when, changes, events, outcome) => {
    const stopped = through(
      planned(changes),
      begin,
      ...events,
      { type: 'stop' },
      { type: 'ended' },
    );
    expect(stopped.job.outcome).toBe(outcome);
  });
});

describe('after a restart of staging', () => {
  it('a running job is launched again with what it had noted', () => {
    const job = through(planned(), begin, { type: 'notes', notes: { a: 1 } }).job;
    const again = through(job, begin);
    expect(again.job).toMatchObject({ state: 'running', notes: { a: 1 } });
    expect(again.effects).toEqual([{ type: 'launch' }]);
  });

  it('a job that was being ended is cleaned up instead', () => {
    const job = through(
      planned(),
      begin,
      { type: 'making', made: overlay },
      { type: 'cancel' },
    ).job;
    const again = through(job, begin);
    expect(again.job.state).toBe('cancelled');
    expect(again.effects).toEqual([{ type: 'clean', made: [overlay] }]);
  });

  it('an ended job is cleaned up again, a cleaned one left alone', () => {
    const ended = through(
      planned(),
      begin,
      { type: 'making', made: overlay },
      { type: 'ended' },
    ).job;
    expect(through(ended, begin).effects).toEqual([{ type: 'clean', made: [overlay] }]);
    const failedToClean = through(ended, { type: 'cleanFailed', message: 'busy' });
    expect(failedToClean.job).toMatchObject({ state: 'done', cleanError: 'busy' });
    expect(through(failedToClean.job, begin, { type: 'cleaned' }).job.cleanError).toBe(null);
    const cleaned = through(ended, { type: 'cleaned' }).job;
    expect(through(cleaned, begin)).toEqual({ job: cleaned, effects: [] });
  });
});

const events: fc.Arbitrary<JobEvent> = fc.oneof(
  fc.constantFrom<JobEvent>(
    begin,
    up,
    { type: 'phase', phase: 'p' },
    { type: 'notes', notes: { n: 1 } },
    { type: 'checked', check },
    { type: 'stop' },
    { type: 'cancel' },
    { type: 'ended' },
    { type: 'failed', error },
    { type: 'cleaned' },
    { type: 'cleanFailed', message: 'm' },
  ),
  fc.record({
    type: fc.constant('making' as const),
    made: fc.record({ kind: fc.constant('file'), name: fc.constantFrom('/a', '/b', '/c') }),
  }),
);

describe('in whatever order things happen', () => {
  it('an end is final, nothing made is forgotten, and only an ended job is cleaned up', () => {
    fc.assert(
      fc.property(fc.array(events, { maxLength: 30 }), (order) => {
        let job = planned();
        for (const event of order) {
          const { job: next, effects } = transition(job, event, NOW);
          if (hasEnded(job)) expect(next.outcome).toBe(job.outcome);
          if (job.state === 'cleaned') expect(next.state).toBe('cleaned');
          expect(next.made).toEqual(expect.arrayContaining([...job.made]));
          for (const effect of effects) {
            if (effect.type === 'clean') {
              expect(next.outcome).not.toBe(null);
              expect(effect.made).toEqual(toClean(next, next.outcome!));
            }
            if (effect.type === 'launch') expect(hasEnded(next)).toBe(false);
          }
          if (next.state === 'cleaned') expect(next.outcome).not.toBe(null);
          job = next;
        }
      }),
    );
  });
});
