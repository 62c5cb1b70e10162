/** Times as people and programs write them: ISO 8601 dates, and dates with a time and its zone. Pure. */

const SHAPE =
  /^(\d{4})-(\d\d)-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(?:\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)?)?$/i;

/**
 * "2026-11-20" (in UTC) or "2026-11-20T10:31:07+01:00" -> milliseconds since 1970. 'no zone': a time of day
 * without one, which would mean another instant on each machine. Null: no time, or none of any calendar.
 */
export function parseIsoTime(text: string): number | 'no zone' | null {
  const match = SHAPE.exec(text);
  if (match === null) return null;
  const [year, month, day, hour = 0, minute = 0, second = 0] = match
    .slice(1, 7)
    .map((part) => (part === undefined ? undefined : Number(part)));
  const isDay = month! >= 1 && month! <= 12 && day! >= 1 && day! <= daysOf(year!, month!);
  if (!isDay || hour > 23 || minute > 59 || second > 59) return null;
  if (match[4] !== undefined && match[7] === undefined) return 'no zone';
  const timeMs = Date.parse(text.toUpperCase());
  return Number.isNaN(timeMs) ? null : timeMs;
}

/** Day 0 of a month is the last one of the month before. */
const daysOf = (year: number, month: number): number =>
  new Date(Date.UTC(year, month, 0)).getUTCDate();
