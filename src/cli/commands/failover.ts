/**
 * `understudy failover ...`: a recovery point takes over for real. From the moment that its machine is up
 * it holds data that is nowhere else: stopping it keeps its disks, and only `discard` throws them away.
 */
import { UnderstudyError } from '../../base/errors.ts';
import type { ApiJob, ApiServer } from '../../staging/api-types.ts';
import type { CommandContext, CommandGroup, CommandSpec } from '../command.ts';
import { jobPath } from '../job-log.ts';
import { jobPositional, ofKind, reportEnded, waitOption } from '../jobs.ts';
import {
  ask,
  ec2LaunchOptions,
  ec2LaunchSettings,
  launchPointOptions,
  tellStarted,
  vmOptions,
  wantedPoint,
} from '../launch.ts';
import { launchFields } from '../launch-fields.ts';
import { listCommand, stopCommand } from '../launched-jobs.ts';
import { connect, findPoint, jsonOption, operatorOptions, yesOption } from '../operator.ts';
import type { RestClient } from '../rest-client.ts';
import type { Settings } from '../settings.ts';

const machineOptions = vmOptions({ network: 'user', copy: 'yes' });
const JOB = '20261121T153512Z-3fa9c1d2';

const start: CommandSpec = {
  path: ['failover', 'start'],
  summary: 'Bring a recovery point up to take over from its source server',
  options: [
    ...operatorOptions,
    ...launchPointOptions,
    {
      name: 'again',
      type: 'text',
      value: 'JOB',
      describe: 'Start a failover that has ended again, from the disks that it has kept',
    },
    {
      name: 'target',
      type: 'text',
      choices: ['qemu', 'ec2'],
      describe: 'qemu: a virtual machine on the staging machine; ec2: AWS',
      default: 'qemu',
    },
    ...machineOptions,
    ...ec2LaunchOptions,
    {
      ...yesOption,
      describe: 'Do not ask where the source server, or a failover of it, runs: both will',
    },
    waitOption,
    jsonOption,
  ],
  examples: [
    {
      line: 'understudy failover start --server web1 --forward 0.0.0.0:443:443 --forward 2222:22 --wait',
      does: 'web1 as of its newest point; its ports 443 and 22 through this machine',
    },
    {
      line: 'understudy failover start --server web1 --at 10m --network bridge:br0 --memory 8GiB',
      does: 'as it was ten minutes ago, on a bridge of the staging machine',
    },
    {
      line: 'understudy failover start --server web1 --target ec2 --plan web1.json --wait',
      does: 'in AWS',
    },
    {
      line: `understudy failover start --again ${JOB} --wait`,
      does: 'on the disks that it has kept: after a stop, or a reboot of the staging machine',
    },
  ],
  async run(context, settings) {
    if (settings.optionalText('again') !== undefined) return startAgain(context, settings);
    const ec2 = await ec2LaunchSettings(settings);
    const client = await connect(context, settings);
    const point = await findPoint(client, wantedPoint(settings));
    if (settings.flag('dry-run')) {
      const { planJob } = await import('../ec2-run.ts');
      const planText = String(ec2.plan);
      return planJob(context, settings, { client, point, planText, kind: 'failover' });
    }
    const yes = await agree(context, settings, client, point.server);
    const body = { yes, options: { ...launchFields(machineOptions, settings), ...ec2 } };
    await ask(context, settings, { client, point, path: '/v1/failovers', body });
    return 0;
  },
};

/** Asks where the source replicates now, or a failover of it runs. True: both will. ERR_CLI_CONFIRMATION. */
async function agree(
  context: CommandContext,
  settings: Settings,
  client: RestClient,
  server: string,
): Promise<boolean> {
  if (settings.flag('yes')) return true;
  const twin = await runningTwin(client, server);
  if (twin === null) return false;
  await context.confirm(
    `${twin}, and what it writes will not be in the other one. Start another one anyway?`,
  );
  return true;
}

/** What runs of the server already, for people; null: nothing that is known of. */
async function runningTwin(client: RestClient, server: string): Promise<string | null> {
  const { jobs } = await client.call<{ jobs: ApiJob[] }>('GET', '/v1/jobs', {
    query: { kind: 'failover', server, limit: 1000 },
  });
  const other = jobs.find(({ outcome }) => outcome === null);
  if (other !== undefined) return `failover ${other.id} of ${server} runs already`;
  const { servers } = await client.call<{ servers: ApiServer[] }>('GET', '/v1/servers');
  const source = servers.find((each) => each.server === server);
  return source?.connected === true ? `${server} is replicating now: it runs` : null;
}

async function startAgain(context: CommandContext, settings: Settings): Promise<number> {
  const named = ['point', 'at', 'server'].filter((name) =>
    name === 'at' ? settings.optionalNumber(name) : settings.optionalText(name),
  );
  if (named.length > 0) {
    throw new UnderstudyError('ERR_USAGE', `--again takes no --${named[0]}: it is what it was`);
  }
  const client = await connect(context, settings);
  const { id, server, outcome } = await ofKind(client, settings.text('again'), 'failover');
  // One that runs is refused as such.
  const yes = outcome !== null && (await agree(context, settings, client, server));
  const started = await client.call<ApiJob>('POST', `${jobPath(id)}/again`, { body: { yes } });
  const told = `${id} starts again from the disks that it has kept`;
  await tellStarted(context, settings, { client, started, told });
  return 0;
}

const list = listCommand('failover', {
  summary: 'List failovers that run or have kept disks; with --all also those that are over',
  all: 'Those that are over and have kept nothing, too',
  example: { line: 'understudy failover list', does: 'what took over, and what it keeps' },
});

const stop = stopCommand('failover', {
  summary: 'Shut a failover down in order; its disks are kept',
  does: 'returns when it is down',
  options: [
    {
      name: 'timeout',
      type: 'duration',
      value: 'TIME',
      describe: 'So long the guest may take to shut down; then it is cut off',
      default: '2m',
    },
  ],
});

const discard: CommandSpec = {
  path: ['failover', 'discard'],
  summary: 'Throw away the disks that a failover which is over has kept',
  positionals: [jobPositional],
  options: [
    ...operatorOptions,
    { ...yesOption, describe: 'Do not ask: what was written since the failover is lost' },
    jsonOption,
  ],
  examples: [
    { line: `understudy failover discard ${JOB} --yes`, does: 'for good: after a failback, say' },
  ],
  async run(context, settings) {
    const client = await connect(context, settings);
    const { id, server } = await ofKind(client, settings.text('job'), 'failover');
    if (!settings.flag('yes')) {
      await context.confirm(
        `All that ${server} has written since failover ${id} will be lost. Go on?`,
      );
    }
    const job = await client.call<ApiJob>('POST', `${jobPath(id)}/discard`);
    if (job.cleanError !== null) reportEnded(context, job, settings.flag('json'));
    context.print(settings.flag('json') ? JSON.stringify(job, null, 2) : `${id} is discarded`);
    return 0;
  },
};

export const failoverGroup: CommandGroup = {
  word: 'failover',
  summary: 'Failovers: recovery points that take over from their source servers',
  commands: [start, list, stop, discard],
};
