/**
 * The command line of QEMU for one machine. Pure. No secret is in it, and every format is told: the disk is
 * a source's, and a probed format would let it name a file of this host. What the guest writes goes to
 * overlays, so the point behind them never changes; what it reads is kept there too, for the next time.
 *
 * A drill's disks end with the drill. A failover's hold data: what the guest has synced is synced here, and
 * an error of the disk beneath (no room) pauses the guest instead of reaching it, where the bus can do that.
 * An error of a read reaches it, as a real disk's would: an outage is none, and is waited for.
 */
import type { BootMode } from '../boot-mode.ts';
import type { MachineIdentity } from './machine-identity.ts';
import { type cards, networkWords, type VmNetwork } from './network.ts';

export type Accelerator = 'kvm' | 'tcg';

export interface VmDisk {
  /** Where the point's bytes are served; null: the overlay has all that it needs. */
  readonly socketPath: string | null;
  readonly overlayPath: string;
  readonly sectorBytes: number;
}

export interface VmSpec {
  readonly name: string;
  readonly identity: MachineIdentity;
  readonly runFolder: string;
  readonly consolePath: string;
  readonly accelerator: Accelerator;
  readonly memoryBytes: number;
  readonly cpus: number;
  readonly bus: 'virtio' | 'nvme';
  readonly firmware: { readonly mode: 'bios' } | UefiFirmware;
  readonly disks: readonly VmDisk[];
  readonly bootDisk: number;
  /** The guest's data must outlive this machine's power. */
  readonly isDurable: boolean;
  /** The point is copied in the background: what is read need not be kept. */
  readonly isCopied: boolean;
  /** Null: no network card. */
  readonly network: VmNetwork | null;
  readonly card: keyof typeof cards;
  readonly vnc: { readonly host: string; readonly port: number } | null;
  /** Where a restart of the guest would hide that the boot failed. */
  readonly isRebootAnEnd: boolean;
}
export interface UefiFirmware {
  readonly mode: BootMode & 'uefi';
  readonly codePath: string;
  readonly variablesPath: string;
}

export const vmPaths = (runFolder: string) => ({
  pidfile: `${runFolder}/qemu.pid`,
  qmp: `${runFolder}/qmp.sock`,
  serial: `${runFolder}/serial.sock`,
});

/** An image server that was killed while staging was away is started again when that is back. */
const YEAR_S = 365 * 86_400;
const VNC_BASE_PORT = 5900;
const MIB = 2 ** 20;
/** A comma ends a value in QEMU's option lists; doubled, it is one. */
export const escaped = (text: string): string => text.replaceAll(',', ',,');

/** Names of QEMU's nodes: the point's bytes, the overlay over them, the overlay's file. */
export const nodeNames = (index: number) => ({
  point: `point${index}`,
  disk: `disk${index}`,
  file: `file${index}`,
});
/** Keeps what is read of the point; where it is copied anyway there is none. */
const topName = (spec: VmSpec, { socketPath }: VmDisk, index: number): string =>
  socketPath === null || spec.isCopied ? nodeNames(index).disk : `top${index}`;

function nodesOf(spec: VmSpec, disk: VmDisk, index: number): object[] {
  const { socketPath, overlayPath } = disk;
  const names = nodeNames(index);
  const cache = spec.isDurable ? {} : { cache: { 'no-flush': true } };
  const overlay = {
    ...{ driver: 'qcow2', 'node-name': names.disk, ...cache },
    file: { driver: 'file', 'node-name': names.file, filename: overlayPath, ...cache },
  };
  // No backing, and none that the file itself might name.
  if (socketPath === null) return [{ ...overlay, backing: null }];
  const server = { type: 'unix', path: socketPath };
  const point = {
    ...{ driver: 'raw', 'node-name': names.point, 'read-only': true },
    file: { driver: 'nbd', server, 'reconnect-delay': spec.isDurable ? YEAR_S : 60 },
  };
  const top = topName(spec, disk, index);
  const keeper = { driver: 'copy-on-read', 'node-name': top, file: names.disk };
  return [point, { ...overlay, backing: names.point }, ...(top === names.disk ? [] : [keeper])];
}

