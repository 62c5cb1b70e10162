/** Routes of jobs: launches of recovery points, their states, logs and evidence. */
import { UnderstudyError } from '../../base/errors.ts';
import { jobKinds } from '../../recovery/runner.ts';
import type { ApiJob } from '../api-types.ts';
import type { LaunchRequest } from '../jobs/jobs.ts';
import { type Call, integerOf, type Route } from './route.ts';

const DEFAULT_LIMIT = 100;
const MAX_LIMIT = 1000;
const MAX_LOG_BYTES = 2 ** 20;

/** The body of a request for a drill or a failover. ERR_API_REQUEST. */
export function launchRequest(body: Call['body']): LaunchRequest {
  const { point, target = 'qemu', options = {} } = body;
  const isObject = typeof options === 'object' && options !== null && !Array.isArray(options);
  if (typeof point !== 'string' || typeof target !== 'string' || !isObject) {
    throw new UnderstudyError('ERR_API_REQUEST', 'needs {point, target, options}');
  }
  return { point, target, options: options as Record<string, unknown> };
}

async function stop({ backend, path, body }: Call): Promise<ApiJob> {
  const { timeoutMs } = body;
  if (timeoutMs === undefined) return backend.jobs.stop(path.job!);
  if (!Number.isSafeInteger(timeoutMs) || (timeoutMs as number) < 0) {
    throw new UnderstudyError('ERR_API_REQUEST', 'timeoutMs must be a number of milliseconds');
  }
  return backend.jobs.stop(path.job!, timeoutMs as number);
}

async function list({ backend, query }: Call): Promise<{ jobs: ApiJob[] }> {
  const limit = integerOf(query.get('limit'), 'limit', DEFAULT_LIMIT, MAX_LIMIT);
  const server = query.get('server');
  const kind = query.get('kind');
  const isActive = query.get('active') === 'true';
  const jobs = backend.jobs
    .list()
    .filter((job) => server === null || job.server === server)
    .filter((job) => kind === null || job.kind === kind)
    .filter((job) => !isActive || job.state !== 'cleaned');
  return { jobs: jobs.slice(0, limit) };
}

async function readLog({ backend, path, query }: Call): Promise<{ text: string }> {
  const of = query.get('of') ?? 'job';
  const tail = integerOf(query.get('tail'), 'tail', MAX_LOG_BYTES, MAX_LOG_BYTES);
  if (of === 'job') {
    const text = await backend.jobs.log(path.job!);
    return { text: query.has('tail') ? text.slice(-tail) : text };
  }
  const bytes = await backend.jobs.evidence(path.job!, `${of}.log`, Math.max(1, tail));
  return { text: Buffer.from(bytes).toString('latin1') };
}

async function sendEvidence({ backend, path, request, response }: Call): Promise<undefined> {
  const bytes = await backend.jobs.evidence(path.job!, path.name!);
  response.writeHead(200, {
    'content-type': 'application/octet-stream',
    'content-length': bytes.length,
  });
  response.end(request.method === 'HEAD' ? undefined : bytes);
  return undefined;
}

const jobRoute = (
  method: Route['method'],
  path: string,
  summary: string,
  handle: (call: Call) => Promise<ApiJob>,
): Route => ({ method, path, summary, responseSchema: 'Job', status: 200, handle });

export const jobRoutes: readonly Route[] = [
  {
    method: 'POST',
    path: '/v1/drills',
    summary: 'Launches a point as a drill: answers the job that does it.',
    requestSchema: 'DrillRequest',
    responseSchema: 'Job',
    status: 202,
    handle: ({ backend, body }) => backend.jobs.start(launchRequest(body)),
  },
  {
    method: 'GET',
    path: '/v1/jobs',
    summary: 'Jobs, newest first.',
    query: [
      { name: 'server', description: 'Only jobs of this server', schema: { type: 'string' } },
      {
        name: 'kind',
        description: 'Only jobs of this kind',
        schema: { type: 'string', enum: [...jobKinds] },
      },
      {
        name: 'active',
        description: 'Only jobs that are not over and cleaned up',
        schema: { type: 'boolean', default: false },
      },
      {
        name: 'limit',
        description: 'At most so many',
        schema: { type: 'integer', minimum: 0, maximum: MAX_LIMIT, default: DEFAULT_LIMIT },
      },
    ],
    responseSchema: 'Jobs',
    status: 200,
    handle: list,
  },
  jobRoute('GET', '/v1/jobs/{job}', 'One job.', async ({ backend, path }) =>
    backend.jobs.find(path.job!),
  ),
  {
    method: 'POST',
    path: '/v1/jobs/{job}/stop',
    summary: 'Ends what the job runs: a drill leaves nothing, a failover is shut down and kept.',
    requestSchema: 'StopRequest',
    responseSchema: 'Job',
    status: 200,
    handle: stop,
  },
  jobRoute(
    'POST',
    '/v1/jobs/{job}/cancel',
    'Gives the job up, and takes away what it made; refused of a failover that has come up.',
    ({ backend, path }) => backend.jobs.cancel(path.job!),
  ),
  {
    method: 'GET',
    path: '/v1/jobs/{job}/log',
    summary: 'The log of a job, or the end of what one of its programs said.',
    query: [
      {
        name: 'of',
        description:
          'job; console (of the guest), probe (what a command over the serial line said), qemu, disk0, ...',
        schema: { type: 'string', default: 'job' },
      },
      {
        name: 'tail',
        description: 'So many bytes at its end',
        schema: { type: 'integer', minimum: 1, maximum: MAX_LOG_BYTES },
      },
    ],
    responseSchema: 'JobLog',
    status: 200,
    handle: readLog,
  },
  {
    method: 'GET',
    path: '/v1/jobs/{job}/evidence/{name}',
    summary:
      'A file that a launch has left: console.log, probe.log, screenshot.png, qemu.log, prepare.json.',
    responseSchema: null,
    status: 200,
    handle: sendEvidence,
  },
  jobRoute(
    'DELETE',
    '/v1/jobs/{job}',
    'Forgets a job that is over, with its log and evidence; exported files stay.',
    ({ backend, path }) => backend.jobs.remove(path.job!),
  ),
  {
    method: 'GET',
    path: '/v1/points/{point}/boot-check',
    summary: 'The newest verdict of a boot check on a point.',
    responseSchema: 'PointBootCheck',
    status: 200,
    async handle({ backend, path }) {
      await backend.store.point(path.point!);
      return { check: await backend.jobs.bootCheck(path.point!) };
    },
  },
];
