/**
 * `understudy repo repair`: what a check found, mended from a true copy. Plans unless told to do it; the
 * service must be stopped: the lock of its data directory is held meanwhile, and of a bucket its lease.
 */
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { systemClock } from '../../base/clock.ts';
import { formatCount } from '../../base/units.ts';
import { isS3Place } from '../../store/objects/s3-settings.ts';
import type { ReadPlace } from '../../store/offline.ts';
import type { RepairOptions, RepairPlace, RepairReport } from '../../store/repair/repair.ts';
import type { CommandContext, CommandSpec } from '../command.ts';
import { keyOptions, keyOptionsOf, keysOf } from '../key-options.ts';
import { openingText } from '../opening.ts';
import { jsonOption } from '../operator.ts';
import { placeOptions, readerPlaceOf } from '../repository-options.ts';
import type { Settings } from '../settings.ts';
import { isHarm, stepLines } from './repo-findings.ts';

const EXIT_CORRUPTION = 4;

export function renderRepair({ isDryRun, before, steps, after }: RepairReport): string {
  if (before.length === 0) return 'all well: nothing to repair';
  const lines = stepLines(steps, ({ isPossible }) =>
    isPossible ? (isDryRun ? 'would' : 'done') : 'cannot',
  );
  const cannot = steps.filter(({ isPossible }) => !isPossible).length;
  if (isDryRun) {
    const rest = cannot === 0 ? '' : `, ${formatCount(cannot, 'step')} cannot be done`;
    const from = cannot === 0 ? '' : ', --from a true copy that has what is missing';
    lines.push(`${formatCount(before.length, 'finding')}${rest}; give --yes to do it${from}`);
  } else if (after.length === 0) {
    lines.push(
      `${formatCount(before.length, 'finding')}, all repaired: a check of every byte finds nothing`,
    );
  } else {
    const hurt = new Set(after.flatMap(({ points }) => points));
    lines.push(
      `${formatCount(after.length, 'finding')} left, to the harm of ${formatCount(hurt.size, 'point')}; see repo check`,
    );
  }
  return lines.join('\n');
}

/** The data directory whose catalog is the lock of this repository; null where it is one by itself. */
function dataDirectoryOf(folder: string): string | null {
  if (existsSync(`${folder}/repo/format.json`)) return folder;
  const above = dirname(folder);
  return basename(folder) === 'repo' && existsSync(`${above}/catalog.sqlite`) ? above : null;
}

/** What a catalog knows of the repository. */
type Known = Pick<RepairOptions, 'knownId' | 'knownPoints'>;

/** Runs `use` while no service can run with this data directory; null: there is none. ERR_DATA_IN_USE. */
async function locked<Result>(
  data: string | null,
  use: (known: Known) => Promise<Result>,
): Promise<Result> {
  // Where there is no catalog no service runs, and a plan makes none.
  if (data === null || !existsSync(`${data}/catalog.sqlite`)) return use({});
  const { CatalogClient } = await import('../../store/catalog/catalog-client.ts');
  const lock = new CatalogClient(`${data}/catalog.sqlite`);
  const knownId = await lock.open();
  try {
    const points = knownId === null ? [] : await lock.pointNames();
    const sealed = points.filter(({ state }) => state === 'sealed').map(({ id }) => id);
    return await use({ knownId, knownPoints: knownId === null ? null : new Set(sealed) });
  } finally {
    await lock.close();
  }
}

/** Opens a bucket: for reading where nothing is to be done. Null: it is a directory. */
async function withBucket<Result>(
  context: CommandContext,
  settings: Settings,
  use: (place: RepairPlace | null) => Promise<Result>,
): Promise<Result> {
  const given = settings.text('repo');
  if (!isS3Place(given)) return use(null);
  const { openReaderPlace, openServicePlace } = await import('../../store/place.ts');
  const world = { clock: systemClock, log: context.log };
  const scratch = await mkdtemp(join(tmpdir(), 'understudy-repair-'));
  const options = readerPlaceOf(settings);
  try {
    const place = settings.flag('yes')
      ? { ...(await openServicePlace(scratch, given, options, world)), scratch }
      : await openReaderPlace(given, options, world);
    return await use({ ...place, ...(await keysOf(settings)) }).finally(() => place.close());
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

async function run(context: CommandContext, settings: Settings): Promise<number> {
  const { repairRepository } = await import('../../store/repair/repair.ts');
  const directory = resolve(settings.text('repo'));
  const data = settings.optionalText('data');
  const { keys } = await keysOf(settings);
  const progress = context.progress('repair', 'objects');
  const report = await withDonor(context, settings, (donor) =>
    withBucket(context, settings, (place) =>
      locked(data === undefined ? dataDirectoryOf(directory) : resolve(data), (known) =>
        repairRepository({
          ...{ directory, ...known, isDryRun: !settings.flag('yes'), log: context.log, keys },
          ...(place === null ? {} : { place }),
          ...(donor === null ? {} : { from: donor }),
          onProgress: (done, total) => progress.update(done, total),
          onOpening: (what, done, total) => {
            if (!settings.flag('json')) progress.show(openingText(what, done, total));
          },
        }),
      ),
    ),
  );
  progress.finish();
  context.print(settings.flag('json') ? JSON.stringify(report, null, 2) : renderRepair(report));
  return report.after.some(isHarm) ? EXIT_CORRUPTION : 0;
}

/** Opens the place that --from names, for reading. */
async function withDonor<Result>(
  context: CommandContext,
  settings: Settings,
  use: (donor: ReadPlace | null) => Promise<Result>,
): Promise<Result> {
  const from = settings.optionalText('from');
  if (from === undefined) return use(null);
  const { openReaderPlace } = await import('../../store/place.ts');
  const world = { clock: systemClock, log: context.log };
  const place = await openReaderPlace(from, readerPlaceOf(settings), world);
  try {
    const keys = { ...(await keysOf(settings)), ...(await keysOf(settings, 'from-')) };
    return await use({ ...place, ...keys });
  } finally {
    await place.close();
  }
}

export const repairCommand: CommandSpec = {
  path: ['repo', 'repair'],
  summary: 'Mend what a check finds, from a true copy; the service must be stopped',
  options: [
    {
      name: 'repo',
      type: 'text',
      value: 'PLACE',
      describe: 'To be repaired: data directory of staging, its "repo", or s3://BUCKET/PREFIX',
      required: true,
    },
    {
      name: 'data',
      type: 'text',
      value: 'DIR',
      describe:
        'Data directory of the service whose repository lies elsewhere: its catalog knows which ' +
        'points a damaged bundle held',
    },
    {
      name: 'from',
      type: 'text',
      value: 'PLACE',
      describe:
        'Another repository with the same points (a directory or s3://BUCKET/PREFIX): what is right ' +
        'there is taken',
    },
    ...placeOptions,
    ...keyOptions,
    ...keyOptionsOf('from-', 'Of the other repository, where it is another one: '),
    { name: 'yes', type: 'flag', describe: 'Do it; without, it is planned and nothing is changed' },
    jsonOption,
  ],
  examples: [
    {
      line: 'understudy repo repair --repo /srv/understudy --from /mnt/copy',
      does: 'shows what could be mended from the copy',
    },
    {
      line: 'understudy repo repair --repo /srv/understudy --from s3://backups/copy --yes',
      does: 'does it, and checks every byte afterwards',
    },
    {
      line: 'understudy repo repair --repo s3://backups/one --data /srv/understudy --from /mnt/copy --yes',
      does: 'repairs a bucket in place',
    },
  ],
  run,
};
