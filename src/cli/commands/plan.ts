/** `understudy plan ...`: recovery plans: servers in ordered groups, brought back by one command. */
import { UnderstudyError } from '../../base/errors.ts';
import type {
  ApiAppliedPlan,
  ApiJob,
  ApiPlan,
  ApiPlanCheck,
  ApiPlans,
  ApiServer,
} from '../../staging/api-types.ts';
import type { CommandContext, CommandGroup, CommandSpec } from '../command.ts';
import { jobPath } from '../job-log.ts';
import {
  follow,
  isSettled,
  jobPositional,
  renderJob,
  reportEnded,
  reportJob,
  waitOption,
} from '../jobs.ts';
import { connect, jsonOption, operatorOptions, yesOption } from '../operator.ts';
import type { OptionSpec } from '../option.ts';
import { planColumns, readPlanFile, renderPlan, renderPlanCheck } from '../plans.ts';
import type { RestClient } from '../rest-client.ts';
import type { Settings } from '../settings.ts';
import { renderTable } from '../table.ts';

const planPositional = { name: 'plan', describe: 'Name of the plan' };
const planPath = (name: string): string => `/v1/plans/${encodeURIComponent(name)}`;
const atOption: OptionSpec = {
  name: 'at',
  type: 'time',
  value: 'TIME',
  describe: 'All servers as they were then, whatever the plan says of points: a date, or 10m ago',
};
const atText = (settings: Settings): string | undefined => {
  const atMs = settings.optionalNumber('at');
  return atMs === undefined ? undefined : new Date(atMs).toISOString();
};

const example = JSON.stringify(
  {
    name: 'shop',
    groups: [
      {
        name: 'data',
        members: [{ server: 'db1', waitFor: 'check', timeout: '10m', maxAge: '1h' }],
      },
      {
        ...{ name: 'web', waitBefore: '10s', pre: { script: 'move-dns', arguments: ['shop'] } },
        members: [{ server: 'web1' }, { server: 'cache1', isCritical: false }],
      },
    ],
  },
  null,
  2,
);

const apply: CommandSpec = {
  path: ['plan', 'apply'],
  summary: 'Keep the plan in a JSON file, in the place of one of the same name',
  positionals: [{ name: 'file', describe: 'The plan' }],
  options: [...operatorOptions, jsonOption],
  examples: [
    { line: 'understudy plan apply shop.json', does: 'checks every field, and keeps it' },
    { line: 'understudy plan apply /dev/stdin < shop.json', does: 'the same' },
  ],
  below: `A plan:\n\n${example}`,
  async run(context, settings) {
    const file = await readPlanFile(settings.text('file'));
    const client = await connect(context, settings);
    const plan = await client.call<ApiAppliedPlan>('POST', '/v1/plans', { body: file });
    if (settings.flag('json')) context.print(JSON.stringify(plan, null, 2));
    else {
      context.print(
        `plan ${plan.name} is kept: ${plan.servers.length} ${plan.servers.length === 1 ? 'server' : 'servers'}`,
      );
      for (const line of plan.missing) context.note(`warning: ${line}`);
      context.note(`try it: understudy plan check ${plan.name}`);
    }
    return 0;
  },
};

const list: CommandSpec = {
  path: ['plan', 'list'],
  summary: 'List the recovery plans',
  options: [...operatorOptions, jsonOption],
  examples: [{ line: 'understudy plan list', does: 'each with its groups and servers' }],
  async run(context, settings) {
    const client = await connect(context, settings);
    const { plans } = await client.call<ApiPlans>('GET', '/v1/plans');
    if (settings.flag('json')) context.print(JSON.stringify(plans, null, 2));
    else if (plans.length === 0) context.note('no plans');
    else context.print(renderTable(plans, planColumns, context.columns));
    return 0;
  },
};

const show: CommandSpec = {
  path: ['plan', 'show'],
  summary: 'Show a plan as it was applied',
  positionals: [planPositional],
  options: [...operatorOptions, jsonOption],
  examples: [
    { line: 'understudy plan show shop --json | jq .file >shop.json', does: 'its file back' },
  ],
  async run(context, settings) {
    const client = await connect(context, settings);
    const plan = await client.call<ApiPlan>('GET', planPath(settings.text('plan')));
    context.print(settings.flag('json') ? JSON.stringify(plan, null, 2) : renderPlan(plan));
    return 0;
  },
};

