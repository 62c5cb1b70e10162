/** Options that say where a repository lies and how its bucket is used; the same for all commands. */
import { UnderstudyError } from '../base/errors.ts';
import { parseClasses, parseConnections, parseLock } from '../store/objects/s3-settings.ts';
import type { PlaceOptions } from '../store/place.ts';
import type { OptionSpec } from './option.ts';
import type { Settings } from './settings.ts';

/** For whoever reads or writes a repository. */
export const placeOptions: readonly OptionSpec[] = [
  {
    name: 's3-endpoint',
    type: 'text',
    value: 'URL',
    describe: 'S3 service other than AWS, addressed by path (else AWS_ENDPOINT_URL, AWS_REGION)',
  },
  {
    name: 's3-max-rate',
    type: 'rate',
    value: 'RATE',
    describe: 'At most so much to and from the bucket: 50MiB/s',
  },
  {
    name: 's3-connections',
    type: 'text',
    value: 'N',
    describe: 'So many requests at a time read from the bucket, with 1 MiB of memory each (16)',
  },
];

/** For whoever writes one. */
export const bucketOptions: readonly OptionSpec[] = [
  {
    name: 's3-class',
    type: 'text',
    value: 'KIND=CLASS,...',
    describe:
      'Storage classes by kind (packs, bases, bundles, deltas, points, index): packs=STANDARD_IA',
  },
  {
    name: 's3-lock',
    type: 'text',
    value: 'TIME[:compliance]',
    describe: 'Object Lock: nobody removes a new object before this time is over (30d)',
  },
];

function parsed<T>(settings: Settings, name: string, parse: (text: string) => T): T | undefined {
  const text = settings.optionalText(name);
  if (text === undefined) return undefined;
  try {
    return parse(text);
  } catch (error) {
    if (!(error instanceof UnderstudyError)) throw error;
    throw new UnderstudyError(error.code, `--${name}: ${error.message}`, error.context);
  }
}

/** What `placeOptions` say. ERR_USAGE. */
export function readerPlaceOf(settings: Settings): PlaceOptions {
  const endpoint = settings.optionalText('s3-endpoint');
  const bytesPerSecond = settings.optionalNumber('s3-max-rate');
  const connections = parsed(settings, 's3-connections', parseConnections);
  return {
    ...(endpoint !== undefined && { endpoint: urlOf(endpoint) }),
    ...(connections !== undefined && { connections }),
    ...(bytesPerSecond !== undefined && { bytesPerSecond }),
  };
}

/** What `placeOptions` and `bucketOptions` say. ERR_USAGE. */
export function writerPlaceOf(settings: Settings): PlaceOptions {
  const classes = parsed(settings, 's3-class', parseClasses);
  const lock = parsed(settings, 's3-lock', parseLock);
  return {
    ...readerPlaceOf(settings),
    ...(classes !== undefined && { classes }),
    ...(lock !== undefined && { lock }),
  };
}

function urlOf(text: string): string {
  if (/^https?:\/\/[^/]+\/?$/.test(text)) return text;
  throw new UnderstudyError('ERR_USAGE', `--s3-endpoint: not a URL of a service: "${text}"`);
}
