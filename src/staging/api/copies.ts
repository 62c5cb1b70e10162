/** Routes of copies: where they are, one more now, how it is getting on, an end to it. */
import { UnderstudyError } from '../../base/errors.ts';
import type { ApiCopies, ApiCopyJob } from '../api-types.ts';
import type { CopyRequest } from '../copies.ts';
import { assertServer } from './known-server.ts';
import type { Call, Route } from './route.ts';

const verifyWords: readonly unknown[] = ['none', 'new', 'all'];

function requestOf({ server, sinceMs, newest, verify }: Call['body']): CopyRequest {
  const isCount = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0;
  const isRight =
    (server === undefined || typeof server === 'string') &&
    (sinceMs === undefined || isCount(sinceMs)) &&
    (newest === undefined || (isCount(newest) && newest !== 0)) &&
    (verify === undefined || verifyWords.includes(verify));
  if (!isRight) {
    throw new UnderstudyError('ERR_API_REQUEST', 'needs {to, server, sinceMs, newest, verify}');
  }
  // Only what was given: the service's own settings stand otherwise.
  const given = Object.entries({ server, sinceMs, newest, verify });
  return Object.fromEntries(given.filter(([, value]) => value !== undefined));
}

async function start({ backend, body }: Call): Promise<ApiCopyJob> {
  if (typeof body.to !== 'string') throw new UnderstudyError('ERR_API_REQUEST', 'needs {to}');
  const request = requestOf(body);
  if (request.server !== undefined) await assertServer(backend, request.server);
  return backend.copies.start(body.to, request);
}

const list = async ({ backend }: Call): Promise<ApiCopies> => ({ copies: backend.copies.list() });

export const copyRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/v1/copies',
    summary: 'The places that points are copied to, and how far each of them is.',
    responseSchema: 'Copies',
    status: 200,
    handle: list,
  },
  {
    method: 'POST',
    path: '/v1/copies',
    summary: 'Begins a copy to one of the places that the service was started with.',
    requestSchema: 'CopyRequest',
    responseSchema: 'CopyJob',
    status: 202,
    handle: start,
  },
  {
    method: 'GET',
    path: '/v1/copies/{job}',
    summary: 'How a copy is getting on, and its report.',
    responseSchema: 'CopyJob',
    status: 200,
    handle: async ({ backend, path }) => backend.copies.find(path.job!),
  },
  {
    method: 'POST',
    path: '/v1/copies/{job}/stop',
    summary: 'Ends a copy; what it has copied stays.',
    responseSchema: 'CopyJob',
    status: 200,
    handle: async ({ backend, path }) => backend.copies.stopJob(path.job!),
  },
];
