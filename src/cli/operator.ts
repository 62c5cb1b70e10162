/**
 * What all operator commands share: the options that name a staging service and its token, the client
 * made of them, and the finding of a point by its id or by the word `latest`.
 */
import { UnderstudyError } from '../base/errors.ts';
import type { ApiPoints } from '../staging/api-types.ts';
import type { ListedPoint } from '../store/types.ts';
import type { CommandContext } from './command.ts';
import type { OptionSpec } from './option.ts';
import { createRestClient, type RestClient } from './rest-client.ts';
import type { Settings } from './settings.ts';

export const jsonOption: OptionSpec = {
  name: 'json',
  type: 'flag',
  describe: 'Print JSON instead of text for people',
};
export const yesOption: OptionSpec = {
  name: 'yes',
  type: 'flag',
  describe: 'Do not ask before something that cannot be undone',
};
export const authorityOption: OptionSpec = {
  name: 'ca',
  type: 'text',
  value: 'FILE',
  describe: 'PEM file with the certificate (or its authority) that staging shows',
};
export const tokenFileOption: OptionSpec = {
  name: 'token-file',
  type: 'text',
  value: 'FILE',
  describe: 'File with the token: DATA/token of the staging service',
  required: true,
};
export const stagingOption: OptionSpec = {
  name: 'staging',
  type: 'text',
  value: 'URL',
  describe: 'Address of the staging service',
  required: true,
};
export const operatorOptions: readonly OptionSpec[] = [
  stagingOption,
  tokenFileOption,
  authorityOption,
];

/** Which point is meant: by id or `latest`, or by time. */
export interface PointChoice {
  readonly point: string | undefined;
  readonly atMs: number | undefined;
  readonly server: string | undefined;
  readonly isPartialWanted: boolean;
}

export const atOptions: readonly OptionSpec[] = [
  {
    name: 'at',
    type: 'time',
    value: 'TIME',
    describe:
      'Instead of a point: the newest whole one not after 2026-11-20T10:31:07Z, or 10m for ten minutes ago',
  },
  { name: 'partial', type: 'flag', describe: 'With --at: points that lack volumes count, too' },
];

/** ERR_USAGE where both or neither are given. */
export function pointChoice(settings: Settings): PointChoice {
  const point = settings.optionalText('point');
  const atMs = settings.optionalNumber('at');
  if ((point === undefined) === (atMs === undefined)) {
    throw new UnderstudyError('ERR_USAGE', 'name a point, or give --at TIME: one of the two');
  }
  const server = settings.optionalText('server');
  return { point, atMs, server, isPartialWanted: settings.flag('partial') };
}

export function connect(context: CommandContext, settings: Settings): Promise<RestClient> {
  return createRestClient({
    url: settings.text('staging'),
    tokenFile: settings.text('token-file'),
    caFile: settings.optionalText('ca'),
    signal: context.stop,
  });
}

export const pointPath = (id: string): string => `/v1/points/${encodeURIComponent(id)}`;
export const volumePath = (point: string, volume: string): string =>
  `${pointPath(point)}/volumes/${encodeURIComponent(volume)}`;

export interface PointQuery {
  readonly server: string | undefined;
  readonly fromMs?: number | undefined;
  readonly toMs?: number | undefined;
  readonly limit: number;
  readonly isHeld?: boolean;
  /** Only those that have booted: a service knows. */
  readonly isVerified?: boolean;
}

const PAGE_POINTS = 200;

/** Points, newest first, over as many pages as `limit` needs. */
export async function listPoints(client: RestClient, query: PointQuery): Promise<ListedPoint[]> {
  const points: ListedPoint[] = [];
  let after: string | undefined;
  while (points.length < query.limit) {
    const page = await client.call<ApiPoints>('GET', '/v1/points', {
      query: {
        server: query.server,
        from: isoTime(query.fromMs),
        to: isoTime(query.toMs),
        verified: query.isVerified === true ? 'true' : undefined,
        limit: query.isHeld ? PAGE_POINTS : Math.min(PAGE_POINTS, query.limit - points.length),
        after,
      },
    });
    points.push(...page.points.filter(({ hold }) => query.isHeld !== true || hold !== null));
    if (page.next === null) break;
    after = page.next;
  }
  if (points.length === 0) await assertServer(client, query.server);
  return points.slice(0, query.limit);
}

/** Of an answer without anything: a mistyped name is not a server without points. ERR_SERVER_NOT_FOUND. */
export async function assertServer(client: RestClient, server: string | undefined): Promise<void> {
  if (server !== undefined) await client.call('GET', `/v1/servers/${encodeURIComponent(server)}`);
}

const isoTime = (ms: number | undefined): string | undefined =>
  ms === undefined ? undefined : new Date(ms).toISOString();

/**
 * The point of that id, for `latest` the whole one that was committed last, for a time the newest whole one not after
 * it (of one server, where several are kept). With `volume`, it must be part of the point.
 */
export async function findPoint(
  client: RestClient,
  wanted: PointChoice & { volume?: string },
): Promise<ListedPoint> {
  const point = await chosenPoint(client, wanted);
  const { volume } = wanted;
  if (volume !== undefined && !point.volumes.some((held) => held.volume === volume)) {
    const held = point.volumes.map((other) => other.volume).join(', ');
    const message = `point ${point.id} has no volume ${volume}; it holds ${held}`;
    throw new UnderstudyError('ERR_VOLUME_NOT_FOUND', message);
  }
  return point;
}

async function chosenPoint(client: RestClient, wanted: PointChoice): Promise<ListedPoint> {
  const { atMs, server, isPartialWanted } = wanted;
  if (wanted.point === 'latest') return latestPoint(client, server);
  if (atMs === undefined) return client.call<ListedPoint>('GET', pointPath(wanted.point!));
  const { points } = await client.call<ApiPoints>('GET', '/v1/points', {
    query: { at: isoTime(atMs), server, partial: isPartialWanted ? 'true' : undefined },
  });
  return onlyOne(points);
}

/** The point among those of several servers, where there is one alone. */
export function onlyOne(points: readonly ListedPoint[]): ListedPoint {
  const [point, ...others] = points;
  if (point !== undefined && others.length === 0) return point;
  const names = points.map(({ server }) => server).join(', ');
  throw new UnderstudyError('ERR_USAGE', `several servers have a point then (${names}): --server`);
}

async function latestPoint(client: RestClient, server: string | undefined): Promise<ListedPoint> {
  const whose =
    server ?? newestWhole(await listPoints(client, { server, limit: PAGE_POINTS }), server).server;
  const query = { latest: 'true', server: whose };
  const { points } = await client.call<ApiPoints>('GET', '/v1/points', { query });
  if (points.length === 0) await assertServer(client, whose);
  return newestWhole(points, whose);
}

/** What `latest` means among `points`, newest first. */
export function newestWhole(
  points: readonly ListedPoint[],
  server: string | undefined,
): ListedPoint {
  const newest = points.find((point) => point.missingVolumes.length === 0);
  if (newest === undefined) {
    const whose = server === undefined ? '' : ` of ${server}`;
    throw new UnderstudyError(
      'ERR_POINT_NOT_FOUND',
      `there is no whole recovery point${whose} yet`,
    );
  }
  if (server === undefined && points.some((point) => point.server !== newest.server)) {
    const message = 'points of several servers are kept: "latest" needs --server';
    throw new UnderstudyError('ERR_USAGE', message);
  }
  return newest;
}
