/**
 * From a thrown value to what the operator sees: one line with the code, one with a hint, and an exit
 * code from the catalogue; for a program one line of JSON that says the same, as the REST API says it. What
 * is no UnderstudyError is a defect of ours and says so.
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

/** What was typed is wrong, whoever says so: the catalogue's hint speaks to those who ask the REST API themselves. */
const typedCodes: readonly string[] = ['ERR_USAGE', 'ERR_API_REQUEST'];

/** How a failure is told. */
export interface FailureForm {
  /** The stack too, causes included. */
  readonly verbose: boolean;
  readonly isJson?: boolean;
  /** The command that explains what was typed wrongly. */
  readonly help?: string | undefined;
}

export function describeFailure(thrown: unknown, form: FailureForm): Failure {
  const { verbose, isJson = false, help } = form;
  const error =
    thrown instanceof UnderstudyError
      ? thrown
      : new UnderstudyError('ERR_BUG', 'unexpected failure', {}, thrown);
  const spec = errorCatalogue[error.code];
  const message = `${singleLine(error.message)}${causeText(error)}${contextText(error)}`;
  const isTyped = typedCodes.includes(error.code) && help !== undefined;
  const hint = isTyped ? `see ${help}` : spec.hint;
  const { code } = error;
  const stack = verbose ? stacksOf(error) : [];
  const { retryable, exitCode } = spec;
  if (!isJson)
    return { lines: [`error: ${message} (${code})`, `hint: ${hint}`, ...stack], exitCode };
  const told = { code, message, hint, retryable, ...(verbose && { stack: stack.join('\n') }) };
  return { lines: [JSON.stringify({ error: told })], exitCode };
}

function stacksOf(error: unknown): string[] {
  const stacks: string[] = [];
  for (let at = error; at instanceof Error; at = at.cause) stacks.push(at.stack ?? String(at));
  return stacks;
}
