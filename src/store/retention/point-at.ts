/**
 * Any time, not only any point: which recovery point shows a server as it was at a time. It is the newest
 * one whose cut was not after it; one that lacks volumes only where that is asked for. The time of a
 * point is the source server's (its `time`).
 */
import { UnderstudyError } from '../../base/errors.ts';
import type { ServerId } from '../../model/replication.ts';
import type { ListedPoint, PointFilter } from '../types.ts';

interface PointLister {
  points(filter: PointFilter): Promise<ListedPoint[]>;
}

interface TimeWish {
  readonly server: ServerId;
  /** Wall-clock milliseconds. */
  readonly atMs: number;
  /** Points that lack volumes count, too. */
  readonly isPartialWanted?: boolean;
}

const PAGE = 100;

/** ERR_POINT_NOT_FOUND, with the time of the first point, where the time is before it. */
export async function pointAt(from: PointLister, wish: TimeWish): Promise<ListedPoint> {
  const { server, atMs, isPartialWanted = false } = wish;
  const isWanted = ({ missingVolumes }: ListedPoint) =>
    isPartialWanted || missingVolumes.length === 0;
  for (let after: string | undefined; ; ) {
    const filter = { server, toMs: atMs, limit: PAGE };
    const page = await from.points(after === undefined ? filter : { ...filter, after });
    const found = page.find(isWanted);
    if (found !== undefined) return found;
    if (page.length < PAGE) throw await tooEarly(from, wish, isWanted);
    after = page.at(-1)!.id;
  }
}

async function tooEarly(
  from: PointLister,
  { server, atMs }: TimeWish,
  isWanted: (point: ListedPoint) => boolean,
): Promise<UnderstudyError> {
  const later = await from.points({ server, fromMs: atMs, order: 'oldest', limit: PAGE });
  const first = later.find(isWanted);
  const time = new Date(atMs).toISOString();
  const rest =
    first === undefined ? 'it has no whole point' : `its first whole point is of ${first.time}`;
  return new UnderstudyError('ERR_POINT_NOT_FOUND', `nothing of ${server} at ${time}: ${rest}`);
}

/** That point of each of `servers` that has one; where none has, the error of the only one. */
export async function pointsAt(
  from: PointLister,
  servers: readonly ServerId[],
  wish: Omit<TimeWish, 'server'>,
): Promise<ListedPoint[]> {
  const found: ListedPoint[] = [];
  let failure: unknown = null;
  for (const server of servers) {
    try {
      found.push(await pointAt(from, { ...wish, server }));
    } catch (error) {
      if (!isNone(error)) throw error;
      failure = error;
    }
  }
  if (found.length > 0) return found;
  if (servers.length === 1) throw failure;
  const time = new Date(wish.atMs).toISOString();
  throw new UnderstudyError('ERR_POINT_NOT_FOUND', `no server has a whole point at ${time}`);
}

const isNone = (error: unknown): boolean =>
  error instanceof UnderstudyError && error.code === 'ERR_POINT_NOT_FOUND';
