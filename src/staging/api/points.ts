/** Routes of recovery points: list, show, request. */
import { UnderstudyError } from '../../base/errors.ts';
import { pointsAt } from '../../store/retention/point-at.ts';
import type { ListedPoint, PointFilter } from '../../store/types.ts';
import type { ApiPoint, ApiPointRequested, ApiPoints } from '../api-types.ts';
import type { ApiBackend } from './backend.ts';
import { type Call, integerOf, type Route, timeOf } from './route.ts';

const DEFAULT_LIMIT = 100;
const MAX_LIMIT = 1000;
const DEFAULT_TIMEOUT_MS = 60_000;
const MAX_TIMEOUT_MS = 3_600_000;

function filterOf(query: URLSearchParams): PointFilter & { limit: number } {
  const server = query.get('server');
  const fromMs = timeOf(query.get('from'), 'from');
  const toMs = timeOf(query.get('to'), 'to');
  const after = query.get('after');
  const order = query.get('order') ?? 'newest';
  if (order !== 'newest' && order !== 'oldest') {
    throw new UnderstudyError('ERR_API_REQUEST', 'order must be newest or oldest');
  }
  return {
    order,
    limit: Math.max(1, integerOf(query.get('limit'), 'limit', DEFAULT_LIMIT, MAX_LIMIT)),
    ...(server === null ? {} : { server }),
    ...(fromMs === undefined ? {} : { fromMs }),
    ...(toMs === undefined ? {} : { toMs }),
    ...(after === null ? {} : { after }),
  };
}

/** The newest point not after a time, of one server or of each. */
async function listAt({ backend, query }: Call, atMs: number): Promise<ApiPoints> {
  const server = query.get('server');
  const servers =
    server === null ? (await backend.store.servers()).map((known) => known.server) : [server];
  const isPartialWanted = query.get('partial') === 'true';
  const points = await pointsAt(backend.store, servers, { atMs, isPartialWanted });
  return { points: await withVerdicts(backend, points), next: null };
}

/** The whole point that was committed last, of one server or of each: whatever the clocks of its machines say. */
async function listLast({ backend, query }: Call): Promise<ApiPoints> {
  const { store } = backend;
  const server = query.get('server');
  const servers = server === null ? (await store.servers()).map((known) => known.server) : [server];
  const last = await Promise.all(servers.map((name) => store.lastCommitted(name)));
  const points = last.filter((point) => point !== null);
  return { points: await withVerdicts(backend, points), next: null };
}

async function list(call: Call): Promise<ApiPoints> {
  const { backend, query } = call;
  const isVerified = query.get('verified') === 'true';
  const isLast = query.get('latest') === 'true';
  const atMs = timeOf(query.get('at'), 'at');
  if (isVerified && (isLast || atMs !== undefined)) {
    throw new UnderstudyError('ERR_API_REQUEST', 'verified goes without latest and at');
  }
  if (isVerified) return listVerified(call);
  if (isLast) return listLast(call);
  if (atMs !== undefined) return listAt(call, atMs);
  const filter = filterOf(query);
  const points = await backend.store.points(filter);
  const next = points.length === filter.limit ? points.at(-1)!.id : null;
  return { points: await withVerdicts(backend, points), next };
}

/** A page of those that have booted, however many lie between. */
async function listVerified({ backend, query }: Call): Promise<ApiPoints> {
  const { limit, ...filter } = filterOf(query);
  const found: ApiPoint[] = [];
  for (let { after } = filter; ; ) {
    const page = await backend.store.points({
      ...filter,
      ...(after && { after }),
      limit: MAX_LIMIT,
    });
    const verified = (await withVerdicts(backend, page)).filter((point) => point.isVerified);
    found.push(...verified.slice(0, limit - found.length));
    if (found.length === limit) return { points: found, next: found.at(-1)!.id };
    if (page.length < MAX_LIMIT) return { points: found, next: null };
    after = page.at(-1)!.id;
  }
}

async function withVerdicts(
  { plans }: ApiBackend,
  points: readonly ListedPoint[],
): Promise<ApiPoint[]> {
  const verdicts = await plans.verdicts.of(points.map(({ id }) => id));
  return points.map((point) => ({ ...point, isVerified: verdicts.get(point.id) ?? null }));
}

async function request({ backend, body }: Call): Promise<ApiPointRequested> {
  const { server, wait = false, timeoutMs = DEFAULT_TIMEOUT_MS } = body;
  if (typeof server !== 'string' || typeof wait !== 'boolean' || typeof timeoutMs !== 'number') {
    throw new UnderstudyError('ERR_API_REQUEST', 'needs {server, wait, timeoutMs}');
  }
  const limitMs = Math.min(Math.max(1, timeoutMs), MAX_TIMEOUT_MS);
  const { requestId, committed } = backend.requestPoint(server, limitMs);
  if (!wait) {
    committed.catch((error) => {
      backend.log.warn('a requested point did not come', {
        server,
        requestId,
        error: String(error),
      });
    });
    return { requestId, point: null };
  }
  const id = await committed;
  await backend.store.seal(id);
  return { requestId, point: await backend.store.point(id) };
}

const text = { type: 'string' };
const time = { type: 'string', format: 'date-time' };

export const pointRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/v1/points',
    summary: 'Recovery points, newest first, a page at a time.',
    query: [
      { name: 'server', description: 'Only points of this server', schema: text },
      { name: 'from', description: 'Not before this time', schema: time },
      { name: 'to', description: 'Not after this time', schema: time },
      {
        name: 'at',
        description:
          'The newest whole point not after this time, of `server` or of each server; no page',
        schema: time,
      },
      {
        name: 'latest',
        description:
          'The whole point that was committed last, of `server` or of each server, whatever the clocks of ' +
          'their machines say; no page',
        schema: { type: 'boolean', default: false },
      },
      {
        name: 'partial',
        description: 'With `at`: points that lack volumes count, too',
        schema: { type: 'boolean', default: false },
      },
      {
        name: 'verified',
        description: 'Only points whose boot check has passed; without `at` and `latest`',
        schema: { type: 'boolean', default: false },
      },
      {
        name: 'limit',
        description: 'Points a page',
        schema: { type: 'integer', minimum: 1, maximum: MAX_LIMIT, default: DEFAULT_LIMIT },
      },
      { name: 'after', description: 'Id of the last point of the page before', schema: text },
      {
        name: 'order',
        description: 'Which come first',
        schema: { type: 'string', enum: ['newest', 'oldest'], default: 'newest' },
      },
    ],
    responseSchema: 'Points',
    status: 200,
    handle: list,
  },
  {
    method: 'POST',
    path: '/v1/points',
    summary: 'Asks an agent for a point now; with `wait`, answers when it is sealed.',
    requestSchema: 'PointRequest',
    responseSchema: 'PointRequested',
    status: 200,
    handle: request,
  },
  {
    method: 'GET',
    path: '/v1/points/{point}',
    summary: 'One recovery point.',
    responseSchema: 'Point',
    status: 200,
    async handle({ backend, path }): Promise<ApiPoint> {
      const [point] = await withVerdicts(backend, [await backend.store.point(path.point!)]);
      return point!;
    },
  },
];
