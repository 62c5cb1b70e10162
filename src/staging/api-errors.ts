/** Errors as the REST API answers them: a status that fits the kind, and the catalogue's code and hint. */
import { type ErrorCode, UnderstudyError } from '../base/errors.ts';

export interface ApiError {
  error: { code: string; message: string; hint: string };
}

const statuses: Partial<Record<ErrorCode, number>> = {
  ERR_UNAUTHORIZED: 401,
  ERR_API_NOT_FOUND: 404,
  ERR_API_METHOD: 405,
  ERR_POINT_NOT_FOUND: 404,
  ERR_VOLUME_NOT_FOUND: 404,
  ERR_SERVER_NOT_FOUND: 404,
  ERR_JOB_NOT_FOUND: 404,
  ERR_PLAN_NOT_FOUND: 404,
  ERR_MACHINE_UNKNOWN: 404,
  ERR_IMAGE_CHANGED: 412,
  ERR_IMAGE_RANGE: 416,
  ERR_POINT_TIMEOUT: 504,
};

export function statusOf(error: UnderstudyError): number {
  const known = statuses[error.code];
  if (known !== undefined) return known;
  if (error.spec.kind === 'usage') return 400;
  if (error.spec.kind !== 'operational') return 500;
  return error.spec.exitCode === 6 ? 409 : 503;
}

export const asUnderstudyError = (error: unknown): UnderstudyError =>
  error instanceof UnderstudyError
    ? error
    : new UnderstudyError('ERR_BUG', 'an unexpected error in the service', {}, error);

export function errorBody(error: unknown): ApiError {
  const known = asUnderstudyError(error);
  return { error: { code: known.code, message: known.message, hint: known.spec.hint } };
}
