/**
 * `understudy repo copy`: recovery points in a second repository, by the service or from the directory of
 * a repository. Made again it costs what is new.
 */
import { sleep } from '../../base/clock.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { formatDuration, formatSize } from '../../base/units.ts';
import { parseKeepRules } from '../../model/retention.ts';
import type { ApiCopies, ApiCopyJob, ApiCopyPlace } from '../../staging/api-types.ts';
import type { CopyOptions, CopyProgress, CopyReport } from '../../store/types.ts';
import type { CommandContext, CommandSpec } from '../command.ts';
import {
  bucketOptionsOf,
  destinationOf,
  type VerifyChoice,
  verifyChoices,
} from '../copy-options.ts';
import { keyOptions, keyOptionsOf, keysOf } from '../key-options.ts';
import { connect, jsonOption, operatorOptions } from '../operator.ts';
import type { OptionSpec } from '../option.ts';
import { placeOptions } from '../repository-options.ts';
import { errorFromService } from '../rest-client.ts';
import { connectRequired, isOffline } from '../service-or-repository.ts';
import type { Settings } from '../settings.ts';
import { renderTable } from '../table.ts';
import { assertServerIn, withRepository } from '../with-repository.ts';
import { findingLines } from './repo-findings.ts';

const POLL_MS = 300;
const EXIT_CORRUPTION = 4;

/** "newest:3" -> 3. ERR_USAGE. */
export function parseNewest(text: string): number | undefined {
  if (text === 'all') return undefined;
  const count = /^newest:(\d{1,9})$/.exec(text)?.[1];
  if (count !== undefined && Number(count) > 0) return Number(count);
  throw new UnderstudyError('ERR_USAGE', `--points: not "all" or "newest:3": "${text}"`);
}

const selectOptions: readonly OptionSpec[] = [
  {
    name: 'server',
    type: 'text',
    value: 'NAME',
    describe: 'Only points of this source server',
  },
  {
    name: 'since',
    type: 'time',
    value: 'TIME',
    describe: 'Only points that are not older: a date, or 7d for seven days ago',
  },
  {
    name: 'points',
    type: 'text',
    value: 'WHICH',
    describe: 'all, or newest:N of each server',
    default: 'all',
  },
  {
    name: 'verify',
    type: 'text',
    value: 'WHAT',
    describe:
      'Read back at the destination: none (default without a service), new (what this copy ' +
      'wrote) or all that is there',
    choices: verifyChoices,
  },
];

const offlineOptions: readonly OptionSpec[] = [
  {
    name: 'repo',
    type: 'text',
    value: 'PLACE',
    describe:
      'Source: data directory of staging, its "repo", or s3://BUCKET/PREFIX; also beside a service',
  },
  ...keyOptions,
  ...placeOptions,
  ...bucketOptionsOf('to-'),
  ...keyOptionsOf('to-', 'Of the destination, where it is another one: '),
  {
    name: 'keep',
    type: 'text',
    value: 'POLICY',
    describe: 'Retention at the destination, as of staging run --keep; without it all points stay',
  },
  { name: 'rate', type: 'rate', value: 'RATE', describe: 'At most so fast: 50MiB/s' },
  {
    name: 'anew',
    type: 'flag',
    describe: 'Begin again where a copy is known to have been and is gone',
  },
];

function isGiven(settings: Settings, { name, type }: OptionSpec): boolean {
  if (type === 'flag') return settings.flag(name);
  const value = type === 'rate' ? settings.optionalNumber(name) : settings.optionalText(name);
  return value !== undefined;
}

function copyOptions(context: CommandContext, settings: Settings): CopyOptions {
  const keep = settings.optionalText('keep');
  return {
    ...selectionOf(settings),
    keep: keep === undefined ? undefined : parseKeepRules(keep),
    bytesPerSecond: settings.optionalNumber('rate') ?? 0,
    anew: settings.flag('anew'),
    signal: context.stop,
  };
}

