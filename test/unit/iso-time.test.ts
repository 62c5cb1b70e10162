/** Times as they are typed: one instant on every machine, or refused. */
import { describe, expect, it } from 'vitest';
import { parseIsoTime } from '../../src/base/iso-time.ts';

describe('a time', () => {
  it.each([
    ['2026-11-20', '2026-11-20T00:00:00.000Z'],
    ['2026-11-20T10:31Z', '2026-11-20T10:31:00.000Z'],
    ['2026-11-20t10:31:07z', '2026-11-20T10:31:07.000Z'],
    ['2026-11-20T10:31:07.25+01:30', '2026-11-20T09:01:07.250Z'],
    ['2024-02-29T23:59:59.999999-12:00', '2024-03-01T11:59:59.999Z'],
  ])('%s is an instant', (text, instant) => {
    const timeMs = parseIsoTime(text);
    expect(new Date(timeMs as number).toISOString()).toBe(instant);
  });

  it.each(['2026-11-20T10:31:07', '2026-11-20T10:31'])('%s says no zone', (text) => {
    expect(parseIsoTime(text)).toBe('no zone');
  });

  it.each([
    ['2026-11-31T00:00:00Z', 'November has 30 days'],
    ['2026-02-29', 'no leap year'],
    ['2100-02-29', 'no leap year'],
    ['2026-13-01', 'no month'],
    ['2026-00-01', 'no month'],
    ['2026-11-20T24:00:00Z', 'the next day'],
    ['2026-11-20T10:60:00Z', 'no minute'],
    ['2026-11-20T10:31:07+99:00', 'no zone of the earth'],
    ['2026-11-20 10:31:07', 'another form, which is local'],
    ['2026-11-20 10:31:07Z', 'another form'],
    ['2026-11-20Z', 'a day has no zone here'],
    ['20 Nov 2026', 'words'],
    ['', 'nothing'],
  ])('"%s" is none (%s)', (text) => {
    expect(parseIsoTime(text)).toBeNull();
  });
});
