/**
 * The command line of QEMU for one drill. Pure. No secret is in it, and every format is told: the disk is
 * a source's, and a probed format would let it name a file of this host. What the guest writes goes to
 * overlays, so the point behind them never changes; what it reads is kept there too, for the next time.
 */
import type { BootMode } from '../boot-mode.ts';

export type Accelerator = 'kvm' | 'tcg';

export interface VmDisk {
  readonly socketPath: string;
  readonly overlayPath: string;
  readonly sectorBytes: number;
}

export interface VmSpec {
  readonly name: string;
  readonly runFolder: string;
  readonly consolePath: string;
  readonly accelerator: Accelerator;
  readonly memoryBytes: number;
  readonly cpus: number;
  readonly bus: 'virtio' | 'nvme';
  readonly firmware: { readonly mode: 'bios' } | UefiFirmware;
  readonly disks: readonly VmDisk[];
  readonly bootDisk: number;
  /** Null: no network card. */
  readonly network: { readonly forwards: readonly PortForward[] } | null;
  readonly vnc: { readonly host: string; readonly port: number } | null;
  /** Where a restart of the guest would hide that the boot failed. */
  readonly isRebootAnEnd: boolean;
}
export interface UefiFirmware {
  readonly mode: BootMode & 'uefi';
  readonly codePath: string;
  readonly variablesPath: string;
}
export interface PortForward {
  readonly hostPort: number;
  readonly guestPort: number;
}

export const vmPaths = (runFolder: string) => ({
  pidfile: `${runFolder}/qemu.pid`,
  qmp: `${runFolder}/qmp.sock`,
  serial: `${runFolder}/serial.sock`,
});

const VNC_BASE_PORT = 5900;
const MIB = 2 ** 20;
/** A comma ends a value in QEMU's option lists; doubled, it is one. */
const escaped = (text: string): string => text.replaceAll(',', ',,');

const nodes = ({ socketPath, overlayPath }: VmDisk, index: number): object[] => [
  {
    driver: 'raw',
    'node-name': `point${index}`,
    'read-only': true,
    file: { driver: 'nbd', server: { type: 'unix', path: socketPath }, 'reconnect-delay': 60 },
  },
  {
    driver: 'qcow2',
    'node-name': `disk${index}`,
    // A drill's disk ends with the drill: nothing of it has to survive a power cut.
    cache: { 'no-flush': true },
    file: { driver: 'file', filename: overlayPath, cache: { 'no-flush': true } },
    backing: `point${index}`,
  },
  { driver: 'copy-on-read', 'node-name': `top${index}`, file: `disk${index}` },
];

function diskDevice(spec: VmSpec, disk: VmDisk, index: number): string {
  const device: Record<string, string | number> =
    spec.bus === 'nvme' ? { serial: `understudy${index}` } : {};
  device.drive = `top${index}`;
  if (index === spec.bootDisk) device.bootindex = 1;
  if (disk.sectorBytes > 512) {
    device.logical_block_size = disk.sectorBytes;
    device.physical_block_size = disk.sectorBytes;
  }
  const words = Object.entries(device).map(([name, value]) => `${name}=${value}`);
  return [spec.bus === 'nvme' ? 'nvme' : 'virtio-blk-pci', ...words].join(',');
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

function networkWords({ network }: VmSpec): string[] {
  if (network === null) return ['-nic', 'none'];
  // restrict: the guest reaches nothing, neither this host nor what is beyond it.
  const forwards = network.forwards.map(
    ({ hostPort, guestPort }) => `,hostfwd=tcp:127.0.0.1:${hostPort}-:${guestPort}`,
  );
  return [
    ...['-netdev', `user,id=net0,restrict=on${forwards.join('')}`],
    ...['-device', 'virtio-net-pci,netdev=net0,romfile='],
  ];
}

const hostText = (host: string): string => (host.includes(':') ? `[${host}]` : host);

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
    ...['-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny'],
    ...(spec.isRebootAnEnd ? ['-no-reboot'] : []),
    ...['-pidfile', paths.pidfile, '-qmp', `unix:${escaped(paths.qmp)},server=on,wait=off`],
    ...['-chardev', serial.join(','), '-device', 'isa-serial,chardev=serial0'],
    ...firmwareWords(spec),
    ...spec.disks.flatMap((disk, index) => [
      ...nodes(disk, index).flatMap((node) => ['-blockdev', JSON.stringify(node)]),
      ...['-device', diskDevice(spec, disk, index)],
    ]),
    ...networkWords(spec),
    ...['-device', 'virtio-rng-pci'],
    ...(spec.vnc === null
      ? []
      : ['-vnc', `${hostText(spec.vnc.host)}:${spec.vnc.port - VNC_BASE_PORT}`]),
  ];
}
