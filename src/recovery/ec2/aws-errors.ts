/**
 * What an answer of AWS, or the lack of one, means. Names as EC2 and the EBS direct API document them; the
 * reason that EBS gives beside its name is part of the message. One line leaves for the operator.
 */
import { type ErrorCode, UnderstudyError } from '../../base/errors.ts';

export type Meaning =
  /** Another try may do: throttled, an error of the service, no answer. */
  | 'passing'
  | 'not-found'
  | 'credentials'
  | 'denied'
  | 'quota'
  | 'instance-type'
  /** Something made earlier by that name or token is there. */
  | 'taken'
  /** Still used by something else. */
  | 'in-use'
  /** What a dry run says when the call would have been allowed. */
  | 'would-succeed'
  | 'refused';

interface Answer {
  readonly name: string;
  readonly message: string;
  readonly reason: string | undefined;
  readonly status: number | undefined;
  readonly networkCode: string | undefined;
}

/** Thrown by the part of a request that is ours: it took too long. */
export class NoAnswer extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'TimeoutError';
  }
}

function answerOf(error: unknown): Answer {
  const { name, message, code, Code, Message, Reason, $metadata } = error as {
    name?: string;
    message?: string;
    code?: string;
    Code?: string;
    Message?: string;
    Reason?: string;
    $metadata?: { httpStatusCode?: number };
  };
  return {
    name: Code ?? name ?? 'Error',
    message: (Message ?? message ?? String(error)).replaceAll(/\s+/g, ' ').trim(),
    reason: Reason,
    status: $metadata?.httpStatusCode,
    networkCode: code,
  };
}

const patterns: readonly (readonly [RegExp, Meaning])[] = [
  [/^DryRunOperation$/, 'would-succeed'],
  [/Throttl|^RequestLimitExceeded$|^TooManyRequests|RateExceeded$/, 'passing'],
  [/^(InternalError|InternalFailure|InternalServer|ServiceUnavailable|Unavailable)/, 'passing'],
  [/^(TimeoutError|AbortError|RequestTimeout)/, 'passing'],
  [
    /^(CredentialsProviderError|AuthFailure|UnrecognizedClient|InvalidClientTokenId)/,
    'credentials',
  ],
  [/^(SignatureDoesNotMatch|InvalidSignature|MissingAuthenticationToken)/, 'credentials'],
  [/^(ExpiredToken|RequestExpired|InvalidAccessKeyId|OptInRequired)/, 'credentials'],
  [/^(UnauthorizedOperation|AccessDenied|Client\.Unauthorized)/, 'denied'],
  [/^(Unsupported|InvalidInstanceType|InsufficientInstanceCapacity)$/, 'instance-type'],
  [/^(InsufficientHostCapacity|InstanceTypeNotSupported)/, 'instance-type'],
  [/^(ServiceQuotaExceeded|ConcurrentLimitExceeded|VcpuLimitExceeded)/, 'quota'],
  [/LimitExceeded(Exception)?$|QuotaExceeded/, 'quota'],
  [/^(ResourceNotFound|Invalid[A-Za-z]+\.(NotFound|Unavailable)$)/, 'not-found'],
  [/^InvalidAMIName\.Duplicate$/, 'taken'],
  [/\.InUse$|^VolumeInUse$|^IncorrectState$/, 'in-use'],
];

/** The name that AWS gives an error: `InvalidAMIID.NotFound`. */
export const nameOf = (error: unknown): string => answerOf(error).name;

export function meaningOf(error: unknown): Meaning {
  if (error instanceof UnderstudyError) return error.spec.retryable ? 'passing' : 'refused';
  const { name, message, reason, status, networkCode } = answerOf(error);
  if (/region is missing/i.test(message)) return 'credentials';
  // The service took a block that was too slow for it: the block is put again.
  if (reason === 'WRITE_REQUEST_TIMEOUT') return 'passing';
  for (const [pattern, meaning] of patterns) if (pattern.test(name)) return meaning;
  if (status === 429 || (status !== undefined && status >= 500)) return 'passing';
  if (status === 401 || status === 403) return 'denied';
  // A connection that broke, a name that is not found now, an answer that is none.
  if (networkCode !== undefined || status === undefined || status < 300) return 'passing';
  return 'refused';
}

const codes: Readonly<Record<Meaning, ErrorCode>> = {
  passing: 'ERR_AWS_UNAVAILABLE',
  'not-found': 'ERR_AWS_REFUSED',
  credentials: 'ERR_AWS_CREDENTIALS',
  denied: 'ERR_AWS_DENIED',
  quota: 'ERR_AWS_QUOTA',
  'instance-type': 'ERR_EC2_INSTANCE_TYPE',
  taken: 'ERR_AWS_REFUSED',
  'in-use': 'ERR_AWS_REFUSED',
  'would-succeed': 'ERR_AWS_REFUSED',
  refused: 'ERR_AWS_REFUSED',
};

const ebsCalls: readonly string[] = [
  ...['StartSnapshot', 'PutSnapshotBlock', 'CompleteSnapshot'],
  ...['ListSnapshotBlocks', 'GetSnapshotBlock'],
];

/** The right that is missing: as AWS names it, else that of the call itself. */
function missingAction(message: string, call: string): string {
  const named = /not authorized to perform:? ([a-z0-9-]+:\w+)/i.exec(message)?.[1];
  return named ?? `${ebsCalls.includes(call) ? 'ebs' : 'ec2'}:${call}`;
}

/** Words of AWS that are of use to a person; the encoded message is none. */
const readable = (message: string): string =>
  message.replace(/\s*Encoded authorization failure message:.*$/i, '').trim();

function extra(meaning: Meaning, message: string, call: string, code: string | undefined): string {
  if (meaning === 'denied') return `; the right ${missingAction(message, call)} is missing`;
  return code === 'ENOTFOUND' ? '; is there a region of that name?' : '';
}

/** One line: the call, what it was about, and the answer in AWS's words. */
export function awsError(cause: unknown, call: string, subject: string): UnderstudyError {
  if (cause instanceof UnderstudyError) return cause;
  const { name, message, reason, status, networkCode } = answerOf(cause);
  const meaning = meaningOf(cause);
  const said = cause instanceof NoAnswer ? message : (networkCode ?? name);
  const why = reason === undefined ? said : `${said} ${reason}`;
  const words = readable(message);
  const detail = words === said || words === '' ? '' : `, ${words}`;
  const numbered = status === undefined ? '' : ` (${status})`;
  const about = `${call}${subject === '' ? '' : ` ${subject}`}`;
  const text = `${about}: ${why}${numbered}${detail}${extra(meaning, message, call, networkCode)}`;
  return new UnderstudyError(codes[meaning], text, { syscall: call, errno: why }, cause);
}
