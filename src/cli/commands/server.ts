/** `understudy server ...`: source servers, their replication states, and admission of other hardware. */
import { UnderstudyError } from '../../base/errors.ts';
import { formatDuration, formatSize } from '../../base/units.ts';
import { hasBlockers } from '../../model/machine.ts';
import type {
  ApiMachineReport,
  ApiServer,
  ApiServerVolume,
  ApiStatistics,
} from '../../staging/api-types.ts';
import type { CommandGroup, CommandSpec } from '../command.ts';
import { connect, jsonOption, operatorOptions, yesOption } from '../operator.ts';
import { type Column, renderFields, renderTable } from '../table.ts';
import { machineFields, renderCounts, renderFindings } from './doctor.ts';
import { prestageText } from './ec2-chain.ts';
import { check, checkFields, checkWord } from './server-check.ts';
import { keep } from './server-keep.ts';
import { revoke, token } from './server-token.ts';

type Told = Omit<ApiServer, 'check'> & Partial<Pick<ApiServer, 'check'>>;

const lagText = (server: Pick<ApiServer, 'lagMs'>): string =>
  server.lagMs === null ? 'no point yet' : formatDuration(server.lagMs);

/** `check`: services before 0.2 do not tell. */
const serverColumns = (nowMs: number): readonly Column<Told>[] => [
  { title: 'SERVER', cell: (server) => server.server },
  { title: 'STATE', cell: (server) => server.state },
  { title: 'LAG', cell: lagText, alignRight: true },
  {
    title: 'BACKLOG',
    cell: (server) => formatSize(server.backlogBytes),
    alignRight: true,
    leftOut: 3,
  },
  {
    title: 'VOLUMES',
    cell: (server) => String(server.volumes.length),
    alignRight: true,
    leftOut: 2,
  },
  { title: 'DURABILITY', cell: (server) => server.durability, leftOut: 1 },
  { title: 'NEWEST POINT', cell: (server) => server.newestPoint?.id ?? '-', leftOut: 4 },
  {
    title: 'BOOT CHECK',
    cell: ({ check }) => (check ? checkWord(check, nowMs) : '-'),
    isText: true,
  },
];

function progressText(volume: ApiServerVolume): string {
  const isWhole = volume.totalBytes === 0 || volume.syncedBytes >= volume.totalBytes;
  if (isWhole) return '-';
  return `${Math.floor((volume.syncedBytes / volume.totalBytes) * 100)}%`;
}

const volumeColumns: readonly Column<ApiServerVolume>[] = [
  { title: 'VOLUME', cell: (volume) => volume.volume },
  { title: 'STATE', cell: (volume) => volume.state },
  { title: 'SIZE', cell: (volume) => formatSize(volume.sizeBytes), alignRight: true },
  { title: 'SYNCED', cell: progressText, alignRight: true },
  { title: 'BACKLOG', cell: (volume) => formatSize(volume.backlogBytes), alignRight: true },
  { title: 'EPOCH', cell: (volume) => String(volume.epoch), alignRight: true, leftOut: 1 },
  { title: 'REASON', cell: (volume) => volume.reason, isText: true },
];

const durabilityText = ({ durability }: Told): string =>
  durability === 'object' ? 'once sealed in the repository' : 'once durable in staging';

export function renderServer(server: Told, nowMs: number, room: number | null = null): string {
  const fields: [string, string][] = [
    ['server', server.server],
    ['state', server.state],
    ['lag', lagText(server)],
    ['backlog', formatSize(server.backlogBytes)],
    ['received', formatSize(server.receivedBytes)],
    ['hardware', server.hardwareId],
    ['agent', server.agentVersion],
    ['keep', server.keep],
    ['acknowledged', durabilityText(server)],
    ['newest point', server.newestPoint?.id ?? '-'],
    ...(server.check === undefined ? [] : checkFields(server.check, nowMs)),
  ];
  if (server.pendingHardwareId !== null) {
    fields.push(['refused', `other hardware ${server.pendingHardwareId} (see server admit)`]);
  }
  for (const { words, peer, job, attempts, last, hardwareId } of server.refused ?? []) {
    const whose = job === null ? 'of no job that is known' : `the machine of job ${job}`;
    const named = [hardwareId.slice(0, 12), ...words].join(', ');
    fields.push(['refused', `${whose}: ${named}, from ${peer}, ${attempts} times, last ${last}`]);
  }
  const { fromPoint, since } = server;
  if (since !== null && (server.former ?? []).length > 0) {
    fields.push(['this machine', `since ${since}, after point ${fromPoint ?? '-'}`]);
  }
  for (const { hardwareId, until, lastPoint } of server.former ?? []) {
    fields.push(['before', `${hardwareId.slice(0, 12)} until ${until}, point ${lastPoint ?? '-'}`]);
  }
  if (server.prestage !== null) fields.push(['ec2 snapshots', prestageText(server.prestage)]);
  return `${renderFields(fields)}\n\n${renderTable(server.volumes, volumeColumns, room)}`;
}

