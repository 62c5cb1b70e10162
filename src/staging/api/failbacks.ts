/** Routes of failbacks: jobs of that kind, with the steps that an operator and `failback run` take. */
import { UnderstudyError } from '../../base/errors.ts';
import type { ApiFailback, ApiFailbackPreview, ApiJob } from '../api-types.ts';
import type { WrittenReport } from '../failbacks.ts';
import type { Call, Route } from './route.ts';

function wanted({ body }: Call): { server: string; options: Record<string, unknown> } {
  const { server, ...options } = body;
  if (typeof server === 'string' && server !== '') return { server, options };
  throw new UnderstudyError('ERR_API_REQUEST', 'needs {server} and job or hardwareId');
}

const start = async (call: Call): Promise<ApiJob> =>
  call.backend.jobs.startWork({ kind: 'failback', ...wanted(call) });

async function preview(call: Call): Promise<ApiFailbackPreview> {
  const { server, options } = wanted(call);
  const { failbacks, jobs } = call.backend;
  return failbacks.preview(server, options, jobs);
}

async function finish({ backend, path, body }: Call): Promise<ApiFailback> {
  const { acceptNewest = false } = body;
  if (typeof acceptNewest !== 'boolean') {
    throw new UnderstudyError('ERR_API_REQUEST', 'acceptNewest is true or false');
  }
  return backend.failbacks.finish(path.job!, acceptNewest);
}

const isCount = (value: unknown): value is number =>
  Number.isSafeInteger(value) && (value as number) >= 0;

async function written({ backend, path, body }: Call): Promise<ApiFailback> {
  const { volume, point, chunks, different, writtenBytes, words = [] } = body;
  const areTexts = [volume, point].every((each) => typeof each === 'string');
  const areCounts = [chunks, different, writtenBytes].every(isCount);
  const areWords =
    Array.isArray(words) &&
    words.length <= 4 &&
    words.every((each) => /^[\w.:-]{1,64}$/.test(each));
  if (!areTexts || !areCounts || !areWords) {
    const needs = 'needs {volume, point, chunks, different, writtenBytes, words}';
    throw new UnderstudyError('ERR_API_REQUEST', needs);
  }
  const report = { volume, point, chunks, different, writtenBytes, words } as WrittenReport;
  return backend.failbacks.written(path.job!, report);
}

const step = (
  word: string,
  summary: string,
  handle: (call: Call) => Promise<unknown>,
  schemas: Pick<Route, 'requestSchema' | 'responseSchema'>,
): Route => ({
  ...{ method: 'POST', path: `/v1/failbacks/{job}${word}`, summary, status: 200, handle },
  ...schemas,
});

export const failbackRoutes: readonly Route[] = [
  {
    ...{ method: 'POST', path: '/v1/failbacks', status: 202, handle: start },
    summary:
      'Makes a recovery instance the server, so that it can be brought home: answers the job.',
    ...{ requestSchema: 'FailbackRequest', responseSchema: 'Job' },
  },
  {
    ...{ method: 'POST', path: '/v1/failbacks/preview', status: 200, handle: preview },
    summary:
      'Which machine would lose the name to which; what a failback would refuse is refused. Changes nothing.',
    ...{ requestSchema: 'FailbackRequest', responseSchema: 'FailbackPreview' },
  },
  {
    ...{ method: 'GET', path: '/v1/failbacks', status: 200, responseSchema: 'Failbacks' },
    summary: 'The newest failback of each server, also those that are over.',
    query: [{ name: 'server', description: 'Only of this server', schema: { type: 'string' } }],
    handle: async ({ backend, query }) => {
      const server = query.get('server');
      const all = backend.failbacks.list();
      return { failbacks: all.filter((each) => server === null || each.server === server) };
    },
  },
  {
    ...{ method: 'GET', path: '/v1/failbacks/{job}', status: 200, responseSchema: 'Failback' },
    summary: 'One failback, and where its instance stands.',
    handle: async ({ backend, path }) => backend.failbacks.find(path.job!),
  },
  step(
    '/finish',
    "The instance's services are stopped: demands a last cut, then shuts the instance out.",
    finish,
    { requestSchema: 'FailbackFinish', responseSchema: 'Failback' },
  ),
  step(
    '/written',
    'A volume was written on the original machine, and read back; after the last one the failback is done.',
    written,
    { requestSchema: 'WrittenHome', responseSchema: 'Failback' },
  ),
  step(
    '/cancel',
    'Gives the name back to the machine before; points of both stay.',
    async ({ backend, path }) => {
      backend.failbacks.find(path.job!);
      return backend.jobs.cancel(path.job!);
    },
    { responseSchema: 'Job' },
  ),
];