const remove: CommandSpec = {
  path: ['plan', 'remove'],
  summary: 'Forget a plan; jobs that it has begun go on',
  positionals: [planPositional],
  options: [...operatorOptions, jsonOption],
  examples: [{ line: 'understudy plan remove shop', does: 'one plan less' }],
  async run(context, settings) {
    const client = await connect(context, settings);
    const name = settings.text('plan');
    const answer = await client.call('DELETE', planPath(name));
    context.print(settings.flag('json') ? JSON.stringify(answer) : `plan ${name} is forgotten`);
    return 0;
  },
};

const check: CommandSpec = {
  path: ['plan', 'check'],
  summary: 'Dry run: which points would be taken, how old, and what is in the way; makes nothing',
  positionals: [planPositional],
  options: [
    ...operatorOptions,
    {
      name: 'kind',
      type: 'text',
      choices: ['drill', 'failover'],
      describe: 'What would be run',
      default: 'drill',
    },
    atOption,
    jsonOption,
  ],
  examples: [
    { line: 'understudy plan check shop', does: 'exit code 6 where something is in the way' },
    { line: 'understudy plan check shop --kind failover --at 1h', does: 'an hour ago, for real' },
  ],
  async run(context, settings) {
    const client = await connect(context, settings);
    const name = settings.text('plan');
    const checked = await client.call<ApiPlanCheck>('GET', `${planPath(name)}/check`, {
      query: { kind: settings.text('kind'), at: atText(settings) },
    });
    const isJson = settings.flag('json');
    context.print(
      isJson ? JSON.stringify(checked, null, 2) : renderPlanCheck(checked, context.columns),
    );
    return checked.isReady ? 0 : new UnderstudyError('ERR_PLAN_CHECK', name).spec.exitCode;
  },
};

async function start(
  context: CommandContext,
  settings: Settings,
  { client, kind }: { client: RestClient; kind: 'drill' | 'failover' },
): Promise<number> {
  const path = `${planPath(settings.text('plan'))}/${kind}`;
  const body = { at: atText(settings) ?? null, ...(kind === 'failover' && { yes: true }) };
  const started = await client.call<ApiJob>('POST', path, { body });
  const isJson = settings.flag('json');
  if (settings.flag('wait')) {
    const job = await follow(context, client, started, isSettled);
    reportJob(context, job, { isJson, url: client.url });
  } else if (isJson) context.print(JSON.stringify(started, null, 2));
  else {
    context.print(`${started.id} runs plan ${settings.text('plan')} as a ${kind}`);
    context.note(`follow it: understudy job wait ${started.id}`);
  }
  return 0;
}

const waiting: OptionSpec = {
  ...waitOption,
  describe: 'Return when all steps have ended, or the plan is halted, which is an error',
};

const drill: CommandSpec = {
  path: ['plan', 'drill'],
  summary: 'Run a plan as a drill: its machines leave everything else alone; plan stop ends them',
  positionals: [planPositional],
  options: [...operatorOptions, atOption, waiting, jsonOption],
  examples: [
    { line: 'understudy plan drill shop --wait', does: 'step by step, until all are up' },
    { line: 'understudy plan drill shop --at 2026-11-20T10:00:00Z', does: 'all as of one instant' },
  ],
  async run(context, settings) {
    return start(context, settings, { client: await connect(context, settings), kind: 'drill' });
  },
};

/** Those of the plan whose agents replicate now. */
async function connectedServers(client: RestClient, plan: string): Promise<string[]> {
  const { servers } = await client.call<ApiPlan>('GET', planPath(plan));
  const known = await client.call<{ servers: ApiServer[] }>('GET', '/v1/servers');
  return known.servers
    .filter(({ server, connected }) => connected && servers.includes(server))
    .map(({ server }) => server);
}

