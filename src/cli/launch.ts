/** What `drill start` and `failover start` share: which point, how it is launched, and the asking for it. */
import { UnderstudyError } from '../base/errors.ts';
import { imageFormats } from '../recovery/convert.ts';
import type { ApiJob } from '../staging/api-types.ts';
import type { ListedPoint } from '../store/types.ts';
import type { CommandContext } from './command.ts';
import { planOption, pricesOption, readText, verifyOption } from './ec2-options.ts';
import { follow, isUp, noteWarnings, reportJob } from './jobs.ts';
import { atOptions, type PointChoice, pointChoice } from './operator.ts';
import type { OptionSpec } from './option.ts';
import { prepareOptions } from './prepare-options.ts';
import type { RestClient } from './rest-client.ts';
import type { Settings } from './settings.ts';

export const launchPointOptions: readonly OptionSpec[] = [
  {
    name: 'server',
    type: 'text',
    value: 'NAME',
    describe: 'Source server; may be left out where there is only one',
  },
  { name: 'point', type: 'text', value: 'ID', describe: 'Recovery point; else the newest one' },
  ...atOptions,
];

/** `standard`: what is done where the network, or standing alone, is not told. */
export const vmOptions = (standard: { network: string; copy: string }): readonly OptionSpec[] => [
  ...prepareOptions,
  {
    name: 'check',
    field: 'check',
    type: 'flag',
    describe: 'qemu: wait for the login prompt on the serial console, and keep the evidence',
  },
  {
    name: 'probe',
    field: 'probe',
    type: 'text',
    value: 'WHAT',
    describe:
      'qemu: check by console, serial:[USER] (a command on the serial console), tcp:PORT, http:[PORT]/PATH ' +
      'or ssh:[USER@][PORT] of the guest (10.0.2.15, DHCP)',
  },
  {
    name: 'probe-key',
    field: 'probeKey',
    type: 'text',
    value: 'NAME',
    describe:
      'qemu: private key of a probe by ssh: a file of DATA/probe-keys on the staging machine',
  },
  {
    name: 'probe-password-file',
    field: 'probePasswordFile',
    type: 'text',
    value: 'NAME',
    describe:
      'qemu: password of a probe by serial: a file of DATA/probe-keys there; none where none is asked for',
  },
  {
    name: 'probe-run',
    field: 'probeRun',
    type: 'text',
    value: 'COMMAND',
    describe:
      'qemu: what a probe by ssh or serial runs in the guest; it has passed when that ends with 0',
  },
  {
    name: 'timeout',
    field: 'timeoutMs',
    type: 'duration',
    value: 'TIME',
    describe: 'qemu: the check has failed after so long (10m)',
  },
  {
    name: 'memory',
    field: 'memoryBytes',
    type: 'size',
    value: 'SIZE',
    describe: 'qemu: memory of the machine (2GiB)',
  },
  {
    name: 'cpus',
    field: 'cpus',
    type: 'count',
    value: 'N',
    describe: 'qemu: processors of the machine (2)',
  },
  {
    name: 'bus',
    field: 'bus',
    type: 'text',
    choices: ['virtio', 'nvme'],
    describe: 'qemu: disks as (virtio)',
  },
  {
    name: 'card',
    field: 'card',
    type: 'text',
    choices: ['virtio', 'e1000e'],
    describe: 'qemu: network card as (virtio)',
  },
  {
    name: 'firmware',
    field: 'firmware',
    type: 'text',
    choices: ['auto', 'bios', 'uefi'],
    describe: 'qemu: auto looks at the partition table',
  },
  {
    name: 'accel',
    field: 'accel',
    type: 'text',
    choices: ['auto', 'kvm', 'tcg'],
    describe: 'qemu: auto takes KVM where a timed test boot shows that it works, else TCG',
  },
  {
    name: 'network',
    field: 'network',
    type: 'text',
    value: 'WHAT',
    describe:
      'qemu: isolated (a card that leads nowhere), user (reaches out), none, bridge:NAME, ' +
      `tap:NAME (${standard.network})`,
  },
  {
    name: 'forward',
    field: 'forward',
    type: 'list',
    value: '[ADDRESS:]HOSTPORT:GUESTPORT',
    describe: 'qemu: a port of the staging machine (of 127.0.0.1) leads to one of the guest',
  },
  {
    name: 'stand-alone',
    field: 'standAlone',
    type: 'text',
    choices: ['yes', 'no'],
    describe: `qemu: copy the point in the background until nothing of it is needed (${standard.copy})`,
  },
  {
    name: 'copy-rate',
    field: 'copyRateBytes',
    type: 'rate',
    value: 'RATE',
    describe: 'qemu: copy at most so fast: 50MiB/s',
  },
  {
    name: 'vnc',
    field: 'vnc',
    type: 'text',
    value: 'HOST:PORT',
    describe: 'qemu: show the screen there; VNC has no password, so 127.0.0.1:5901',
  },
];

