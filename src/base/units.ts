/** Sizes and durations: constants, parsing of what people type ("5s", "64MiB"), and printing. */
import { UnderstudyError } from './errors.ts';

export const KIB = 1024;
export const MIB = 1024 * KIB;
export const GIB = 1024 * MIB;
export const TIB = 1024 * GIB;

const sizeUnits: Record<string, number> = {
  '': 1,
  b: 1,
  k: KIB,
  kib: KIB,
  kb: 1e3,
  m: MIB,
  mib: MIB,
  mb: 1e6,
  g: GIB,
  gib: GIB,
  gb: 1e9,
  t: TIB,
  tib: TIB,
  tb: 1e12,
};
const durationUnits: Record<string, number> = {
  ms: 1,
  s: 1e3,
  m: 60e3,
  h: 3600e3,
  d: 86400e3,
  w: 7 * 86400e3,
  y: 365 * 86400e3,
};

function parseScaled(text: string, units: Record<string, number>, what: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(text.trim());
  const scale = match ? units[match[2]!.toLowerCase()] : undefined;
  if (!match || scale === undefined) {
    throw new UnderstudyError('ERR_USAGE', `not a ${what}: "${text}"`);
  }
  return Math.round(Number(match[1]) * scale);
}

/** "64MiB" -> bytes. Throws ERR_USAGE. */
export const parseSize = (text: string): number => parseScaled(text, sizeUnits, 'size');
/** "20MiB/s", or "20MiB" -> bytes a second; 0 stands for no limit. Throws ERR_USAGE. */
export const parseRate = (text: string): number =>
  parseScaled(text.trim().replace(/\/s$/, ''), sizeUnits, 'rate (20MiB/s)');
/** "5s", "10m", "1d" -> milliseconds. A unit is mandatory. Throws ERR_USAGE. */
export const parseDuration = (text: string): number => parseScaled(text, durationUnits, 'duration');

/** 1536 -> "1.50 KiB", 20480 -> "20.0 KiB". */
export function formatSize(bytes: number): string {
  const names = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes;
  let unit = 0;
  // What would be rounded up to 1024 is one of the next unit.
  while (Math.abs(value) >= (unit === 0 ? 1024 : 1023.95) && unit < names.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(Math.abs(value) < 9.995 ? 2 : 1)} ${names[unit]}`;
}

/** 250 -> "250 ms", 1500 -> "1.5 s", 65000 -> "1m 5s". */
export function formatDuration(ms: number): string {
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`;
  const steps: [string, number][] = [
    ['d', 86400e3],
    ['h', 3600e3],
    ['m', 60e3],
    ['s', 1e3],
  ];
  const parts: string[] = [];
  let rest = Math.round(ms / 1000) * 1000;
  for (const [name, size] of steps) {
    const count = Math.floor(rest / size);
    rest -= count * size;
    if (count > 0) parts.push(`${count}${name}`);
  }
  return parts.slice(0, 2).join(' ');
}

/** "1 point", "2 points". */
export const formatCount = (count: number, word: string): string =>
  `${count} ${word}${count === 1 ? '' : 's'}`;
