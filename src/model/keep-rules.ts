/**
 * Policies of retention as text: "all=1h,10m=1d,1h=1w,1d=30d,1w=1y", or the name of a preset, or both
 * ("drs,1d=365d"). Pure. What a rule keeps is retention.ts's.
 *
 * `drs`: what AWS Elastic Disaster Recovery keeps by default: one point in ten minutes for an hour, one an
 * hour for a day, one a day for a week. `gfs`: every point of an hour and one an hour for a day, then sons,
 * fathers and grandfathers: a day for a week, a week for five weeks, thirty days for a year.
 */
import { UnderstudyError } from '../base/errors.ts';
import { parseDuration } from '../base/units.ts';

export interface KeepRule {
  /** Keep one point in each interval (0: every point) ... */
  readonly everyMs: number;
  /** ... for points younger than this. */
  readonly forMs: number;
}

export const DEFAULT_KEEP = 'all=1h,10m=1d,1h=1w,1d=30d';

export const keepPresets: Readonly<Record<string, string>> = {
  drs: '10m=1h,1h=1d,1d=1w',
  gfs: 'all=1h,1h=1d,1d=1w,1w=5w,30d=1y',
};

/** ERR_RETENTION_RULES. */
export function parseKeepRules(text: string): KeepRule[] {
  const parts = text.split(',').map((part) => part.trim());
  return parts.flatMap((part) => {
    const preset = Object.hasOwn(keepPresets, part) ? keepPresets[part] : undefined;
    return (preset ?? part).split(',').map((rule) => parseRule(rule, text));
  });
}

function parseRule(rule: string, text: string): KeepRule {
  const [every, keep, ...rest] = rule.split('=');
  if (every === undefined || keep === undefined || rest.length > 0) throw badRules(text);
  try {
    const everyMs = every === 'all' ? 0 : parseDuration(every);
    const forMs = parseDuration(keep);
    if (forMs <= 0 || (every !== 'all' && everyMs <= 0)) throw badRules(text);
    return { everyMs, forMs };
  } catch (cause) {
    throw badRules(text, cause);
  }
}

function badRules(text: string, cause?: unknown): UnderstudyError {
  const presets = Object.keys(keepPresets).join(', ');
  const message = `not rules of retention: "${text}" (presets: ${presets})`;
  return new UnderstudyError('ERR_RETENTION_RULES', message, {}, cause);
}

const units: readonly (readonly [string, number])[] = [
  ['w', 7 * 86_400_000],
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1000],
];

function shortDuration(ms: number): string {
  const [name, size] = units.find(([, unit]) => ms % unit === 0) ?? ['ms', 1];
  return `${ms / size}${name}`;
}

/** {600000, 86400000} -> "10m=1d": parses to the same. */
export const formatKeepRule = ({ everyMs, forMs }: KeepRule): string =>
  `${everyMs === 0 ? 'all' : shortDuration(everyMs)}=${shortDuration(forMs)}`;

export const formatKeepRules = (rules: readonly KeepRule[]): string =>
  rules.map(formatKeepRule).join(',');
