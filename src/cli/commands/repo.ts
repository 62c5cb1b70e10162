/**
 * `understudy repo ...`: the repository's health and figures, through the service or from its directory
 * or bucket alone; and restoring from there, which needs neither service nor catalog (P7).
 */
import { resolve } from 'node:path';
import { sleep } from '../../base/clock.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { formatSize } from '../../base/units.ts';
import { parseSubset } from '../../model/check-subset.ts';
import { imageSourceOf } from '../../recovery/export.ts';
import type { ApiCheckJob, ApiScrub, ApiStatistics } from '../../staging/api-types.ts';
import type { CheckReport, StoreStatistics, Usage } from '../../store/types.ts';
import type { CommandContext, CommandGroup, CommandSpec } from '../command.ts';
import { keyOptions } from '../key-options.ts';
import { jsonOption, pointChoice } from '../operator.ts';
import { placeOptions } from '../repository-options.ts';
import { errorFromService, type RestClient } from '../rest-client.ts';
import { connectRequired, eitherOptions, repoOption } from '../service-or-repository.ts';
import type { Settings } from '../settings.ts';
import { renderFields } from '../table.ts';
import { untilStopped } from '../until-stopped.ts';
import { renderUsage } from '../usage-text.ts';
import { pointOf, withRepository } from '../with-repository.ts';
import { type ImageTarget, imageOptions, reportExport, writeImageFile } from './image.ts';
import { renderLast } from './repo-check-last.ts';
import { copiesCommand, copyCommand } from './repo-copy.ts';
import { findingLines, isHarm, verdictOf } from './repo-findings.ts';
import { keyGroup } from './repo-key.ts';
import { rebuildCatalogCommand } from './repo-rebuild-catalog.ts';
import { repairCommand } from './repo-repair.ts';

const POLL_MS = 300;
const EXIT_CORRUPTION = 4;

/** What a check reads of the contents; `subset` as it was typed. */
interface Reading {
  readonly readData: boolean;
  readonly subset: string | undefined;
}

/** Runs a check in the service and follows it to its end. */
async function checkByService(
  context: CommandContext,
  client: RestClient,
  { readData, subset }: Reading,
): Promise<CheckReport> {
  const progress = context.progress('check', 'objects');
  const body = subset === undefined ? { readData } : { readDataSubset: subset };
  let job = await client.call<ApiCheckJob>('POST', '/v1/check', { body });
  while (job.state === 'running') {
    context.stop.throwIfAborted();
    await sleep(context.clock, POLL_MS);
    job = await client.call<ApiCheckJob>('GET', `/v1/checks/${job.jobId}`);
    progress.update(job.done, job.total);
  }
  progress.finish();
  if (job.report === null) throw errorFromService(job.error, client.url);
  return job.report;
}

export function renderReport(report: CheckReport): string {
  const { points, objects, pieces, bytesRead, findings } = report;
  const read = bytesRead > 0 ? `, ${formatSize(bytesRead)} read` : '';
  const looked = `${points} points, ${objects} objects, ${pieces} pieces${read}`;
  return [...findingLines(findings), `${looked}: ${verdictOf(findings)}`].join('\n');
}

const check: CommandSpec = {
  path: ['repo', 'check'],
  summary: 'Check that every recovery point can be restored',
  options: [
    ...eitherOptions,
    { name: 'read-data', type: 'flag', describe: 'Read every byte and compare its digest' },
    {
      name: 'read-data-subset',
      type: 'text',
      value: 'PART',
      describe: 'Read a part: N/M (part N of M, by packs), P% or a size (packs at random)',
    },
    { name: 'last', type: 'flag', describe: 'Show what the service has found last; read nothing' },
    jsonOption,
  ],
  examples: [
    { line: 'understudy repo check --read-data', does: 'every byte, by the service' },
    { line: 'understudy repo check --read-data-subset 3/7', does: 'a seventh: all in a week' },
    {
      line: 'understudy repo check --repo /srv/understudy',
      does: 'the structure, without a service',
    },
  ],
  async run(context, settings) {
    const subset = settings.optionalText('read-data-subset');
    const reading = { readData: settings.flag('read-data'), subset };
    if (subset !== undefined) parseSubset(subset); // refused before anything is asked
    if (settings.flag('last')) return showLast(context, settings);
    const report =
      settings.optionalText('repo') === undefined
        ? await checkByService(context, await connectRequired(context, settings), reading)
        : await checkByDirectory(context, settings, reading);
    context.print(settings.flag('json') ? JSON.stringify(report, null, 2) : renderReport(report));
    return report.findings.some(isHarm) ? EXIT_CORRUPTION : 0;
  },
};

/** What was found last, by the service's own reading or by a check. */
async function showLast(context: CommandContext, settings: Settings): Promise<number> {
  if (settings.optionalText('repo') !== undefined) {
    throw new UnderstudyError('ERR_USAGE', '--last asks the service: leave --repo out');
  }
  const scrub = await (await connectRequired(context, settings)).call<ApiScrub>('GET', '/v1/scrub');
  context.print(settings.flag('json') ? JSON.stringify(scrub, null, 2) : renderLast(scrub));
  return scrub.findings.some(isHarm) ? EXIT_CORRUPTION : 0;
}

