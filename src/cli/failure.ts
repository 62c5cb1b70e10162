/**
 * From a thrown value to what the operator sees: one line with the code, one with a hint, and an exit
 * code from the catalogue. What is no UnderstudyError is a defect of ours and says so.
 */
import { errorCatalogue, UnderstudyError } from '../base/errors.ts';

export interface Failure {
  readonly lines: readonly string[];
  readonly exitCode: number;
}

const singleLine = (text: string): string => text.replace(/\s*\n\s*/g, ' ').trim();

function contextText(error: UnderstudyError): string {
  const parts = Object.entries(error.context)
    .filter(([, value]) => value !== undefined && !error.message.includes(String(value)))
    .map(([key, value]) => `${key} ${String(value)}`);
  return parts.length === 0 ? '' : ` [${parts.join(', ')}]`;
}

function causeText(error: Error): string {
  const cause = error.cause;
  if (!(cause instanceof Error) || cause.message === '' || error.message.includes(cause.message)) {
    return '';
  }
  return `: ${singleLine(withoutCall(cause))}`;
}

/** Of "ENOENT: no such file or directory, open '/x'" what the line does not say yet. */
function withoutCall(cause: NodeJS.ErrnoException): string {
  const { code, syscall, message } = cause;
  if (code === undefined || syscall === undefined || !message.startsWith(`${code}: `))
    return message;
  const end = message.lastIndexOf(`, ${syscall}`);
  return message.slice(code.length + 2, end < 0 ? undefined : end);
}

/** `verbose` adds the stack, causes included; `help` is the command that explains what was typed wrongly. */
export function describeFailure(thrown: unknown, verbose: boolean, help?: string): Failure {
  const error =
    thrown instanceof UnderstudyError
      ? thrown
      : new UnderstudyError('ERR_BUG', 'unexpected failure', {}, thrown);
  const spec = errorCatalogue[error.code];
  const lines = [
    `error: ${singleLine(error.message)}${causeText(error)}${contextText(error)} (${error.code})`,
    `hint: ${error.code === 'ERR_USAGE' && help !== undefined ? `see ${help}` : spec.hint}`,
  ];
  if (verbose) {
    for (let at: unknown = error; at instanceof Error; at = at.cause) {
      lines.push(at.stack ?? String(at));
    }
  }
  return { lines, exitCode: spec.exitCode };
}
