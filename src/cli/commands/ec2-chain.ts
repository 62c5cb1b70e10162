/** `understudy ec2 status` and `ec2 chain ...`: the EBS snapshots that staging keeps ready. */
import { formatDuration, formatSize } from '../../base/units.ts';
import type { ApiPrestage, ApiPrestagedServer, ApiUncleaned } from '../../staging/api-types.ts';
import type { CommandContext, CommandGroup, CommandSpec } from '../command.ts';
import { connect, jsonOption, operatorOptions, yesOption } from '../operator.ts';
import type { Settings } from '../settings.ts';
import { type Column, renderTable } from '../table.ts';

const pathOf = (server: string, rest = ''): string =>
  `/v1/ec2/prestage/${encodeURIComponent(server)}${rest}`;

function stateText({ state, progress, reason }: ApiPrestagedServer): string {
  if (progress === null) return reason === '' ? state : `${state}: ${reason}`;
  const part = Math.floor((progress.doneBytes / Math.max(1, progress.totalBytes)) * 100);
  return `${state} ${progress.volume} ${part}%`;
}

const pointText = ({ volumes }: ApiPrestagedServer): string =>
  [...new Set(volumes.flatMap(({ point }) => point ?? []))].join(', ') || '-';

const columns: readonly Column<ApiPrestagedServer>[] = [
  { title: 'SERVER', cell: (server) => server.server },
  { title: 'STATE', cell: stateText, isText: true },
  { title: 'POINT', cell: pointText, leftOut: 1 },
  {
    title: 'SNAPSHOTS',
    cell: ({ volumes }) => volumes.flatMap(({ snapshotId }) => snapshotId ?? []).join(' ') || '-',
  },
  {
    title: 'LAST PUT',
    cell: ({ putBlocks }) => (putBlocks === null ? '-' : `${putBlocks} blocks`),
    alignRight: true,
  },
];

/** What is wrong, a line each. */
const errorLines = (servers: readonly ApiPrestagedServer[]): string[] =>
  servers.flatMap(({ server, error, failures }) =>
    error === null ? [] : [`${server}: ${error.message} (${error.code}, ${failures} times)`],
  );

export function renderPrestage(
  { everyMs, region, bytesPerSecond, servers }: ApiPrestage,
  room: number | null = null,
): string {
  if (everyMs === null) return 'staging was started without --ec2-prestage';
  const place = region === null ? 'the region of the profile' : region;
  const rate = `at most ${formatSize(bytesPerSecond ?? 0)}/s`;
  const head = `snapshots are kept ready in ${place}, every ${formatDuration(everyMs)}, ${rate}`;
  const table = servers.length === 0 ? 'no servers yet' : renderTable(servers, columns, room);
  return [`${head}\n`, table, ...errorLines(servers)].join('\n');
}

/** For `server show`: one line. */
export function prestageText(prestage: ApiPrestagedServer): string {
  const why = prestage.error === null ? '' : `: ${prestage.error.message}`;
  return `${stateText(prestage)}, point ${pointText(prestage)}${why}`;
}

const serverPositional = { name: 'server', describe: 'Name of the source server' };

function show(context: CommandContext, settings: Settings, answer: ApiPrestagedServer): number {
  if (settings.flag('json')) context.print(JSON.stringify(answer, null, 2));
  else
    context.print(
      [renderTable([answer], columns, context.columns), ...errorLines([answer])].join('\n'),
    );
  return 0;
}

const status: CommandSpec = {
  path: ['ec2', 'status'],
  summary:
    'Show the EBS snapshots that staging keeps ready, by server, and what could not be removed',
  options: [...operatorOptions, jsonOption],
  examples: [
    { line: 'understudy ec2 status', does: 'how far each server is, and what is wrong' },
    {
      line: "understudy ec2 status --json | jq '.servers[] | select(.error)'",
      does: 'what fails',
    },
  ],
  async run(context, settings) {
    const client = await connect(context, settings);
    const answer = await client.call<ApiPrestage>('GET', '/v1/ec2/prestage');
    context.print(
      settings.flag('json')
        ? JSON.stringify(answer, null, 2)
        : renderPrestage(answer, context.columns),
    );
    const { uncleaned } = await client.call<{ uncleaned: ApiUncleaned[] }>('GET', '/v1/status');
    for (const { job, server, error, tries } of uncleaned.filter(
      ({ target }) => target === 'ec2',
    )) {
      context.note(
        `warning: job ${job} of ${server} is not cleaned up, and may cost money: ${error} (${tries} times)`,
      );
    }
    return 0;
  },
};

const on: CommandSpec = {
  path: ['ec2', 'chain', 'on'],
  summary: 'Keep EBS snapshots of a server ready',
  positionals: [serverPositional],
  options: [...operatorOptions, jsonOption],
  examples: [{ line: 'understudy ec2 chain on db1', does: 'its first snapshot begins at once' }],
  async run(context, settings) {
    const client = await connect(context, settings);
    const options = { body: { isOn: true } };
    const path = pathOf(settings.text('server'));
    return show(context, settings, await client.call<ApiPrestagedServer>('POST', path, options));
  },
};

const off: CommandSpec = {
  path: ['ec2', 'chain', 'off'],
  summary: 'Keep no EBS snapshots of a server ready any more',
  positionals: [serverPositional],
  options: [
    ...operatorOptions,
    { name: 'delete', type: 'flag', describe: 'Delete those that are there' },
    yesOption,
    jsonOption,
  ],
  examples: [
    { line: 'understudy ec2 chain off test1', does: 'what is there stays, and grows old' },
    { line: 'understudy ec2 chain off test1 --delete --yes', does: 'nothing of it is left' },
  ],
  async run(context, settings) {
    const client = await connect(context, settings);
    const server = settings.text('server');
    const endsChain = settings.flag('delete');
    if (endsChain && !settings.flag('yes')) {
      await context.confirm(`Delete the snapshots that are kept ready of ${server}?`);
    }
    const options = { body: { isOn: false, endsChain } };
    const answer = await client.call<ApiPrestagedServer>('POST', pathOf(server), options);
    return show(context, settings, answer);
  },
};

const runNow: CommandSpec = {
  path: ['ec2', 'chain', 'run'],
  summary: 'Bring the EBS snapshots of a server up to its newest point now',
  positionals: [serverPositional],
  options: [...operatorOptions, jsonOption],
  examples: [{ line: 'understudy ec2 chain run web1', does: 'before a planned failover' }],
  async run(context, settings) {
    const client = await connect(context, settings);
    const path = pathOf(settings.text('server'), '/run');
    return show(context, settings, await client.call<ApiPrestagedServer>('POST', path));
  },
};

export const statusCommand = status;

export const chainGroup: CommandGroup = {
  word: 'chain',
  summary: 'EBS snapshots that staging keeps ready, server by server',
  commands: [on, off, runNow],
};
