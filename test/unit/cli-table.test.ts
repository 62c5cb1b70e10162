/** Tables: whole where they are piped; on a terminal a row stays a row, whatever has to be left out for that. */
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterAll, describe, expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { runCommandLine } from '../../src/cli/run.ts';
import { type Column, renderTable } from '../../src/cli/table.ts';
import { fixtures } from '../tools/damage-verdict.ts';

type Row = readonly [string, string, string, string];
const columns: readonly Column<Row>[] = [
  { title: 'NAME', cell: ([name]) => name },
  { title: 'TIME', cell: ([, time]) => time, leftOut: 1 },
  { title: 'SIZE', cell: ([, , size]) => size, alignRight: true, leftOut: 2 },
  { title: 'WHY', cell: ([, , , why]) => why, isText: true },
];
const rows: readonly Row[] = [
  ['web', '2026-11-22T05:00:00.000Z', '12 GiB', 'it was asked for, and then once more'],
  ['db', '2026-11-22T05:00:01.000Z', '1 GiB', 'short'],
];
const widest = (text: string) => Math.max(...text.split('\n').map((line) => line.length));

describe('a table', () => {
  it('is whole where there is no terminal, and where there is room', () => {
    const whole = renderTable(rows, columns);
    expect(whole).toContain(
      '2026-11-22T05:00:00.000Z  12 GiB  it was asked for, and then once more',
    );
    expect(renderTable(rows, columns, widest(whole))).toBe(whole);
  });

  it('shortens texts first', () => {
    const room = widest(renderTable(rows, columns)) - 1;
    const text = renderTable(rows, columns, room);
    expect(text.split('\n')).toHaveLength(3);
    expect(text).toContain('it was asked for, and then once m..\n');
    expect(widest(text)).toBe(room);
  });

  it('leaves out what matters least, and says so', () => {
    const lines = renderTable(rows, columns, 40).split('\n');
    expect(lines).toEqual([
      'NAME    SIZE  WHY',
      'web   12 GiB  it was asked for, and th..',
      'db     1 GiB  short',
      '1 column left out: see --json',
    ]);
    expect(renderTable(rows, columns, 24)).toBe(
      'NAME  WHY\nweb   it was asked for..\ndb    short\n2 columns left out: see --json',
    );
  });

  it('keeps what nothing may be left out of, however narrow it is', () => {
    expect(renderTable(rows, columns, 5)).toContain('web   it was ask..');
  });
});

describe('on a terminal of 80 columns', () => {
  const scratch = mkdtempSync(join(tmpdir(), 'understudy-table-'));
  afterAll(() => rmSync(scratch, { recursive: true, force: true }));
  cpSync(join(fixtures, 'sound'), scratch, { recursive: true });

  const run = async (line: string, isTTY: boolean) => {
    let out = '';
    await runCommandLine(line.split(' '), {
      stdout: { write: (text) => (out += text), isTTY, columns: 80 },
      stderr: { write: () => undefined },
      stdin: Readable.from([]),
      environment: {},
      clock: systemClock,
      stop: new AbortController().signal,
    });
    return out.trimEnd();
  };

  it.each(['point list', 'repo stats --by server', 'repo stats --by point'])(
    '%s has no row that wraps, and a pipe has all of it',
    async (words) => {
      const piped = await run(`${words} --repo ${scratch}`, false);
      const shown = await run(`${words} --repo ${scratch}`, true);
      expect(widest(shown)).toBeLessThanOrEqual(80);
      if (words !== 'repo stats --by server') expect(widest(piped)).toBeGreaterThan(80);
      expect(piped).not.toContain('not shown');
      expect(shown.split('\n').length - piped.split('\n').length).toBe(widest(piped) > 80 ? 1 : 0);
    },
  );
});
