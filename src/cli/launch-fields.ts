/**
 * Options of a launch on their way between the command line and the API, which have names of their own: what
 * was given goes by the names of the API, and what the service says of them comes by those that were typed.
 */
import { UnderstudyError } from '../base/errors.ts';
import type { OptionSpec } from './option.ts';
import type { Settings } from './settings.ts';

/** Those of `options` that are fields of a launch and were given, by the names of the API. */
export function launchFields(
  options: readonly OptionSpec[],
  settings: Settings,
): Record<string, string | number | boolean> {
  const fields: Record<string, string | number | boolean> = {};
  for (const option of options) {
    const value = option.field === undefined ? undefined : given(option, settings);
    if (value !== undefined) fields[option.field!] = value;
  }
  return fields;
}

function given(option: OptionSpec, settings: Settings): string | number | boolean | undefined {
  const { name, type, choices } = option;
  if (type === 'flag') return settings.flag(name) || undefined;
  if (type === 'list') return settings.list(name).join(',') || undefined;
  if (type !== 'text') return settings.optionalNumber(name);
  const text = settings.optionalText(name);
  const isYesOrNo = choices?.length === 2 && choices.includes('yes') && choices.includes('no');
  return isYesOrNo && text !== undefined ? text === 'yes' : text;
}

/** An error that names fields of a launch (between backquotes), with the options that were typed for them. */
export function inTypedWords(options: readonly OptionSpec[], error: unknown): unknown {
  if (!(error instanceof UnderstudyError) || !error.message.includes('`')) return error;
  const names = new Map(options.map(({ name, field = '' }) => [field, `--${name}`]));
  const message = error.message.replace(
    /`(\w+)`/g,
    (all, field: string) => names.get(field) ?? all,
  );
  const told = new UnderstudyError(error.code, message, error.context, error.cause);
  return Object.assign(told, { stack: error.stack });
}
