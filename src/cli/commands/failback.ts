/** `understudy failback ...`: brings a server home from its recovery instance. */
import { sleep } from '../../base/clock.ts';
import { UnderstudyError } from '../../base/errors.ts';
import type { ApiFailback, ApiFailbackPreview, ApiJob } from '../../staging/api-types.ts';
import type { CommandContext, CommandGroup, CommandSpec } from '../command.ts';
import {
  acceptNewestOption,
  activeFailback,
  failbackPath,
  finishFailback,
  followFailback,
  renderFailback,
  renderFailbacks,
  renderPreview,
  serverOption,
} from '../failbacks.ts';
import { connect, jsonOption, operatorOptions, yesOption } from '../operator.ts';
import type { RestClient } from '../rest-client.ts';
import { runFailback } from './failback-run.ts';
import { undoFailback } from './failback-undo.ts';

const POLL_MS = 200;

/** The record of a failback is there a moment after its job is. */
async function whenBegun(
  context: CommandContext,
  client: RestClient,
  job: string,
): Promise<ApiFailback> {
  for (let left = 50; ; left -= 1) {
    try {
      return await client.call<ApiFailback>('GET', failbackPath(job));
    } catch (error) {
      const isEarly = error instanceof UnderstudyError && error.code === 'ERR_FAILBACK_NOT_FOUND';
      if (!isEarly || left === 0) throw error;
    }
    await sleep(context.clock, POLL_MS);
  }
}

const print = (context: CommandContext, failback: ApiFailback, isJson: boolean): void =>
  context.print(isJson ? JSON.stringify(failback, null, 2) : renderFailback(failback));

const start: CommandSpec = {
  path: ['failback', 'start'],
  summary: 'Let a recovery instance go on as the server, so that it can be brought home',
  options: [
    ...operatorOptions,
    serverOption,
    {
      name: 'job',
      type: 'text',
      value: 'JOB',
      describe: 'The failover (or drill) whose machine is the recovery instance',
    },
    {
      name: 'hardware',
      type: 'text',
      value: 'ID',
      describe:
        'Its hardware id (or how it begins) instead, as server show tells it of a refused machine',
    },
    { name: 'wait', type: 'flag', describe: 'Return when the instance replicates continuously' },
    yesOption,
    jsonOption,
  ],
  examples: [
    {
      line: 'understudy failback start --server web1 --job 20261121T153512Z-3fa9c1d2 --wait',
      does: 'the machine of that failover is web1 from now on; the original is refused',
    },
  ],
  async run(context, settings) {
    const client = await connect(context, settings);
    const server = settings.text('server');
    const job = settings.optionalText('job');
    const hardwareId = settings.optionalText('hardware');
    const body = { server, ...(job && { job }), ...(hardwareId && { hardwareId }) };
    if (!settings.flag('yes')) {
      const path = '/v1/failbacks/preview';
      const found = await client.call<ApiFailbackPreview>('POST', path, { body });
      await context.confirm(`${renderPreview(found)} Go on?`);
    }
    const { id } = await client.call<ApiJob>('POST', '/v1/failbacks', { body });
    let failback = await whenBegun(context, client, id);
    if (settings.flag('wait')) {
      failback = await followFailback(context, client, id, ({ phase }) => phase === 'ready');
    }
    print(context, failback, settings.flag('json'));
    return 0;
  },
};

const list: CommandSpec = {
  path: ['failback', 'list'],
  summary: 'List the newest failback of each server, and what each waits for',
  options: [...operatorOptions, jsonOption],
  examples: [{ line: 'understudy failback list', does: 'what is to be done next' }],
  async run(context, settings) {
    const client = await connect(context, settings);
    const { failbacks } = await client.call<{ failbacks: ApiFailback[] }>('GET', '/v1/failbacks');
    if (settings.flag('json')) context.print(JSON.stringify(failbacks, null, 2));
    else if (failbacks.length === 0) context.note('no failbacks');
    else context.print(renderFailbacks(failbacks, context.columns));
    return 0;
  },
};

const show: CommandSpec = {
  path: ['failback', 'show'],
  summary: 'Show a failback: phase, points, and what was written home',
  positionals: [{ name: 'job', describe: 'Id of the job' }],
  options: [...operatorOptions, jsonOption],
  examples: [
    { line: 'understudy failback show 20261121T160000Z-0a1b2c3d', does: 'where it stands' },
  ],
  async run(context, settings) {
    const client = await connect(context, settings);
    const failback = await client.call<ApiFailback>('GET', failbackPath(settings.text('job')));
    print(context, failback, settings.flag('json'));
    return 0;
  },
};

const finish: CommandSpec = {
  path: ['failback', 'finish'],
  summary: "With the instance's services stopped: demand a last cut, then shut the instance out",
  options: [...operatorOptions, serverOption, acceptNewestOption, yesOption, jsonOption],
  examples: [
    {
      line: 'understudy failback finish --server web1',
      does: 'then failback run, on the original machine, writes the last difference',
    },
  ],
  async run(context, settings) {
    const client = await connect(context, settings);
    const active = await activeFailback(client, settings.text('server'));
    const failback = await finishFailback(context, client, active, {
      isSure: settings.flag('yes'),
      acceptNewest: settings.flag('accept-newest'),
    });
    print(context, failback, settings.flag('json'));
    return 0;
  },
};

const cancel: CommandSpec = {
  path: ['failback', 'cancel'],
  summary: 'Give a failback up: the machine before has the name again; points of both stay',
  options: [...operatorOptions, serverOption, yesOption, jsonOption],
  examples: [{ line: 'understudy failback cancel --server web1', does: 'the original goes on' }],
  async run(context, settings) {
    const client = await connect(context, settings);
    const server = settings.text('server');
    const { job } = await activeFailback(client, server);
    if (!settings.flag('yes')) {
      const what = `Give the name ${server} back to the machine before, and refuse the recovery instance?`;
      const home = 'What failback run has written there stays: put it back first (failback undo).';
      await context.confirm(`${what} ${home}`);
    }
    await client.call('POST', `${failbackPath(job)}/cancel`);
    const failback = await followFailback(context, client, job, () => false);
    print(context, failback, settings.flag('json'));
    return 0;
  },
};

export const failbackGroup: CommandGroup = {
  word: 'failback',
  summary: 'Bring a server home from its recovery instance',
  commands: [start, list, show, runFailback, finish, cancel, undoFailback],
};
