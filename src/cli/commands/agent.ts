/** `understudy agent ...`: the agent on the source server; its status and its end are told locally. */
import { hostname } from 'node:os';
import type { AgentStatus, AgentVolumeStatus } from '../../agent/report.ts';
import { sleep } from '../../base/clock.ts';
import { formatDuration, formatSize } from '../../base/units.ts';
import type { CommandContext, CommandGroup, CommandSpec } from '../command.ts';
import { jsonOption, operatorOptions, yesOption } from '../operator.ts';
import type { OptionSpec } from '../option.ts';
import { normalizeServiceUrl, readAuthority, readToken } from '../rest-client.ts';
import type { Settings } from '../settings.ts';
import { type Column, renderCut, renderFields, renderTable } from '../table.ts';
import { doctorCommand } from './doctor.ts';

const WATCH_MS = 1000;
const REFUSED_EXIT_CODE = 6;

const serverOption: OptionSpec = {
  name: 'server',
  type: 'text',
  value: 'NAME',
  describe: 'Name of this source server',
  default: hostname(),
};

const runOptions: readonly OptionSpec[] = [
  ...operatorOptions,
  {
    name: 'volume',
    type: 'list',
    value: '[NAME=]DEV...',
    describe:
      'Block devices (or regular files) to replicate, all cut at one instant; points know them by NAME ' +
      '(else by DEV); root-disk as DEV is the whole disk of the root file system',
    required: true,
  },
  serverOption,
  {
    name: 'cut-interval',
    type: 'duration',
    value: 'TIME',
    describe: 'From one recovery point to the next',
    default: '5s',
  },
  {
    name: 'tracker',
    type: 'text',
    choices: ['auto', 'bpf', 'scan'],
    describe: 'How changes are found: marked by the kernel, or by rereading everything',
    default: 'auto',
  },
  {
    name: 'bandwidth',
    type: 'rate',
    value: 'RATE',
    describe: 'Send no faster to staging: 20MiB/s',
    default: '0',
  },
  {
    name: 'if-refused',
    type: 'text',
    choices: ['wait', 'exit'],
    describe: 'Where staging knows another machine under this name: wait to be let in, or end',
    default: 'wait',
  },
];

const run: CommandSpec = {
  path: ['agent', 'run'],
  summary: 'Replicate volumes of this server to a staging service, until stopped',
  options: runOptions,
  examples: [
    {
      line:
        'understudy agent run --staging https://staging:7007 --ca ca.pem ' +
        '--token-file token --volume /dev/vda /dev/vdb',
      does: 'replicate two disks, a point every 5 s',
    },
    {
      line: 'understudy agent run --config /etc/understudy.json --volume root=root-disk data=/dev/vdb',
      does: 'by names that survive a change of bus: vda here, nvme0n1 on a recovery instance',
    },
    {
      line: 'understudy agent run --config /etc/understudy.json --cut-interval 1s --bandwidth 20MiB/s',
      does: 'with the rest in a file',
    },
  ],
  run: runAgentCommand,
};

async function runAgentCommand(context: CommandContext, settings: Settings): Promise<number> {
  // Loaded here: other commands run where there is no addon.
  const { runAgent } = await import('../../agent/run-agent.ts');
  const { readMachineWords } = await import('../../agent/identity.ts');
  const { createDialer } = await import('../../transport/client.ts');
  const authority = settings.optionalText('ca');
  const dialer = createDialer({
    url: normalizeServiceUrl(settings.text('staging')),
    token: await readToken(settings.text('token-file')),
    authority: authority === undefined ? undefined : await readAuthority(authority),
    words: readMachineWords(),
  });
  const agent = await runAgent({
    server: settings.text('server'),
    volumes: settings.list('volume'),
    dialer,
    cutIntervalMs: settings.number('cut-interval'),
    tracker: settings.text('tracker') as 'auto' | 'bpf' | 'scan',
    bandwidth: settings.number('bandwidth'),
    ifRefused: settings.text('if-refused') as 'wait' | 'exit',
    log: context.log,
    clock: context.clock,
  });
  context.print(`agent of ${settings.text('server')} runs, pid ${process.pid}`);
  context.ready();
  const stop = () => {
    context.log.info('stopping; the marks stay in the kernel');
    void agent.close();
  };
  if (context.stop.aborted) stop();
  else context.stop.addEventListener('abort', stop);
  await agent.ended;
  return 0;
}

