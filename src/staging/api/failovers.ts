/**
 * Routes of failovers: points made to run for real, and what they keep. A failover is a job: its other
 * routes are those of jobs.
 */
import { UnderstudyError } from '../../base/errors.ts';
import type { ApiJob } from '../api-types.ts';
import type { ApiBackend } from './backend.ts';
import { launchRequest } from './jobs.ts';
import type { Call, Route } from './route.ts';

function isSure({ yes = false }: Call['body']): boolean {
  if (typeof yes === 'boolean') return yes;
  throw new UnderstudyError('ERR_API_REQUEST', 'yes: true or false');
}

async function start({ backend, body }: Call): Promise<ApiJob> {
  const isAgreed = isSure(body);
  const request = launchRequest(body);
  if (!isAgreed) {
    const { server } = await backend.store.point(request.point);
    await refuseWhereSourceRuns(backend, server);
  }
  return backend.jobs.start({ ...request, kind: 'failover', isBeside: isAgreed });
}

/** After a failback, say, the original runs again. */
async function startAgain({ backend, path, body }: Call): Promise<ApiJob> {
  const isAgreed = isSure(body);
  const { server, outcome } = backend.jobs.find(path.job!);
  if (!isAgreed && outcome !== null) await refuseWhereSourceRuns(backend, server);
  return backend.jobs.startAgain(path.job!, isAgreed);
}

/** ERR_FAILOVER_SOURCE where the server's agent is connected. Beside which jobs one may run, jobs know. */
async function refuseWhereSourceRuns(backend: ApiBackend, server: string): Promise<void> {
  const source = (await backend.servers()).find((each) => each.server === server);
  if (source?.connected !== true) return;
  const message = `${server} is replicating now: it runs, and would run twice`;
  throw new UnderstudyError('ERR_FAILOVER_SOURCE', message, { server });
}

export const failoverRoutes: readonly Route[] = [
  {
    method: 'POST',
    path: '/v1/failovers',
    summary: 'Launches a point for real: answers the job that does it.',
    requestSchema: 'FailoverRequest',
    responseSchema: 'Job',
    status: 202,
    handle: start,
  },
  {
    method: 'POST',
    path: '/v1/jobs/{job}/again',
    summary: 'Starts what a failover has kept, on the disks that it has written to.',
    requestSchema: 'AgainRequest',
    responseSchema: 'Job',
    status: 202,
    handle: startAgain,
  },
  {
    method: 'POST',
    path: '/v1/jobs/{job}/discard',
    summary: 'Throws away what a failover that is over has kept.',
    responseSchema: 'Job',
    status: 200,
    handle: ({ backend, path }) => backend.jobs.discard(path.job!),
  },
];
