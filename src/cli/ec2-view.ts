/** A dry run of a launch, for people: the calls with their parameters, then the cost. */
import type { DryRun, PlannedCall } from '../recovery/ec2/dry-run.ts';
import { renderTable } from './table.ts';

const dollars = (amount: number): string =>
  `$${amount.toFixed(amount > 0 && amount < 0.1 ? 4 : 2)}`;

const callLine = ({ service, call, count, costUsd }: PlannedCall): string => {
  const times = count === 1 ? '' : ` x ${count}`;
  return `${service} ${call}${times}${costUsd > 0 ? ` (${dollars(costUsd)})` : ''}`;
};

export function renderDryRun({ choices, calls, requestsUsd, hourly, prices }: DryRun): string {
  const told = calls.map((call) =>
    call.request === null
      ? callLine(call)
      : `${callLine(call)}\n${JSON.stringify(call.request, null, 2).replaceAll(/^/gm, '    ')}`,
  );
  const { instanceUsd, volumesUsd, snapshotsUsd } = hourly;
  const costs: [string, string][] = [
    ['requests, once', dollars(requestsUsd)],
    ['instance, an hour', instanceUsd === null ? 'not in the table' : dollars(instanceUsd)],
    ['volumes, an hour', dollars(volumesUsd)],
    ['snapshots, an hour', dollars(snapshotsUsd)],
  ];
  const table = renderTable(costs, [
    { title: 'ESTIMATE, AT MOST', cell: ([what]) => what },
    { title: 'USD', cell: ([, amount]) => amount, alignRight: true },
  ]);
  const { region, asOf, source } = prices;
  const honest = `An estimate, without traffic, by prices of ${region}, ${asOf}: ${source}.`;
  return [...choices, '', ...told, '', table, '', honest].join('\n');
}
