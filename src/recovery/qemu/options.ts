/** What can be chosen about a virtual machine, and the reading of a probe. */
import { UnderstudyError } from '../../base/errors.ts';
import { GIB, MIB, TIB } from '../../base/units.ts';
import { checkOptions, type OptionRule } from '../launch-options.ts';
import type { LaunchOptions } from '../launcher.ts';
import { plain } from '../plain-text.ts';
import { prepareRules } from '../prepare-options.ts';
import type { LaunchKind } from '../runner.ts';
import { FORWARDS, NETWORK, networkOf, parseForwards } from './network.ts';
import { MAX_COMMAND_BYTES, quoted } from './serial-state.ts';

const USER = '[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}';
const PORTS = `tcp:\\d{1,5}|http:(?:\\d{1,5})?/[\\x21-\\x7e]*|ssh:(?:${USER}@)?(?:\\d{1,5})?`;
const PROBE = new RegExp(`^(?:console|serial:(?:${USER})?|${PORTS})$`);
const FILE = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$/;

const rules = {
  ...prepareRules,
  memoryBytes: { kind: 'count', least: 128 * MIB, most: TIB, standard: 2 * GIB, unit: 'bytes' },
  cpus: { kind: 'count', least: 1, most: 255, standard: 2 },
  bus: { kind: 'choice', of: ['virtio', 'nvme'], standard: 'virtio' },
  card: { kind: 'choice', of: ['virtio', 'e1000e'], standard: 'virtio' },
  firmware: { kind: 'choice', of: ['auto', 'bios', 'uefi'], standard: 'auto' },
  accel: { kind: 'choice', of: ['auto', 'kvm', 'tcg'], standard: 'auto' },
  network: { kind: 'text', like: NETWORK, shape: 'isolated, user, none, bridge:NAME or tap:NAME' },
  /** Several with commas between. */
  forward: { kind: 'text', like: FORWARDS, shape: '[ADDRESS:]HOSTPORT:GUESTPORT' },
  /** Address and port of this machine: "127.0.0.1:5901". */
  vnc: { kind: 'text', like: /^[0-9A-Za-z.:[\]-]+:\d{1,5}$/, shape: 'HOST:PORT' },
  /** 0: as fast as it goes. */
  copyRateBytes: { kind: 'count', least: 0, most: TIB, standard: 0, unit: 'bytes' },
  check: { kind: 'flag', standard: false },
  probe: {
    ...{ kind: 'text', like: PROBE },
    shape: 'console, serial:[USER], tcp:PORT, http:[PORT]/PATH or ssh:[USER@][PORT]',
  },
  /** Files in the probe-keys folder of the staging machine: of ssh a key, of serial a password. */
  probeKey: { kind: 'text', like: FILE, shape: 'a file name' },
  probePasswordFile: { kind: 'text', like: FILE, shape: 'a file name' },
  /** What ssh or serial runs in the guest. */
  probeRun: { kind: 'text', like: /^[^\0]{1,4000}$/, shape: 'a command' },
  timeoutMs: { kind: 'count', least: 1000, most: 24 * 3_600_000, standard: 600_000, unit: 'ms' },
  keepRunning: { kind: 'flag', standard: false },
  /** low: behind all else that this machine does. */
  priority: { kind: 'choice', of: ['normal', 'low'], standard: 'normal' },
} as const satisfies Record<string, OptionRule>;

const refuse = (message: string): UnderstudyError =>
  new UnderstudyError('ERR_LAUNCH_OPTIONS', message);

/** ERR_LAUNCH_OPTIONS. A probe means a check. A failover reaches out, and copies until it stands alone. */
export function qemuOptions(
  given: Readonly<Record<string, unknown>>,
  kind: LaunchKind,
): LaunchOptions {
  const isFailover = kind === 'failover';
  const standAlone = { kind: 'flag', standard: isFailover } as const;
  const network = isFailover ? 'user' : 'isolated';
  const options: LaunchOptions = { network, ...checkOptions({ ...rules, standAlone }, given) };
  const way = networkOf(String(options.network), forwardsOf(options));
  const probe = probeOf(options);
  if ('port' in probe && way?.kind !== 'user') {
    throw refuse(`\`probe\` ${options.probe} needs \`network\` isolated or user`);
  }
  checkCommand(options, probe);
  return options.probe === undefined ? options : { ...options, check: true };
}

export const forwardsOf = ({ forward }: LaunchOptions) =>
  forward === undefined ? [] : parseForwards(String(forward));

function checkCommand(options: LaunchOptions, { kind }: Probe): void {
  const runs = kind === 'ssh' || kind === 'serial';
  if (runs && options.probeRun === undefined) {
    throw refuse(`a probe by ${kind} needs \`probeRun\`: a command`);
  }
  if (kind === 'ssh' && options.probeKey === undefined) {
    throw refuse('a probe by ssh needs `probeKey`: a file of the probe-keys folder');
  }
  for (const [name, isMeant, whose] of [
    ['probeRun', runs, 'ssh or serial'],
    ['probeKey', kind === 'ssh', 'ssh'],
    ['probePasswordFile', kind === 'serial', 'serial'],
  ] as const) {
    if (options[name] !== undefined && !isMeant)
      throw refuse(`\`${name}\` is for probes by ${whose}`);
  }
  if (kind === 'serial' && !isTypeable(String(options.probeRun))) {
    throw refuse(
      `\`probeRun\` of a probe by serial is one line of at most ${MAX_COMMAND_BYTES} bytes; ` +
        'more belongs in a script of the guest',
    );
  }
}

/** A sign that a terminal acts on would be acted on. */
const isTypeable = (command: string): boolean =>
  Buffer.byteLength(quoted(command)) <= MAX_COMMAND_BYTES && plain(command) === command;

export type Probe =
  | { readonly kind: 'console' }
  | { readonly kind: 'tcp'; readonly port: number }
  | { readonly kind: 'http'; readonly port: number; readonly path: string }
  | {
      readonly kind: 'ssh';
      readonly port: number;
      readonly user: string;
      readonly key: string;
      readonly run: string;
    }
  | {
      readonly kind: 'serial';
      readonly user: string;
      /** Null: none. */
      readonly passwordFile: string | null;
      readonly run: string;
    };

const standardPorts: Readonly<Record<string, number>> = { http: 80, ssh: 22 };

export function probeOf(options: LaunchOptions): Probe {
  const { probe, probeKey, probeRun, probePasswordFile = null } = options;
  if (probe === undefined || probe === 'console') return { kind: 'console' };
  const serial = /^serial:(.*)$/.exec(String(probe));
  if (serial !== null) {
    const passwordFile = probePasswordFile === null ? null : String(probePasswordFile);
    return { kind: 'serial', user: serial[1] || 'root', passwordFile, run: String(probeRun) };
  }
  const [, kind, user, port, path] = /^(tcp|http|ssh):(?:([^@/]*)@)?(\d*)(.*)$/.exec(
    String(probe),
  )!;
  const number = port === '' ? standardPorts[kind!]! : Number(port);
  if (number < 1 || number > 65_535) throw refuse(`\`probe\`: there is no port ${port}`);
  if (kind === 'tcp') return { kind, port: number };
  if (kind === 'http') return { kind, port: number, path: path! };
  const [key, run] = [String(probeKey), String(probeRun)];
  return { kind: 'ssh', port: number, user: user ?? 'root', key, run };
}
