/** `understudy point ...`: recovery points, as the staging service, or a repository, tells of them. */
import { UnderstudyError } from '../../base/errors.ts';
import { formatDuration, formatSize } from '../../base/units.ts';
import type { RecoveryPoint } from '../../model/replication.ts';
import type {
  ApiBootCheck,
  ApiPoint,
  ApiPointRequested,
  ApiServer,
} from '../../staging/api-types.ts';
import type { OfflineRepository } from '../../store/offline.ts';
import type { HeldCopy, ListedPoint } from '../../store/types.ts';
import type { CommandGroup, CommandSpec } from '../command.ts';
import {
  atOptions,
  connect,
  findPoint,
  jsonOption,
  listPoints,
  operatorOptions,
  type PointQuery,
  pointChoice,
  pointPath,
} from '../operator.ts';
import type { OptionSpec } from '../option.ts';
import type { RestClient } from '../rest-client.ts';
import { connectRequired, eitherOptions, isOffline } from '../service-or-repository.ts';
import { type Column, renderCut, renderFields, renderTable } from '../table.ts';
import { assertServerIn, pointOf, withRepository } from '../with-repository.ts';
import { hold, release } from './point-hold.ts';

const serverOption: OptionSpec = {
  name: 'server',
  type: 'text',
  value: 'NAME',
  describe: 'Only points of this source server',
};

const sizeOf = (point: RecoveryPoint): number =>
  point.volumes.reduce((sum, volume) => sum + volume.sizeBytes, 0);

/** Services before 0.2 do not tell of holds. */
const stateText = ({ missingVolumes, state, hold: held, isDamaged }: ListedPoint): string =>
  [
    missingVolumes.length > 0 ? 'partial' : '',
    state,
    held ? 'held' : '',
    isDamaged ? 'damaged' : '',
  ]
    .filter((word) => word !== '')
    .join(', ');

/** Services before 0.2 do not tell of copies. */
const heldText = ({ copies = [] }: Partial<ListedPoint>): string =>
  ['here', ...copies.map(({ place }) => place)].join(', ');

/** By its boot check; a repository without a service knows of none. */
const bootsText = ({ isVerified = null }: ApiPoint): string =>
  isVerified === null ? '-' : isVerified ? 'verified' : 'failed';

const columns: readonly Column<ApiPoint>[] = [
  { title: 'POINT', cell: (point) => point.id },
  { title: 'SERVER', cell: (point) => point.server },
  { title: 'TIME', cell: (point) => point.time, leftOut: 1 },
  { title: 'VOLUMES', cell: (point) => String(point.volumes.length), alignRight: true, leftOut: 2 },
  { title: 'SIZE', cell: (point) => formatSize(sizeOf(point)), alignRight: true, leftOut: 4 },
  {
    title: 'CUT',
    leftOut: 3,
    cell: (point) => renderCut(point.cut),
  },
  {
    title: 'STATE',
    cell: stateText,
  },
  { title: 'HELD', cell: heldText, isText: true, leftOut: 5 },
  { title: 'BOOTS', cell: bootsText },
];

const copyText = ({ place, verifiedMs }: HeldCopy): string =>
  verifiedMs === null ? place : `${place} (read back ${new Date(verifiedMs).toISOString()})`;

/** One point for people: its fields, then a line a volume. */
export function renderPoint(
  point: ListedPoint,
  room: number | null,
  check: ApiBootCheck['check'] = null,
): string {
  const fields: [string, string][] = [
    ['point', point.id],
    ['server', point.server],
    ['time', point.time],
    ['state', point.isDamaged === true ? `${point.state}, damaged (see repo check)` : point.state],
    ['cut', renderCut(point.cut)],
    ['held in', ['here', ...(point.copies ?? []).map(copyText)].join(', ')],
  ];
  if (point.hold) fields.push(['held', `${point.hold.reason} (since ${point.hold.time})`]);
  if (point.missingVolumes.length > 0) fields.push(['missing', point.missingVolumes.join(', ')]);
  if (check !== null) {
    const verdict = `${check.passed ? 'verified: booted' : 'failed'} in ${formatDuration(check.bootMs)}`;
    fields.push(['boot check', `${verdict}, ${check.time}: ${check.detail}`]);
  }
  const volumes = renderTable(
    point.volumes,
    [
      { title: 'VOLUME', cell: (volume) => volume.volume },
      { title: 'SIZE', cell: (volume) => formatSize(volume.sizeBytes), alignRight: true },
      { title: 'EPOCH', cell: (volume) => String(volume.epoch), alignRight: true },
      { title: 'CHAIN ROOT', cell: (volume) => volume.chainRoot, isText: true },
    ],
    room,
  );
  return `${renderFields(fields)}\n\n${volumes}`;
}

/** As listPoints, of a repository that is open. */
async function listOffline(
  repository: OfflineRepository,
  { server, fromMs, toMs, limit, isHeld }: PointQuery,
): Promise<ListedPoint[]> {
  await assertServerIn(repository, server);
  const points = await repository.points({
    ...(server !== undefined && { server }),
    ...(fromMs !== undefined && { fromMs }),
    ...(toMs !== undefined && { toMs }),
  });
  return points.filter(({ hold: held }) => isHeld !== true || held !== null).slice(0, limit);
}

