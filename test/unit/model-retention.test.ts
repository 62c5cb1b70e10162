/** Retention and folding as properties: the last good point is never dropped; every point stays readable. */

import { describe, expect, it } from 'vitest';
import { planChain, planFold, planLevel, type Span } from '../../src/model/fold-plan.ts';
import { formatKeepRules } from '../../src/model/keep-rules.ts';
import {
  DEFAULT_KEEP,
  lastPoints,
  parseKeepRules,
  planRetention,
  type RetainedPoint,
} from '../../src/model/retention.ts';
import fc from './support/properties.ts';

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
      sequence: i + 1,
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
    const future = { id: 'f', server: 'a', timeMs: NOW + 5, isPartial: true, sequence: 1 };
    const later = { id: 'g', server: 'a', timeMs: NOW + 9, isPartial: false, sequence: 2 };
    expect(planRetention([future, later], [], NOW).drop).toEqual([]);
  });

  it('a source clock that ran ahead costs no good point', () => {
    const point = (id: string, sequence: number, ageMs: number, receivedAgeMs = ageMs) => ({
      ...{ id, server: 'a', sequence, isPartial: false },
      timeMs: NOW - ageMs,
      receivedMs: NOW - receivedAgeMs,
    });
    const ahead = point('ahead', 5, -1000 * HOUR, 50 * HOUR);
    const true1 = point('true1', 6, 49 * HOUR);
    const true2 = point('true2', 7, 48 * HOUR);
    // The last that was committed is good whatever the times say; the one of the future is aged by ours.
    const hour = parseKeepRules('all=1h');
    expect(planRetention([ahead, true1, true2], hour, NOW).points).toMatchObject([
      { id: 'true1', keptBy: [] },
      { id: 'true2', keptBy: ['newest'] },
      { id: 'ahead', keptBy: ['newest'] },
    ]);
    // Without a note of when it came it stays.
    const unknown = { ...ahead, receivedMs: undefined };
    const later = { ...point('later', 8, -2000 * HOUR), receivedMs: undefined };
    const { points: planned } = planRetention([unknown, later, true2], hour, NOW);
    expect(planned.map(({ keptBy }) => keptBy)).toEqual([
      [],
      ['all=1h', 'future'],
      ['newest', 'all=1h', 'future'],
    ]);
  });

  it('a source clock that was set back costs no point of what came after', () => {
    // Three hours of a point a minute; then the clock goes back by two hours, and a quarter of an hour more.
    const MINUTE = 60_000;
    const before = Array.from({ length: 180 }, (_, i) => ({
      ...{ id: `before${i}`, server: 'a', isPartial: false, sequence: i + 1 },
      ...{ timeMs: NOW - (195 - i) * MINUTE, receivedMs: NOW - (195 - i) * MINUTE },
    }));
    const after = Array.from({ length: 15 }, (_, i) => ({
      ...{ id: `after${i}`, server: 'a', isPartial: false, sequence: 1000 + i },
      ...{ timeMs: NOW - (135 - i) * MINUTE, receivedMs: NOW - (15 - i) * MINUTE },
    }));
    const points = [...before, ...after];
    const strict = parseKeepRules('all=1h,10m=1d');
    const { keep } = planRetention(points, strict, NOW);
    for (const { id } of after) expect(keep).toContain(id);
    // What came before is thinned by its own times, and not by who shares them now.
    const alone = planRetention(before, strict, NOW).keep;
    for (const id of alone) expect(keep).toContain(id);
    // In the end they are thinned as well, the oldest of each interval of ours first.
    const later = planRetention(points, strict, NOW + 2 * HOUR).keep;
    expect(later.filter((id) => id.startsWith('after'))).toEqual(['after2', 'after12', 'after14']);
  });

  it('tells by which rule a point stays, and goes by the policy of its server', () => {
    const point = (server: string, hours: number, isHeld = false) => ({
      ...{ id: `${server}${hours}`, server, isPartial: false, isHeld },
      ...{ timeMs: NOW - hours * HOUR, sequence: 100 - hours },
    });
    const all = [point('a', 0), point('a', 5), point('a', 30, true), point('b', 0), point('b', 5)];
    const strict = parseKeepRules('all=1h');
    const rules = { a: parseKeepRules('all=1h,1h=1d'), b: strict, c: null };
    const plan = planRetention(
      [...all, point('c', 0), point('c', 5)],
      (server) => rules[server as 'a'],
      NOW,
    );
    const why = Object.fromEntries(plan.points.map(({ id, keptBy }) => [id, keptBy]));
    expect(why).toEqual({
      a0: ['newest', 'all=1h', '1h=1d'],
      a5: ['1h=1d'],
      a30: ['hold'],
      b0: ['newest', 'all=1h'],
      b5: [],
      c0: ['newest', 'policy unknown'],
      c5: ['policy unknown'],
    });
    expect(plan.drop).toEqual(['b5']);
  });

  it('knows presets, alone and with rules beside them', () => {
    const day = 24 * HOUR;
    expect(parseKeepRules('drs')).toEqual([
      { everyMs: 600_000, forMs: HOUR },
      { everyMs: HOUR, forMs: day },
      { everyMs: day, forMs: 7 * day },
    ]);
    expect(parseKeepRules('drs, 1d=365d')).toHaveLength(4);
    for (const text of ['drs', 'gfs', DEFAULT_KEEP, 'all=90s,90m=36h,1w=1y']) {
      const rules = parseKeepRules(text);
      expect(parseKeepRules(formatKeepRules(rules))).toEqual(rules);
    }
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

  it('are made in levels while all epochs are needed, and levels go as points are dropped', () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 5 }), fc.nat(), (fan, seed) => {
        let deltas: Span[] = [];
        let needed: number[] = [];
        const random = mulberry(seed);
        for (let epoch = 1; epoch <= 160; epoch += 1) {
          deltas.push({ from: epoch - 1, to: epoch });
          needed.push(epoch);
          addLevels(deltas, epoch, fan);
          expectShort(planChain([], deltas, epoch)!.deltas, fan);
          if (epoch % 20 !== 0) continue;
          // Old points are thinned, as rules do.
          needed = needed.filter((e) => e > epoch - 15 || random() < 0.4);
          const first = planFold([], deltas, needed, 2);
          deltas.push(...first.folds.map((f) => ({ from: f[0]!.from, to: f.at(-1)!.to })));
          const { unneededDeltas, folds } = planFold([], deltas, needed, 2);
          expect(folds).toEqual([]);
          deltas = deltas.filter((delta) => !unneededDeltas.includes(delta));
          // One delta a needed epoch, and the levels: fewer than as many again.
          expect(deltas.length).toBeLessThanOrEqual(2 * needed.length + 1);
          for (const each of needed) {
            const chain = planChain([], deltas, each)!;
            let at = 0;
            for (const { from, to } of chain.deltas) {
              expect(from).toBe(at);
              at = to;
            }
            expect(at).toBe(each);
          }
        }
        addLevels(deltas, 160, fan);
        expectShort(planChain([], deltas, 160)!.deltas, fan);
      }),
    );
  });

  it('become short chains however uneven they are, wherever the small ones lie', () => {
    const sizes = fc.array(fc.oneof(fc.constant(1), fc.nat({ max: 300 })), { maxLength: 300 });
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 5 }), sizes, (fan, epochs) => {
        const deltas = inTurn(epochs.map((epoch) => epoch + 1));
        const end = deltas.at(-1)?.to ?? 0;
        addLevels(deltas, end, fan);
        expectShort(planChain([], deltas, end)?.deltas ?? [], fan);
      }),
    );
    // Three small ones before each of two large ones of each size: no place has four of a size.
    const threeSmall = [4096, 1024, 256, 64, 16].flatMap((size) => [1, 1, 1, size, 1, 1, 1, size]);
    const uneven = inTurn(threeSmall);
    const level = planLevel(uneven, 4)!;
    expect(level).toHaveLength(4);
    expect(level.at(-1)!.to - level[0]!.from).toBe(1 + 1 + 1 + 16);
  });

  it('are written once a level at most where nothing is thinned', () => {
    for (const fan of [2, 3, 5, 32]) {
      const deltas: Span[] = [];
      let written = 0;
      for (let epoch = 1; epoch <= 700; epoch += 1) {
        deltas.push({ from: epoch - 1, to: epoch });
        written += addLevels(deltas, epoch, fan);
      }
      expect(written).toBeLessThanOrEqual(700 * levelsOf(700, fan));
    }
  });
});

