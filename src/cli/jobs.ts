/** What the commands about jobs share: options, following a job to a state, and a job as text. */
import { sleep } from '../base/clock.ts';
import { UnderstudyError } from '../base/errors.ts';
import { formatDuration } from '../base/units.ts';
import { damageText } from '../recovery/damage.ts';
import type { ApiJob } from '../staging/api-types.ts';
import type { CommandContext } from './command.ts';
import { jobPath, plainLog, readJobLog } from './job-log.ts';
import { jobProgress } from './job-progress.ts';
import type { OptionSpec, PositionalSpec } from './option.ts';
import { renderSteps } from './plans.ts';
import { errorFromService, type RestClient } from './rest-client.ts';
import { type Column, renderFields, renderTable } from './table.ts';

const POLL_MS = 300;

export const jobPositional: PositionalSpec = { name: 'job', describe: 'Id of the job' };
export const waitOption: OptionSpec = {
  name: 'wait',
  type: 'flag',
  describe: 'Return when it is up, or has ended where it ends by itself; a failed one is an error',
};

const isOver = (job: ApiJob): boolean => job.state === 'cleaned' || job.cleanError !== null;
/** Up, and nothing more is awaited of it. */
export const isUp = (job: ApiJob): boolean => job.state === 'running' && job.phase === 'up';

const isHalted = ({ state, kind, phase }: ApiJob): boolean =>
  kind === 'plan' && state === 'running' && phase.startsWith('halted');
/** Up, or (of a plan) halted until somebody does something. */
export const isSettled = (job: ApiJob): boolean => isUp(job) || isHalted(job);

/** ERR_JOB_STATE where the job is of another kind: its own commands know what may be done to it. */
export async function ofKind(
  client: RestClient,
  id: string,
  kind: ApiJob['kind'],
): Promise<ApiJob> {
  const job = await client.call<ApiJob>('GET', jobPath(id));
  if (job.kind === kind) return job;
  throw new UnderstudyError('ERR_JOB_STATE', `job ${id} is no ${kind} but a ${job.kind}`);
}

/** Polls until `isReached` holds or the job is over. A signal ends the waiting (ERR_CLI_INTERRUPTED), not the job. */
export async function follow(
  context: CommandContext,
  client: RestClient,
  first: ApiJob,
  isReached: (job: ApiJob) => boolean,
): Promise<ApiJob> {
  const progress = jobProgress(context, client, first);
  let job = first;
  try {
    while (!isReached(job) && !isOver(job)) {
      await sleep(context.clock, POLL_MS);
      if (context.stop.aborted) throw stoppedWaiting(job);
      job = await client.call<ApiJob>('GET', jobPath(job.id));
      await progress.tell(job);
    }
  } catch (error) {
    throw context.stop.aborted ? stoppedWaiting(job, error) : error;
  } finally {
    progress.finish();
  }
  return job;
}

/** Not how the job went: nobody knows that yet. */
function stoppedWaiting(job: ApiJob, cause?: unknown): UnderstudyError {
  if (cause instanceof UnderstudyError && cause.code === 'ERR_CLI_INTERRUPTED') return cause;
  const message = `stopped by a signal; the job goes on: understudy job wait ${job.id}`;
  return new UnderstudyError('ERR_CLI_INTERRUPTED', message);
}

/** The error of a job that failed or was cancelled, as its own command would throw it. */
export function throwIfFailed(job: ApiJob, url: string): void {
  if (job.outcome === 'failed') throw errorFromService(job.error ?? undefined, url);
  if (job.outcome === 'cancelled') {
    throw new UnderstudyError('ERR_JOB_CANCELLED', `job ${job.id} was cancelled`);
  }
  if (isHalted(job)) throw new UnderstudyError('ERR_PLAN_HALTED', `job ${job.id} is ${job.phase}`);
  // A failover goes on all the same; a drill has failed by it.
  if (job.kind === 'failover' && job.check?.passed === false) {
    throw new UnderstudyError('ERR_BOOT_CHECK', `the boot check failed: ${job.check.detail}`);
  }
}

/** What its log warns of: a machine may be up, and not be what one takes it for. */
export async function noteWarnings(
  context: CommandContext,
  client: RestClient,
  { id }: ApiJob,
): Promise<void> {
  const text = await readJobLog(client, id, { of: 'job' });
  const warnings = [...plainLog(text).matchAll(/^\S+ (?:\S+: )?WARNING (.+)$/gm)].map(
    ([, said]) => said!,
  );
  for (const said of new Set(warnings)) context.note(`warning: ${said}`);
}

function noteHurt(context: CommandContext, jobs: readonly ApiJob[]): void {
  const hurt = jobs.filter((job) => isHurt(job) && job.outcome === null);
  if (hurt.length === 0) return;
  const names = hurt.map(({ id }) => id).join(', ');
  context.note(`warning: the points of these are damaged (job show tells where): ${names}`);
}

/** Prints the job; then an error where it did not end well. */
export function reportJob(
  context: CommandContext,
  job: ApiJob,
  { isJson, url }: { isJson: boolean; url: string },
): void {
  context.print(isJson ? JSON.stringify(job, null, 2) : renderJob(job, context.columns));
  throwIfFailed(job, url);
}

