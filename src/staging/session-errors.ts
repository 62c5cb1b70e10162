/** Errors of sessions: what the agent is told of them. Pure. */
import { type ErrorCode, UnderstudyError } from '../base/errors.ts';

export const asError = (error: unknown): UnderstudyError =>
  error instanceof UnderstudyError
    ? error
    : new UnderstudyError('ERR_BUG', 'a session failed', {}, error);

/** What is the agent's to mend. */
const agentsOwn: ReadonlySet<ErrorCode> = new Set([
  'ERR_PROTOCOL_FRAME',
  'ERR_PROTOCOL_MESSAGE',
  'ERR_PROTOCOL_VERSION',
  'ERR_PROTOCOL_ORDER',
  'ERR_PROTOCOL_WINDOW',
  'ERR_PROTOCOL_VOLUME',
  'ERR_OTHER_HARDWARE',
  'ERR_AGENT_TOKEN',
  'ERR_ENTRIES_INVALID',
  'ERR_INGEST_DESCRIPTION',
  'ERR_COMMIT_POSITION',
]);

/**
 * What the agent is told: its own errors and those that a retry may heal as they are. Everything else is
 * staging's trouble, which the agent waits out: it must go on tracking.
 */
export function toldError(error: UnderstudyError): UnderstudyError {
  if (agentsOwn.has(error.code) || error.spec.retryable) return error;
  return new UnderstudyError('ERR_STAGING_FAILED', `staging is in trouble: ${error.message}`);
}
