/** `understudy server check`: how often the newest point of a server is booted by itself, and how. */
import { UnderstudyError } from '../../base/errors.ts';
import { formatDuration, parseDuration } from '../../base/units.ts';
import type { ApiServerCheck } from '../../staging/api-types.ts';
import type { CommandSpec } from '../command.ts';
import { launchFields } from '../launch-fields.ts';
import { connect, jsonOption, operatorOptions } from '../operator.ts';
import type { OptionSpec } from '../option.ts';
import type { Settings } from '../settings.ts';
import { renderFields } from '../table.ts';

const LEAST_MS = 60_000;

/** Of `server check`; `staging run` has the same with "check-" before them. */
const howOptions: readonly OptionSpec[] = [
  {
    name: 'probe',
    field: 'probe',
    type: 'text',
    value: 'WHAT',
    describe:
      'What is waited for: console (the login prompt), serial:[USER] (a command there), tcp:PORT, ' +
      'http:[PORT]/PATH or ssh:[USER@][PORT]',
  },
  {
    name: 'probe-key',
    field: 'probeKey',
    type: 'text',
    value: 'NAME',
    describe: 'Of ssh: the key (drill start)',
  },
  {
    name: 'probe-run',
    field: 'probeRun',
    type: 'text',
    value: 'CMD',
    describe: 'Of ssh and serial: what is run in the guest',
  },
  {
    name: 'probe-password-file',
    field: 'probePasswordFile',
    type: 'text',
    value: 'NAME',
    describe: 'Of serial: the password (drill start)',
  },
  {
    name: 'timeout',
    field: 'timeoutMs',
    type: 'duration',
    value: 'TIME',
    describe: 'It has failed after (10m)',
  },
  {
    name: 'memory',
    field: 'memoryBytes',
    type: 'size',
    value: 'SIZE',
    describe: 'Memory of the machine (2GiB)',
  },
  {
    name: 'cpus',
    field: 'cpus',
    type: 'count',
    value: 'N',
    describe: 'Processors of the machine (2)',
  },
  {
    name: 'bus',
    field: 'bus',
    type: 'text',
    choices: ['virtio', 'nvme'],
    describe: 'Disks as (virtio)',
  },
  {
    name: 'prepare',
    field: 'prepare',
    type: 'text',
    choices: ['auto', 'none'],
    describe: 'Fit the disk to the machine first, as a failover does (auto)',
  },
  {
    name: 'accel',
    field: 'accel',
    type: 'text',
    choices: ['auto', 'kvm', 'tcg'],
    describe: 'auto takes KVM where it works',
  },
];

function everyOption(name: string): OptionSpec {
  const describe = 'Boot the newest point of a server once in this time, one server at a time';
  return { name, type: 'text', value: 'TIME|off', describe };
}

export const checkServiceOptions: readonly OptionSpec[] = [
  { ...everyOption('check-every'), default: 'off' },
  ...howOptions.map((option) => ({
    ...option,
    name: `check-${option.name}`,
    describe: `Of such a check: ${option.describe}`,
  })),
];

function parseEvery(text: string, name: string): number {
  const everyMs = text === 'off' ? 0 : parseDuration(text);
  if (everyMs === 0 || everyMs >= LEAST_MS) return everyMs;
  throw new UnderstudyError('ERR_USAGE', `--${name} is at least 1m, or off`);
}

/** For `staging run`. ERR_USAGE. */
export const checksOf = (settings: Settings) => ({
  checkEveryMs: parseEvery(settings.text('check-every'), 'check-every'),
  checkOptions: launchFields(checkServiceOptions, settings),
});

/** "passed 3h ago", "FAILED 2m ago (3 in a row)", "not yet", "-". */
export function checkWord(
  { last, failures, everyMs, state }: ApiServerCheck,
  nowMs: number,
): string {
  if (last === null) return everyMs === 0 ? '-' : 'not yet';
  if (state === 'running' || last.endedAt === null) return 'checking';
  const ago = `${formatDuration(Math.max(0, nowMs - Date.parse(last.endedAt)))} ago`;
  if (last.outcome !== 'failed') return `${last.outcome} ${ago}`;
  return `FAILED ${ago}${failures > 1 ? ` (${failures} in a row)` : ''}`;
}

function howText({ everyMs, options, isDefault }: ApiServerCheck): string {
  const how = Object.entries(options).map(([name, value]) => `${name} ${value}`);
  const every = everyMs === 0 ? 'never by itself' : `every ${formatDuration(everyMs)}`;
  const whose = isDefault ? ' (the default of the service)' : '';
  return `${[every, ...(everyMs === 0 ? [] : how)].join(', ')}${whose}`;
}

/** Fields of `server check` and of `server show`. */
export function checkFields(check: ApiServerCheck, nowMs: number): [string, string][] {
  const { last, nextMs, waitsFor, everyMs } = check;
  const fields: [string, string][] = [['boot check', howText(check)]];
  if (last !== null) {
    const job = last.job === null ? '' : `, job ${last.job}`;
    const detail = last.detail === '' ? '' : `: ${last.detail}`;
    const verdict = `${checkWord(check, nowMs)}, point ${last.point}${job}${detail}`;
    fields.push(['last check', verdict]);
  }
  if (everyMs !== 0 && nextMs !== null) {
    const after = waitsFor === null ? '' : `, when job ${waitsFor} has ended`;
    const when = nextMs <= nowMs ? 'now' : new Date(nextMs).toISOString();
    fields.push(['next check', `${when}${after}, of a point that has not booted yet`]);
  }
  return fields;
}

export const check: CommandSpec = {
  path: ['server', 'check'],
  summary: 'Show or set how often the newest point of a server is booted by itself, and how',
  positionals: [{ name: 'server', describe: 'Name of the source server' }],
  options: [
    ...operatorOptions,
    everyOption('every'),
    ...howOptions,
    { name: 'default', type: 'flag', describe: 'Back to the default of the service' },
    jsonOption,
  ],
  examples: [
    { line: 'understudy server check web1', does: 'the policy, and how the last check went' },
    {
      line: 'understudy server check web1 --every 1d --probe http:/health --memory 4GiB',
      does: 'a policy of its own; what is not said is as the service does',
    },
    { line: 'understudy server check web1 --every off', does: 'never by itself' },
    { line: 'understudy server check web1 --default', does: 'as the service does again' },
  ],
  async run(context, settings) {
    const every = settings.optionalText('every');
    const options = launchFields(howOptions, settings);
    const isSet = every !== undefined || Object.keys(options).length > 0;
    const isDefault = settings.flag('default');
    if (isSet && isDefault) {
      throw new UnderstudyError('ERR_USAGE', '--default goes without other options');
    }
    const everyMs = every === undefined ? null : parseEvery(every, 'every');
    const client = await connect(context, settings);
    const path = `/v1/servers/${encodeURIComponent(settings.text('server'))}/check`;
    const body = isDefault ? { everyMs: null, options: null } : { everyMs, options };
    const answer =
      isSet || isDefault
        ? await client.call<ApiServerCheck>('POST', path, { body })
        : await client.call<ApiServerCheck>('GET', path);
    const text = () =>
      renderFields([['server', answer.server], ...checkFields(answer, context.clock.wallMs())]);
    context.print(settings.flag('json') ? JSON.stringify(answer, null, 2) : text());
    return 0;
  },
};
