/** The commands that drills and failovers share: the list of them, and the end of one. */
import type { LaunchKind } from '../recovery/runner.ts';
import type { ApiJob } from '../staging/api-types.ts';
import type { CommandContext, CommandExample, CommandSpec } from './command.ts';
import { jobPath } from './job-log.ts';
import { follow, jobPositional, ofKind, printJobs, reportEnded } from './jobs.ts';
import { connect, jsonOption, operatorOptions } from './operator.ts';
import type { OptionSpec } from './option.ts';
import type { Settings } from './settings.ts';

const MAX_JOBS = 1000;

/** It runs, is not cleaned up, or has kept disks. */
const isOpen = (job: ApiJob): boolean => job.state !== 'cleaned' || (job.keeps && !job.isDiscarded);

export const listCommand = (
  kind: LaunchKind,
  { summary, all, example }: { summary: string; all: string; example: CommandExample },
): CommandSpec => ({
  path: [kind, 'list'],
  summary,
  options: [...operatorOptions, { name: 'all', type: 'flag', describe: all }, jsonOption],
  examples: [example],
  async run(context, settings) {
    const client = await connect(context, settings);
    const { jobs } = await client.call<{ jobs: ApiJob[] }>('GET', '/v1/jobs', {
      query: { kind, limit: MAX_JOBS },
    });
    const shown = settings.flag('all') ? jobs : jobs.filter(isOpen);
    printJobs(context, shown, settings.flag('json'));
    return 0;
  },
});

export const stopCommand = (
  kind: LaunchKind,
  { summary, does, options = [] }: { summary: string; does: string; options?: OptionSpec[] },
): CommandSpec => ({
  path: [kind, 'stop'],
  summary,
  positionals: [jobPositional],
  options: [...operatorOptions, ...options, jsonOption],
  examples: [{ line: `understudy ${kind} stop 20261121T153512Z-3fa9c1d2`, does }],
  run: (context, settings) => stop(context, settings, kind),
});

async function stop(
  context: CommandContext,
  settings: Settings,
  kind: LaunchKind,
): Promise<number> {
  const isJson = settings.flag('json');
  const client = await connect(context, settings);
  const { id } = await ofKind(client, settings.text('job'), kind);
  const asked = await client.call<ApiJob>('POST', `${jobPath(id)}/stop`, {
    body: { timeoutMs: settings.optionalNumber('timeout') },
  });
  const job = await follow(context, client, asked, () => false);
  reportEnded(context, job, isJson);
  if (job.keeps && !isJson) {
    context.note(`to start it again: understudy failover start --again ${id}`);
  }
  return 0;
}
