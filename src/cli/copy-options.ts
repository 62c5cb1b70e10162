/** Options by which `staging run` copies points to other places, and what they mean. */
import { parseKeepRules } from '../model/retention.ts';
import type { CopySettings } from '../staging/service.ts';
import type { PlaceOptions } from '../store/place.ts';
import { keyOptionsOf, keysOf } from './key-options.ts';
import type { OptionSpec } from './option.ts';
import { bucketOptions, placeOptions, writerPlaceOf } from './repository-options.ts';
import type { Settings } from './settings.ts';

export const verifyChoices = ['none', 'new', 'all'] as const;
export type VerifyChoice = (typeof verifyChoices)[number];

/** Options of a destination's bucket, and what they say, under names that begin with `prefix`. */
export const bucketOptionsOf = (prefix: string): readonly OptionSpec[] =>
  [...placeOptions, ...bucketOptions]
    .filter(({ name }) => name !== 's3-max-rate')
    .map((option) => ({
      ...option,
      name: `${prefix}${option.name}`,
      describe: `Of the destination: ${option.describe}`,
    }));

export const copyServiceOptions: readonly OptionSpec[] = [
  {
    name: 'copy-to',
    type: 'list',
    value: 'PLACE',
    describe:
      'Copy points to this directory or s3://BUCKET/PREFIX too (again for another one); see repo copies',
  },
  {
    name: 'copy-every',
    type: 'duration',
    value: 'TIME',
    describe: 'Begin a copy so often; 0s: only when asked by repo copy',
    default: '1h',
  },
  {
    name: 'copy-keep',
    type: 'text',
    value: 'POLICY',
    describe: 'Points to keep at the copies, as --keep; without it they keep all',
  },
  {
    name: 'copy-rate',
    type: 'rate',
    value: 'RATE',
    describe: 'Copy at most so fast: 50MiB/s',
  },
  {
    name: 'copy-verify',
    type: 'text',
    value: 'WHAT',
    describe: 'Read back at the copies, each time: none, new (what was written) or all',
    choices: verifyChoices,
    default: 'new',
  },
  ...bucketOptionsOf('copy-'),
  ...keyOptionsOf('copy-', 'Of the copies, where it is another one: '),
];

export function destinationOf(settings: Settings, prefix: string): PlaceOptions {
  const optionalText = (name: string) => settings.optionalText(`${prefix}${name}`);
  // The rate of the source's bucket is not that of the destination's.
  return writerPlaceOf({ ...settings, optionalText, optionalNumber: () => undefined });
}

/** ERR_USAGE, ERR_RETENTION_RULES. */
export async function copySettings(settings: Settings): Promise<CopySettings> {
  const keep = settings.optionalText('copy-keep');
  const everyMs = settings.number('copy-every');
  return {
    places: settings.list('copy-to'),
    everyMs: everyMs === 0 ? null : everyMs,
    keep: keep === undefined ? undefined : parseKeepRules(keep),
    bytesPerSecond: settings.optionalNumber('copy-rate') ?? 0,
    verify: settings.text('copy-verify') as VerifyChoice,
    placeOptions: destinationOf(settings, 'copy-'),
    ...(await keysOf(settings, 'copy-')),
  };
}
