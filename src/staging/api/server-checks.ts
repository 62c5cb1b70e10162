/** Routes of the scheduled boot checks of servers. */
import { UnderstudyError } from '../../base/errors.ts';
import type { LaunchOptions } from '../../recovery/runner.ts';
import type { ApiServerCheck } from '../api-types.ts';
import type { CheckPolicy } from '../plans/check-records.ts';
import type { ApiBackend } from './backend.ts';
import { assertServer } from './known-server.ts';
import type { Call, Route } from './route.ts';

const LEAST_MS = 60_000;
const refuse = (message: string): UnderstudyError =>
  new UnderstudyError('ERR_API_REQUEST', message);

function policyOf({ everyMs = null, options = null }: Call['body']): CheckPolicy | null {
  if (everyMs === null && options === null) return null;
  const isTime =
    Number.isSafeInteger(everyMs) && (everyMs === 0 || (everyMs as number) >= LEAST_MS);
  if (everyMs !== null && !isTime) throw refuse(`everyMs must be 0, at least ${LEAST_MS} or null`);
  const given = options ?? {};
  const isPlain = (value: unknown) => ['string', 'number', 'boolean'].includes(typeof value);
  if (typeof given !== 'object' || Array.isArray(given) || !Object.values(given).every(isPlain)) {
    throw refuse('options must be an object of texts, numbers and flags');
  }
  return { everyMs: everyMs as number | null, options: given as LaunchOptions };
}

async function show(backend: ApiBackend, server: string): Promise<ApiServerCheck> {
  await assertServer(backend, server);
  return backend.checker.status(server);
}

export const serverCheckRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/v1/servers/{server}/check',
    summary: 'How often the newest point of a server is booted by itself, and how it went.',
    responseSchema: 'ServerCheck',
    status: 200,
    handle: ({ backend, path }) => show(backend, path.server!),
  },
  {
    method: 'POST',
    path: '/v1/servers/{server}/check',
    summary:
      'Gives a server a policy of boot checks of its own, or (both null) that of the service.',
    requestSchema: 'ServerCheckRequest',
    responseSchema: 'ServerCheck',
    status: 200,
    handle: ({ backend, path, body }) => backend.checker.setPolicy(path.server!, policyOf(body)),
  },
];
