/** Copies by the clock and on demand: when, where, one at a time, and what their trouble does. */
import { describe, expect, it } from 'vitest';
import { UnderstudyError } from '../../src/base/errors.ts';
import { createLog } from '../../src/base/log.ts';
import { Copies } from '../../src/staging/copies.ts';
import type { CopyOptions, KnownCopy } from '../../src/store/types.ts';
import { VirtualClock } from '../simulation/virtual-clock.ts';
import { fakeReport } from './support/fake-backend.ts';

const HOUR_MS = 3_600_000;

interface Under {
  readonly place: string;
  readonly options: CopyOptions;
  end(failure?: unknown): void;
}

function make(everyMs: number | null, known: readonly KnownCopy[] = [], isTrusted = true) {
  const clock = new VirtualClock();
  const logged: string[] = [];
  const under: Under[] = [];
  const closed: string[] = [];
  const log = createLog({ sink: (line) => logged.push(JSON.parse(line).message), level: 'info' });
  let jobs = 0;
  const copies = new Copies({
    ...{ clock, log, everyMs, keep: [{ everyMs: 0, forMs: 1000 }], bytesPerSecond: 7 },
    places: ['/one', '/two'].map((name) => ({
      name,
      open: async () => ({ name, close: async () => void closed.push(name) }) as never,
    })),
    ...{ verify: 'new', isClockTrusted: () => isTrusted },
    newId: () => {
      jobs += 1;
      return `job${jobs}`;
    },
    store: {
      copies: () => [...known],
      copy: ({ name }, options) =>
        new Promise((resolve, reject) => {
          options.signal?.addEventListener('abort', () => reject(options.signal!.reason));
          const end = (failure?: unknown) =>
            failure === undefined ? resolve(fakeReport(name)) : reject(failure);
          under.push({ place: name, options, end });
        }),
    },
  });
  const pass = (ms: number) => clock.runUntil(clock.monotonicMs() + ms);
  const places = () => under.map(({ place }) => place);
  return { clock, closed, logged, under, copies, pass, places };
}

describe('copies of a service', () => {
  it('begin by themselves, one after the other, and again an interval later', async () => {
    const { under, copies, pass, places } = make(HOUR_MS);
    await pass(9000);
    expect(places()).toEqual([]);
    await pass(2000);
    expect(places()).toEqual(['/one']);
    await pass(60_000);
    expect(places()).toEqual(['/one']);
    expect(copies.list()[0]!.jobId).toBe('job1');
    under[0]!.end();
    await pass(1);
    expect(places()).toEqual(['/one', '/two']);
    under[1]!.end();
    await pass(HOUR_MS - 100_000);
    expect(under).toHaveLength(2);
    await pass(100_000);
    expect(places()).toEqual(['/one', '/two', '/one']);
    expect(under[2]!.options).toMatchObject({
      ...{ keep: [{ everyMs: 0, forMs: 1000 }], bytesPerSecond: 7, verify: 'new' },
      isDropping: true,
    });
    await copies.stop();
  });

  it('wait for the turn that a copy before the restart has left', async () => {
    const clock = new VirtualClock();
    const ago = (ms: number) => ({
      ...{ repository: 'ab'.repeat(16), timeMs: clock.wallMs() - ms, verifiedMs: null, points: 3 },
    });
    const known = [
      { place: '/one', ...ago(HOUR_MS / 2) },
      // A clock that was turned back: not later than an interval from now.
      { place: '/two', ...ago(-10 * HOUR_MS) },
    ];
    const { copies, pass, places } = make(HOUR_MS, known);
    expect(copies.list()[0]).toMatchObject({ points: 3, nextMs: clock.wallMs() + HOUR_MS / 2 });
    await pass(HOUR_MS / 2 - 1000);
    expect(places()).toEqual([]);
    await pass(2000);
    expect(places()).toEqual(['/one']);
    await copies.stop();
    expect(copies.find('job1').state).toBe('stopped');
  });

  it('are made on demand, to places of the service only, and one at a time', async () => {
    const { under, closed, copies, pass } = make(null);
    await pass(10 * HOUR_MS);
    expect(under).toEqual([]);
    expect(() => copies.start('/three', {})).toThrow(
      expect.objectContaining({ code: 'ERR_COPY_PLACE' }),
    );
    const job = copies.start('/two/', { server: 'web', newest: 2, verify: 'all' });
    expect(job.state).toBe('running');
    await pass(1);
    expect(under[0]!.options).toMatchObject({ server: 'web', newest: 2, verify: 'all' });
    expect(() => copies.start('/one', {})).toThrow(
      expect.objectContaining({ code: 'ERR_JOB_RUNNING' }),
    );
    const progress = { points: 1, ofPoints: 2, bytesRead: 3, bytesWritten: 4 };
    under[0]!.options.onProgress!(progress);
    expect(copies.find(job.jobId).progress).toEqual(progress);
    under[0]!.end();
    await pass(1);
    expect(copies.find(job.jobId)).toMatchObject({ state: 'done', report: { place: '/two' } });
    const second = copies.start('/one', {});
    await pass(1);
    expect(copies.stopJob(second.jobId).state).toBe('running');
    await pass(1);
    expect(copies.find(second.jobId)).toMatchObject({ state: 'stopped', error: null });
    expect(closed).toEqual(['/two', '/one']);
    await copies.stop();
  });

  it('that fail are told and tried again: soon where that may help, else at their turn', async () => {
    const { under, copies, pass, logged } = make(HOUR_MS);
    await pass(11_000);
    under[0]!.end(new UnderstudyError('ERR_DISK_FULL', 'no room'));
    await pass(1);
    under[1]!.end(new UnderstudyError('ERR_COPY_FOREIGN', 'another one'));
    await pass(1);
    expect(logged).toEqual(['a copy failed', 'a copy failed']);
    expect(copies.list().map(({ error }) => error?.code)).toEqual([
      'ERR_DISK_FULL',
      'ERR_COPY_FOREIGN',
    ]);
    await pass(310_000);
    expect(under).toHaveLength(3);
    expect(under[2]!.place).toBe('/one');
    under[2]!.end();
    await pass(1);
    expect(copies.list()[0]!.error).toBeNull();
    await copies.stop();
  });

  it('drop nothing while the clock is in doubt', async () => {
    const { under, copies, pass } = make(HOUR_MS, [], false);
    await pass(11_000);
    expect(under[0]!.options.isDropping).toBe(false);
    await copies.stop();
  });
});