/** What is left in a cloud costs money as long as it is there. */
function uncleanedText({ cleanError, cleanTries, cleanAgainAt, target }: ApiJob): string {
  const costs = target === 'ec2' ? ', and may cost money' : '';
  const again = cleanAgainAt === null ? '' : `; try ${cleanTries + 1} at ${cleanAgainAt}`;
  return `not cleaned up${costs}: ${cleanError}${again}`;
}

/** Of jobs that are over and have left something. */
function noteUncleaned(context: CommandContext, jobs: readonly ApiJob[]): void {
  const left = jobs.filter(({ cleanError }) => cleanError !== null);
  if (left.length === 0) return;
  const names = left.map(({ id }) => id).join(', ');
  context.note(`warning: what these have made is still there, and is tried again: ${names}`);
}

/** Staging of a former version does not tell. */
const isHurt = ({ damage = [] }: Partial<ApiJob>): boolean => damage.length > 0;

const stateText = (job: ApiJob): string => {
  const state = job.outcome ?? job.state;
  const known = job.cleanError === null ? job.phase : uncleanedText(job);
  const hurt = isHurt(job) ? 'POINT DAMAGED' : '';
  const unwritten = job.unwritten == null ? '' : `NOT WRITTEN DOWN: ${job.unwritten}`;
  const detail = [known, hurt, unwritten].filter((text) => text !== '').join('; ');
  return detail === '' || detail === state ? state : `${state} (${detail})`;
};

function checkText({ check }: ApiJob): string {
  if (check === null) return '-';
  return `${check.passed ? 'passed' : 'failed'} in ${formatDuration(check.bootMs)}`;
}

/** Prints a job that was asked to end. ERR_JOB_STATE where what it has made is still there. */
export function reportEnded(context: CommandContext, job: ApiJob, isJson: boolean): void {
  context.print(isJson ? JSON.stringify(job, null, 2) : renderJob(job, context.columns));
  if (job.cleanError === null) return;
  const message = `job ${job.id} cannot be cleaned up: ${job.cleanError}; it is tried again by itself`;
  throw new UnderstudyError('ERR_JOB_STATE', message);
}

const orDash = (text: string): string => (text === '' ? '-' : text);

export const jobColumns: readonly Column<ApiJob>[] = [
  { title: 'JOB', cell: (job) => job.id },
  { title: 'KIND', cell: ({ kind }) => kind },
  { title: 'SERVER', cell: ({ server }) => orDash(server) },
  { title: 'POINT', cell: ({ point }) => orDash(point), leftOut: 2 },
  { title: 'TARGET', cell: ({ target }) => orDash(target), leftOut: 1 },
  { title: 'STATE', cell: stateText, isText: true },
  { title: 'CHECK', cell: checkText, isText: true },
];

function subjectFields(job: ApiJob): [string, string][] {
  const { server, point, pointTime, target, kind, options } = job;
  if (kind === 'plan') return [['plan', `${options.plan}, as a ${options.kind}`]];
  if (point === '') return server === '' ? [] : [['server', server]];
  return [
    ['point', `${point} of ${server}, ${pointTime}`],
    ['target', target],
  ];
}

function keptText(job: ApiJob): string {
  if (job.isDiscarded) return 'nothing: it was discarded';
  if (!job.keeps) return 'nothing yet: it has not come up';
  const disks = 'its disks, until failover discard';
  if (job.standsAlone) return `${disks}; stands alone`;
  const { progress } = job;
  const share = progress === null ? 0 : Math.floor((progress.done / progress.total) * 100);
  const copied = job.outcome === null && progress !== null ? `, ${share} % copied` : '';
  return `${disks}; needs the recovery point, which is held${copied}`;
}

export function renderJob(job: ApiJob, room: number | null = null): string {
  const fields: [string, string][] = [
    ['job', job.id],
    ['kind', job.kind],
    ...subjectFields(job),
    ['state', stateText(job)],
  ];
  if (job.check !== null) {
    const { probe, detail } = job.check;
    fields.push(['boot check', `${checkText(job)}, by ${probe}: ${detail}`]);
  }
  if (job.kind === 'failover') fields.push(['keeps', keptText(job)]);
  // Of a machine that is gone the ways to it are gone, too; files stay.
  if (job.access !== null && (job.outcome === null || job.target === 'export')) {
    for (const [name, value] of Object.entries(job.access)) fields.push([name, value]);
  }
  if (isHurt(job)) fields.push(['WARNING', damageText(job.point, job.damage)]);
  if (job.error !== null) fields.push(['error', `${job.error.message} (${job.error.code})`]);
  fields.push(['created', job.createdAt], ['ended', job.endedAt ?? '-'], ['folder', job.folder]);
  const steps = job.steps == null ? '' : `\n\n${renderSteps(job.steps, room)}`;
  return `${renderFields(fields)}${steps}`;
}

export function printJobs(context: CommandContext, jobs: readonly ApiJob[], isJson: boolean): void {
  if (isJson) context.print(JSON.stringify(jobs, null, 2));
  else if (jobs.length === 0) context.note('no jobs');
  else context.print(renderTable(jobs, jobColumns, context.columns));
  if (isJson) return;
  noteUncleaned(context, jobs);
  noteHurt(context, jobs);
}
