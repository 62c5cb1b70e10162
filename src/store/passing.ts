/**
 * Trouble that may pass without anything being lost: a disk without room, an object store that does not
 * answer, refuses, or keeps something for a time. Whoever meets it waits and tries again; what is staged
 * stays in the journal.
 */
import { type ErrorCode, UnderstudyError } from '../base/errors.ts';

const passing: ReadonlySet<ErrorCode> = new Set([
  'ERR_DISK_FULL',
  'ERR_OBJECTS_UNAVAILABLE',
  'ERR_OBJECTS_DENIED',
  'ERR_OBJECTS_NO_BUCKET',
  'ERR_OBJECTS_ARCHIVED',
  'ERR_OBJECTS_LOCKED',
]);

export const isPassing = (error: unknown): error is UnderstudyError =>
  error instanceof UnderstudyError && passing.has(error.code);

/** Somebody has to do something: it does not pass by itself. */
export const needsHelp = ({ code }: UnderstudyError): boolean =>
  code === 'ERR_OBJECTS_DENIED' || code === 'ERR_OBJECTS_NO_BUCKET';