/** Only where something is in the way. */
const sealingOf = ({ sealingWaits }: StoreStatistics): [string, string][] => {
  if (sealingWaits === null) return [];
  const { code, message, sinceMs } = sealingWaits;
  return [['sealing waits', `since ${new Date(sinceMs).toISOString()}: ${message} (${code})`]];
};

export function renderStatistics(figures: StoreStatistics): string {
  const ratio = figures.storedBytes > 0 ? figures.logicalBytes / figures.storedBytes : 0;
  return renderFields([
    ['servers', String(figures.servers)],
    ['points', `${figures.points}, ${figures.stagedPoints} of them not sealed yet`],
    ['images', `${formatSize(figures.logicalBytes)}, all points together`],
    ['contents', `${formatSize(figures.pieceBytes)} that differ`],
    ['on disk', `${formatSize(figures.storedBytes)} in ${figures.packs} packs`],
    ['images per byte on disk', ratio.toFixed(1)],
    ['journal', formatSize(figures.journalBytes)],
    ...sealingOf(figures),
    ['dedupe hits', String(figures.dedupeHits)],
  ]);
}

async function statisticsFor(
  context: CommandContext,
  settings: Settings,
): Promise<StoreStatistics & { usage: Usage | null }> {
  const by = settings.optionalText('by') as 'server' | 'point' | undefined;
  if (settings.optionalText('repo') === undefined) {
    const client = await connectRequired(context, settings);
    return client.call<ApiStatistics>('GET', '/v1/statistics', { query: { by } });
  }
  return withRepository(context, settings, async (repository) => ({
    ...(await untilStopped(context.stop, repository.statistics())),
    usage: by === undefined ? null : await untilStopped(context.stop, repository.usage(by)),
  }));
}

const stats: CommandSpec = {
  path: ['repo', 'stats'],
  summary: 'Show what the repository holds, and how much space it takes',
  options: [
    ...eitherOptions,
    {
      name: 'by',
      type: 'text',
      choices: ['server', 'point'],
      describe: 'Also what each takes: reads all maps of the repository',
    },
    jsonOption,
  ],
  examples: [
    { line: 'understudy repo stats', does: 'asks the service' },
    { line: 'understudy repo stats --by server', does: 'ratios, and what servers share' },
    { line: 'understudy repo stats --by point', does: 'what each point added' },
    { line: 'understudy repo stats --repo /srv/understudy --json', does: 'from the directory' },
  ],
  async run(context, settings) {
    const figures = await statisticsFor(context, settings);
    const { usage } = figures;
    if (settings.flag('json')) context.print(JSON.stringify(figures, null, 2));
    else {
      context.print(renderStatistics(figures));
      if (usage !== null) context.print(`\n${renderUsage(usage, context.columns)}`);
    }
    return 0;
  },
};

async function checkByDirectory(
  context: CommandContext,
  settings: Settings,
  { readData, subset }: Reading,
): Promise<CheckReport> {
  const progress = context.progress('check', 'objects');
  const onProgress = (done: number, total: number) => progress.update(done, total);
  const report = await withRepository(context, settings, (repository) =>
    untilStopped(
      context.stop,
      repository.check(
        subset === undefined
          ? { readData, onProgress }
          : { readData: true, subset: parseSubset(subset), onProgress },
      ),
    ),
  );
  progress.finish();
  return report;
}

const restore: CommandSpec = {
  path: ['repo', 'restore'],
  summary:
    'Write a volume at a point into a file, from the directory alone: no service, no catalog',
  options: [
    { ...repoOption, required: true },
    ...keyOptions,
    ...placeOptions,
    ...imageOptions.filter((option) => option.name !== 'format'),
    jsonOption,
  ],
  examples: [
    {
      line: 'understudy repo restore --repo /mnt/copy --point latest --volume /dev/vda --out vda.raw',
      does: 'after the loss of the staging machine',
    },
    {
      line: 'understudy repo restore --repo s3://backups/one --point latest --volume /dev/vda --out vda.raw',
      does: 'from a bucket alone',
    },
  ],
  async run(context, settings) {
    const volume = settings.text('volume');
    const target: ImageTarget = {
      out: resolve(settings.text('out')),
      format: 'raw',
      replace: settings.flag('yes'),
    };
    const startMs = context.clock.monotonicMs();
    await withRepository(context, settings, async (repository) => {
      const point = await pointOf(repository, pointChoice(settings));
      const reader = await repository.openImage(point.id, volume);
      try {
        const report = await writeImageFile(context, imageSourceOf(reader), target);
        const tookMs = Math.round(context.clock.monotonicMs() - startMs);
        const isJson = settings.flag('json');
        reportExport(context, { point: point.id, volume, target, report, tookMs, isJson });
      } finally {
        reader.close();
      }
    });
    return 0;
  },
};

export const repoGroup: CommandGroup = {
  word: 'repo',
  summary: 'The repository: check, figures, restore without a service',
  commands: [
    check,
    stats,
    restore,
    copyCommand,
    copiesCommand,
    repairCommand,
    rebuildCatalogCommand,
  ],
  groups: [keyGroup],
};