const selectionOf = (settings: Settings) => ({
  server: settings.optionalText('server'),
  sinceMs: settings.optionalNumber('since'),
  newest: parseNewest(settings.text('points')),
  verify: settings.optionalText('verify') as VerifyChoice | undefined,
});

/** Points are what there is a total of; the bytes stand behind. */
function follow(context: CommandContext) {
  const progress = context.progress('copy', 'objects');
  return {
    update({ points, ofPoints, bytesRead, bytesWritten }: CopyProgress) {
      const note = `points, ${formatSize(bytesRead)} read, ${formatSize(bytesWritten)} written`;
      progress.update(points, ofPoints, note);
    },
    finish: () => progress.finish(),
  };
}

async function copyOffline(
  context: CommandContext,
  settings: Settings,
  to: string,
): Promise<CopyReport> {
  const options = copyOptions(context, settings);
  const { copyDestination } = await import('../../store/copy/copy-place.ts');
  const world = { clock: context.clock, log: context.log };
  const bucket = destinationOf(settings, 'to-');
  const destination = await copyDestination(to, [settings.text('repo')], bucket, world);
  const own = await keysOf(settings);
  const keys = { ...own, ...(await keysOf(settings, 'to-')) };
  const shown = follow(context);
  try {
    return await withRepository(context, settings, async (repository) => {
      await assertServerIn(repository, options.server);
      const place = await destination.open();
      try {
        return await repository.copy(
          { ...place, ...keys },
          { ...options, onProgress: shown.update },
        );
      } finally {
        await place.close();
      }
    });
  } finally {
    shown.finish();
  }
}

async function copyByService(
  context: CommandContext,
  settings: Settings,
  to: string,
): Promise<CopyReport> {
  for (const option of offlineOptions) {
    if (!isGiven(settings, option)) continue;
    const message = `--${option.name} is for copies without a service; staging run has its own --copy-...`;
    throw new UnderstudyError('ERR_USAGE', message);
  }
  const client = await connectRequired(context, settings);
  const shown = follow(context);
  const body = { to, ...selectionOf(settings) };
  let job = await client.call<ApiCopyJob>('POST', '/v1/copies', { body });
  // Whoever stops the command leaves the copy to the service; `repo copies --stop` ends it.
  while (job.state === 'running') {
    context.stop.throwIfAborted();
    await sleep(context.clock, POLL_MS);
    job = await client.call<ApiCopyJob>('GET', `/v1/copies/${job.jobId}`);
    shown.update(job.progress);
  }
  shown.finish();
  if (job.state === 'stopped') {
    throw new UnderstudyError('ERR_COPY_STOPPED', `the copy to ${to} was stopped`);
  }
  if (job.report === null) throw errorFromService(job.error, client.url);
  return job.report;
}

export function renderCopy(report: CopyReport): string {
  const { points, held, unsealed, skipped, maps, pieces, bytesRead, bytesWritten } = report;
  const { dropped, freedBytes, verified, isNoted, tookMs } = report;
  const lines = skipped.map(({ point, reason, detail }) => `${reason}: ${point}: ${detail}`);
  lines.push(...findingLines(verified?.findings ?? []));
  if (dropped > 0) lines.push(`${dropped} points dropped there, ${formatSize(freedBytes)} freed`);
  if (verified !== null) {
    const { objects, bytesRead: read, findings } = verified;
    const verdict = findings.length === 0 ? 'all well' : `${findings.length} damaged`;
    lines.push(`read back: ${objects} objects, ${formatSize(read)}: ${verdict}`);
  }
  if (unsealed > 0) lines.push(`${unsealed} points are not sealed yet; the next copy takes them`);
  if (!isNoted)
    lines.push('the source could not be told: point list there does not show this copy');
  const moved = `${formatSize(bytesRead)} read, ${formatSize(bytesWritten)} written`;
  const what = `${points} points (${maps} maps, ${pieces} contents; ${moved})`;
  lines.push(`copied ${what} in ${formatDuration(tookMs)}; ${report.place} holds ${held}`);
  return lines.join('\n');
}

