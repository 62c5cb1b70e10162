/**
 * Options of a launch as they come from outside: an object of unknown values, checked one by one. What is
 * not known is refused, so that a misspelt word does not silently do something else.
 *
 * A refusal names options as the API does, between backquotes: a command line that has other names for them
 * puts its own there.
 */
import { UnderstudyError } from '../base/errors.ts';
import { formatDuration, formatSize } from '../base/units.ts';
import type { LaunchOptions } from './launcher.ts';

export type OptionRule =
  | { readonly kind: 'choice'; readonly of: readonly string[]; readonly standard: string }
  | { readonly kind: 'flag'; readonly standard: boolean }
  | {
      readonly kind: 'count';
      readonly least: number;
      readonly most: number;
      readonly standard: number;
      /** How its bounds are told. */
      readonly unit?: 'bytes' | 'ms';
    }
  | { readonly kind: 'text'; readonly like: RegExp; readonly shape: string };

const refuse = (message: string): UnderstudyError =>
  new UnderstudyError('ERR_LAUNCH_OPTIONS', message);

const tell = {
  bytes: formatSize,
  ms: formatDuration,
  number: String,
};

function checked(option: string, rule: OptionRule, value: unknown): string | number | boolean {
  const name = `\`${option}\``;
  if (rule.kind === 'flag') {
    if (typeof value === 'boolean') return value;
    throw refuse(`${name} is true or false`);
  }
  if (rule.kind === 'count') {
    if (
      Number.isSafeInteger(value) &&
      (value as number) >= rule.least &&
      (value as number) <= rule.most
    ) {
      return value as number;
    }
    const bound = tell[rule.unit ?? 'number'];
    const what = rule.unit === undefined ? 'a whole number from' : 'from';
    throw refuse(`${name} must be ${what} ${bound(rule.least)} to ${bound(rule.most)}`);
  }
  if (rule.kind === 'choice') {
    if (typeof value === 'string' && rule.of.includes(value)) return value;
    throw refuse(`${name} must be one of ${rule.of.join(', ')}`);
  }
  if (typeof value === 'string' && rule.like.test(value)) return value;
  throw refuse(`${name} must be ${rule.shape}`);
}

/** The options by the rules, defaults filled in; a text without a value is left out. ERR_LAUNCH_OPTIONS. */
export function checkOptions(
  rules: Readonly<Record<string, OptionRule>>,
  given: Readonly<Record<string, unknown>>,
): LaunchOptions {
  const unknown = Object.keys(given).filter((name) => !Object.hasOwn(rules, name));
  if (unknown.length > 0) {
    const named = (names: string[]) => names.map((name) => `\`${name}\``).join(', ');
    throw refuse(
      `this target has no option ${named(unknown)}; it has ${named(Object.keys(rules))}`,
    );
  }
  const options: Record<string, string | number | boolean> = {};
  for (const [name, rule] of Object.entries(rules)) {
    const value = given[name];
    if (value !== undefined && value !== null) options[name] = checked(name, rule, value);
    else if (rule.kind !== 'text') options[name] = rule.standard;
  }
  return options;
}
