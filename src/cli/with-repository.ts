/** Opening the repository that a command was given by --repo, for reading; nothing in it is changed. */
import { systemClock } from '../base/clock.ts';
import { UnderstudyError } from '../base/errors.ts';
import type { OfflineRepository } from '../store/offline.ts';
import { pointsAt } from '../store/retention/point-at.ts';
import type { ListedPoint } from '../store/types.ts';
import type { CommandContext } from './command.ts';
import { keysOf } from './key-options.ts';
import { openingLine } from './opening.ts';
import { newestWhole, onlyOne, type PointChoice } from './operator.ts';
import { readerPlaceOf } from './repository-options.ts';
import type { Settings } from './settings.ts';
import { untilStopped } from './until-stopped.ts';

export async function withRepository<Result>(
  context: CommandContext,
  settings: Settings,
  use: (repository: OfflineRepository) => Promise<Result>,
): Promise<Result> {
  const { openReaderPlace } = await import('../store/place.ts');
  const { openRepositoryIn } = await import('../store/offline.ts');
  const world = { clock: systemClock, log: context.log };
  const place = await openReaderPlace(settings.text('repo'), readerPlaceOf(settings), world);
  try {
    const keys = await keysOf(settings);
    const line = openingLine(context, settings.flag('json'));
    const opening = openRepositoryIn({ ...place, ...keys, onOpening: line.told }, context.log);
    const repository = await untilStopped(context.stop, opening).finally(() => line.end());
    try {
      return await use(repository);
    } finally {
      await repository.close();
    }
  } finally {
    await place.close();
  }
}

/** A mistyped name is not a server without points. ERR_SERVER_NOT_FOUND. */
export async function assertServerIn(
  repository: Pick<OfflineRepository, 'points'>,
  server: string | undefined,
): Promise<void> {
  if (server === undefined || (await repository.points({ server })).length > 0) return;
  throw new UnderstudyError('ERR_SERVER_NOT_FOUND', `no points of a server "${server}" lie here`);
}

/** By id or time, or for `latest` the whole one that was committed last (of --server, where several are kept). */
export async function pointOf(
  repository: OfflineRepository,
  { point, atMs, server, isPartialWanted }: PointChoice,
): Promise<ListedPoint> {
  if (point !== undefined && point !== 'latest') return repository.point(point);
  await assertServerIn(repository, server);
  const points = await repository.points(server === undefined ? {} : { server });
  if (atMs === undefined) {
    const newest = newestWhole(points, server);
    return (await repository.lastCommitted(newest.server)) ?? newest;
  }
  const servers = server === undefined ? [...new Set(points.map((p) => p.server))] : [server];
  return onlyOne(await pointsAt(repository, servers, { atMs, isPartialWanted }));
}
