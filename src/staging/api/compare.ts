/**
 * Which chunks of a volume at a point are not what the caller has: he tells the digests of his, and then
 * fetches only what differs. What a failback writes home is found so.
 */
import { UnderstudyError } from '../../base/errors.ts';
import type { ApiComparison } from '../api-types.ts';
import type { Call, Route } from './route.ts';

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');

async function compare({ backend, path, body }: Call): Promise<ApiComparison> {
  const { first, digests } = body;
  if (!Number.isSafeInteger(first) || typeof digests !== 'string') {
    throw new UnderstudyError('ERR_API_REQUEST', 'needs {first, digests}');
  }
  const given = Buffer.from(digests, 'base64');
  const { point, volume } = path;
  await backend.pointsInUse.touch(point!, volume!);
  const found = await backend.store.compareChunks(point!, volume!, first as number, given);
  const { different, zero, count } = found;
  return { different: base64(different), zero: base64(zero), count };
}

export const compareRoutes: readonly Route[] = [
  {
    method: 'POST',
    path: '/v1/points/{point}/volumes/{volume}/compare',
    summary:
      'Which of up to 1024 chunks (64 KiB each) of a volume at a point are not what the caller has.',
    requestSchema: 'ComparisonRequest',
    responseSchema: 'Comparison',
    status: 200,
    handle: compare,
  },
];
