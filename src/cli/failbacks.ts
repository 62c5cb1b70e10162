/** What the commands about failbacks share: finding one, following it, and a failback as text. */
import { sleep } from '../base/clock.ts';
import { UnderstudyError } from '../base/errors.ts';
import { formatDuration, formatSize } from '../base/units.ts';
import type { ApiFailback, ApiFailbackPreview, ApiJob } from '../staging/api-types.ts';
import type { CommandContext } from './command.ts';
import { jobPath } from './job-log.ts';
import { throwIfFailed } from './jobs.ts';
import type { OptionSpec } from './option.ts';
import type { RestClient } from './rest-client.ts';
import { type Column, renderFields, renderTable } from './table.ts';

const POLL_MS = 300;

export const serverOption: OptionSpec = {
  name: 'server',
  type: 'text',
  value: 'NAME',
  describe: 'Source server',
  required: true,
};

export const failbackPath = (job: string): string => `/v1/failbacks/${encodeURIComponent(job)}`;

export const isOver = ({ phase }: ApiFailback): boolean =>
  phase === 'done' || phase === 'cancelled';

/** The failback of a server that is under way. ERR_FAILBACK_NOT_FOUND. */
export async function activeFailback(client: RestClient, server: string): Promise<ApiFailback> {
  const { failbacks } = await client.call<{ failbacks: ApiFailback[] }>('GET', '/v1/failbacks', {
    query: { server },
  });
  const found = failbacks.find((failback) => !isOver(failback));
  if (found !== undefined) return found;
  const message = `no failback of ${server} is under way`;
  throw new UnderstudyError('ERR_FAILBACK_NOT_FOUND', message);
}

/**
 * Polls until `isReached` holds or the failback is over; the error of its job where that failed. A signal
 * ends the waiting, not the failback.
 */
export async function followFailback(
  context: CommandContext,
  client: RestClient,
  job: string,
  isReached: (failback: ApiFailback) => boolean,
): Promise<ApiFailback> {
  const progress = context.progress('failback');
  let told = '';
  for (;;) {
    const failback = await client.call<ApiFailback>('GET', failbackPath(job));
    const { phase, message, syncedBytes, totalBytes } = failback;
    progress.update(syncedBytes, totalBytes, phase);
    const line = message === '' ? phase : `${phase}: ${message}`;
    if (line !== told) context.note(line);
    told = line;
    if (isReached(failback) || isOver(failback)) {
      progress.finish();
      return failback;
    }
    if (context.stop.aborted) {
      progress.finish();
      const message = `stopped by a signal; the failback goes on: understudy failback show ${job}`;
      throw new UnderstudyError('ERR_CLI_INTERRUPTED', message);
    }
    const its = await client.call<ApiJob>('GET', jobPath(job));
    // One that is cancelled gives the name back first: then the failback is over.
    if (its.outcome !== 'cancelled' || its.cleanError !== null) throwIfFailed(its, client.url);
    await sleep(context.clock, POLL_MS);
  }
}

export const acceptNewestOption: OptionSpec = {
  name: 'accept-newest',
  type: 'flag',
  describe:
    "Where the instance's agent is gone: its newest point is the last; what it wrote after is lost",
};

/** Asks, demands the last cut, and waits until the instance is shut out. */
export async function finishFailback(
  context: CommandContext,
  client: RestClient,
  { job, server }: Pick<ApiFailback, 'job' | 'server'>,
  { isSure, acceptNewest }: { isSure: boolean; acceptNewest: boolean },
): Promise<ApiFailback> {
  if (!isSure) {
    const what = `Stop the services of ${server} on the recovery instance now: what it writes after`;
    await context.confirm(`${what} the last cut does not come home. Are they stopped?`);
  }
  await client.call('POST', `${failbackPath(job)}/finish`, { body: { acceptNewest } });
  return followFailback(context, client, job, ({ phase }) => phase === 'fenced');
}

const short = (hardwareId: string): string => (hardwareId === '' ? '-' : hardwareId.slice(0, 12));

const columns: readonly Column<ApiFailback>[] = [
  { title: 'JOB', cell: ({ job }) => job },
  { title: 'SERVER', cell: ({ server }) => server },
  { title: 'PHASE', cell: ({ phase }) => phase },
  { title: 'LAG', cell: lagText, alignRight: true },
  { title: 'LAST POINT', cell: ({ lastPoint }) => lastPoint ?? '-', leftOut: 1 },
  { title: 'NEXT', cell: ({ message }) => message, isText: true },
];

function lagText({ lagMs }: ApiFailback): string {
  return lagMs === null ? '-' : formatDuration(lagMs);
}

export const renderFailbacks = (failbacks: readonly ApiFailback[], room: number | null): string =>
  renderTable(failbacks, columns, room);

/** What changes hands, for a question. */
export function renderPreview(preview: ApiFailbackPreview): string {
  const { server, original, connected, state, newestPoint, job, jobPhase, instance } = preview;
  const where = connected ? `connected (${state})` : 'not connected';
  const point =
    newestPoint === null ? 'it has no point' : `its newest point is of ${newestPoint.time}`;
  const whose = job === null ? '' : `, that of job ${job} (${jobPhase})`;
  const seen =
    preview.lastSeen === null
      ? 'which has not shown itself yet and is let in when it does'
      : `whose agent asked last at ${preview.lastSeen}`;
  const next = instance === null ? 'the recovery instance' : `machine ${short(instance)}`;
  const loses = `Machine ${short(original)} is ${server} now, ${where}, ${point}`;
  return `${loses}: it is refused from now on, and that point held. ${server} is ${next}${whose}, ${seen}.`;
}

export function renderFailback(failback: ApiFailback): string {
  const { job, server, phase, message, original, instance, fromPoint, lastPoint } = failback;
  return renderFields([
    ['failback', job],
    ['server', server],
    ['phase', phase],
    ['next', message === '' ? '-' : message],
    ['original', `${short(original)}, last point ${fromPoint ?? '-'} (held)`],
    ['instance', `${short(instance)}, ${failback.state}, lag ${lagText(failback)}`],
    ['last point', lastPoint === null ? '-' : `${lastPoint} (held)`],
    ...failback.written.map((written): [string, string] => [
      'written home',
      `${written.volume} at ${written.point}: ${written.different} of ${written.chunks} chunks differed, ` +
        `${formatSize(written.writtenBytes)} written`,
    ]),
  ]);
}
