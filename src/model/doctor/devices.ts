/** Questions about the devices of a machine: what lies beneath, and what of it is replicated. Pure. */
import type { DeviceFacts, DeviceKind, MachineFacts, MountFacts } from './facts.ts';

type Devices = Pick<MachineFacts, 'devices'>;

export const deviceOf = ({ devices }: Devices, name: string): DeviceFacts | undefined =>
  devices.find((device) => device.name === name);

/** `name` and everything that it is made of, partitions before their disks. Ends also where links loop. */
export function beneath(facts: Devices, name: string, seen = new Set<string>()): DeviceFacts[] {
  const device = deviceOf(facts, name);
  if (device === undefined || seen.has(name)) return [];
  seen.add(name);
  const next = device.kind === 'partition' ? [device.disk] : device.slaves;
  return [device, ...next.flatMap((slave) => beneath(facts, slave, seen))];
}

/** Whole disks that hold some of `names`, each once. */
export function disksBeneath(facts: Devices, names: readonly string[]): string[] {
  const all = names.flatMap((name) => beneath(facts, name));
  const disks = all.filter(({ kind, slaves }) => isDisk(kind) && slaves.length === 0);
  return [...new Set(disks.map(({ name }) => name))];
}
const isDisk = (kind: DeviceKind): boolean => kind === 'disk' || kind === 'multipath';

/** Kinds of devices between `names` and their disks. */
export const kindsBeneath = (facts: Devices, names: readonly string[]): Set<DeviceKind> =>
  new Set(names.flatMap((name) => beneath(facts, name)).map(({ kind }) => kind));

/** Devices that are in no volume, of those that hold `names`; none where no volumes were told. */
export function notReplicated(facts: MachineFacts, names: readonly string[]): string[] {
  if (facts.volumes === null) return [];
  const covered = new Set(facts.volumes.map(({ device }) => device));
  return [...new Set(names.flatMap((name) => uncovered(facts, name, covered)))];
}

/** The lowest devices under `name` over which no volume lies. */
function uncovered(
  facts: Devices,
  name: string,
  covered: ReadonlySet<string>,
  seen = new Set<string>(),
): string[] {
  const device = deviceOf(facts, name);
  if (device === undefined || covered.has(name) || seen.has(name)) return [];
  seen.add(name);
  const next = device.kind === 'partition' ? [device.disk] : device.slaves;
  if (next.length === 0) return [name];
  return next.flatMap((slave) => uncovered(facts, slave, covered, seen));
}

export const mountAt = ({ mounts }: Pick<MachineFacts, 'mounts'>, target: string) =>
  mounts.findLast((mount) => mount.target === target);

/** The mount in which `path` lies. */
export function mountOf({ mounts }: Pick<MachineFacts, 'mounts'>, path: string) {
  const holds = ({ target }: MountFacts) =>
    target === '/' || path === target || path.startsWith(`${target}/`);
  const holding = mounts.filter(holds);
  return holding.reduce<MountFacts | undefined>(
    (best, mount) =>
      best === undefined || mount.target.length >= best.target.length ? mount : best,
    undefined,
  );
}

export const listed = (names: Iterable<string>): string => [...names].join(', ');

/** /dev/vdb, and so on: for people. */
export const devicePath = (name: string): string => `/dev/${name}`;
export const devicePaths = (names: readonly string[]): string => listed(names.map(devicePath));

const NETWORK_TYPES: ReadonlySet<string> = new Set([
  ...['nfs', 'nfs4', 'cifs', 'smb3', 'smbfs', 'ceph', 'glusterfs', '9p', 'afs', 'lustre', 'davfs'],
  ...['gfs', 'gfs2', 'ocfs2', 'beegfs', 'fuse.sshfs', 'fuse.s3fs', 'fuse.glusterfs', 'fuse.ceph'],
]);
export const isNetworkType = (type: string): boolean => NETWORK_TYPES.has(type);

const HARDWARE_NAMES: readonly RegExp[] = [
  /^(?:sd|hd|vd|xvd)[a-z]+\d*$/,
  /^(?:nvme\d+n|mmcblk)\d+(?:p\d+)?$/,
  /^(?:dasd|pmem)\w+$/,
  /^cciss\/\w+$/,
  /^disk\/by-(?:id|path|diskseq)\//,
];

/**
 * True for a name that depends on the hardware or on the order in which disks are found: /dev/sda1, and
 * links by path and by serial number. Not for LVM, md, labels and UUIDs.
 */
export function isHardwareName(spec: string): boolean {
  const name = spec.startsWith('/dev/') ? spec.slice('/dev/'.length) : '';
  return HARDWARE_NAMES.some((pattern) => pattern.test(name));
}
