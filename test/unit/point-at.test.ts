/** Which point shows a server as it was at a time: against an oracle, and through API and command line. */

import { describe, expect, it } from 'vitest';
import { pointOf } from '../../src/cli/with-repository.ts';
import { newest, type PointSources } from '../../src/staging/plans/choose-point.ts';
import { MemoryCatalog } from '../../src/store/catalog/catalog-memory.ts';
import { listed } from '../../src/store/images/directory-reader.ts';
import type { OfflineRepository } from '../../src/store/offline.ts';
import { CopyNotes } from '../../src/store/points/copy-notes.ts';
import type { PointRecord } from '../../src/store/points/point-format.ts';
import { pointAt, pointsAt } from '../../src/store/retention/point-at.ts';
import type { ListedPoint } from '../../src/store/types.ts';
import { fakePoint } from './support/fake-backend.ts';
import fc from './support/properties.ts';

const START = 1_700_000_000_000;

function record(server: string, timeMs: number, number: number, isPartial: boolean): PointRecord {
  const time = new Date(timeMs).toISOString();
  return {
    id: `${time.replaceAll(/[-:]/g, '')}-${number.toString(16).padStart(8, '0')}`,
    ...{ server, time, timeMs, sequence: number, requestId: '', volumes: [] },
    cut: { method: 'validated', passes: 1, durationMs: 1 },
    missingVolumes: isPartial ? ['/dev/b'] : [],
  };
}

async function listerOf(records: readonly PointRecord[]) {
  const catalog = new MemoryCatalog();
  for (const each of records) await catalog.putPoint(each, 'sealed');
  return {
    points: async (filter: Parameters<typeof catalog.points>[0]) =>
      (await catalog.points(filter)).map((point) =>
        listed(point, {
          legalHolds: new Map(),
          copyNotes: new CopyNotes(),
          damage: { isHurt: () => false },
        }),
      ),
  };
}

describe('the point of a time', () => {
  it('is the newest whole one of the server that is not after it', async () => {
    const item = fc.record({
      server: fc.constantFrom('a', 'b'),
      second: fc.nat({ max: 400 }),
      isPartial: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.array(item, { maxLength: 250 }),
        fc.integer({ min: -5, max: 405 }),
        fc.boolean(),
        async (items, second, isPartialWanted) => {
          const records = items.map(({ server, second: at, isPartial }, i) =>
            record(server, START + at * 1000, i, isPartial),
          );
          const atMs = START + second * 1000;
          const wanted = records
            .filter((r) => r.server === 'a' && r.timeMs <= atMs)
            .filter((r) => isPartialWanted || r.missingVolumes.length === 0)
            .map(({ id }) => id)
            .sort()
            .at(-1);
          const wish = { server: 'a', atMs, isPartialWanted };
          const found = pointAt(await listerOf(records), wish);
          if (wanted === undefined) {
            await expect(found).rejects.toMatchObject({ code: 'ERR_POINT_NOT_FOUND' });
          } else expect((await found).id).toBe(wanted);
        },
      ),
      { numRuns: 40 },
    );
  });

  it('before the first point is refused, and the first one is named', async () => {
    const records = [record('a', START + 1000, 1, true), record('a', START + 2000, 2, false)];
    const lister = await listerOf(records);
    await expect(pointAt(lister, { server: 'a', atMs: START + 1500 })).rejects.toThrow(
      `nothing of a at 2023-11-14T22:13:21.500Z: its first whole point is of ${records[1]!.time}`,
    );
    await expect(pointAt(lister, { server: 'x', atMs: START })).rejects.toThrow(
      'it has no whole point',
    );
  });

  it('of several servers is one of each', async () => {
    const records = [record('a', START, 1, false), record('b', START + 9000, 2, false)];
    const lister = await listerOf(records);
    const at = async (atMs: number) =>
      (await pointsAt(lister, ['a', 'b'], { atMs })).map(({ server }) => server);
    expect(await at(START + 9000)).toEqual(['a', 'b']);
    expect(await at(START)).toEqual(['a']);
    await expect(at(START - 1)).rejects.toMatchObject({ code: 'ERR_POINT_NOT_FOUND' });
  });
});

describe('the latest point of a repository without its service', () => {
  it('is the one that was committed last', async () => {
    const [early, late] = [fakePoint('p1'), fakePoint('p2')];
    const repository = {
      points: async () => [late, early],
      lastCommitted: async (server: string) => (server === early.server ? early : null),
    } as unknown as OfflineRepository;
    const choice = { point: 'latest', atMs: undefined, server: undefined, isPartialWanted: false };
    expect((await pointOf(repository, choice)).id).toBe('p1');
  });
});

describe('the newest point of a member of a plan', () => {
  it('is what was committed last, whatever the clocks say, but for a damaged one', async () => {
    const [early, late] = [record('a', START, 2, false), record('a', START + 1000, 1, false)];
    const lister = await listerOf([early, late]);
    const [last] = await lister.points({ server: 'a', order: 'oldest' });
    const wish = { server: 'a', atMs: null, isVerified: false };
    const of = async (point: ListedPoint, more: object = {}) => {
      const store = { ...lister, lastCommitted: async () => point };
      const from = { store, verdicts: {} } as unknown as PointSources;
      return (await newest(from, { ...wish, ...more }))?.id;
    };
    expect(await of(last!)).toBe(early.id);
    expect(await of({ ...last!, isDamaged: true })).toBe(late.id);
    expect(await of(last!, { atMs: START + 5000 })).toBe(late.id);
  });
});
