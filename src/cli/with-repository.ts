/** Opening the repository that a command was given by --repo, for reading; nothing in it is changed. */
import { systemClock } from '../base/clock.ts';
import type { OfflineRepository } from '../store/offline.ts';
import type { CommandContext } from './command.ts';
import { readerPlaceOf } from './repository-options.ts';
import type { Settings } from './settings.ts';

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
    const repository = await openRepositoryIn(place, context.log);
    try {
      return await use(repository);
    } finally {
      await repository.close();
    }
  } finally {
    await place.close();
  }
}
