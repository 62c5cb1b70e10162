/** Text for people: columns (a header, cells padded to the widest, numbers to the right), fields. Pure. */
import { formatDuration } from '../base/units.ts';
import type { CutInfo } from '../model/replication.ts';

export interface Column<Row> {
  readonly title: string;
  readonly cell: (row: Row) => string;
  readonly alignRight?: boolean;
}

export function renderTable<Row>(rows: readonly Row[], columns: readonly Column<Row>[]): string {
  const cells = rows.map((row) => columns.map((column) => column.cell(row)));
  const widths = columns.map((column, at) =>
    Math.max(column.title.length, ...cells.map((line) => line[at]!.length)),
  );
  const line = (texts: readonly string[]) =>
    texts
      .map((text, at) =>
        columns[at]!.alignRight ? text.padStart(widths[at]!) : text.padEnd(widths[at]!),
      )
      .join('  ')
      .trimEnd();
  return [line(columns.map((column) => column.title)), ...cells.map(line)].join('\n');
}

/** "name: value" lines with the values under one another. */
export function renderFields(fields: readonly (readonly [string, string])[]): string {
  const width = Math.max(...fields.map(([name]) => name.length)) + 1;
  return fields.map(([name, value]) => `${`${name}:`.padEnd(width)} ${value}`).join('\n');
}

/** "validated, 3 passes, 12 ms". */
export const renderCut = ({ method, passes, durationMs }: CutInfo): string =>
  `${method}, ${passes} ${passes === 1 ? 'pass' : 'passes'}, ${formatDuration(durationMs)}`;
