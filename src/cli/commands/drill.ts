/** `understudy drill ...`: recovery points made to run, beside everything else and leaving it alone. */
import type { CommandGroup, CommandSpec } from '../command.ts';
import { waitOption } from '../jobs.ts';
import {
  ask,
  drillOptions,
  ec2LaunchOptions,
  ec2LaunchSettings,
  launchPointOptions,
  vmOptions,
  wantedPoint,
} from '../launch.ts';
import { launchFields } from '../launch-fields.ts';
import { listCommand, stopCommand } from '../launched-jobs.ts';
import { connect, findPoint, jsonOption, operatorOptions } from '../operator.ts';

const machineOptions = [...vmOptions({ network: 'isolated', copy: 'no' }), ...drillOptions];

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
    ...machineOptions,
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
      line: "understudy drill start --probe serial:root --probe-password-file web1 --probe-run 'pg_isready'",
      does: 'the same on its serial console: a guest without a network will do',
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
    const body = { options: { ...launchFields(machineOptions, settings), ...ec2 } };
    await ask(context, settings, { client, point, path: '/v1/drills', body });
    return 0;
  },
};

const list = listCommand('drill', {
  summary: 'List drills that are not over; with --all also those that are remembered',
  all: 'Those that are over, too',
  example: { line: 'understudy drill list --all', does: 'every drill, and how it went' },
});

const stop = stopCommand('drill', {
  summary: 'End a drill: its machine is shut off, and what it wrote is thrown away',
  does: 'returns when all is gone',
});

export const drillGroup: CommandGroup = {
  word: 'drill',
  summary: 'Drills: recovery points made to run, leaving everything else alone',
  commands: [start, list, stop],
};