const isHurt = ({ skipped, verified }: CopyReport): boolean =>
  skipped.some(({ reason }) => reason === 'damaged') || (verified?.findings.length ?? 0) > 0;

export const copyCommand: CommandSpec = {
  path: ['repo', 'copy'],
  summary: 'Copy recovery points to a second repository; again: only what is new',
  options: [
    {
      name: 'to',
      type: 'text',
      value: 'PLACE',
      describe:
        'Destination, a directory or s3://BUCKET/PREFIX: new, or one that holds a copy of this source',
      required: true,
    },
    ...selectOptions,
    ...offlineOptions,
    ...operatorOptions.map((option) => ({ ...option, required: false })),
    jsonOption,
  ],
  examples: [
    {
      line: 'understudy repo copy --to /mnt/second',
      does: 'by the service, which was started with --copy-to /mnt/second',
    },
    {
      line: 'understudy repo copy --repo /srv/understudy --to /mnt/second --keep 1d=1y --rate 50MiB/s',
      does: 'without the service; one point a day stays there for a year',
    },
    {
      line: 'understudy repo copy --repo /srv/understudy --to s3://backups/second --to-s3-lock 30d',
      does: 'to a bucket in which nobody can remove it for 30 days',
    },
    {
      line: 'understudy repo copy --repo /mnt/second --to /mnt/third --points newest:1 --verify new',
      does: 'the copy of a copy: the newest point of each server, read back',
    },
  ],
  async run(context, settings) {
    const to = settings.text('to');
    const copy = isOffline(settings) ? copyOffline : copyByService;
    const report = await copy(context, settings, to);
    context.print(settings.flag('json') ? JSON.stringify(report, null, 2) : renderCopy(report));
    return isHurt(report) ? EXIT_CORRUPTION : 0;
  },
};

export function renderCopies(
  copies: readonly ApiCopyPlace[],
  nowMs: number,
  room: number | null = null,
): string {
  const ago = (ms: number | null): string =>
    ms === null ? '-' : `${formatDuration(Math.max(0, nowMs - ms))} ago`;
  const stateOf = ({ jobId, error, nextMs }: ApiCopyPlace): string => {
    if (jobId !== null) return 'copying';
    if (error !== null) return `failed: ${error.message} (${error.code})`;
    return nextMs === null
      ? 'when asked'
      : `next in ${formatDuration(Math.max(0, nextMs - nowMs))}`;
  };
  return renderTable(
    copies,
    [
      { title: 'PLACE', cell: ({ place }) => place },
      { title: 'POINTS', cell: ({ points }) => String(points), alignRight: true },
      { title: 'COPIED', cell: ({ copiedMs }) => ago(copiedMs) },
      { title: 'READ BACK', cell: ({ verifiedMs }) => ago(verifiedMs) },
      { title: 'STATE', cell: stateOf, isText: true },
    ],
    room,
  );
}

export const copiesCommand: CommandSpec = {
  path: ['repo', 'copies'],
  summary: 'Show where the service copies points to, and how far each place is',
  options: [
    ...operatorOptions,
    {
      name: 'stop',
      type: 'flag',
      describe: 'End the copy that is under way; what it copied stays',
    },
    jsonOption,
  ],
  examples: [
    {
      line: 'understudy repo copies',
      does: 'places, when they were copied, when the next copy begins',
    },
    { line: 'understudy repo copies --stop', does: 'ends the copy that is under way' },
  ],
  async run(context, settings) {
    const client = await connect(context, settings);
    const { copies } = await client.call<ApiCopies>('GET', '/v1/copies');
    if (settings.flag('stop')) {
      for (const { jobId, place } of copies) {
        if (jobId === null) continue;
        await client.call<ApiCopyJob>('POST', `/v1/copies/${jobId}/stop`);
        context.note(`the copy to ${place} ends`);
      }
    }
    if (settings.flag('json')) context.print(JSON.stringify(copies, null, 2));
    else if (copies.length === 0) context.note('staging was started without --copy-to');
    else context.print(renderCopies(copies, context.clock.wallMs(), context.columns));
    return 0;
  },
};
