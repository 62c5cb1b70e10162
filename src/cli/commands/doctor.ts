/** `understudy agent doctor`: on the source server, beforehand: will it boot elsewhere, and what to do. */
import { hostname } from 'node:os';
import { UnderstudyError } from '../../base/errors.ts';
import { formatSize } from '../../base/units.ts';
import {
  countBySeverity,
  type Finding,
  hasBlockers,
  type MachineReport,
  type Severity,
  severities,
} from '../../model/machine.ts';
import type { CommandContext, CommandSpec } from '../command.ts';
import { jsonOption } from '../operator.ts';
import type { Settings } from '../settings.ts';
import { renderFields } from '../table.ts';

const BLOCKED_EXIT_CODE = 3;

const titles: Record<Severity, string> = {
  'blocks-boot': 'BLOCKS A BOOT ELSEWHERE',
  'may-block': 'MAY BLOCK IT',
  'data-left-behind': 'DATA LEFT BEHIND',
  advice: 'ADVICE',
  fine: 'FINE',
};

/** What comes from another machine must not speak to the terminal. */
const printable = (text: string): string => text.replace(/\p{Cc}/gu, '?');

function renderFinding({ code, subject, seen, action }: Finding): string {
  const head = printable(`  ${code}: ${subject === '' ? '' : `${subject}: `}${seen}`);
  return action === '' ? head : `${head}\n      ${printable(action)}`;
}

/** "blocks-boot 2, advice 3", without what there is none of. */
export function renderCounts(findings: readonly Finding[]): string {
  const counts = countBySeverity(findings);
  return severities
    .filter((severity) => counts[severity] > 0)
    .map((severity) => `${severity} ${counts[severity]}`)
    .join(', ');
}

export function machineFields(report: Omit<MachineReport, 'timeMs' | 'findings'>) {
  const { architecture, bootMode, cpuCount, memoryBytes } = report;
  const processors = cpuCount === 1 ? '1 processor' : `${cpuCount} processors`;
  const machine = `${architecture}, ${processors}, ${formatSize(memoryBytes)} of memory`;
  const fields: [string, string][] = [
    ['system', `${report.system}, Linux ${report.kernel}`],
    ['machine', machine],
    ['boot mode', bootMode],
    ['boot volume', report.bootVolume === '' ? 'not known' : report.bootVolume],
  ];
  return fields.map(([name, value]): [string, string] => [name, printable(value)]);
}

export function renderFindings(findings: readonly Finding[]): string {
  const parts = severities.flatMap((severity) => {
    const own = findings.filter((finding) => finding.severity === severity);
    return own.length === 0 ? [] : [[titles[severity], ...own.map(renderFinding)].join('\n')];
  });
  return parts.join('\n\n');
}

/** Those given; else those of the agent that runs here; null where there is neither. */
async function volumesOf(settings: Settings): Promise<readonly string[] | null> {
  const given = settings.list('volume');
  if (given.length > 0) {
    const { nameVolumes } = await import('../../agent/volume-names.ts');
    return nameVolumes(given).map(({ path }) => path);
  }
  const { DEFAULT_RUN_DIRECTORY, readStatus } = await import('../../agent/status-socket.ts');
  try {
    const status = await readStatus(DEFAULT_RUN_DIRECTORY, settings.text('server'));
    return status.volumes.map(({ path }) => path);
  } catch (error) {
    const isAlone = error instanceof UnderstudyError && error.code === 'ERR_AGENT_NOT_RUNNING';
    if (isAlone) return null;
    throw error;
  }
}

async function runDoctorCommand(context: CommandContext, settings: Settings): Promise<number> {
  const { runDoctor } = await import('../../agent/doctor/doctor.ts');
  const volumes = await volumesOf(settings);
  const report = await runDoctor({ timeMs: context.clock.wallMs(), volumes });
  const isBlocked = hasBlockers(report.findings);
  if (settings.flag('json')) {
    const counts = countBySeverity(report.findings);
    context.print(JSON.stringify({ ...report, counts, boots: !isBlocked }, null, 2));
  } else {
    context.print(`${renderFields(machineFields(report))}\n\n${renderFindings(report.findings)}\n`);
    context.print(isBlocked ? 'this machine will not boot elsewhere as it is' : 'nothing blocks');
  }
  return isBlocked ? BLOCKED_EXIT_CODE : 0;
}

export const doctorCommand: CommandSpec = {
  path: ['agent', 'doctor'],
  summary:
    'Look whether this machine will boot elsewhere, and say what to do (exit 3: it will not)',
  options: [
    {
      name: 'volume',
      type: 'list',
      value: 'DEV...',
      describe: 'Volumes as given to agent run; those of the agent that runs here by default',
    },
    {
      name: 'server',
      type: 'text',
      value: 'NAME',
      describe: 'Name of this source server',
      default: hostname(),
    },
    jsonOption,
  ],
  examples: [
    { line: 'understudy agent doctor --volume /dev/vda', does: 'before the first agent run' },
    {
      line: `understudy agent doctor --json | jq '.findings[] | select(.severity != "fine")'`,
      does: 'what a script has to see to',
    },
  ],
  run: runDoctorCommand,
};
