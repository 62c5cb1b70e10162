/** `understudy repo rebuild-catalog`: the catalog of a data directory made anew; nothing else is touched. */
import { resolve } from 'node:path';
import { formatCount } from '../../base/units.ts';
import type { RebuiltCatalog } from '../../store/rebuild-catalog.ts';
import type { CommandSpec } from '../command.ts';
import { keyOptions, keysOf } from '../key-options.ts';
import { jsonOption } from '../operator.ts';
import { placeOptions, readerPlaceOf } from '../repository-options.ts';

export function renderRebuilt(rebuilt: RebuiltCatalog): string {
  const { points, servers, volumes, found, forgotten } = rebuilt;
  const lines = [
    `the catalog knows ${formatCount(points, 'point')} of ${formatCount(servers, 'server')} and ` +
      `${formatCount(volumes, 'volume')}; ${found} of the points it did not know before`,
  ];
  if (forgotten.length > 0) {
    lines.push('only the old catalog knew, and they cannot be restored:', ...forgotten);
  }
  return lines.join('\n');
}

export const rebuildCatalogCommand: CommandSpec = {
  path: ['repo', 'rebuild-catalog'],
  summary: 'Make the catalog anew from repository and journal; the service must be stopped',
  options: [
    {
      name: 'data',
      type: 'text',
      value: 'DIR',
      describe: 'Data directory of staging',
      required: true,
    },
    {
      name: 'repo',
      type: 'text',
      value: 'PLACE',
      describe: 'Its repository, where that lies elsewhere: a directory or s3://BUCKET/PREFIX',
    },
    ...keyOptions,
    ...placeOptions,
    jsonOption,
  ],
  examples: [
    {
      line: 'understudy repo rebuild-catalog --data /srv/understudy',
      does: 'after catalog.sqlite was lost, damaged, or came from an older copy',
    },
  ],
  async run(context, settings) {
    const { rebuildCatalog } = await import('../../store/rebuild-catalog.ts');
    const data = resolve(settings.text('data'));
    const { openServicePlace } = await import('../../store/place.ts');
    const { keys } = await keysOf(settings);
    const world = { clock: context.clock, log: context.log };
    const repo = settings.optionalText('repo');
    const place = await openServicePlace(data, repo, readerPlaceOf(settings), world);
    const made = rebuildCatalog(data, context.log, place, keys);
    const rebuilt = await made.finally(() => place.close());
    const isJson = settings.flag('json');
    context.print(isJson ? JSON.stringify(rebuilt, null, 2) : renderRebuilt(rebuilt));
    return 0;
  },
};
