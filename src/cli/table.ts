/**
 * Text for people: columns (a header, cells padded to the widest, numbers to the right), fields. Pure. On a terminal
 * a row stays a row: what is too wide is shortened, and what matters least is left out, and said so.
 */
import { formatCount, formatDuration } from '../base/units.ts';
import type { CutInfo } from '../model/replication.ts';

export interface Column<Row> {
  readonly title: string;
  readonly cell: (row: Row) => string;
  readonly alignRight?: boolean;
  /** A text that is understood by its beginning: it is shortened where there is no room. */
  readonly isText?: boolean;
  /** Left out where there is no room, 1 first; without it the column stays. */
  readonly leftOut?: number;
}

const GAP = '  ';
/** A text that is shortened has so many places at least. */
const LEAST_TEXT = 12;

/** `room`: columns of the terminal; null, or none: no terminal, and all is shown whole. */
export function renderTable<Row>(
  rows: readonly Row[],
  columns: readonly Column<Row>[],
  room: number | null = null,
): string {
  const cells = columns.map(({ cell }) => rows.map(cell));
  const wholes = columns.map(({ title }, at) =>
    Math.max(title.length, ...cells[at]!.map((text) => text.length)),
  );
  const widths = room === null ? wholes : fitted(columns, wholes, room);
  const shown = columns.flatMap((_, at) => (widths[at] === null ? [] : [at]));
  const line = (textOf: (at: number) => string) =>
    shown
      .map((at) => padded(textOf(at), widths[at]!, columns[at]!.alignRight === true))
      .join(GAP)
      .trimEnd();
  const lines = rows.map((_, row) => line((at) => cells[at]![row]!));
  const left = columns.filter((_, at) => widths[at] === null).map(({ title }) => title);
  return [line((at) => columns[at]!.title), ...lines, ...leftLines(left, room)].join('\n');
}

function padded(text: string, width: number, alignRight: boolean): string {
  const short = text.length > width ? `${text.slice(0, width - 2)}..` : text;
  return alignRight ? short.padStart(width) : short.padEnd(width);
}

/** Widths that fit into `room` where they can; null: left out. */
function fitted<Row>(
  columns: readonly Column<Row>[],
  wholes: readonly number[],
  room: number,
): (number | null)[] {
  const leastOf = (at: number): number => {
    const { isText, title } = columns[at]!;
    return isText ? Math.min(wholes[at]!, Math.max(title.length, LEAST_TEXT)) : wholes[at]!;
  };
  let shown = columns.map((_, at) => at);
  const spare = () => room - shown.reduce((sum, at) => sum + leastOf(at) + GAP.length, -GAP.length);
  const byRank = shown
    .filter((at) => columns[at]!.leftOut !== undefined)
    .sort((a, b) => columns[a]!.leftOut! - columns[b]!.leftOut!);
  for (const next of byRank) if (spare() < 0) shown = shown.filter((at) => at !== next);
  let left = Math.max(0, spare());
  return columns.map((_, at) => {
    if (!shown.includes(at)) return null;
    const width = Math.min(wholes[at]!, leastOf(at) + left);
    left -= width - leastOf(at);
    return width;
  });
}

/** Where to find what is left out. */
function leftLines(titles: readonly string[], room: number | null): string[] {
  if (titles.length === 0 || room === null) return [];
  const all = `not shown: ${titles.join(', ')} (a wider terminal or --json has all)`;
  const short = `${formatCount(titles.length, 'column')} left out: see --json`;
  return [all.length <= room ? all : short];
}

/** "name: value" lines with the values under one another. */
export function renderFields(fields: readonly (readonly [string, string])[]): string {
  const width = Math.max(...fields.map(([name]) => name.length)) + 1;
  return fields.map(([name, value]) => `${`${name}:`.padEnd(width)} ${value}`).join('\n');
}

/** "validated, 3 passes, 12 ms". */
export const renderCut = ({ method, passes, durationMs }: CutInfo): string =>
  `${method}, ${passes} ${passes === 1 ? 'pass' : 'passes'}, ${formatDuration(durationMs)}`;
