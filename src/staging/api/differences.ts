/** Where a volume differs between two points: what an upload or a copy over an older state has to move. */
import { UnderstudyError } from '../../base/errors.ts';
import type { Extent } from '../../model/geometry.ts';
import type { ApiDifferences } from '../api-types.ts';
import { type Call, integerOf, type Route } from './route.ts';

/** Stretches in a page: bounds its time and its answer. */
const PAGE = 1000;

async function serveDifferences({ backend, path, query }: Call): Promise<ApiDifferences> {
  const from = query.get('from');
  if (from === null || from === '') {
    throw new UnderstudyError('ERR_API_REQUEST', 'needs from: the older point');
  }
  const offset = integerOf(query.get('offset'), 'offset', 0, Number.MAX_SAFE_INTEGER);
  const extents: Extent[] = [];
  const { point, volume } = path;
  for await (const extent of backend.store.differences(from, point!, volume!, offset)) {
    extents.push(extent);
    // The stretch that follows begins behind this one.
    if (extents.length === PAGE) return { extents, next: extent.offset + extent.length };
  }
  return { extents, next: null };
}

export const differenceRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/v1/points/{point}/volumes/{volume}/differences',
    summary: 'Where a volume differs from what it was at another point, a page at a time.',
    query: [
      {
        name: 'from',
        description: 'The other point: id; of the same volume',
        schema: { type: 'string' },
      },
      {
        name: 'offset',
        description: 'Where the page begins: `next` of the page before',
        schema: { type: 'integer', minimum: 0, default: 0 },
      },
    ],
    responseSchema: 'Differences',
    status: 200,
    handle: serveDifferences,
  },
];
