/** Options of the scrub: how often `staging run` reads the whole repository, and how fast. */
import { UnderstudyError } from '../../base/errors.ts';
import { parseDuration, parseSize } from '../../base/units.ts';
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
    type: 'text',
    value: 'SIZE/s',
    describe: 'Read no faster for it',
    default: '10MB/s',
  },
];

/** "20MB/s" -> bytes a second. ERR_USAGE. */
export function parseRate(text: string): number {
  const match = /^(.+)\/s$/.exec(text.trim());
  const bytes = match === null ? 0 : parseSize(match[1]!);
  if (bytes > 0) return bytes;
  throw new UnderstudyError('ERR_USAGE', `not a rate: "${text}" (give it as 20MB/s)`);
}

/** Without a word of the operator the service decides. ERR_USAGE. */
export function scrubOf(settings: Settings): { scrubEveryMs?: number; scrubRate: number } {
  const scrubRate = parseRate(settings.text('scrub-rate'));
  const every = settings.optionalText('scrub-every');
  if (every === undefined) return { scrubRate };
  const scrubEveryMs = every === 'off' ? 0 : parseDuration(every);
  if (every !== 'off' && scrubEveryMs < 60_000) {
    throw new UnderstudyError('ERR_USAGE', '--scrub-every is at least 1m, or off');
  }
  return { scrubEveryMs, scrubRate };
}
