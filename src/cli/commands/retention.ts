/** `understudy retention ...`: what is kept and why, what would go, and trust in the clock. */
import { UnderstudyError } from '../../base/errors.ts';
import { formatSize } from '../../base/units.ts';
import type {
  ApiPlannedPoint,
  ApiRetentionPlan,
  ApiRetentionRun,
  ApiRetentionState,
} from '../../staging/api-types.ts';
import type { CommandGroup, CommandSpec } from '../command.ts';
import { assertServer, connect, jsonOption, operatorOptions, yesOption } from '../operator.ts';
import type { RestClient } from '../rest-client.ts';
import { type Column, renderTable } from '../table.ts';

const columns: readonly Column<ApiPlannedPoint>[] = [
  { title: 'POINT', cell: ({ point }) => point },
  { title: 'SERVER', cell: ({ server }) => server },
  { title: 'TIME', cell: ({ time }) => time, leftOut: 1 },
  {
    title: 'KEPT BY',
    isText: true,
    cell: ({ keptBy }) => (keptBy.length === 0 ? '- (goes)' : keptBy.join(', ')),
  },
];

function renderPlan({ points, drop, freed, state }: ApiRetentionPlan, room: number | null): string {
  const lines = points.length === 0 ? [] : [renderTable(points, columns, room), ''];
  lines.push(`${points.length - drop.length} stay, ${drop.length} go`);
  if (freed !== null) {
    const bytes = `${formatSize(freed.storedBytes)} in ${freed.contents} contents`;
    lines.push(`would free about ${bytes}, and ${formatSize(freed.mapBytes)} of maps`);
    lines.push('(an estimate, a little low; collection gives the space back in time)');
  }
  if (state.isWaiting) lines.push(`nothing is dropped now: ${state.reason} (retention resume)`);
  return lines.join('\n');
}

const planOf = (
  client: RestClient,
  isFreedWanted: boolean,
  asIf: { server?: string | undefined; keep?: string | undefined } = {},
): Promise<ApiRetentionPlan> =>
  client.call<ApiRetentionPlan>('GET', '/v1/retention', {
    query: { ...asIf, freed: isFreedWanted ? 'true' : undefined },
  });

const plan: CommandSpec = {
  path: ['retention', 'plan'],
  summary: 'Show which points stay and by which rule, which go, and what that would free',
  options: [
    ...operatorOptions,
    { name: 'server', type: 'text', value: 'NAME', describe: 'Only points of this source server' },
    {
      name: 'keep',
      type: 'text',
      value: 'POLICY',
      describe: 'As if --server had these rules (server keep); "default": those of the service',
    },
    {
      name: 'no-estimate',
      type: 'flag',
      describe: 'Do not estimate what would be freed: that reads all maps of the repository',
    },
    jsonOption,
  ],
  examples: [
    { line: 'understudy retention plan --server web1', does: 'nothing is changed' },
    {
      line: 'understudy retention plan --server web1 --keep all=1h,1h=7d',
      does: 'what server keep with these rules would do',
    },
  ],
  async run(context, settings) {
    const client = await connect(context, settings);
    const server = settings.optionalText('server');
    const keep = settings.optionalText('keep');
    if (keep !== undefined && server === undefined) {
      throw new UnderstudyError('ERR_USAGE', '--keep needs --server');
    }
    const made = await planOf(client, !settings.flag('no-estimate'), { server, keep });
    if (made.points.length === 0) await assertServer(client, server);
    context.print(
      settings.flag('json') ? JSON.stringify(made, null, 2) : renderPlan(made, context.columns),
    );
    return 0;
  },
};

const run: CommandSpec = {
  path: ['retention', 'run'],
  summary:
    'Drop now what the rules drop, of all servers; the service does so every minute by itself',
  options: [
    ...operatorOptions,
    { name: 'dry-run', type: 'flag', describe: 'Show the plan, and drop nothing' },
    yesOption,
    jsonOption,
  ],
  examples: [
    { line: 'understudy retention run --dry-run', does: 'what would go, and what it would free' },
    { line: 'understudy retention run --yes', does: 'after a policy was changed' },
  ],
  async run(context, settings) {
    const client = await connect(context, settings);
    const isJson = settings.flag('json');
    if (settings.flag('dry-run')) {
      const made = await planOf(client, true);
      context.print(isJson ? JSON.stringify(made, null, 2) : renderPlan(made, context.columns));
      return 0;
    }
    if (!settings.flag('yes')) {
      const { drop } = await planOf(client, false);
      if (drop.length > 0) await context.confirm(`Drop ${drop.length} points?`);
    }
    const done = await client.call<ApiRetentionRun>('POST', '/v1/retention/run');
    context.print(
      isJson ? JSON.stringify(done, null, 2) : `${done.dropped.length} points were dropped`,
    );
    return 0;
  },
};

const resume: CommandSpec = {
  path: ['retention', 'resume'],
  summary: 'Say that the clock of staging is right: points are dropped by their age again',
  options: [...operatorOptions, yesOption, jsonOption],
  examples: [
    { line: 'understudy retention resume', does: 'after the clock has leapt, or staging was off' },
  ],
  async run(context, settings) {
    const client = await connect(context, settings);
    const { state, drop } = await planOf(client, false);
    if (state.isWaiting && !settings.flag('yes')) {
      const reason = `Retention waits: ${state.reason}.`;
      await context.confirm(`${reason} Is the clock right? ${drop.length} points would go then.`);
    }
    const now = await client.call<ApiRetentionState>('POST', '/v1/retention/resume');
    context.print(settings.flag('json') ? JSON.stringify(now, null, 2) : 'retention goes on');
    return 0;
  },
};

export const retentionGroup: CommandGroup = {
  word: 'retention',
  summary: 'Which recovery points are kept, and which go',
  commands: [plan, run, resume],
};
