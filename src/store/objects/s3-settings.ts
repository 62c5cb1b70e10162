/** How a bucket is used: where it is, how fast, in which classes, kept for how long. Pure. */
import type { FarReads } from '../../base/disk.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { parseDuration } from '../../base/units.ts';
import { defaultRetry, type RetryPolicy } from './retry.ts';

interface ObjectLock {
  readonly forMs: number;
  readonly mode: 'GOVERNANCE' | 'COMPLIANCE';
}

export interface S3Settings {
  readonly bucket: string;
  /** Without slashes at its ends; empty for the whole bucket. */
  readonly prefix: string;
  /** URL of the service, addressed by path; without it, what the SDK finds (AWS_ENDPOINT_URL, a region). */
  readonly endpoint?: string | undefined;
  /** Up and down together; 0: no limit. */
  readonly bytesPerSecond: number;
  /** So many requests at a time read what belongs together. */
  readonly connections: number;
  /** By kind: the first part of an object's name. Others get the bucket's default. */
  readonly classes: ReadonlyMap<string, string>;
  /** New objects are kept so long by Object Lock. */
  readonly lock: ObjectLock | null;
  /** Objects beyond `multipartBytes` are sent in parts of `partBytes` (at least 5 MiB on AWS). */
  readonly partBytes: number;
  readonly multipartBytes: number;
  /** A request may take so long, and longer by what its bytes take on the slowest line that will do. */
  readonly timeoutMs: number;
  readonly slowestBytesPerSecond: number;
  readonly retry: RetryPolicy;
}

export const defaultS3 = {
  bytesPerSecond: 0,
  connections: 16,
  classes: new Map<string, string>(),
  lock: null,
  partBytes: 5 * 2 ** 20,
  multipartBytes: 8 * 2 ** 20,
  timeoutMs: 60_000,
  slowestBytesPerSecond: 16 * 1024,
  retry: defaultRetry,
};

/** What is read at a time takes memory: so much for each request, on average. */
const CONNECTION_BYTES = 2 ** 20;

export const farReadsOf = (connections: number): FarReads => ({
  requests: connections,
  bytes: connections * CONNECTION_BYTES,
});

const usage = (message: string): UnderstudyError => new UnderstudyError('ERR_USAGE', message);

/** False for a directory. ERR_USAGE for what looks like a URL and is no bucket. */
export function isS3Place(text: string): boolean {
  if (text.startsWith('s3://')) return true;
  if (!/^[a-z][a-z0-9+.-]*:\//i.test(text)) return false;
  throw usage(`neither a directory nor a place in a bucket: "${text}" (s3://BUCKET/PREFIX)`);
}

/** "s3://bucket/a/b" -> bucket and prefix. ERR_USAGE. */
export function parseS3Place(text: string): { bucket: string; prefix: string } {
  const match = /^s3:\/\/([^/]+)((?:\/[^/]+)*)\/?$/.exec(text);
  const bucket = match?.[1] ?? '';
  if (match === null || !/^[A-Za-z0-9][A-Za-z0-9._:-]{1,254}$/.test(bucket)) {
    throw usage(`not a place in a bucket: "${text}" (s3://BUCKET/PREFIX)`);
  }
  return { bucket, prefix: match[2]!.slice(1) };
}

/** "packs=STANDARD_IA,points=STANDARD". ERR_USAGE. */
export function parseClasses(text: string): ReadonlyMap<string, string> {
  const kinds = ['packs', 'deltas', 'bases', 'points', 'index', 'bundles'];
  const classes = new Map<string, string>();
  for (const part of text.split(',')) {
    const [kind, name, ...rest] = part.trim().split('=');
    if (rest.length > 0 || !kinds.includes(kind!) || !/^[A-Z][A-Z0-9_]*$/.test(name ?? '')) {
      throw usage(`not storage classes: "${text}" (packs=STANDARD_IA; kinds: ${kinds.join(', ')})`);
    }
    if (name === 'GLACIER' || name === 'DEEP_ARCHIVE') {
      throw usage(`${name} cannot be read at once; GLACIER_IR can`);
    }
    classes.set(kind!, name!);
  }
  return classes;
}

/** "16". ERR_USAGE. */
export function parseConnections(text: string): number {
  const count = /^[0-9]{1,3}$/.test(text) ? Number(text) : 0;
  if (count < 1 || count > 256) throw usage(`not a number of requests: "${text}" (1 to 256)`);
  return count;
}

/** "30d" or "30d:compliance". ERR_USAGE. */
export function parseLock(text: string): ObjectLock {
  const [time, mode = 'governance', ...rest] = text.split(':');
  if (rest.length > 0 || (mode !== 'governance' && mode !== 'compliance')) {
    throw usage(`not a lock: "${text}" (30d, or 30d:compliance)`);
  }
  const forMs = parseDuration(time!);
  if (forMs <= 0) throw usage(`not a lock: "${text}"`);
  return { forMs, mode: mode === 'compliance' ? 'COMPLIANCE' : 'GOVERNANCE' };
}

/** What upkeep replaces in its own time is not kept for longer. */
const unlocked: ReadonlySet<string> = new Set([
  'index',
  'condemned',
  'probe',
  'lease',
  'terms',
  'holds',
  'policies',
]);

export const kindOf = (name: string): string => name.split('/', 1)[0]!;
export const isLockable = (name: string): boolean => !unlocked.has(kindOf(name));