function diskDevice(spec: VmSpec, disk: VmDisk, index: number): string {
  const isNvme = spec.bus === 'nvme';
  const device: Record<string, string | number> = isNvme ? { serial: `understudy${index}` } : {};
  device.drive = topName(spec, disk, index);
  if (index === spec.bootDisk) device.bootindex = 1;
  if (disk.sectorBytes > 512) {
    device.logical_block_size = disk.sectorBytes;
    device.physical_block_size = disk.sectorBytes;
  }
  if (spec.isDurable && !isNvme) Object.assign(device, { werror: 'stop', rerror: 'report' });
  const words = Object.entries(device).map(([name, value]) => `${name}=${value}`);
  return [isNvme ? 'nvme' : 'virtio-blk-pci', ...words].join(',');
}

function firmwareWords({ firmware }: VmSpec): string[] {
  if (firmware.mode === 'bios') return [];
  const file = (path: string) => ({ driver: 'file', filename: path });
  const code = {
    ...{ driver: 'raw', 'node-name': 'firmware', 'read-only': true },
    file: file(firmware.codePath),
  };
  const variables = {
    ...{ driver: 'raw', 'node-name': 'variables' },
    file: file(firmware.variablesPath),
  };
  return ['-blockdev', JSON.stringify(code), '-blockdev', JSON.stringify(variables)];
}

const hostText = (host: string): string => (host.includes(':') ? `[${host}]` : host);

/** The helper that joins a bridge is a program of its own, with more rights than QEMU. */
const sandboxOf = ({ network }: VmSpec): string => {
  const child = network?.kind === 'bridge' ? 'allow' : 'deny';
  return `on,obsolete=deny,elevateprivileges=${child},spawn=${child},resourcecontrol=deny`;
};

export function qemuWords(spec: VmSpec): string[] {
  const paths = vmPaths(spec.runFolder);
  const flash = spec.firmware.mode === 'uefi' ? ',pflash0=firmware,pflash1=variables' : '';
  const isTcg = spec.accelerator === 'tcg';
  const serial = [
    ...['socket', 'id=serial0', `path=${escaped(paths.serial)}`, 'server=on', 'wait=off'],
    ...[`logfile=${escaped(spec.consolePath)}`, 'logappend=on'],
  ];
  return [
    ...['-name', `guest=${escaped(spec.name)}`, '-machine', `q35${flash}`],
    ...['-accel', isTcg ? 'tcg,thread=multi' : 'kvm', '-cpu', isTcg ? 'max' : 'host'],
    ...['-smp', String(spec.cpus), '-m', `${Math.ceil(spec.memoryBytes / MIB)}M`],
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-vga', 'std'],
    ...['-uuid', spec.identity.uuid, '-smbios', `type=1,serial=${spec.identity.serialNumber}`],
    ...['-sandbox', sandboxOf(spec)],
    ...(spec.isRebootAnEnd ? ['-no-reboot'] : []),
    ...['-pidfile', paths.pidfile, '-qmp', `unix:${escaped(paths.qmp)},server=on,wait=off`],
    ...['-chardev', serial.join(','), '-device', 'isa-serial,chardev=serial0'],
    ...firmwareWords(spec),
    ...spec.disks.flatMap((disk, index) => [
      ...nodesOf(spec, disk, index).flatMap((node) => ['-blockdev', JSON.stringify(node)]),
      ...['-device', diskDevice(spec, disk, index)],
    ]),
    ...networkWords(spec.network, spec.card, spec.identity.mac),
    ...['-device', 'virtio-rng-pci'],
    ...(spec.vnc === null
      ? []
      : ['-vnc', `${hostText(spec.vnc.host)}:${spec.vnc.port - VNC_BASE_PORT}`]),
  ];
}
