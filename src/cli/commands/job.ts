/** `understudy job ...`: jobs of every kind: their states, logs and ends. */
import { jobKinds } from '../../recovery/runner.ts';
import type { ApiJob } from '../../staging/api-types.ts';
import type { CommandGroup, CommandSpec } from '../command.ts';
import { jobPath, plainLog, readJobLog } from '../job-log.ts';
import {
  follow,
  isSettled,
  jobPositional,
  noteWarnings,
  printJobs,
  renderJob,
  reportEnded,
  reportJob,
} from '../jobs.ts';
import { assertServer, connect, jsonOption, operatorOptions } from '../operator.ts';

const MAX_JOBS = 1000;

const list: CommandSpec = {
  path: ['job', 'list'],
  summary: 'List jobs, newest first',
  options: [
    ...operatorOptions,
    { name: 'server', type: 'text', value: 'NAME', describe: 'Only jobs of this source server' },
    { name: 'kind', type: 'text', choices: jobKinds, describe: 'Only jobs of this kind' },
    { name: 'active', type: 'flag', describe: 'Only jobs that are not over and cleaned up' },
    { name: 'limit', type: 'count', value: 'N', describe: 'At most so many', default: 50 },
    jsonOption,
  ],
  examples: [{ line: 'understudy job list --active', does: 'what runs now' }],
  async run(context, settings) {
    const client = await connect(context, settings);
    const { jobs } = await client.call<{ jobs: ApiJob[] }>('GET', '/v1/jobs', {
      query: {
        server: settings.optionalText('server'),
        kind: settings.optionalText('kind'),
        active: settings.flag('active') ? 'true' : undefined,
        limit: Math.min(MAX_JOBS, settings.number('limit')),
      },
    });
    if (jobs.length === 0) await assertServer(client, settings.optionalText('server'));
    printJobs(context, jobs, settings.flag('json'));
    return 0;
  },
};

const show: CommandSpec = {
  path: ['job', 'show'],
  summary: 'Show a job: its state, how to reach what it runs, the verdict of its check',
  positionals: [jobPositional],
  options: [...operatorOptions, jsonOption],
  examples: [{ line: 'understudy job show 20261121T153512Z-3fa9c1d2', does: 'one job' }],
  async run(context, settings) {
    const client = await connect(context, settings);
    const job = await client.call<ApiJob>('GET', jobPath(settings.text('job')));
    context.print(settings.flag('json') ? JSON.stringify(job, null, 2) : renderJob(job));
    return 0;
  },
};

const wait: CommandSpec = {
  path: ['job', 'wait'],
  summary: 'Wait until a job is up, or has ended; one that failed is an error',
  positionals: [jobPositional],
  options: [
    ...operatorOptions,
    { name: 'ended', type: 'flag', describe: 'Until it has ended, also where it is up' },
    jsonOption,
  ],
  examples: [
    {
      line: 'understudy job wait 20261121T153512Z-3fa9c1d2 && echo fine',
      does: 'the exit code tells how it went',
    },
  ],
  async run(context, settings) {
    const client = await connect(context, settings);
    const first = await client.call<ApiJob>('GET', jobPath(settings.text('job')));
    const isReached = settings.flag('ended') ? () => false : isSettled;
    const job = await follow(context, client, first, isReached);
    await noteWarnings(context, client, job);
    reportJob(context, job, { isJson: settings.flag('json'), url: client.url });
    return 0;
  },
};

const cancel: CommandSpec = {
  path: ['job', 'cancel'],
  summary: 'Give a job up: what it runs is ended, what it made is taken away',
  positionals: [jobPositional],
  options: [...operatorOptions, jsonOption],
  examples: [
    { line: 'understudy job cancel 20261121T153512Z-3fa9c1d2', does: 'returns when it is over' },
  ],
  async run(context, settings) {
    const client = await connect(context, settings);
    const path = `${jobPath(settings.text('job'))}/cancel`;
    const asked = await client.call<ApiJob>('POST', path);
    const job = await follow(context, client, asked, () => false);
    reportEnded(context, job, settings.flag('json'));
    return 0;
  },
};

const log: CommandSpec = {
  path: ['job', 'log'],
  summary: 'Print the log of a job',
  positionals: [jobPositional],
  options: [
    ...operatorOptions,
    {
      name: 'of',
      type: 'text',
      value: 'WHAT',
      describe:
        'job, console (what the guest printed), probe (what a command over serial said), qemu, disk0, ...',
      default: 'job',
    },
    jsonOption,
  ],
  examples: [
    { line: 'understudy job log 20261121T153512Z-3fa9c1d2', does: 'what was done, step by step' },
    {
      line: 'understudy job log 20261121T153512Z-3fa9c1d2 --of console',
      does: 'the serial console of the machine that was booted',
    },
  ],
  async run(context, settings) {
    const client = await connect(context, settings);
    const text = await readJobLog(client, settings.text('job'), { of: settings.text('of') });
    context.print(settings.flag('json') ? JSON.stringify({ text }) : plainLog(text));
    return 0;
  },
};

const remove: CommandSpec = {
  path: ['job', 'remove'],
  summary: 'Forget a job that is over, with its log and evidence; exported files stay',
  positionals: [jobPositional],
  options: [...operatorOptions, jsonOption],
  examples: [{ line: 'understudy job remove 20261121T153512Z-3fa9c1d2', does: 'one job less' }],
  async run(context, settings) {
    const client = await connect(context, settings);
    const job = await client.call<ApiJob>('DELETE', jobPath(settings.text('job')));
    context.print(settings.flag('json') ? JSON.stringify(job, null, 2) : `${job.id} is forgotten`);
    return 0;
  },
};

export const jobGroup: CommandGroup = {
  word: 'job',
  summary: 'Jobs: drills, failovers and what else was begun: how it went, what it left',
  commands: [list, show, wait, cancel, log, remove],
};
