/**
 * What a command is told, from four places: the command line, then UNDERSTUDY_* in the environment, then
 * the config file, then the option's default. Pure: the text of the config file and the environment are
 * handed in. Values are checked here, so that a command sees only what its options allow.
 */
import { UnderstudyError } from '../base/errors.ts';
import { parseIsoTime } from '../base/iso-time.ts';
import { parseDuration, parseRate, parseSize } from '../base/units.ts';
import type { OptionSpec, PositionalSpec } from './option.ts';

export type SettingValue = string | number | boolean | readonly string[];

/** Typed access to the settled options of one command. */
export interface Settings {
  /** A text option that is required or has a default. */
  text(name: string): string;
  optionalText(name: string): string | undefined;
  list(name: string): readonly string[];
  flag(name: string): boolean;
  /** Bytes, bytes a second, milliseconds, wall-clock milliseconds or a plain count, by the option's type. */
  number(name: string): number;
  optionalNumber(name: string): number | undefined;
}

export interface SettingSources {
  /** From the command line; only what was given. */
  readonly given: Readonly<Record<string, unknown>>;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** The parsed config file; empty where there is none. */
  readonly config: Readonly<Record<string, unknown>>;
  readonly nowMs: number;
}

export const environmentName = (option: string): string =>
  `UNDERSTUDY_${option.toUpperCase().replaceAll('-', '_')}`;

const usage = (message: string): UnderstudyError => new UnderstudyError('ERR_USAGE', message);

/** Text of a config file -> its keys. `known` are the options of all commands: a typo is an error. */
export function parseConfig(
  text: string,
  path: string,
  known: ReadonlySet<string>,
): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new UnderstudyError('ERR_CLI_CONFIG', `${path} is not JSON`, { path }, cause);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new UnderstudyError('ERR_CLI_CONFIG', `${path} is not a JSON object`, { path });
  }
  for (const key of Object.keys(value)) {
    if (!known.has(key)) {
      throw new UnderstudyError('ERR_CLI_CONFIG', `${path}: unknown option "${key}"`, { path });
    }
  }
  return value as Record<string, unknown>;
}

/** What a Date holds. */
const MAX_DATE_MS = 8.64e15;

/**
 * "10m" (or "-10m") -> that long before now; else an ISO 8601 date, or date and time with a zone.
 * Returns wall-clock milliseconds.
 */
export function parseTime(text: string, nowMs: number): number {
  const ago = /^-?(\d+(?:\.\d+)?[a-z]+)$/i.exec(text);
  if (ago !== null) {
    const timeMs = nowMs - parseDuration(ago[1]!);
    if (Math.abs(timeMs) > MAX_DATE_MS) throw usage(`"${text}" ago is before any calendar`);
    return timeMs;
  }
  const timeMs = parseIsoTime(text);
  if (timeMs === 'no zone') throw usage(`"${text}" has no zone: end it with Z or +01:00`);
  if (timeMs === null) {
    throw usage(`not a time: "${text}" (try 2026-11-20T10:00:00Z, or 30m for half an hour ago)`);
  }
  return timeMs;
}

function parseCount(text: string): number {
  if (!/^\d{1,15}$/.test(text)) throw usage(`not a whole number: "${text}"`);
  return Number(text);
}

function parseFlag(raw: unknown): boolean {
  if (typeof raw === 'boolean') return raw;
  if (raw === '1' || raw === 'true' || raw === 'yes') return true;
  if (raw === '0' || raw === 'false' || raw === 'no' || raw === '') return false;
  throw usage(`not yes or no: "${String(raw)}"`);
}

function parseList(raw: unknown): readonly string[] {
  const items = Array.isArray(raw) ? raw : String(raw).split(',');
  return items.map(String).filter((item) => item !== '');
}

function parseValue(option: OptionSpec, raw: unknown, nowMs: number): SettingValue {
  if (option.type === 'list') return parseList(raw);
  if (option.type === 'flag') return parseFlag(raw);
  if (typeof raw === 'object' && raw !== null) throw usage('given more than once, or not a text');
  const text = String(raw);
  if (option.choices !== undefined && !option.choices.includes(text)) {
    throw usage(`"${text}" is none of ${option.choices.join(', ')}`);
  }
  if (option.type === 'count') return parseCount(text);
  if (option.type === 'size') return parseSize(text);
  if (option.type === 'rate') return parseRate(text);
  if (option.type === 'duration') return parseDuration(text);
  if (option.type === 'time') return parseTime(text, nowMs);
  if (text === '') throw usage('must not be empty');
  return text;
}

function settle(option: OptionSpec, sources: SettingSources): SettingValue | undefined {
  const fromEnvironment = sources.environment[environmentName(option.name)];
  const raw =
    sources.given[option.name] ??
    (fromEnvironment === '' ? undefined : fromEnvironment) ??
    sources.config[option.name] ??
    option.default;
  if (raw === undefined) return undefined;
  try {
    return parseValue(option, raw, sources.nowMs);
  } catch (error) {
    if (!(error instanceof UnderstudyError)) throw error;
    throw new UnderstudyError(error.code, `--${option.name}: ${error.message}`, error.context);
  }
}

/** Settles all options of a command. Throws ERR_USAGE with the name of the option that is wrong. */
export function settleOptions(
  command: { options: readonly OptionSpec[]; positionals?: readonly PositionalSpec[] },
  sources: SettingSources,
): Settings {
  const values = new Map<string, SettingValue>();
  for (const option of command.options) {
    const value = settle(option, sources);
    if (value !== undefined) values.set(option.name, value);
    else if (option.required === true) {
      throw usage(`--${option.name} is missing (or ${environmentName(option.name)})`);
    }
  }
  for (const { name } of command.positionals ?? []) {
    if (sources.given[name] !== undefined) values.set(name, String(sources.given[name]));
  }
  return settingsFrom(values);
}

/** Access to settled values by name and type; asking for what no option declares is a defect. */
export function settingsFrom(values: ReadonlyMap<string, SettingValue>): Settings {
  const get = <T extends SettingValue>(name: string, type: string): T | undefined => {
    const value = values.get(name);
    if (value !== undefined && typeof value !== type) {
      throw new UnderstudyError('ERR_BUG', `option ${name} is not a ${type}`);
    }
    return value as T | undefined;
  };
  const need = <T>(name: string, value: T | undefined): T => {
    if (value === undefined) throw new UnderstudyError('ERR_BUG', `option ${name} has no value`);
    return value;
  };
  return {
    text: (name) => need(name, get<string>(name, 'string')),
    optionalText: (name) => get<string>(name, 'string'),
    list: (name) => get<readonly string[]>(name, 'object') ?? [],
    flag: (name) => get<boolean>(name, 'boolean') ?? false,
    number: (name) => need(name, get<number>(name, 'number')),
    optionalNumber: (name) => get<number>(name, 'number'),
  };
}
