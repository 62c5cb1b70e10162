/** `understudy point hold` and `point release`: a point that stays, whatever the rules say. */
import type { ApiReleased } from '../../staging/api-types.ts';
import type { ListedPoint } from '../../store/types.ts';
import type { CommandSpec } from '../command.ts';
import {
  atOptions,
  connect,
  findPoint,
  jsonOption,
  operatorOptions,
  pointChoice,
  pointPath,
} from '../operator.ts';
import type { OptionSpec } from '../option.ts';

const positionals = [{ name: 'point', describe: 'Id of the point, or "latest"', isOptional: true }];
const serverOption: OptionSpec = {
  name: 'server',
  type: 'text',
  value: 'NAME',
  describe: 'Whose point, where several servers are kept',
};

export const hold: CommandSpec = {
  path: ['point', 'hold'],
  summary: 'Hold a point: retention leaves it, and what it needs, until it is released',
  positionals,
  options: [
    ...operatorOptions,
    ...atOptions,
    serverOption,
    {
      name: 'reason',
      type: 'text',
      value: 'TEXT',
      describe: 'Why it must stay; shown with the point',
      required: true,
    },
    jsonOption,
  ],
  examples: [
    {
      line: 'understudy point hold latest --server web1 --reason "case 4711"',
      does: 'keep the state of now',
    },
    {
      line: 'understudy point hold --at 2h --server web1 --reason "before the upgrade"',
      does: 'keep the state of two hours ago',
    },
  ],
  async run(context, settings) {
    const client = await connect(context, settings);
    const { id } = await findPoint(client, pointChoice(settings));
    const point = await client.call<ListedPoint>('POST', `${pointPath(id)}/hold`, {
      body: { reason: settings.text('reason') },
    });
    if (settings.flag('json')) context.print(JSON.stringify(point, null, 2));
    else context.print(`${point.id} is held: ${point.hold?.reason}`);
    return 0;
  },
};

export const release: CommandSpec = {
  path: ['point', 'release'],
  summary: 'End the hold of a point: the rules decide about it again',
  positionals,
  options: [...operatorOptions, ...atOptions, serverOption, jsonOption],
  examples: [{ line: 'understudy point release ID', does: 'the case is closed' }],
  async run(context, settings) {
    const client = await connect(context, settings);
    const { id } = await findPoint(client, pointChoice(settings));
    const path = `${pointPath(id)}/release`;
    const done = await client.call<ApiReleased>('POST', path);
    if (settings.flag('json')) context.print(JSON.stringify(done, null, 2));
    else context.print(`${done.released} is not held any more`);
    return 0;
  },
};