const list: CommandSpec = {
  path: ['point', 'list'],
  summary: 'List recovery points, newest first: by a service, or of a repository without one',
  options: [
    ...eitherOptions,
    serverOption,
    {
      name: 'from',
      type: 'time',
      value: 'TIME',
      describe: 'Not older: a date, or 2h for two hours ago',
    },
    {
      name: 'to',
      type: 'time',
      value: 'TIME',
      describe: 'Not newer: a date, or 10m for ten minutes ago',
    },
    { name: 'limit', type: 'count', value: 'N', describe: 'At most so many', default: 50 },
    { name: 'held', type: 'flag', describe: 'Only points that are held' },
    { name: 'verified', type: 'flag', describe: 'Only points that have booted in a boot check' },
    jsonOption,
  ],
  examples: [
    { line: 'understudy point list --server web1 --from 1h', does: 'points of the last hour' },
    { line: 'understudy point list --verified --limit 1', does: 'the newest that has booted' },
    { line: 'understudy point list --json | jq -r .[0].id', does: 'id of the newest point' },
    {
      line: 'understudy point list --repo s3://backups/second',
      does: 'what a copy holds, without a service',
    },
  ],
  async run(context, settings) {
    const most = settings.number('limit');
    const query = {
      server: settings.optionalText('server'),
      fromMs: settings.optionalNumber('from'),
      toMs: settings.optionalNumber('to'),
      limit: most + 1, // to know whether there are more
      isHeld: settings.flag('held'),
      isVerified: settings.flag('verified'),
    };
    if (query.isVerified && isOffline(settings)) {
      const message = '--verified needs a service: a repository alone knows of no boot checks';
      throw new UnderstudyError('ERR_USAGE', message);
    }
    const found = isOffline(settings)
      ? await withRepository(context, settings, (repository) => listOffline(repository, query))
      : await listPoints(await connectRequired(context, settings), query);
    const points = found.slice(0, most);
    if (settings.flag('json')) context.print(JSON.stringify(points, null, 2));
    else if (points.length === 0) context.note('no recovery points');
    else context.print(renderTable(points, columns, context.columns));
    if (found.length > most) {
      context.note(`there are more, older than these ${most}: --limit, --from, --to`);
    }
    return 0;
  },
};

const show: CommandSpec = {
  path: ['point', 'show'],
  summary: 'Show one recovery point',
  positionals: [{ name: 'point', describe: 'Id of the point, or "latest"', isOptional: true }],
  options: [...eitherOptions, ...atOptions, serverOption, jsonOption],
  examples: [
    {
      line: 'understudy point show latest --server web1',
      does: 'the newest whole point of a server',
    },
    {
      line: 'understudy point show --at 2026-11-20T10:31:07Z',
      does: 'the point that an image of that time is made of',
    },
  ],
  async run(context, settings) {
    const choice = pointChoice(settings);
    const isJson = settings.flag('json');
    const show = (point: ListedPoint, check: ApiBootCheck['check']) =>
      context.print(
        isJson ? JSON.stringify(point, null, 2) : renderPoint(point, context.columns, check),
      );
    if (isOffline(settings)) {
      show(await withRepository(context, settings, (from) => pointOf(from, choice)), null);
      return 0;
    }
    const client = await connectRequired(context, settings);
    const point = await findPoint(client, choice);
    const path = `${pointPath(point.id)}/boot-check`;
    show(point, isJson ? null : (await client.call<ApiBootCheck>('GET', path)).check);
    return 0;
  },
};

const create: CommandSpec = {
  path: ['point', 'create'],
  summary: 'Have a server cut a recovery point now',
  options: [
    ...operatorOptions,
    { ...serverOption, describe: 'Source server to cut; may be left out where there is only one' },
    { name: 'wait', type: 'flag', describe: 'Return when the point is there, and print it' },
    {
      name: 'timeout',
      type: 'duration',
      value: 'TIME',
      describe: 'Wait no longer',
      default: '60s',
    },
    jsonOption,
  ],
  examples: [
    {
      line: 'understudy point create --server web1 --wait',
      does: 'cut now and show the new point',
    },
  ],
  async run(context, settings) {
    const client = await connect(context, settings);
    const server = settings.optionalText('server') ?? (await onlyServer(client));
    const isJson = settings.flag('json');
    const wait = settings.flag('wait');
    const answer = await client.call<ApiPointRequested>('POST', '/v1/points', {
      body: { server, wait, timeoutMs: settings.number('timeout') },
    });
    if (isJson) context.print(JSON.stringify(answer.point ?? answer, null, 2));
    else if (answer.point !== null) context.print(renderPoint(answer.point, context.columns));
    else context.print(`asked ${server} for a point (request ${answer.requestId})`);
    return 0;
  },
};

/** The server that is meant where none is named. */
async function onlyServer(client: RestClient): Promise<string> {
  const { servers } = await client.call<{ servers: ApiServer[] }>('GET', '/v1/servers');
  const only = servers[0];
  if (servers.length === 1 && only !== undefined) return only.server;
  const names = servers.map((server) => server.server).join(', ');
  const message = servers.length === 0 ? 'staging knows no server yet' : `which server? ${names}`;
  throw new UnderstudyError('ERR_USAGE', message);
}

export const pointGroup: CommandGroup = {
  word: 'point',
  summary: 'List, show, create and hold recovery points',
  commands: [list, show, create, hold, release],
};
