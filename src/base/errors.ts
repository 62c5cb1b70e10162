/**
 * The one catalogue of errors. Every error that leaves a module is an UnderstudyError with a code from
 * this list; the code fixes the kind, whether a retry may help, the process exit code and the hint that
 * an operator is shown. The README's table of codes is checked against it by a test.
 */

export type ErrorKind = 'operational' | 'corruption' | 'usage' | 'bug';

export interface ErrorSpec {
  readonly kind: ErrorKind;
  readonly retryable: boolean;
  readonly exitCode: number;
  readonly hint: string;
}

/** Exit codes: 0 fine, 1 bug, 2 usage, 3 operational, 4 corruption found, 5 not found, 6 refused. */
const spec = (kind: ErrorKind, exitCode: number, hint: string, retryable = false): ErrorSpec => ({
  kind,
  retryable,
  exitCode,
  hint,
});

export const errorCatalogue = {
  ERR_BUG: spec('bug', 1, 'This is a defect in understudy; please report it with the log.'),
  ERR_USAGE: spec('usage', 2, 'See --help for the options of this command.'),
  // cli and export
  ERR_CLI_CONFIG: spec('usage', 2, 'The config file is a JSON object: option names and values.'),
  ERR_CLI_CONFIRMATION: spec('usage', 6, 'Answer yes at a terminal, or give --yes.'),
  ERR_CLI_TOKEN: spec(
    'usage',
    2,
    'Give --token-file: the file "token" in the data directory of staging.',
  ),
  ERR_CLI_CERTIFICATE: spec(
    'usage',
    2,
    'Give --ca: a PEM file with the certificate that staging shows.',
  ),
  ERR_CLI_UNREACHABLE: spec(
    'operational',
    3,
    'Is staging running, and is --staging its URL?',
    true,
  ),
  ERR_CLI_RESPONSE: spec('operational', 3, 'Is --staging an understudy service of this version?'),
  ERR_CLI_MISSING_PROGRAM: spec(
    'operational',
    3,
    'Install the program named, or use --format raw.',
  ),
  ERR_EXPORT_EXISTS: spec('operational', 6, 'Give another --out, or --yes to replace the file.'),
  ERR_EXPORT_MISMATCH: spec(
    'corruption',
    4,
    'The written image differs from the point; run repo check --read-data.',
  ),
  ERR_EXPORT_CONVERT: spec(
    'operational',
    3,
    'qemu-img failed; export as raw and convert by hand.',
    true,
  ),
} as const satisfies Record<string, ErrorSpec>;

export type ErrorCode = keyof typeof errorCatalogue;

/** What the error is about; every field is optional and printed when set. */
export interface ErrorContext {
  volume?: string;
  offset?: number;
  epoch?: number;
  path?: string;
  syscall?: string;
  errno?: string;
  [key: string]: string | number | boolean | undefined;
}

export class UnderstudyError extends Error {
  readonly code: ErrorCode;
  readonly context: ErrorContext;

  constructor(code: ErrorCode, message: string, context: ErrorContext = {}, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'UnderstudyError';
    this.code = code;
    this.context = context;
  }

  get spec(): ErrorSpec {
    return errorCatalogue[this.code];
  }
}

/** Assertion: a false condition is a defect, never an operational error. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new UnderstudyError('ERR_BUG', `assertion failed: ${message}`);
}
