/** What the catalogue of errors (errors.ts) says of one code. */

export type ErrorKind = 'operational' | 'corruption' | 'usage' | 'bug';

export interface ErrorSpec {
  readonly kind: ErrorKind;
  readonly retryable: boolean;
  readonly exitCode: number;
  readonly hint: string;
}

/** Exit codes: 0 fine, 1 bug, 2 usage, 3 operational, 4 corruption found, 5 not found, 6 refused. */
export const spec = (
  kind: ErrorKind,
  exitCode: number,
  hint: string,
  retryable = false,
): ErrorSpec => ({
  kind,
  retryable,
  exitCode,
  hint,
});
