/** `understudy drill ...`: recovery points made to run, beside everything else and leaving it alone. */
import { imageFormats } from '../../recovery/convert.ts';
import type { ApiJob } from '../../staging/api-types.ts';
import type { CommandGroup, CommandSpec } from '../command.ts';
import {
  follow,
  jobPath,
  jobPositional,
  ofKind,
  printJobs,
  reportEnded,
  waitOption,
} from '../jobs.ts';
import {
  ask,
  ec2LaunchOptions,
  ec2LaunchSettings,
  launchPointOptions,
  vmOptions,
  vmSettings,
  wantedPoint,
} from '../launch.ts';
import { connect, findPoint, jsonOption, operatorOptions } from '../operator.ts';
import type { Settings } from '../settings.ts';

/** The options that were given, by the names of the API. */
function launchOptions(settings: Settings): Record<string, unknown> {
  const options = { ...vmSettings(settings), format: settings.optionalText('format') };
  return settings.flag('keep-running') ? { ...options, keepRunning: true } : options;
}

const start: CommandSpec = {
  path: ['drill', 'start'],
  summary: 'Launch a recovery point: boot it in a virtual machine at once, or write it to files',
  options: [
    ...operatorOptions,
    ...launchPointOptions,
    {
      name: 'target',
      type: 'text',
      choices: ['qemu', 'export', 'ec2'],
      describe: 'qemu: a virtual machine on the staging machine; export: files there; ec2: AWS',
      default: 'qemu',
    },
    ...vmOptions({ network: 'isolated', copy: 'no' }),
    { name: 'keep-running', type: 'flag', describe: 'qemu: leave the machine up after its check' },
    {
      name: 'format',
      type: 'text',
      choices: imageFormats,
      describe: 'export: format of the files (raw)',
    },
    ...ec2LaunchOptions,
    waitOption,
    jsonOption,
  ],
  examples: [
    { line: 'understudy drill start --server web1 --check --wait', does: 'does web1 boot?' },
    {
      line: 'understudy drill start --server web1 --at 10m --memory 4GiB --vnc 127.0.0.1:5901',
      does: 'web1 as it was ten minutes ago, with a screen, until drill stop',
    },
    {
      line: 'understudy drill start --server web1 --probe http:/health --wait',
      does: 'until its web server answers',
    },
    {
      line: "understudy drill start --server web1 --probe ssh: --probe-key drill --probe-run 'pg_isready'",
      does: 'until that command ends with 0 in the guest',
    },
    {
      line: 'understudy drill start --server web1 --target export --format qcow2 --wait',
      does: 'all its disks as files on the staging machine',
    },
    {
      line: 'understudy drill start --server web1 --target ec2 --plan web1.json --dry-run',
      does: 'the calls to AWS that it would make, and their cost',
    },
  ],
  async run(context, settings) {
    const ec2 = await ec2LaunchSettings(settings);
    const client = await connect(context, settings);
    const point = await findPoint(client, wantedPoint(settings));
    if (settings.flag('dry-run')) {
      const { planJob } = await import('../ec2-run.ts');
      const planText = String(ec2.plan);
      return planJob(context, settings, { client, point, planText, kind: 'drill' });
    }
    const body = { options: { ...launchOptions(settings), ...ec2 } };
    await ask(context, settings, { client, point, path: '/v1/drills', body });
    return 0;
  },
};

const list: CommandSpec = {
  path: ['drill', 'list'],
  summary: 'List drills that are not over; with --all also those that are remembered',
  options: [
    ...operatorOptions,
    { name: 'all', type: 'flag', describe: 'Those that are over, too' },
    jsonOption,
  ],
  examples: [{ line: 'understudy drill list --all', does: 'every drill, and how it went' }],
  async run(context, settings) {
    const client = await connect(context, settings);
    const { jobs } = await client.call<{ jobs: ApiJob[] }>('GET', '/v1/jobs', {
      query: { kind: 'drill', active: settings.flag('all') ? undefined : 'true', limit: 1000 },
    });
    printJobs(context, jobs, settings.flag('json'));
    return 0;
  },
};

const stop: CommandSpec = {
  path: ['drill', 'stop'],
  summary: 'End a drill: its machine is shut off, and what it wrote is thrown away',
  positionals: [jobPositional],
  options: [...operatorOptions, jsonOption],
  examples: [
    { line: 'understudy drill stop 20261121T153512Z-3fa9c1d2', does: 'returns when all is gone' },
  ],
  async run(context, settings) {
    const client = await connect(context, settings);
    const { id } = await ofKind(client, settings.text('job'), 'drill');
    const asked = await client.call<ApiJob>('POST', `${jobPath(id)}/stop`);
    const job = await follow(context, client, asked, () => false);
    reportEnded(context, job, settings.flag('json'));
    return 0;
  },
};

export const drillGroup: CommandGroup = {
  word: 'drill',
  summary: 'Drills: recovery points made to run, leaving everything else alone',
  commands: [start, list, stop],
};
