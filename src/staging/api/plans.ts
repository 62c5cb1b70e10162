/** Routes of recovery plans: their files, the dry run, runs as jobs, and the retry of a step. */
import { UnderstudyError } from '../../base/errors.ts';
import type { ApiAppliedPlan, ApiJob, ApiPlanCheck, ApiPlans } from '../api-types.ts';
import { type PlanKind, planKinds } from '../plans/plan-file.ts';
import type { ApiBackend } from './backend.ts';
import { type Call, integerOf, type Route, timeOf } from './route.ts';

const refuse = (message: string): UnderstudyError =>
  new UnderstudyError('ERR_API_REQUEST', message);

async function check({ backend, path, query }: Call): Promise<ApiPlanCheck> {
  const kind = query.get('kind') ?? 'drill';
  if (!planKinds.includes(kind as PlanKind)) throw refuse('kind must be drill or failover');
  const atMs = timeOf(query.get('at'), 'at') ?? null;
  return backend.plans.runner.dryRun(path.plan!, kind as PlanKind, atMs);
}

/** ERR_FAILOVER_SOURCE where agents of the plan's servers are connected. */
async function refuseWhereSourcesRun(backend: ApiBackend, name: string): Promise<void> {
  const { servers } = await backend.plans.plans.find(name);
  const known = await backend.servers();
  const running = known.filter(({ server, connected }) => connected && servers.includes(server));
  if (running.length === 0) return;
  const names = running.map(({ server }) => server).join(', ');
  const message = `${names}: replicating now, so running, and would run twice`;
  throw new UnderstudyError('ERR_FAILOVER_SOURCE', message);
}

const start =
  (kind: PlanKind) =>
  async ({ backend, path, body }: Call): Promise<ApiJob> => {
    const { at = null, yes = false } = body;
    if (typeof yes !== 'boolean') throw refuse('yes must be true or false');
    if (kind === 'failover' && !yes) await refuseWhereSourcesRun(backend, path.plan!);
    if (at !== null && typeof at !== 'string') throw refuse('at must be a time or null');
    const atMs = timeOf(at, 'at');
    const options = { plan: path.plan!, kind, ...(atMs !== undefined && { at }) };
    return backend.jobs.startWork({ kind: 'plan', server: '', options });
  };

function stepOf({ step }: Call['body']): number {
  if (typeof step !== 'number') throw refuse('needs {step}: a number');
  return integerOf(String(step), 'step', 0, MAX_STEP);
}

async function retry({ backend, path, body }: Call): Promise<ApiJob> {
  const { point = null } = body;
  if (point !== null && typeof point !== 'string') {
    throw refuse('point must be a point, "latest" or null');
  }
  return backend.plans.runner.retry(path.job!, stepOf(body), point);
}

const MAX_STEP = 1e6;
const atSchema = { type: 'string', format: 'date-time' };

export const planRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/v1/plans',
    summary: 'All recovery plans, by name.',
    responseSchema: 'Plans',
    status: 200,
    handle: async ({ backend }): Promise<ApiPlans> => ({ plans: await backend.plans.plans.list() }),
  },
  {
    method: 'POST',
    path: '/v1/plans',
    summary: 'Keeps a plan, in the place of one of the same name.',
    requestSchema: 'PlanFile',
    responseSchema: 'AppliedPlan',
    status: 200,
    handle: ({ backend, body }): Promise<ApiAppliedPlan> => backend.plans.runner.apply(body),
  },
  {
    method: 'GET',
    path: '/v1/plans/{plan}',
    summary: 'One plan, as it was applied.',
    responseSchema: 'Plan',
    status: 200,
    handle: ({ backend, path }) => backend.plans.plans.find(path.plan!),
  },
  {
    method: 'DELETE',
    path: '/v1/plans/{plan}',
    summary: 'Forgets a plan; its jobs stay.',
    responseSchema: 'PlanRemoved',
    status: 200,
    async handle({ backend, path }) {
      await backend.plans.plans.remove(path.plan!);
      return { removed: path.plan! };
    },
  },
  {
    method: 'GET',
    path: '/v1/plans/{plan}/check',
    summary: 'What a run would begin with, and what is in its way; makes nothing.',
    query: [
      {
        name: 'kind',
        description: 'What would be run',
        schema: { type: 'string', enum: [...planKinds], default: 'drill' },
      },
      { name: 'at', description: 'All servers as they were then', schema: atSchema },
    ],
    responseSchema: 'PlanCheck',
    status: 200,
    handle: check,
  },
  ...planKinds.map(
    (kind): Route => ({
      method: 'POST',
      path: `/v1/plans/{plan}/${kind}`,
      summary: `Runs a plan as a ${kind}: answers the job that does it.`,
      requestSchema: 'PlanRequest',
      responseSchema: 'Job',
      status: 202,
      handle: start(kind),
    }),
  ),
  {
    method: 'POST',
    path: '/v1/jobs/{job}/retry',
    summary: 'Runs a failed step of a plan again, and goes on.',
    requestSchema: 'PlanRetry',
    responseSchema: 'Job',
    status: 200,
    handle: retry,
  },
  {
    method: 'POST',
    path: '/v1/jobs/{job}/accept',
    summary: 'Takes a failed step of a plan as done, and goes on.',
    requestSchema: 'PlanAccept',
    responseSchema: 'Job',
    status: 200,
    handle: async ({ backend, path, body }) => backend.plans.runner.accept(path.job!, stepOf(body)),
  },
];
