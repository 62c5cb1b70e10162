/** What servers and points take, as text for people: `repo stats --by`. Pure. */
import { formatSize } from '../base/units.ts';
import type { PointUsage, ServerUsage, Usage } from '../store/types.ts';
import { type Column, renderFields, renderTable } from './table.ts';

const part = (of: number, by: number): string => (by > 0 ? (of / by).toFixed(2) : '-');

const serverColumns: readonly Column<ServerUsage>[] = [
  { title: 'SERVER', cell: (row) => row.server },
  { title: 'POINTS', cell: (row) => String(row.points), alignRight: true, leftOut: 2 },
  { title: 'IMAGES', cell: (row) => formatSize(row.logicalBytes), alignRight: true },
  { title: 'DISTINCT', cell: (row) => formatSize(row.rawBytes), alignRight: true },
  { title: 'STORED', cell: (row) => formatSize(row.storedBytes), alignRight: true },
  {
    title: 'SHARED',
    cell: (row) => formatSize(row.sharedStoredBytes),
    alignRight: true,
    leftOut: 3,
  },
  {
    title: 'ALONE',
    cell: (row) => formatSize(row.storedBytes - row.sharedStoredBytes),
    alignRight: true,
  },
  { title: 'DEDUPE', cell: (row) => part(row.logicalBytes, row.rawBytes), alignRight: true },
  {
    title: 'COMPRESSION',
    cell: (row) => part(row.rawBytes, row.storedBytes),
    alignRight: true,
    leftOut: 1,
  },
];

const pointColumns: readonly Column<PointUsage>[] = [
  { title: 'POINT', cell: (row) => row.point },
  { title: 'SERVER', cell: (row) => row.server },
  { title: 'IMAGES', cell: (row) => formatSize(row.logicalBytes), alignRight: true, leftOut: 2 },
  { title: 'CHANGED', cell: (row) => formatSize(row.changedBytes), alignRight: true, leftOut: 3 },
  { title: 'NEW', cell: (row) => formatSize(row.newBytes), alignRight: true },
  { title: 'NEW STORED', cell: (row) => formatSize(row.newStoredBytes), alignRight: true },
  { title: 'MAPS', cell: (row) => formatSize(row.mapBytes), alignRight: true, leftOut: 1 },
];

export function renderUsage(usage: Usage, room: number | null = null): string {
  const { logicalBytes, contents, rawBytes, storedBytes, servers, points } = usage;
  const totals = renderFields([
    ['images', formatSize(logicalBytes)],
    ['distinct', `${formatSize(rawBytes)} in ${contents} contents`],
    ['stored', formatSize(storedBytes)],
    ['dedupe', `${part(logicalBytes, rawBytes)} (images / distinct; zeros count as images)`],
    ['compression', `${part(rawBytes, storedBytes)} (distinct / stored)`],
  ]);
  const tables = [
    ...(servers.length > 0 ? [renderTable(servers, serverColumns, room)] : []),
    ...(points.length > 0 ? [renderTable(points, pointColumns, room)] : []),
  ];
  return [totals, ...tables, 'Estimates: about 1 in 100 contents is not counted.'].join('\n\n');
}
