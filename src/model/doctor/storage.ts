/** The root file system, the disks beneath it, what is replicated and what is not. Pure. */
import type { Finding } from '../machine.ts';
import { found } from './catalogue.ts';
import {
  beneath,
  deviceOf,
  devicePath,
  devicePaths,
  disksBeneath,
  isNetworkType,
  kindsBeneath,
  mountAt,
  notReplicated,
} from './devices.ts';
import type { MachineFacts, MountFacts } from './facts.ts';

const ROOT_TYPES = ['ext2', 'ext3', 'ext4', 'xfs', 'btrfs', 'jfs', 'reiserfs', 'f2fs'];
const MEMORY_TYPES = ['tmpfs', 'ramfs', 'rootfs', 'overlay', 'aufs', 'squashfs', 'devtmpfs'];

export function judgeStorage(facts: MachineFacts): Finding[] {
  return [
    ...judgeRoot(facts),
    ...judgeBootDisk(facts),
    ...judgeVolumes(facts),
    ...judgeMounts(facts),
    ...judgeSectors(facts),
    ...judgeSwap(facts),
  ];
}

function judgeRoot(facts: MachineFacts): Finding[] {
  const root = mountAt(facts, '/');
  if (root === undefined) return [found('root-unknown', '/', 'nothing is mounted as /')];
  const { type, devices, source } = root;
  if (isNetworkType(type) || MEMORY_TYPES.includes(type)) {
    return [found('root-kind', '/', `the root file system is ${type} (${source})`)];
  }
  const disks = disksBeneath(facts, devices);
  if (!ROOT_TYPES.includes(type)) {
    return [found('root-file-system', '/', `the root file system is ${type}`)];
  }
  if (disks.length === 0) return [found('root-unknown', '/', `${source} is on no disk`)];
  const missing = notReplicated(facts, devices);
  if (missing.length > 0) {
    const seen = `the root file system is on ${devicePaths(missing)}, not replicated`;
    return [found('root-not-replicated', '/', seen)];
  }
  const parts = partVolumes(facts, devices, disks);
  if (parts.length > 0) {
    const seen = `of ${devicePaths(disks)}, only ${devicePaths(parts)} is replicated`;
    return [found('root-partition-only', '/', seen)];
  }
  const stacked = [...kindsBeneath(facts, devices)].filter(
    (kind) => kind !== 'disk' && kind !== 'partition',
  );
  const by = stacked.length > 0 ? ` by ${stacked.join(', ')}` : '';
  return [found('root-found', '/', `${type} on ${devicePaths(disks)}${by}`)];
}

/** Volumes with the root that are not its disks: a partition, a logical volume; none where all disks are. */
function partVolumes(facts: MachineFacts, root: readonly string[], disks: readonly string[]) {
  if (facts.volumes === null) return [];
  const told = facts.volumes.map(({ device }) => device);
  if (disks.every((disk) => told.includes(disk))) return [];
  const below = new Set(root.flatMap((name) => beneath(facts, name)).map(({ name }) => name));
  return told.filter((name) => below.has(name) && !disks.includes(name));
}

/** /boot and the ESP: firmware and boot loader read them before anything else is there. */
function judgeBootDisk(facts: MachineFacts): Finding[] {
  const rootDisks = disksBeneath(facts, mountAt(facts, '/')?.devices ?? []);
  return ['/boot', '/boot/efi', '/efi'].flatMap((target) => {
    const mount = mountAt(facts, target);
    if (mount === undefined) return [];
    const missing = notReplicated(facts, mount.devices);
    if (missing.length > 0) {
      return [found('boot-not-replicated', target, `it is on ${devicePaths(missing)}`)];
    }
    const others = disksBeneath(facts, mount.devices).filter((disk) => !rootDisks.includes(disk));
    if (others.length === 0) return [];
    return [found('boot-other-disk', target, `it is on ${devicePaths(others)}, / is elsewhere`)];
  });
}

function judgeVolumes({ volumes }: MachineFacts): Finding[] {
  if (volumes === null) {
    return [
      found(
        'volumes-unknown',
        '',
        'no agent of that name (--server) answers here, and no --volume was given',
      ),
    ];
  }
  return volumes.flatMap(({ path, refusal, trackerRefusal }) => {
    if (refusal !== '') return [found('volume-refused', path, refusal)];
    return trackerRefusal === '' ? [] : [found('tracker-volume', path, trackerRefusal)];
  });
}

const ON_NO_DISK = new Set(['loop', 'memory', 'optical']);

function judgeMounts(facts: MachineFacts): Finding[] {
  const boot = ['/', '/boot', '/boot/efi', '/efi'];
  const isLocal = ({ devices }: MountFacts) =>
    devices.length > 0 &&
    !devices.every((name) => ON_NO_DISK.has(deviceOf(facts, name)?.kind ?? ''));
  const left = new Map<string, string[]>();
  for (const mount of facts.mounts) {
    if (boot.includes(mount.target) || !isLocal(mount)) continue;
    const missing = devicePaths(notReplicated(facts, mount.devices));
    if (missing !== '') left.set(missing, [...(left.get(missing) ?? []), mount.target]);
  }
  const found_ = [...left].map(([disks, targets]) =>
    found('mount-not-replicated', targets[0]!, `${shortList(targets)} on ${disks}, not replicated`),
  );
  const pools = facts.mounts.filter(({ type, devices }) => type === 'zfs' && devices.length === 0);
  const zfs = pools.slice(0, 1).map(({ target, source }) => {
    const seen = `${source} is a ZFS pool: which disks hold it was not looked at`;
    return found('mount-not-replicated', target, seen, 'advice');
  });
  const network = facts.mounts.filter(({ type }) => isNetworkType(type));
  return [
    ...found_,
    ...zfs,
    ...network.map(({ target, source, type }) =>
      found('network-data', target, `${source} is mounted by ${type}`),
    ),
  ];
}

const SHOWN = 4;
const shortList = (items: readonly string[]): string =>
  items.length <= SHOWN
    ? items.join(', ')
    : `${items.slice(0, SHOWN).join(', ')} and ${items.length - SHOWN} more`;

function judgeSectors(facts: MachineFacts): Finding[] {
  const used = new Set(
    disksBeneath(
      facts,
      facts.mounts.flatMap(({ devices }) => devices),
    ),
  );
  return facts.devices
    .filter(({ name, kind, sectorBytes }) => kind === 'disk' && used.has(name) && sectorBytes > 512)
    .map(({ name, sectorBytes }) =>
      found('sector-size', devicePath(name), `its sectors have ${sectorBytes} bytes`),
    );
}

function judgeSwap(facts: MachineFacts): Finding[] {
  return facts.swaps.flatMap((name) => {
    const kind = deviceOf(facts, name)?.kind;
    if (kind === undefined || ON_NO_DISK.has(kind)) return [];
    const path = devicePath(name);
    if (facts.volumes === null) return [];
    return notReplicated(facts, [name]).length > 0
      ? [found('swap-not-replicated', path, 'swap on a disk that is not replicated')]
      : [found('swap-replicated', path, 'swap on a volume that is replicated')];
  });
}
