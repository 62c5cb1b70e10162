/** What can be chosen about a virtual machine, and the reading of a probe. */
import { UnderstudyError } from '../../base/errors.ts';
import { GIB, MIB, TIB } from '../../base/units.ts';
import { checkOptions } from '../launch-options.ts';
import type { LaunchOptions } from '../launcher.ts';

const PROBE = /^(?:console|tcp:\d{1,5}|http:(?:\d{1,5})?\/[\x21-\x7e]*)$/;

const rules = {
  memoryBytes: { kind: 'count', least: 128 * MIB, most: TIB, standard: 2 * GIB },
  cpus: { kind: 'count', least: 1, most: 255, standard: 2 },
  bus: { kind: 'choice', of: ['virtio', 'nvme'], standard: 'virtio' },
  firmware: { kind: 'choice', of: ['auto', 'bios', 'uefi'], standard: 'auto' },
  accel: { kind: 'choice', of: ['auto', 'kvm', 'tcg'], standard: 'auto' },
  network: { kind: 'choice', of: ['isolated', 'none'], standard: 'isolated' },
  /** Address and port of this machine: "127.0.0.1:5901". */
  vnc: { kind: 'text', like: /^[0-9A-Za-z.:[\]-]+:\d{1,5}$/, shape: 'HOST:PORT' },
  check: { kind: 'flag', standard: false },
  probe: { kind: 'text', like: PROBE, shape: 'console, tcp:PORT or http:[PORT]/PATH' },
  timeoutMs: { kind: 'count', least: 1000, most: 24 * 3_600_000, standard: 600_000 },
  keepRunning: { kind: 'flag', standard: false },
} as const;

/** ERR_LAUNCH_OPTIONS. A probe means a check. */
export function qemuOptions(given: Readonly<Record<string, unknown>>): LaunchOptions {
  const options = checkOptions(rules, given);
  const probe = probeOf(options);
  if (probe.kind !== 'console' && options.network === 'none') {
    throw new UnderstudyError('ERR_LAUNCH_OPTIONS', `probe ${options.probe} needs a network`);
  }
  return options.probe === undefined ? options : { ...options, check: true };
}

export type Probe =
  | { readonly kind: 'console' }
  | { readonly kind: 'tcp'; readonly port: number }
  | { readonly kind: 'http'; readonly port: number; readonly path: string };

export function probeOf({ probe }: LaunchOptions): Probe {
  if (probe === undefined || probe === 'console') return { kind: 'console' };
  const [, kind, port, path] = /^(tcp|http):(\d*)(.*)$/.exec(String(probe))!;
  const number = port === '' ? 80 : Number(port);
  if (number < 1 || number > 65_535) {
    throw new UnderstudyError('ERR_LAUNCH_OPTIONS', `there is no port ${port}`);
  }
  return kind === 'tcp'
    ? { kind: 'tcp', port: number }
    : { kind: 'http', port: number, path: path! };
}
