/** `understudy drill ...`: recovery points made to run, beside everything else and leaving it alone. */
import { UnderstudyError } from '../../base/errors.ts';
import { imageFormats } from '../../recovery/convert.ts';
import type { ApiJob } from '../../staging/api-types.ts';
import type { CommandGroup, CommandSpec } from '../command.ts';
import { planOption, readText, verifyOption } from '../ec2-options.ts';
import {
  follow,
  isUp,
  jobPath,
  jobPositional,
  printJobs,
  renderJob,
  reportJob,
  waitOption,
} from '../jobs.ts';
import {
  atOptions,
  connect,
  findPoint,
  jsonOption,
  operatorOptions,
  type PointChoice,
  pointChoice,
} from '../operator.ts';
import type { OptionSpec } from '../option.ts';
import type { Settings } from '../settings.ts';

const qemuOptions: readonly OptionSpec[] = [
  {
    name: 'check',
    type: 'flag',
    describe: 'qemu: wait for the login prompt on the serial console, keep the evidence, end it',
  },
  {
    name: 'probe',
    type: 'text',
    value: 'WHAT',
    describe: 'qemu: check by console, tcp:PORT or http:[PORT]/PATH of the guest (10.0.2.15, DHCP)',
  },
  {
    name: 'timeout',
    type: 'duration',
    value: 'TIME',
    describe: 'qemu: the check has failed after so long (10m)',
  },
  { name: 'keep-running', type: 'flag', describe: 'qemu: leave the machine up after its check' },
  { name: 'memory', type: 'size', value: 'SIZE', describe: 'qemu: memory of the machine (2GiB)' },
  { name: 'cpus', type: 'count', value: 'N', describe: 'qemu: processors of the machine (2)' },
  { name: 'bus', type: 'text', choices: ['virtio', 'nvme'], describe: 'qemu: disks as (virtio)' },
  {
    name: 'firmware',
    type: 'text',
    choices: ['auto', 'bios', 'uefi'],
    describe: 'qemu: auto looks at the partition table',
  },
  {
    name: 'accel',
    type: 'text',
    choices: ['auto', 'kvm', 'tcg'],
    describe: 'qemu: auto takes KVM where a timed test boot shows that it works, else TCG',
  },
  {
    name: 'network',
    type: 'text',
    choices: ['isolated', 'none'],
    describe: 'qemu: isolated has a card that leads nowhere (the default)',
  },
  {
    name: 'vnc',
    type: 'text',
    value: 'HOST:PORT',
    describe: 'qemu: show the screen there; VNC has no password, so 127.0.0.1:5901',
  },
];

/** The options that were given, by the names of the API. */
function launchOptions(settings: Settings): Record<string, unknown> {
  const options: Record<string, unknown> = {
    memoryBytes: settings.optionalNumber('memory'),
    cpus: settings.optionalNumber('cpus'),
    timeoutMs: settings.optionalNumber('timeout'),
  };
  for (const name of ['probe', 'bus', 'firmware', 'accel', 'network', 'vnc', 'format']) {
    options[name] = settings.optionalText(name);
  }
  if (settings.flag('check')) options.check = true;
  if (settings.flag('keep-running')) options.keepRunning = true;
  return options;
}

const ec2Options: readonly OptionSpec[] = [
  { ...planOption, describe: `ec2: ${planOption.describe}`, required: false },
  { ...verifyOption, describe: `ec2: ${verifyOption.describe}` },
  {
    name: 'dry-run',
    type: 'flag',
    describe: 'ec2: show every call that would be made, and the cost; nothing is asked of AWS',
  },
];

/** Of the target ec2 alone: the others know none of them. */
async function ec2LaunchOptions(settings: Settings): Promise<Record<string, unknown>> {
  if (settings.text('target') !== 'ec2') {
    if (!settings.flag('dry-run')) return {};
    throw new UnderstudyError('ERR_USAGE', '--dry-run is for --target ec2');
  }
  const path = settings.optionalText('plan');
  if (path === undefined) throw new UnderstudyError('ERR_USAGE', '--target ec2 needs --plan FILE');
  return { plan: await readText(path), verify: settings.text('verify') };
}

/** Without --point and --at the newest one is meant. */
function wantedPoint(settings: Settings): PointChoice {
  const isNamed = settings.optionalText('point') ?? settings.optionalNumber('at');
  if (isNamed !== undefined) return pointChoice(settings);
  const server = settings.optionalText('server');
  return { point: 'latest', atMs: undefined, server, isPartialWanted: false };
}

const start: CommandSpec = {
  path: ['drill', 'start'],
  summary: 'Launch a recovery point: boot it in a virtual machine at once, or write it to files',
  options: [
    ...operatorOptions,
    {
      name: 'server',
      type: 'text',
      value: 'NAME',
      describe: 'Source server; may be left out where there is only one',
    },
    { name: 'point', type: 'text', value: 'ID', describe: 'Recovery point; else the newest one' },
    ...atOptions,
    {
      name: 'target',
      type: 'text',
      choices: ['qemu', 'export', 'ec2'],
      describe: 'qemu: a virtual machine on the staging machine; export: files there; ec2: AWS',
      default: 'qemu',
    },
    ...qemuOptions,
    {
      name: 'format',
      type: 'text',
      choices: imageFormats,
      describe: 'export: format of the files (raw)',
    },
    ...ec2Options,
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
      line: 'understudy drill start --server web1 --target export --format qcow2 --wait',
      does: 'all its disks as files on the staging machine',
    },
    {
      line: 'understudy drill start --server web1 --target ec2 --plan web1.json --dry-run',
      does: 'the calls to AWS that it would make, and their cost',
    },
  ],
  async run(context, settings) {
    const ec2 = await ec2LaunchOptions(settings);
    const client = await connect(context, settings);
    const point = await findPoint(client, wantedPoint(settings));
    if (settings.flag('dry-run')) {
      const { planDrill } = await import('../ec2-run.ts');
      return planDrill(context, settings, { client, point, planText: String(ec2.plan) });
    }
    const started = await client.call<ApiJob>('POST', '/v1/drills', {
      body: {
        point: point.id,
        target: settings.text('target'),
        options: { ...launchOptions(settings), ...ec2 },
      },
    });
    const isJson = settings.flag('json');
    if (settings.flag('wait')) {
      const job = await follow(context, client, started, isUp);
      reportJob(context, job, { isJson, url: client.url });
    } else if (isJson) context.print(JSON.stringify(started, null, 2));
    else {
      context.print(`${started.id} launches ${point.id} of ${point.server}`);
      context.note(`follow it: understudy job wait ${started.id}`);
    }
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
    const path = `${jobPath(settings.text('job'))}/stop`;
    const asked = await client.call<ApiJob>('POST', path);
    const job = await follow(context, client, asked, () => false);
    context.print(settings.flag('json') ? JSON.stringify(job, null, 2) : renderJob(job));
    return 0;
  },
};

export const drillGroup: CommandGroup = {
  word: 'drill',
  summary: 'Drills: recovery points made to run, leaving everything else alone',
  commands: [start, list, stop],
};
