/** Routes of retention: the plan, a run at once, policies of servers, holds, and trust in the clock. */
import { UnderstudyError } from '../../base/errors.ts';
import { formatKeepRules } from '../../model/keep-rules.ts';
import type { PlannedPoint } from '../../model/retention.ts';
import type { PolicyWish } from '../../store/types.ts';
import type {
  ApiKeepPolicy,
  ApiPlannedPoint,
  ApiReleased,
  ApiRetentionPlan,
  ApiRetentionRun,
  ApiRetentionState,
} from '../api-types.ts';
import type { ApiBackend } from './backend.ts';
import { assertServer } from './known-server.ts';
import type { Call, Route } from './route.ts';

async function plan({ backend, query }: Call): Promise<ApiRetentionPlan> {
  const server = query.get('server');
  const made = await backend.store.planRetention(
    backend.keep,
    backend.clock.wallMs(),
    wishOf(server, query.get('keep')),
  );
  const points = made.points.filter((point) => server === null || point.server === server);
  const drop = points.filter(({ keptBy }) => keptBy.length === 0).map(({ id }) => id);
  const isFreedWanted = query.get('freed') === 'true';
  return {
    keep: points.filter(({ keptBy }) => keptBy.length > 0).map(({ id }) => id),
    drop,
    points: points.map(shown),
    freed: isFreedWanted ? await backend.store.estimateFreed(drop) : null,
    state: stateOf(backend),
  };
}

function wishOf(server: string | null, keep: string | null): PolicyWish | undefined {
  if (keep === null) return undefined;
  if (server === null) throw new UnderstudyError('ERR_API_REQUEST', 'keep needs a server');
  return { server, keep: keep === 'default' ? null : keep };
}

const shown = ({ id, server, timeMs, keptBy }: PlannedPoint): ApiPlannedPoint => {
  return { point: id, server, time: new Date(timeMs).toISOString(), keptBy };
};

export function stateOf({ retention, keep }: ApiBackend): ApiRetentionState {
  const { doubt } = retention;
  return { isWaiting: doubt !== null, reason: doubt ?? '', keep: formatKeepRules(keep) };
}

async function run({ backend }: Call): Promise<ApiRetentionRun> {
  const dropped = await backend.retention.run();
  return { dropped: dropped.map(({ id }) => id) };
}

async function resume({ backend }: Call): Promise<ApiRetentionState> {
  await backend.retention.resume();
  return stateOf(backend);
}

async function policyOf(backend: ApiBackend, server: string): Promise<ApiKeepPolicy> {
  await assertServer(backend, server);
  const own = backend.store.policies().find((policy) => policy.server === server);
  return {
    server,
    keep: own?.keep ?? formatKeepRules(backend.keep),
    isDefault: own === undefined || (own.keep === null && !own.isDamaged),
    isDamaged: own?.isDamaged ?? false,
  };
}

async function setPolicy({ backend, path, body }: Call): Promise<ApiKeepPolicy> {
  const { keep } = body;
  if (keep !== null && typeof keep !== 'string') {
    throw new UnderstudyError('ERR_API_REQUEST', 'needs {keep}: rules, or null for the default');
  }
  await backend.store.setPolicy(path.server!, keep);
  return policyOf(backend, path.server!);
}

async function hold({ backend, path, body }: Call): Promise<unknown> {
  if (typeof body.reason !== 'string') {
    throw new UnderstudyError('ERR_API_REQUEST', 'needs {reason}');
  }
  const point = await backend.store.holdPoint(path.point!, body.reason);
  backend.log.warn('a point is held', { point: point.id, reason: body.reason });
  return point;
}

async function release({ backend, path }: Call): Promise<ApiReleased> {
  await backend.store.releasePoint(path.point!);
  backend.log.warn('a hold was released', { point: path.point! });
  return { released: path.point! };
}

const text = { type: 'string' };

export const retentionRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/v1/retention',
    summary: 'What retention would keep now, and by which rule, and drop; changes nothing.',
    query: [
      { name: 'server', description: 'Only points of this server', schema: text },
      {
        name: 'keep',
        description: 'As if the server had these rules; "default": none of its own',
        schema: text,
      },
      {
        name: 'freed',
        description: 'Estimate what the drop would free: reads all maps of the repository',
        schema: { type: 'boolean', default: false },
      },
    ],
    responseSchema: 'RetentionPlan',
    status: 200,
    handle: plan,
  },
  {
    method: 'POST',
    path: '/v1/retention/run',
    summary: 'Drops what the rules drop, now.',
    responseSchema: 'RetentionRun',
    status: 200,
    handle: run,
  },
  {
    method: 'POST',
    path: '/v1/retention/resume',
    summary: 'The clock is right: points are dropped by their age again.',
    responseSchema: 'RetentionState',
    status: 200,
    handle: resume,
  },
  {
    method: 'GET',
    path: '/v1/servers/{server}/keep',
    summary: 'The policy by which points of a server are kept.',
    responseSchema: 'KeepPolicy',
    status: 200,
    handle: ({ backend, path }) => policyOf(backend, path.server!),
  },
  {
    method: 'POST',
    path: '/v1/servers/{server}/keep',
    summary: 'Gives a server a policy of its own, or (null) the default.',
    requestSchema: 'KeepPolicyRequest',
    responseSchema: 'KeepPolicy',
    status: 200,
    handle: setPolicy,
  },
  {
    method: 'POST',
    path: '/v1/points/{point}/hold',
    summary: 'Holds a point: it stays, whatever the rules say, until it is released.',
    requestSchema: 'HoldRequest',
    responseSchema: 'Point',
    status: 200,
    handle: hold,
  },
  {
    method: 'POST',
    path: '/v1/points/{point}/release',
    summary: 'Ends the hold of a point.',
    responseSchema: 'Released',
    status: 200,
    handle: release,
  },
];
