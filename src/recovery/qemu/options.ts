/** What can be chosen about a virtual machine, and the reading of a probe. */
import { UnderstudyError } from '../../base/errors.ts';
import { GIB, MIB, TIB } from '../../base/units.ts';
import { checkOptions, type OptionRule } from '../launch-options.ts';
import type { LaunchOptions } from '../launcher.ts';
import { prepareRules } from '../prepare-options.ts';
import type { LaunchKind } from '../runner.ts';
import { FORWARDS, NETWORK, networkOf, parseForwards } from './network.ts';

const SSH = 'ssh:(?:[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}@)?(?:\\d{1,5})?';
const PROBE = new RegExp(`^(?:console|tcp:\\d{1,5}|http:(?:\\d{1,5})?/[\\x21-\\x7e]*|${SSH})$`);

const rules = {
  ...prepareRules,
  memoryBytes: { kind: 'count', least: 128 * MIB, most: TIB, standard: 2 * GIB },
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
  copyRateBytes: { kind: 'count', least: 0, most: TIB, standard: 0 },
  check: { kind: 'flag', standard: false },
  probe: {
    ...{ kind: 'text', like: PROBE },
    shape: 'console, tcp:PORT, http:[PORT]/PATH or ssh:[USER@][PORT]',
  },
  /** Of ssh: a file in the probe-keys folder of the staging machine, and what it runs in the guest. */
  probeKey: { kind: 'text', like: /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$/, shape: 'a file name' },
  probeRun: { kind: 'text', like: /^[^\0]{1,4000}$/, shape: 'a command' },
  timeoutMs: { kind: 'count', least: 1000, most: 24 * 3_600_000, standard: 600_000 },
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
  if (probe.kind !== 'console' && way?.kind !== 'user') {
    throw refuse(`probe ${options.probe} needs the network isolated or user`);
  }
  checkSshProbe(options, probe);
  return options.probe === undefined ? options : { ...options, check: true };
}

export const forwardsOf = ({ forward }: LaunchOptions) =>
  forward === undefined ? [] : parseForwards(String(forward));

function checkSshProbe({ probeKey, probeRun }: LaunchOptions, probe: Probe): void {
  const isSsh = probe.kind === 'ssh';
  if (isSsh && (probeKey === undefined || probeRun === undefined)) {
    throw refuse('a probe by ssh needs a probe key and a command to run');
  }
  if (!isSsh && (probeKey ?? probeRun) !== undefined) {
    throw refuse('a probe key and a command are for probes by ssh');
  }
}

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
    };

const standardPorts: Readonly<Record<string, number>> = { http: 80, ssh: 22 };

export function probeOf({ probe, probeKey, probeRun }: LaunchOptions): Probe {
  if (probe === undefined || probe === 'console') return { kind: 'console' };
  const [, kind, user, port, path] = /^(tcp|http|ssh):(?:([^@/]*)@)?(\d*)(.*)$/.exec(
    String(probe),
  )!;
  const number = port === '' ? standardPorts[kind!]! : Number(port);
  if (number < 1 || number > 65_535) throw refuse(`there is no port ${port}`);
  if (kind === 'tcp') return { kind, port: number };
  if (kind === 'http') return { kind, port: number, path: path! };
  const [key, run] = [String(probeKey), String(probeRun)];
  return { kind: 'ssh', port: number, user: user ?? 'root', key, run };
}