/** Deltas that span so many epochs each. */
function inTurn(epochs: readonly number[]): Span[] {
  const deltas: Span[] = [];
  for (const size of epochs) {
    const from = deltas.at(-1)?.to ?? 0;
    deltas.push({ from, to: from + size });
  }
  return deltas;
}

/** Returns how many epochs were written again. */
function addLevels(deltas: Span[], epoch: number, fan: number): number {
  for (let written = 0; ; ) {
    const level = planLevel(planChain([], deltas, epoch)?.deltas ?? [], fan);
    if (level === null) return written;
    expect(level.length).toBeGreaterThanOrEqual(fan);
    const [from, to] = [level[0]!.from, level.at(-1)!.to];
    deltas.push({ from, to });
    written += to - from;
  }
}

/** How many powers of `fan`, from `fan` itself on, are not above `epochs`. */
function levelsOf(epochs: number, fan: number): number {
  let levels = 0;
  for (let size = fan; size <= epochs; size *= fan) levels += 1;
  return levels;
}

/** Fewer than the fan of each size, and where thinning left them uneven no more than the fan of each. */
function expectShort(path: readonly Span[], fan: number): void {
  const epochs = (path.at(-1)?.to ?? 0) - (path[0]?.from ?? 0);
  expect(path.length).toBeLessThanOrEqual(fan * (levelsOf(epochs, fan) + 1));
}

/** Numbers in [0, 1), the same for the same seed. */
function mulberry(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
