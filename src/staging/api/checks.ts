/**
 * Checks of the repository as jobs: started, polled, one at a time. Their reports are kept in memory, the
 * last few of them; they are gone when the service restarts.
 */
import { randomUUID } from 'node:crypto';
import { UnderstudyError } from '../../base/errors.ts';
import { parseSubset, type Subset } from '../../model/check-subset.ts';
import { errorBody } from '../api-errors.ts';
import type { ApiCheckJob } from '../api-types.ts';
import type { ApiBackend } from './backend.ts';
import type { Route } from './route.ts';

const KEPT_JOBS = 16;

export class CheckJobs {
  private readonly jobs = new Map<string, ApiCheckJob>();

  start(backend: ApiBackend, { readData, subset }: CheckRequest): ApiCheckJob {
    if ([...this.jobs.values()].some((job) => job.state === 'running')) {
      throw new UnderstudyError('ERR_JOB_RUNNING', 'a check is running already');
    }
    const job: ApiCheckJob = {
      jobId: randomUUID(),
      state: 'running',
      done: 0,
      total: 0,
      report: null,
      error: null,
    };
    this.jobs.set(job.jobId, job);
    const oldest = this.jobs.keys().next().value;
    if (this.jobs.size > KEPT_JOBS && oldest !== undefined) this.jobs.delete(oldest);
    void this.run(backend, job, { readData, ...(subset && { subset }) });
    return job;
  }

  find(jobId: string): ApiCheckJob {
    const job = this.jobs.get(jobId);
    if (job === undefined) throw new UnderstudyError('ERR_JOB_NOT_FOUND', `no check "${jobId}"`);
    return job;
  }

  private async run(backend: ApiBackend, job: ApiCheckJob, request: CheckRequest): Promise<void> {
    try {
      job.report = await backend.store.check({
        ...request,
        onProgress: (done, total) => {
          job.done = done;
          job.total = total;
        },
      });
      await backend.scrub.noted(job.report);
      job.state = 'done';
    } catch (error) {
      job.error = errorBody(error).error;
      job.state = 'failed';
    }
  }
}

interface CheckRequest {
  readonly readData: boolean;
  readonly subset?: Subset;
}

/** `readDataSubset` is a part of the data, as on the command line: it says `readData` too. */
function requestOf({ readData, readDataSubset }: Record<string, unknown>): CheckRequest {
  if (readDataSubset === undefined) return { readData: readData === true };
  if (typeof readDataSubset !== 'string') {
    throw new UnderstudyError('ERR_API_REQUEST', 'readDataSubset is a text: N/M, P% or a size');
  }
  return { readData: true, subset: parseSubset(readDataSubset) };
}

export function checkRoutes(jobs: CheckJobs): readonly Route[] {
  return [
    {
      method: 'POST',
      path: '/v1/check',
      summary: 'Begins a check of the repository.',
      requestSchema: 'CheckRequest',
      responseSchema: 'CheckJob',
      status: 202,
      handle: async ({ backend, body }) => jobs.start(backend, requestOf(body)),
    },
    {
      method: 'GET',
      path: '/v1/checks/{job}',
      summary: 'How a check is getting on, and its report.',
      responseSchema: 'CheckJob',
      status: 200,
      handle: async ({ path }) => jobs.find(path.job!),
    },
    {
      method: 'GET',
      path: '/v1/scrub',
      summary: 'How far the repository was read by itself, and what was found last.',
      responseSchema: 'Scrub',
      status: 200,
      handle: async ({ backend }) => backend.scrub.status,
    },
  ];
}
