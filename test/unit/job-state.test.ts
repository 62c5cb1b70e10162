/** The states of a job: what leads where, and what holds over every order of events. */

import { describe, expect, it } from 'vitest';
import type { Made } from '../../src/recovery/launcher.ts';
import {
  canStartAgain,
  hasEnded,
  type Job,
  type JobEffect,
  type JobEvent,
  needsPoint,
  toClean,
  transition,
} from '../../src/staging/jobs/job-state.ts';
import { fakeJob } from './support/fake-backend.ts';
import fc from './support/properties.ts';

const NOW = Date.parse('2026-11-21T16:00:00Z');
const error = { code: 'ERR_LAUNCH_FAILED', message: 'no', hint: 'look' };
const check = { passed: true, probe: 'console', bootMs: 1, detail: 'login:' };
const overlay: Made = { kind: 'folder', name: '/work' };
const product: Made = { kind: 'file', name: '/out', isProduct: true };

function planned(changes: Partial<Job> = {}): Job {
  const { progress: _p, folder: _f, ...job } = fakeJob();
  return {
    ...{ ...job, notes: {}, pointFacts: null, made: [], access: null, check: null, options: {} },
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

describe('a damaged place of the point', () => {
  const place = { volume: '/dev/sda', offset: 0, length: 65_536 };
  const damaged: JobEvent = { type: 'damaged', place };

  it('is kept once, and of a job that stands alone or has ended none is', () => {
    const fresh = planned({ damage: [], kind: 'failover' });
    const hurt = through(fresh, begin, up, damaged, damaged);
    expect(hurt.job.damage).toEqual([place]);
    const alone = through(hurt.job, { type: 'standsAlone' });
    expect(alone.job.damage).toEqual([]);
    expect(through(alone.job, damaged).job.damage).toEqual([]);
    const over = through(planned({ damage: [] }), begin, { type: 'ended' }, damaged);
    expect(over.job.damage).toEqual([]);
  });

  it('is one place with what it touches, and so many are told apart', () => {
    const at = (chunk: number): JobEvent => ({
      ...{ type: 'damaged', place: { ...place, offset: chunk * 65_536 } },
    });
    const fresh = planned({ damage: [] });
    expect(through(fresh, begin, at(3), at(1), at(2)).job.damage).toEqual([
      { volume: '/dev/sda', offset: 65_536, length: 3 * 65_536 },
    ]);
    const many = Array.from({ length: 300 }, (_, i) => at(2 * i));
    expect(through(fresh, begin, ...many).job.damage).toHaveLength(100);
  });
});

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

describe('a cleanup that fails', () => {
  const failing: JobEvent = { type: 'cleanFailed', message: 'busy' };
  const ended = through(planned(), begin, { type: 'making', made: overlay }, { type: 'ended' }).job;
  const seconds = (count: number) => new Date(NOW + count * 1000).toISOString();

  it.each([
    [1, 5],
    [2, 10],
    [3, 20],
    [9, 1280],
    [10, 1800],
    [11, 1800],
    [5000, 1800],
  ])('%i times is tried again after %i s', (tries, pause) => {
    const before = { ...ended, cleanTries: tries - 1 };
    const { job, effects } = through(before, failing);
    expect(job).toMatchObject({ cleanTries: tries, cleanError: 'busy', state: 'done' });
    expect(job.cleanAgainAt).toBe(seconds(pause));
    expect(effects).toEqual([{ type: 'cleanLater', delayMs: pause * 1000 }]);
  });

  it.each([
    ['its time has come', { type: 'cleanDue' }],
    ['staging begins', begin],
  ] as const)('is tried once more when %s, and is over when it has not failed', (_when, event) => {
    const failed = through(ended, failing, failing).job;
    expect(through(failed, event)).toEqual({
      job: failed,
      effects: [{ type: 'clean', made: [overlay] }],
    });
    expect(through(failed, event, { type: 'cleaned' }).job).toMatchObject({
      ...{ state: 'cleaned', cleanError: null, cleanTries: 0, cleanAgainAt: null },
    });
  });

  it.each([
    ['planned', planned()],
    ['running', through(planned(), begin).job],
    ['cleaned', through(ended, { type: 'cleaned' }).job],
  ])('is none of a job that is %s', (_state, job) => {
    for (const event of [failing, { type: 'cleanDue' } as const]) {
      expect(through(job, event)).toEqual({ job, effects: [] });
    }
  });
});

describe('a failover', () => {
  const failover = () => planned({ kind: 'failover' });
  const disk: Made = { kind: 'folder', name: '/machine', isProduct: true };
  const making = [overlay, disk].map((made): JobEvent => ({ type: 'making', made }));
  const stop: JobEvent = { type: 'stop' };
  const cancel: JobEvent = { type: 'cancel' };
  const ended: JobEvent = { type: 'ended' };
  const failed: JobEvent = { type: 'failed', error };
  const cleaned: JobEvent = { type: 'cleaned' };
  const again: JobEvent = { type: 'again' };
  const discard: JobEvent = { type: 'discard' };

  it.each([
    ['that failed before it came up leaves nothing', [failed], 'failed', [overlay, disk]],
    ['cancelled before it came up leaves nothing', [cancel, ended], 'cancelled', [overlay, disk]],
    ['stopped before it came up leaves nothing', [stop, ended], 'cancelled', [overlay, disk]],
    ['stopped keeps its disk', [up, stop, ended], 'done', [overlay]],
    ['whose stop went wrong keeps its disk', [up, stop, failed], 'done', [overlay]],
    ['that ended by itself keeps its disk', [up, ended], 'done', [overlay]],
    ['that was gone keeps its disk', [up, failed], 'failed', [overlay]],
    ['that is up is not cancelled', [up, cancel, failed], 'failed', [overlay]],
  ] as const)('%s', (_what, events, outcome, goes) => {
    const { job, effects } = through(failover(), begin, ...making, ...events);
    expect(job.outcome).toBe(outcome);
    expect(effects).toEqual([{ type: 'clean', made: goes }]);
  });

  it('is started again from what it kept, as often as it ends, and ends again', () => {
    let job = through(failover(), begin, ...making, up, failed, cleaned).job;
    for (const starts of [2, 3]) {
      const started = through(job, again);
      expect(started.effects).toEqual([{ type: 'launch' }]);
      expect(started.job).toMatchObject({
        ...{ state: 'running', outcome: null, error: null, access: null, made: [disk], starts },
      });
      // Nothing of it may go, though it has not come up in this life.
      const gone = through(started.job, { type: 'making', made: overlay }, failed);
      expect(gone.effects).toEqual([{ type: 'clean', made: [overlay] }]);
      job = through(gone.job, cleaned).job;
      expect(job).toMatchObject({ state: 'cleaned', outcome: 'failed' });
    }
  });

  it('goes with its disk when it is discarded, also over a restart, and is not started again', () => {
    const job = through(failover(), begin, ...making, up, ended, cleaned).job;
    const discarded = through(job, discard);
    const everything = [{ type: 'clean', made: [overlay, disk] }];
    expect(discarded.effects).toEqual(everything);
    expect(through(discarded.job, begin).effects).toEqual(everything);
    const gone = through(discarded.job, cleaned).job;
    expect(gone).toMatchObject({ state: 'cleaned', isDiscarded: true });
    for (const event of [again, discard, begin]) expect(through(gone, event).effects).toEqual([]);
  });

  it('being stopped when staging is killed is shut down in order by the next life', () => {
    const job = through(failover(), begin, ...making, up, stop).job;
    const next = through(job, begin);
    expect(next.effects).toEqual([{ type: 'launch' }, { type: 'endLaunch' }]);
    expect(through(next.job, ended).job.outcome).toBe('done');
  });

  it('needs its point until it stands alone or is discarded, also where it does not run', () => {
    const running = through(failover(), begin, ...making, up).job;
    const kept = through(running, ended, cleaned).job;
    expect([running, kept].map(needsPoint)).toEqual([true, true]);
    expect(needsPoint(through(kept, discard).job)).toBe(false);
    const alone = through(running, { type: 'standsAlone' }).job;
    expect(needsPoint(alone)).toBe(false);
    expect(needsPoint(through(alone, ended, cleaned, again).job)).toBe(false);
  });

  it.each([[begin], [up], [stop], [cancel], [again], [discard], [failed], [ended], [cleaned]])(
    'that runs and %j: no second launch, nothing thrown away',
    (event) => {
      const running = through(failover(), begin, ...making, up).job;
      const { effects } = through(running, event);
      for (const effect of effects) {
        if (effect.type === 'clean') expect(effect.made).toEqual([overlay]);
        if (effect.type === 'launch') expect(event).toBe(begin);
      }
    },
  );
});

describe('a drill', () => {
  it('is neither started again nor discarded', () => {
    const over = through(planned(), begin, up, { type: 'ended' }, { type: 'cleaned' }).job;
    expect(through(over, { type: 'again' })).toEqual({ job: over, effects: [] });
    expect(over.keeps).toBe(false);
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
    { type: 'again' },
    { type: 'discard' },
    { type: 'standsAlone' },
    { type: 'ended' },
    { type: 'failed', error },
    { type: 'cleaned' },
    { type: 'cleanFailed', message: 'm' },
    { type: 'cleanDue' },
  ),
  fc.record({
    type: fc.constant('making' as const),
    made: fc.constantFrom<Made>(
      { kind: 'file', name: '/a' },
      { kind: 'file', name: '/b' },
      { kind: 'file', name: '/c', isProduct: true },
    ),
  }),
);

describe('in whatever order things happen', () => {
  it('an end is final but for what is kept, nothing made is forgotten, only an ended job is cleaned up', () => {
    const kinds = fc.constantFrom('drill' as const, 'failover' as const);
    fc.assert(
      fc.property(kinds, fc.array(events, { maxLength: 30 }), (kind, order) => {
        let job = planned({ kind });
        for (const event of order) {
          const { job: next, effects } = transition(job, event, NOW);
          const isAgain = event.type === 'again' && canStartAgain(job);
          if (isAgain) expect(kind).toBe('failover');
          const isDiscard = event.type === 'discard' && !job.isDiscarded;
          if (hasEnded(job) && !isAgain) expect(next.outcome).toBe(job.outcome);
          if (job.state === 'cleaned' && !isAgain && !isDiscard) expect(next.state).toBe('cleaned');
          if (job.keeps && !next.isDiscarded) {
            expect(
              effects.flatMap((effect) => (effect.type === 'clean' ? effect.made : [])),
            ).toEqual(expect.not.arrayContaining([expect.objectContaining({ isProduct: true })]));
          }
          const known = isAgain ? job.made.filter((made) => made.isProduct) : job.made;
          expect(next.made).toEqual(expect.arrayContaining([...known]));
          for (const effect of effects) {
            if (effect.type === 'clean') {
              expect(next.outcome).not.toBe(null);
              expect(effect.made).toEqual(toClean(next, next.outcome!));
            }
            if (effect.type === 'launch') expect(hasEnded(next)).toBe(false);
          }
          if (next.state === 'cleaned') expect(next.outcome).not.toBe(null);
          // Nothing left is forgotten: who has failed to clean up has a time for the next try.
          expect(next.cleanAgainAt === null).toBe(next.cleanError === null);
          if (next.state === 'cleaned' || !hasEnded(next)) expect(next.cleanError).toBe(null);
          job = next;
        }
      }),
    );
  });
});