const list: CommandSpec = {
  path: ['server', 'list'],
  summary: 'List the source servers that staging knows',
  options: [...operatorOptions, jsonOption],
  examples: [{ line: 'understudy server list', does: 'state, lag and backlog of every server' }],
  async run(context, settings) {
    const client = await connect(context, settings);
    const { servers } = await client.call<{ servers: ApiServer[] }>('GET', '/v1/servers');
    if (settings.flag('json')) context.print(JSON.stringify(servers, null, 2));
    else if (servers.length === 0) context.note('no servers yet');
    else
      context.print(renderTable(servers, serverColumns(context.clock.wallMs()), context.columns));
    const { sealingWaits } = await client.call<ApiStatistics>('GET', '/v1/statistics');
    if (sealingWaits !== null) {
      const { code, message, sinceMs } = sealingWaits;
      const since = new Date(sinceMs).toISOString();
      context.note(`the repository takes nothing since ${since}: ${message} (${code})`);
      context.note('what was received since waits in the journal of staging, and there alone');
    }
    return 0;
  },
};

const serverPositional = { name: 'server', describe: 'Name of the source server' };

const show: CommandSpec = {
  path: ['server', 'show'],
  summary: 'Show a source server and its volumes',
  positionals: [serverPositional],
  options: [...operatorOptions, jsonOption],
  examples: [{ line: 'understudy server show web1', does: 'where each volume of web1 stands' }],
  async run(context, settings) {
    const client = await connect(context, settings);
    const path = `/v1/servers/${encodeURIComponent(settings.text('server'))}`;
    const server = await client.call<ApiServer>('GET', path);
    const machine =
      server.machine === null
        ? null
        : await client.call<ApiMachineReport>('GET', `${path}/machine`);
    if (settings.flag('json')) context.print(JSON.stringify({ ...server, machine }, null, 2));
    else
      context.print(
        renderServer(server, context.clock.wallMs(), context.columns) +
          (machine === null ? '' : renderMachine(machine)),
      );
    return 0;
  },
};

/** The machine in short, and of the findings those that are more than advice. */
function renderMachine(machine: ApiMachineReport): string {
  const { findings, time } = machine;
  const verdict = hasBlockers(findings) ? 'it will not boot elsewhere as it is' : 'nothing blocks';
  const fields: [string, string][] = [
    ...machineFields(machine),
    ['doctor', `${verdict}: ${renderCounts(findings)} (${time})`],
  ];
  const grave = findings.filter(({ severity }) => severity !== 'advice' && severity !== 'fine');
  const list = grave.length === 0 ? '' : `\n\n${renderFindings(grave)}`;
  return `\n\n${renderFields(fields)}${list}`;
}

const admit: CommandSpec = {
  path: ['server', 'admit'],
  summary: 'Let a server that shows other hardware go on under its name',
  positionals: [serverPositional],
  options: [
    ...operatorOptions,
    {
      name: 'hardware',
      type: 'text',
      value: 'ID',
      describe: 'Which of the machines that server show lists as refused; else the last one',
    },
    yesOption,
    jsonOption,
  ],
  examples: [
    { line: 'understudy server admit web1', does: 'after web1 has moved to a new machine' },
  ],
  async run(context, settings) {
    const client = await connect(context, settings);
    const name = settings.text('server');
    const path = `/v1/servers/${encodeURIComponent(name)}`;
    const before = await client.call<ApiServer>('GET', path);
    const hardwareId = settings.optionalText('hardware') ?? before.pendingHardwareId;
    if (hardwareId === null) {
      throw new UnderstudyError('ERR_USAGE', `no other hardware has asked to be ${name}`);
    }
    if (!settings.flag('yes')) {
      await context.confirm(
        `Admit hardware ${hardwareId} as ${name}? The former machine will be refused from then on.`,
      );
    }
    const server = await client.call<ApiServer>('POST', `${path}/admit`, { body: { hardwareId } });
    if (settings.flag('json')) context.print(JSON.stringify(server, null, 2));
    else context.print(`${name} is admitted with hardware ${hardwareId}`);
    return 0;
  },
};

export const serverGroup: CommandGroup = {
  word: 'server',
  summary: 'Source servers and their replication states',
  commands: [list, show, token, revoke, admit, keep, check],
};
