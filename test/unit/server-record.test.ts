/** What the service tells of a server by what it has seen: here, how old its newest whole point is. */
import { expect, it } from 'vitest';
import { ServerRecord } from '../../src/staging/server-record.ts';
import type { ListedPoint } from '../../src/store/types.ts';

const COMMITTED_MS = Date.parse('2026-11-21T12:00:00Z');

const pointAt = (timeMs: number, missingVolumes: string[] = []) =>
  ({
    id: `p${timeMs}`,
    time: new Date(timeMs).toISOString(),
    missingVolumes,
  }) as unknown as ListedPoint;

it.each([
  ['goes by the time of the cut', -3000, [], 63_000],
  ['is not hidden by a clock of the source that runs ahead', 3_600_000, [], 60_000],
  ['is not known of a point that lacks a volume', 0, ['/dev/sdb'], null],
])('the lag %s', (_name, aheadMs, missing, lagMs) => {
  const record = new ServerRecord('web');
  record.committed(pointAt(COMMITTED_MS + aheadMs, missing), COMMITTED_MS);
  expect(record.describe(undefined, COMMITTED_MS + 60_000).lagMs).toBe(lagMs);
});
