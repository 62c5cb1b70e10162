/** Retention and folding as properties: the last good point is never dropped; every point stays readable. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { planChain, planFold, type Span } from '../../src/model/fold-plan.ts';
import {
  DEFAULT_KEEP,
  lastPoints,
  parseKeepRules,
  planRetention,
  type RetainedPoint,
} from '../../src/model/retention.ts';

const HOUR = 3_600_000;
const NOW = 1_700_000_000_000;

const points: fc.Arbitrary<RetainedPoint[]> = fc
  .array(
    fc.record({
      server: fc.constantFrom('a', 'b', 'c'),
      age: fc.nat({ max: 40 * 24 * HOUR }),
      isPartial: fc.boolean(),
    }),
    { maxLength: 120 },
  )
  .map((items) =>
    items.map(({ server, age, isPartial }, i) => ({
      id: `${String(NOW - age).padStart(15, '0')}-${i}`,
      server,
      timeMs: NOW - age,
      isPartial,
    })),
  );
const rules = fc.array(
  fc.record({
    everyMs: fc.constantFrom(0, 600_000, HOUR, 24 * HOUR),
    forMs: fc.constantFrom(HOUR, 24 * HOUR, 7 * 24 * HOUR, 30 * 24 * HOUR),
  }),
  { maxLength: 4 },
);

describe('retention', () => {
  it('never drops the newest point of a server, nor its newest whole one', () => {
    fc.assert(
      fc.property(points, rules, fc.integer({ min: -HOUR, max: HOUR }), (all, some, shift) => {
        const { keep, drop } = planRetention(all, some, NOW + shift);
        expect([...keep, ...drop].sort()).toEqual(all.map(({ id }) => id).sort());
        for (const id of lastPoints(all)) expect(keep).toContain(id);
        for (const server of ['a', 'b', 'c']) {
          const whole = all.filter((p) => p.server === server && !p.isPartial);
          if (whole.length > 0) expect(whole.some(({ id }) => keep.includes(id))).toBe(true);
        }
      }),
    );
  });

  it('keeps a point of each interval, and what it kept it keeps when it is asked again', () => {
    fc.assert(
      fc.property(points, (all) => {
        const some = parseKeepRules(DEFAULT_KEEP);
        const first = planRetention(all, some, NOW);
        const left = all.filter(({ id }) => first.keep.includes(id));
        expect(planRetention(left, some, NOW).drop).toEqual([]);
        for (const { id, timeMs } of all) {
          if (NOW - timeMs < HOUR) expect(first.keep).toContain(id);
        }
        for (const { server, timeMs } of all) {
          if (NOW - timeMs >= 24 * HOUR) continue;
          const interval = Math.floor(timeMs / 600_000);
          const kept = left.filter((p) => p.server === server);
          const isThere = kept.some((p) => Math.floor(p.timeMs / 600_000) === interval);
          // The first one of an interval may have grown too old while a later one has not.
          if (NOW - interval * 600_000 < 24 * HOUR) expect(isThere).toBe(true);
        }
      }),
    );
  });

  it('does not drop points of the future', () => {
    const future = { id: 'f', server: 'a', timeMs: NOW + 5, isPartial: true };
    const later = { id: 'g', server: 'a', timeMs: NOW + 9, isPartial: false };
    expect(planRetention([future, later], [], NOW).drop).toEqual([]);
  });

  it('reads rules and refuses what is none', () => {
    expect(parseKeepRules('all=1h, 10m=1d')).toEqual([
      { everyMs: 0, forMs: HOUR },
      { everyMs: 600_000, forMs: 24 * HOUR },
    ]);
    for (const wrong of [
      '',
      'all',
      'all=',
      '=1h',
      '10m=1d=2d',
      '0s=1h',
      'all=0s',
      '5=1h',
      'x=1h',
    ]) {
      expect(() => parseKeepRules(wrong)).toThrow(/not rules of retention/);
    }
  });
});

/** A history: one delta an epoch, some of them folded, some bases, and epochs that are needed. */
const history = fc
  .record({
    epochs: fc.integer({ min: 1, max: 40 }),
    seed: fc.array(fc.nat({ max: 99 }), { minLength: 40, maxLength: 40 }),
    needed: fc.array(fc.nat({ max: 39 }), { minLength: 1, maxLength: 8 }),
  })
  .map(({ epochs, seed, needed }) => ({
    bases: Array.from({ length: epochs }, (_, i) => i + 1).filter((e) => seed[e - 1]! < 12),
    deltas: Array.from({ length: epochs }, (_, i): Span => ({ from: i, to: i + 1 })),
    needed: [...new Set(needed.map((n) => (n % epochs) + 1))],
  }));

describe('folds', () => {
  it('leave a chain to every epoch that is needed, and little else', () => {
    fc.assert(
      fc.property(history, ({ bases, deltas, needed }) => {
        let currentBases = bases;
        let currentDeltas: Span[] = deltas;
        const first = planFold(currentBases, currentDeltas, needed);
        const folded = first.folds.map((f) => ({ from: f[0]!.from, to: f.at(-1)!.to }));
        currentDeltas = [...currentDeltas, ...folded];
        const second = planFold(currentBases, currentDeltas, needed);
        currentBases = currentBases.filter((b) => !second.unneededBases.includes(b));
        currentDeltas = currentDeltas.filter((d) => !second.unneededDeltas.includes(d));
        for (const epoch of needed) {
          const plan = planChain(currentBases, currentDeltas, epoch);
          expect(plan).not.toBeNull();
          let at = plan!.base ?? 0;
          for (const { from, to } of plan!.deltas) {
            expect(from).toBe(at);
            at = to;
          }
          expect(at).toBe(epoch);
        }
        expect(currentBases.length).toBeLessThanOrEqual(needed.length);
        expect(currentDeltas.length).toBeLessThanOrEqual(needed.length);
        expect(planFold(currentBases, currentDeltas, needed).folds).toEqual([]);
      }),
    );
  });

  it('take the newest base and the coarsest deltas', () => {
    const deltas = [
      { from: 0, to: 1 },
      { from: 1, to: 2 },
      { from: 2, to: 3 },
      { from: 1, to: 3 },
      { from: 3, to: 4 },
    ];
    expect(planChain([1], deltas, 4)).toEqual({ base: 1, deltas: [deltas[3], deltas[4]] });
    expect(planChain([3], deltas, 2)).toEqual({ base: null, deltas: [deltas[0], deltas[1]] });
    expect(planChain([], [{ from: 1, to: 2 }], 2)).toBeNull();
  });
});
