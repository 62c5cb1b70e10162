/** `understudy ec2 ...`: a recovery point as an instance in an AWS account, and its preparation. */
import { UnderstudyError } from '../../base/errors.ts';
import { cleanUp } from '../../recovery/ec2/cleanup.ts';
import { dryRun } from '../../recovery/ec2/dry-run.ts';
import { iamPolicyText } from '../../recovery/ec2/iam-policy.ts';
import {
  chooseBootMode,
  type LaunchedInstance,
  launchInstance,
  rootFirst,
} from '../../recovery/ec2/launch.ts';
import { prestage } from '../../recovery/ec2/prestage.ts';
import type { CommandGroup, CommandSpec } from '../command.ts';
import {
  chainJournal,
  chainOption,
  changedSince,
  connectAws,
  dryVolume,
  idleMinutes,
  idleOption,
  jobName,
  launchJournal,
  planOption,
  pointOf,
  pointOptions,
  putsOption,
  quotaOf,
  readChain,
  readPlan,
  recordOption,
  shareOf,
  sourcesOf,
  verifyOption,
} from '../ec2-options.ts';
import { renderDryRun } from '../ec2-view.ts';
import {
  connect,
  findPoint,
  jsonOption,
  operatorOptions,
  pointChoice,
  yesOption,
} from '../operator.ts';
import { pointImage } from '../point-image.ts';
import { renderFields } from '../table.ts';

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
  async run(context, settings) {
    const launchPlan = await readPlan(settings.text('plan'));
    const client = await connect(context, settings);
    const point = await findPoint(client, pointChoice(settings));
    const chain = await readChain(settings, point.server);
    const sources = rootFirst(await sourcesOf(client, point, chain), launchPlan.rootVolume);
    const told = dryRun({
      ...{ job: '<job>', server: point.server, point: point.id, plan: launchPlan },
      volumes: await Promise.all(sources.map((source) => dryVolume(source, point.id, launchPlan))),
      bootMode: await chooseBootMode(launchPlan, sources[0]!),
      instanceType: launchPlan.instanceType,
      checkShare: shareOf(settings),
      timeoutMinutes: idleMinutes(settings),
    });
    context.print(settings.flag('json') ? JSON.stringify(told, null, 2) : renderDryRun(told));
    return 0;
  },
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
    idleOption,
    { name: 'no-checks', type: 'flag', describe: "Do not wait for EC2's status checks" },
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
  async run(context, settings) {
    const launchPlan = await readPlan(settings.text('plan'));
    const journal = launchJournal(settings);
    const held = await journal.load();
    const client = await connect(context, settings);
    const point = await findPoint(client, pointOf(settings, held));
    const chain = await readChain(settings, point.server);
    const aws = connectAws(context, launchPlan);
    const progress = context.progress('upload');
    try {
      const done = await launchInstance(aws, {
        ...{ job: held?.job ?? jobName('launch'), server: point.server, point: point.id, journal },
        plan: launchPlan,
        sources: await sourcesOf(client, point, chain),
        quota: quotaOf(context, settings),
        stop: context.stop,
        checkShare: shareOf(settings),
        timeoutMinutes: idleMinutes(settings),
        waitsForChecks: !settings.flag('no-checks'),
        onProgress: (doneBytes, total, stage) => progress.update(doneBytes, total, stage),
        onNote: context.note,
      });
      context.print(settings.flag('json') ? JSON.stringify(done, null, 2) : rendered(done));
    } finally {
      progress.finish();
      aws.close();
    }
    return 0;
  },
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
    idleOption,
    jsonOption,
  ],
  examples: [
    {
      line: 'understudy ec2 prestage --point latest --server web1 --plan web1.json --chain web1.chain',
      does: 'from a timer, once an hour',
    },
  ],
  async run(context, settings) {
    const launchPlan = await readPlan(settings.text('plan'));
    const journal = chainJournal(settings);
    const client = await connect(context, settings);
    const point = await findPoint(client, pointChoice(settings));
    const aws = connectAws(context, launchPlan);
    const progress = context.progress('upload');
    try {
      const images = point.volumes.map(async ({ volume }) => ({
        volume,
        image: await pointImage(client, point.id, volume),
        changedSince: (from: string) => changedSince(client, from, point.id, volume),
      }));
      const done = await prestage(aws, {
        ...{ job: jobName('chain'), server: point.server, point: point.id, plan: launchPlan },
        sources: await Promise.all(images),
        journal,
        quota: quotaOf(context, settings),
        stop: context.stop,
        timeoutMinutes: idleMinutes(settings),
        onProgress: (volume, doneBytes, total) => progress.update(doneBytes, total, volume),
        onNote: context.note,
      });
      if (settings.flag('json')) context.print(JSON.stringify(done, null, 2));
      for (const { volume, kind, snapshotId, putBlocks } of settings.flag('json') ? [] : done) {
        context.print(`${volume}: ${snapshotId} (${kind}, ${putBlocks} blocks put)`);
      }
    } finally {
      progress.finish();
      aws.close();
    }
    return 0;
  },
};

const cleanup: CommandSpec = {
  path: ['ec2', 'cleanup'],
  summary: 'Remove what a launch has made: instance, image, snapshots',
  options: [
    planOption,
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
      line: 'understudy ec2 cleanup --plan web1.json --record drill.json --yes',
      does: 'end a drill',
    },
  ],
  async run(context, settings) {
    const launchPlan = await readPlan(settings.text('plan'));
    const journal = launchJournal(settings);
    const record = await journal.load();
    const path = settings.text('record');
    if (record === null) {
      throw new UnderstudyError('ERR_DISK_NOT_FOUND', `there is no ${path}`, { path });
    }
    const keepsInstance = settings.flag('keep-instance');
    if (!settings.flag('yes')) {
      const instance = keepsInstance ? '' : `terminate ${record.instanceId ?? 'its instance'}, `;
      await context.confirm(`${instance}remove the image and snapshots of ${record.job}?`);
    }
    const aws = connectAws(context, launchPlan);
    try {
      const { stop } = context;
      const report = await cleanUp(aws, { record, keepsInstance, stop, onNote: context.note });
      await journal.save({ ...record, isCleaned: true });
      if (settings.flag('json')) context.print(JSON.stringify(report, null, 2));
    } finally {
      aws.close();
    }
    return 0;
  },
};

const policy: CommandSpec = {
  path: ['ec2', 'policy'],
  summary: 'Print the IAM policy that the other ec2 commands need, and no more',
  options: [],
  examples: [
    { line: 'understudy ec2 policy > policy.json', does: 'as install/aws/iam-policy.json' },
  ],
  async run(context) {
    context.print(iamPolicyText().trimEnd());
    return 0;
  },
};

function rendered(done: LaunchedInstance): string {
  return renderFields([
    ['instance', `${done.instanceId} (${done.instanceType}, ${done.bootMode})`],
    ['private address', done.privateAddress ?? 'none'],
    ['public address', done.publicAddress ?? 'none'],
    ['image', done.imageId],
    ['snapshots', done.snapshotIds.join(', ')],
  ]);
}

export const ec2Group: CommandGroup = {
  word: 'ec2',
  summary: 'Recovery points as EC2 instances',
  commands: [plan, launch, prestageCommand, cleanup, policy],
};