/** What else the launchers of a drill know. */
export const drillOptions: readonly OptionSpec[] = [
  {
    name: 'keep-running',
    field: 'keepRunning',
    type: 'flag',
    describe: 'qemu: leave the machine up after its check',
  },
  {
    name: 'format',
    field: 'format',
    type: 'text',
    choices: imageFormats,
    describe: 'export: format of the files (raw)',
  },
];

export const ec2LaunchOptions: readonly OptionSpec[] = [
  { ...planOption, describe: `ec2: ${planOption.describe}`, required: false },
  { ...verifyOption, describe: `ec2: ${verifyOption.describe}` },
  { ...pricesOption, describe: `ec2, --dry-run: ${pricesOption.describe}` },
  {
    name: 'dry-run',
    type: 'flag',
    describe: 'ec2: show every call that would be made, and the cost; nothing is asked of AWS',
  },
];

/** Of the target ec2 alone: the others know none of them. */
export async function ec2LaunchSettings(settings: Settings): Promise<Record<string, unknown>> {
  if (settings.text('target') !== 'ec2') {
    if (!settings.flag('dry-run')) return {};
    throw new UnderstudyError('ERR_USAGE', '--dry-run is for --target ec2');
  }
  const path = settings.optionalText('plan');
  if (path === undefined) throw new UnderstudyError('ERR_USAGE', '--target ec2 needs --plan FILE');
  return { plan: await readText(path), verify: settings.text('verify') };
}

/** Without --point and --at the newest one is meant. */
export function wantedPoint(settings: Settings): PointChoice {
  const isNamed = settings.optionalText('point') ?? settings.optionalNumber('at');
  if (isNamed !== undefined) return pointChoice(settings);
  const server = settings.optionalText('server');
  return { point: 'latest', atMs: undefined, server, isPartialWanted: false };
}

export interface Asking {
  readonly client: RestClient;
  readonly point: ListedPoint;
  readonly path: string;
  readonly body: Record<string, unknown>;
}

/** Starts it; with --wait until it is up. */
export async function ask(
  context: CommandContext,
  settings: Settings,
  { client, point, path, body }: Asking,
): Promise<void> {
  const target = settings.text('target');
  const started = await client.call<ApiJob>('POST', path, {
    body: { point: point.id, target, ...body },
  });
  const told = `${started.id} launches ${point.id} of ${point.server}`;
  await tellStarted(context, settings, { client, started, told });
}

export async function tellStarted(
  context: CommandContext,
  settings: Settings,
  { client, started, told }: { client: RestClient; started: ApiJob; told: string },
): Promise<void> {
  const isJson = settings.flag('json');
  if (settings.flag('wait')) {
    const job = await follow(context, client, started, isUp);
    await noteWarnings(context, client, job);
    reportJob(context, job, { isJson, url: client.url });
  } else if (isJson) context.print(JSON.stringify(started, null, 2));
  else {
    context.print(told);
    context.note(`follow it: understudy job wait ${started.id}`);
  }
}
