/** Options of the scrub: how often `staging run` reads the whole repository, and how fast. */
import { UnderstudyError } from '../../base/errors.ts';
import { parseDuration } from '../../base/units.ts';
import type { OptionSpec } from '../option.ts';
import type { Settings } from '../settings.ts';

export const scrubOptions: readonly OptionSpec[] = [
  {
    name: 'scrub-every',
    type: 'text',
    value: 'TIME|off',
    describe:
      'Read every byte of the repository once in this time, and tell of damage (without it 7d; ' +
      'off where the repository is in a bucket, which bills for reading)',
  },
  {
    name: 'scrub-rate',
    type: 'rate',
    value: 'RATE',
    describe: 'Read no faster for it',
    default: '10MiB/s',
  },
];

/** Without a word of the operator the service decides. ERR_USAGE. */
export function scrubOf(settings: Settings): { scrubEveryMs?: number; scrubRate: number } {
  const scrubRate = settings.number('scrub-rate');
  const every = settings.optionalText('scrub-every');
  if (every === undefined) return { scrubRate };
  const scrubEveryMs = every === 'off' ? 0 : parseDuration(every);
  if (every !== 'off' && scrubEveryMs < 60_000) {
    throw new UnderstudyError('ERR_USAGE', '--scrub-every is at least 1m, or off');
  }
  return { scrubEveryMs, scrubRate };
}
