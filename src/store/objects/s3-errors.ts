/**
 * What an answer of the service, or the lack of one, means. Names and statuses as S3 documents them, and
 * what other services say in their place.
 */
import { type ErrorCode, UnderstudyError } from '../../base/errors.ts';

export type Meaning =
  /** Another try may do. */
  | 'passing'
  | 'not-found'
  | 'no-upload'
  | 'no-bucket'
  | 'taken'
  /** A conditional put ran into another one, or a part of it got lost: begin again. */
  | 'collided'
  | 'denied'
  /** Objects were to be locked in a bucket that cannot. */
  | 'no-lock'
  | 'archived'
  | 'beyond-end'
  | 'unknown-function';

interface Answer {
  readonly name: string;
  readonly message: string;
  readonly status: number | undefined;
  readonly networkCode: string | undefined;
}

function answerOf(error: unknown): Answer {
  const { name, message, code, Code, $metadata, $response } = error as {
    name?: string;
    message?: string;
    code?: string;
    Code?: string;
    $metadata?: { httpStatusCode?: number };
    $response?: { statusCode?: number };
  };
  return {
    name: Code ?? name ?? 'Error',
    message: message ?? String(error),
    status: $metadata?.httpStatusCode ?? $response?.statusCode,
    networkCode: code,
  };
}

const byName: Readonly<Record<string, Meaning>> = {
  NoSuchKey: 'not-found',
  NotFound: 'not-found',
  NoSuchVersion: 'not-found',
  NoSuchUpload: 'no-upload',
  NoSuchBucket: 'no-bucket',
  InvalidBucketName: 'no-bucket',
  PermanentRedirect: 'no-bucket',
  PreconditionFailed: 'taken',
  ConditionalRequestConflict: 'collided',
  OperationAborted: 'collided',
  InvalidPart: 'collided',
  InvalidObjectState: 'archived',
  InvalidRange: 'beyond-end',
  NotImplemented: 'unknown-function',
  // Damaged or cut short on the way; or too much at once.
  BadDigest: 'passing',
  XAmzContentChecksumMismatch: 'passing',
  XAmzContentSHA256Mismatch: 'passing',
  IncompleteBody: 'passing',
  RequestTimeout: 'passing',
  SlowDown: 'passing',
  Throttling: 'passing',
  ThrottlingException: 'passing',
  TooManyRequests: 'passing',
  TimeoutError: 'passing',
  AbortError: 'passing',
};

const byStatus: Readonly<Record<number, Meaning>> = {
  301: 'no-bucket',
  307: 'passing',
  404: 'not-found',
  408: 'passing',
  409: 'collided',
  412: 'taken',
  416: 'beyond-end',
  429: 'passing',
  501: 'unknown-function',
};

/** "Bucket is missing Object Lock Configuration", of S3 and, without the blanks, of others. */
const NO_LOCK = /missing object ?lock ?configuration/i;

export function meaningOf(error: unknown): Meaning {
  const { name, status, networkCode, message } = answerOf(error);
  if (NO_LOCK.test(message)) return 'no-lock';
  const named = byName[name];
  if (named !== undefined) return named;
  if (status !== undefined && status >= 300) {
    return byStatus[status] ?? (status >= 500 ? 'passing' : 'denied');
  }
  if (name === 'CredentialsProviderError' || /region is missing/i.test(message)) return 'denied';
  // A connection that broke, a name that is not found now, an answer that is none.
  if (networkCode !== undefined || status === undefined || status < 300) return 'passing';
  return 'denied';
}

const codes: Readonly<Record<Meaning, ErrorCode>> = {
  passing: 'ERR_OBJECTS_UNAVAILABLE',
  collided: 'ERR_OBJECTS_UNAVAILABLE',
  'no-upload': 'ERR_OBJECTS_UNAVAILABLE',
  'not-found': 'ERR_DISK_NOT_FOUND',
  'no-bucket': 'ERR_OBJECTS_NO_BUCKET',
  taken: 'ERR_OBJECTS_CONFLICT',
  denied: 'ERR_OBJECTS_DENIED',
  'no-lock': 'ERR_OBJECTS_NO_LOCK',
  archived: 'ERR_OBJECTS_ARCHIVED',
  'beyond-end': 'ERR_OBJECTS_UNAVAILABLE',
  'unknown-function': 'ERR_OBJECTS_UNSUITABLE',
};

/** Thrown by the parts of a request that are ours: an answer that was cut short, or took too long. */
export class BadAnswer extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'TimeoutError';
  }
}

/** One line: what was tried where, and the answer. */
export function objectsError(
  cause: unknown,
  where: { place: string; what: string; name: string },
): UnderstudyError {
  if (cause instanceof UnderstudyError) return cause;
  const { name, status, networkCode, message } = answerOf(cause);
  // An answer to HEAD has no body that could tell more.
  const isNamed = !name.startsWith('Unknown');
  const said = cause instanceof BadAnswer ? message : (networkCode ?? (isNamed ? name : 'refused'));
  const status_ = status === undefined ? '' : ` (${status})`;
  const isMute = message === said || message === '' || !isNamed;
  const detail = isMute ? '' : `, ${message.replaceAll(/\s+/g, ' ')}`;
  const path = where.name === '' ? where.place : `${where.place}/${where.name}`;
  const text = `${where.what} ${path}: ${said}${status_}${detail}`;
  const context = { path, syscall: where.what, errno: said };
  return new UnderstudyError(codes[meaningOf(cause)], text, context, cause);
}