const failover: CommandSpec = {
  path: ['plan', 'failover'],
  summary: 'Run a plan for real: its machines take over, and stay when the plan is done',
  positionals: [planPositional],
  options: [...operatorOptions, atOption, waiting, yesOption, jsonOption],
  examples: [
    { line: 'understudy plan failover shop --wait', does: 'asks first' },
    { line: 'understudy plan failover shop --yes --at 10m', does: 'all as ten minutes ago' },
  ],
  async run(context, settings) {
    const client = await connect(context, settings);
    const name = settings.text('plan');
    if (!settings.flag('yes')) {
      const connected = await connectedServers(client, name);
      const still =
        connected.length === 0 ? '' : ` ${connected.join(', ')} still run and replicate.`;
      await context.confirm(`Bring the servers of plan ${name} up for real?${still}`);
    }
    return start(context, settings, { client, kind: 'failover' });
  },
};

const retry: CommandSpec = {
  path: ['plan', 'retry'],
  summary: 'Run one failed step of a plan again; a plan that it has halted goes on',
  positionals: [jobPositional],
  options: [
    ...operatorOptions,
    { name: 'step', type: 'count', value: 'N', describe: 'The step (job show)', required: true },
    {
      name: 'point',
      type: 'text',
      value: 'ID|latest',
      describe: 'Of a member: from this point, instead of the one that was chosen',
    },
    waiting,
    jsonOption,
  ],
  examples: [
    { line: 'understudy plan retry 20261121T153512Z-3fa9c1d2 --step 4 --wait', does: 'and on' },
    {
      line: 'understudy plan retry 20261121T153512Z-3fa9c1d2 --step 4 --point latest',
      does: 'from the newest point',
    },
  ],
  async run(context, settings) {
    const client = await connect(context, settings);
    const asked = await client.call<ApiJob>('POST', `${jobPath(settings.text('job'))}/retry`, {
      body: { step: settings.number('step'), point: settings.optionalText('point') ?? null },
    });
    const isJson = settings.flag('json');
    if (settings.flag('wait')) {
      const job = await follow(context, client, asked, isSettled);
      reportJob(context, job, { isJson, url: client.url });
    } else context.print(isJson ? JSON.stringify(asked, null, 2) : renderJob(asked));
    return 0;
  },
};

const accept: CommandSpec = {
  path: ['plan', 'accept'],
  summary: 'Take one failed step of a plan as done, because somebody has put it right; it goes on',
  positionals: [jobPositional],
  options: [
    ...operatorOptions,
    { name: 'step', type: 'count', value: 'N', describe: 'The step (job show)', required: true },
    jsonOption,
  ],
  examples: [
    {
      line: 'understudy plan accept 20261121T153512Z-3fa9c1d2 --step 4',
      does: 'web1 runs by now, though its check has failed',
    },
  ],
  async run(context, settings) {
    const client = await connect(context, settings);
    const job = await client.call<ApiJob>('POST', `${jobPath(settings.text('job'))}/accept`, {
      body: { step: settings.number('step') },
    });
    context.print(settings.flag('json') ? JSON.stringify(job, null, 2) : renderJob(job));
    return 0;
  },
};

const stop: CommandSpec = {
  path: ['plan', 'stop'],
  summary: 'End the job of a plan: drills are ended, the last first; failed over servers stay',
  positionals: [jobPositional],
  options: [...operatorOptions, jsonOption],
  examples: [
    { line: 'understudy plan stop 20261121T153512Z-3fa9c1d2', does: 'returns when all is gone' },
  ],
  async run(context, settings) {
    const client = await connect(context, settings);
    const path = jobPath(settings.text('job'));
    const { kind } = await client.call<ApiJob>('GET', path);
    if (kind !== 'plan') {
      throw new UnderstudyError('ERR_USAGE', `job ${settings.text('job')} is a ${kind}, no plan`);
    }
    const asked = await client.call<ApiJob>('POST', `${path}/stop`);
    const job = await follow(context, client, asked, () => false);
    reportEnded(context, job, settings.flag('json'));
    return 0;
  },
};

export const planGroup: CommandGroup = {
  word: 'plan',
  summary: 'Recovery plans: servers in ordered groups, brought back by one command',
  commands: [apply, list, show, remove, check, drill, failover, retry, accept, stop],
};
