/**
 * `understudy ec2 ...`: a recovery point as an instance in an AWS account, and its preparation. What the
 * commands do is loaded when one of them runs: the SDK is too large for every command and service.
 */
import type { CommandGroup, CommandSpec } from '../command.ts';
import {
  chainOption,
  idleOption,
  parallelOption,
  planOption,
  pointOptions,
  pricesOption,
  putsOption,
  recordOption,
  verifyOption,
} from '../ec2-options.ts';
import { jsonOption, operatorOptions, yesOption } from '../operator.ts';
import { chainGroup, statusCommand } from './ec2-chain.ts';

const running = () => import('../ec2-run.ts');

const plan: CommandSpec = {
  path: ['ec2', 'plan'],
  summary: 'Show every call that a launch would make, and what it would cost; asks AWS nothing',
  options: [
    ...operatorOptions,
    ...pointOptions,
    planOption,
    chainOption,
    verifyOption,
    idleOption,
    pricesOption,
    jsonOption,
  ],
  examples: [
    {
      line: 'understudy ec2 plan --server web1 --point latest --plan web1.json',
      does: 'the calls and the cost',
    },
    {
      line: 'understudy ec2 plan --point ID --plan web1.json --json | jq .hourly',
      does: 'what an hour of it costs',
    },
  ],
  run: async (context, settings) => (await running()).plan(context, settings),
};

const launch: CommandSpec = {
  path: ['ec2', 'launch'],
  summary: 'Upload a point to EBS and run an instance of it; run again, it goes on where it was',
  options: [
    ...operatorOptions,
    ...pointOptions,
    planOption,
    recordOption,
    chainOption,
    verifyOption,
    putsOption,
    parallelOption,
    idleOption,
    { name: 'skip-checks', type: 'flag', describe: "Do not wait for EC2's status checks" },
    jsonOption,
  ],
  examples: [
    {
      line: 'understudy ec2 launch --point latest --server web1 --plan web1.json --record drill.json',
      does: 'a drill, to be removed by ec2 cleanup --record drill.json',
    },
    {
      line: 'understudy ec2 launch --point ID --plan web1.json --record f.json --chain web1.chain',
      does: 'only what differs from the snapshots that ec2 prestage has made',
    },
  ],
  run: async (context, settings) => (await running()).launch(context, settings),
};

const prestageCommand: CommandSpec = {
  path: ['ec2', 'prestage'],
  summary:
    'Bring the EBS snapshots of a server up to a point; the first time all, then differences',
  options: [
    ...operatorOptions,
    ...pointOptions,
    planOption,
    { ...chainOption, describe: 'Where the chain is written down', required: true },
    putsOption,
    parallelOption,
    idleOption,
    jsonOption,
  ],
  examples: [
    {
      line: 'understudy ec2 prestage --point latest --server web1 --plan web1.json --chain web1.chain',
      does: 'from a timer, once an hour',
    },
  ],
  run: async (context, settings) => (await running()).prestage(context, settings),
};

const cleanup: CommandSpec = {
  path: ['ec2', 'cleanup'],
  summary: 'Remove what a launch has made: instance, image, snapshots',
  options: [
    recordOption,
    {
      name: 'keep-instance',
      type: 'flag',
      describe: 'After a failover: leave the instance, remove image and snapshots',
    },
    yesOption,
    jsonOption,
  ],
  examples: [
    {
      line: 'understudy ec2 cleanup --record drill.json --yes',
      does: 'end a drill',
    },
  ],
  run: async (context, settings) => (await running()).cleanup(context, settings),
};

const policy: CommandSpec = {
  path: ['ec2', 'policy'],
  summary: 'Print the IAM policy that the other ec2 commands need, and no more',
  options: [],
  examples: [
    { line: 'understudy ec2 policy > policy.json', does: 'as install/aws/iam-policy.json' },
  ],
  run: async (context) => (await running()).policy(context),
};

export const ec2Group: CommandGroup = {
  word: 'ec2',
  summary: 'Recovery points as EC2 instances',
  commands: [plan, launch, prestageCommand, statusCommand, cleanup, policy],
  groups: [chainGroup],
};