const volumeColumns: readonly Column<AgentVolumeStatus>[] = [
  { title: 'VOLUME', cell: (volume) => volume.volume },
  { title: 'STATE', cell: (volume) => volume.state },
  { title: 'SIZE', cell: (volume) => formatSize(volume.sizeBytes), alignRight: true },
  {
    title: 'SYNCED',
    cell: (volume) => `${Math.floor((volume.syncedBytes / Math.max(1, volume.sizeBytes)) * 100)}%`,
    alignRight: true,
  },
  {
    title: 'LEFT',
    cell: (volume) => (volume.etaMs > 0 ? formatDuration(volume.etaMs) : '-'),
    alignRight: true,
  },
  { title: 'BACKLOG', cell: (volume) => formatSize(volume.backlogBytes), alignRight: true },
  { title: 'EPOCH', cell: (volume) => String(volume.epoch), alignRight: true, leftOut: 1 },
  { title: 'TRACKER', cell: (volume) => volume.tracker.backend, leftOut: 2 },
  { title: 'REASON', cell: (volume) => volume.reason, isText: true },
];

export function renderStatus(status: AgentStatus, room: number | null = null): string {
  const { lastCut } = status;
  const fields: [string, string][] = [
    ['server', `${status.server} (pid ${status.pid})`],
    ['state', status.state],
    ['lag', status.lagMs < 0 ? 'no point yet' : formatDuration(status.lagMs)],
    ['backlog', formatSize(status.backlogBytes)],
    ['on the wire', formatSize(status.wireBytes)],
    ['cuts', String(status.cuts)],
  ];
  if ((status.refused ?? null) !== null) {
    const { message, code, since } = status.refused!;
    fields.push(['refused', `${message} (${code}, since ${since})`]);
  }
  if (lastCut !== null) {
    fields.push(['last cut', `${lastCut.time}, ${renderCut(lastCut)}`]);
  }
  return `${renderFields(fields)}\n\n${renderTable(status.volumes, volumeColumns, room)}`;
}

const status: CommandSpec = {
  path: ['agent', 'status'],
  summary: 'Show what the agent on this machine is doing (exit 6: staging refuses this machine)',
  options: [
    serverOption,
    { name: 'watch', type: 'flag', describe: 'Again every second, until stopped' },
    jsonOption,
  ],
  examples: [
    { line: 'understudy agent status --watch', does: 'state, lag and backlog, live' },
    { line: 'understudy agent status --json | jq .lagMs', does: 'one figure for a script' },
  ],
  async run(context, settings) {
    const { DEFAULT_RUN_DIRECTORY, readStatus } = await import('../../agent/status-socket.ts');
    const read = () => readStatus(DEFAULT_RUN_DIRECTORY, settings.text('server'));
    const isJson = settings.flag('json');
    if (!settings.flag('watch')) {
      const now = await read();
      context.print(isJson ? JSON.stringify(now, null, 2) : renderStatus(now, context.columns));
      return (now.refused ?? null) === null ? 0 : REFUSED_EXIT_CODE;
    }
    while (!context.stop.aborted) {
      const now = await read();
      if (isJson) context.print(JSON.stringify(now));
      else context.redraw(renderStatus(now, context.columns));
      await Promise.race([sleep(context.clock, WATCH_MS), stopped(context.stop)]);
    }
    return 0;
  },
};

const stopped = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });

const detach: CommandSpec = {
  path: ['agent', 'detach'],
  summary: 'End the tracking in the kernel; the next agent of this name rescans its volumes',
  options: [serverOption, yesOption],
  examples: [{ line: 'understudy agent detach --yes', does: 'after the last agent run here' }],
  async run(context, settings) {
    const server = settings.text('server');
    if (!settings.flag('yes')) {
      await context.confirm(
        `End the tracking for ${server}? Its volumes will have to be rescanned.`,
      );
    }
    const { detach: detachTrackers } = await import('../../agent/run-agent.ts');
    const wasTracked = detachTrackers(server);
    const done = `tracking for ${server} has ended`;
    context.print(wasTracked ? done : `nothing was tracked for ${server} on this machine`);
    return 0;
  },
};

export const agentGroup: CommandGroup = {
  word: 'agent',
  summary: 'The agent on this source server',
  commands: [run, status, detach, doctorCommand],
};
