/**
 * Boot preparation: a disk that was another machine's is made to boot on virtio, NVMe and ENA, by changes of
 * files in an overlay. All decisions are made here, out of the disk's reach; a virtual machine without a
 * network reads and writes for us (guest.ts). Done twice it changes nothing the second time.
 */
import { dirname } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import { type Device, type Disks, deviceOfSpec, parseDevices, withContents } from './devices.ts';
import type { DiskTree } from './disk-tree.ts';
import { fixEfiFallback } from './efi-fallback.ts';
import { CONTENT_BYTES } from './file-system.ts';
import { findRoot, mountOptions, type Root } from './find-root.ts';
import {
  fixFstab,
  fixLoaders,
  fixNetwork,
  MARKER,
  markRecovered,
  OWN_UNIT,
  switchAgentOff,
} from './fix-files.ts';
import { DRACUT_FILE, fixInitramfs } from './fix-initramfs.ts';
import { type FstabEntry, parseFstab } from './fstab.ts';
import { type Guest, prepareFailed, Refusal } from './guest.ts';
import { labelAdded } from './labels.ts';
import { addedNetworkFiles } from './network.ts';
import { giveNvmePatience, NVME_RULES } from './nvme-patience.ts';
import { Notes, type PrepareReport } from './report.ts';
import { readText } from './tree-text.ts';

export interface PrepareWish {
  /** Names of the volumes in the point, in the order of the machine's disks. */
  readonly volumes: readonly string[];
  /** Whether the replicating agent may run in what is launched. */
  readonly agent: 'on' | 'off';
  readonly hasLvm: boolean;
  /** Written into the disk: what it was launched from, and for what. */
  readonly about: Readonly<Record<string, string>>;
}

/** ERR_PREPARE_FAILED. A disk that is none of a Linux is left alone, and told as 'unknown'. */
export async function prepareDisks(
  guest: Guest,
  wish: PrepareWish,
  clock: Clock,
): Promise<PrepareReport> {
  const startMs = clock.monotonicMs();
  const notes = new Notes();
  const disks = await openDisks(guest, wish, notes);
  const root = await findRoot(guest, disks);
  if (root !== null) await prepareRoot(guest, disks, root, wish, notes);
  else notes.add('warning', 'root', '', `no root of a Linux on ${seenOn(disks)}`);
  const tookMs = Math.round(clock.monotonicMs() - startMs);
  return {
    ...{ format: 1, state: root === null ? 'unknown' : 'prepared' },
    root: root === null ? '' : `${nameOf(root.device, disks)}${root.options && ` ${root.options}`}`,
    system: root?.system ?? '',
    ...{ notes: notes.all, tookMs },
  };
}

/** Devices with what lies on them, LVM's as well; drivers for their file systems are loaded. */
async function openDisks(guest: Guest, wish: PrepareWish, notes: Notes): Promise<Disks> {
  let devices = await readDevices(guest);
  if (devices.some(({ content }) => content.type === 'lvm')) {
    if (!wish.hasLvm) {
      notes.add('warning', 'root', '', 'LVM is on the disk, and not on the staging machine');
    } else {
      await guest.activateLvm().catch((cause: unknown) => {
        if (!(cause instanceof Refusal)) throw cause;
        notes.add('warning', 'root', '', `LVM: ${cause.message}`);
      });
      devices = await readDevices(guest);
    }
  }
  for (const type of ['luks', 'raid'] as const) {
    const held = devices.filter(({ content }) => content.type === type);
    for (const { name } of held)
      notes.add('warning', 'root', '', `${name} holds ${type}: not looked into`);
  }
  const types = new Set(devices.map(({ content }) => content.type));
  for (const type of ['ext4', 'xfs', 'btrfs', 'vfat'] as const) {
    if (types.has(type)) await guest.load(type);
  }
  return { devices, volumes: wish.volumes };
}

async function readDevices(guest: Guest): Promise<Device[]> {
  const devices = parseDevices(await guest.devices());
  const heads: Buffer[] = [];
  for (const { name } of devices) heads.push(await guest.head(`/dev/${name}`, CONTENT_BYTES));
  return withContents(devices, heads);
}

async function prepareRoot(
  guest: Guest,
  disks: Disks,
  { device, options, system }: Root,
  wish: PrepareWish,
  notes: Notes,
): Promise<void> {
  const { type } = device.content;
  notes.add('found', 'root', '', `${nameOf(device, disks)}: ${system || 'a Linux'} on ${type}`);
  try {
    await guest.mount(
      `/dev/${device.name}`,
      type,
      mountOptions(device, 'rw', options),
      '/disk/root',
    );
    await guest.enter();
  } catch (cause) {
    if (!(cause instanceof Refusal)) throw cause;
    throw prepareFailed(`the root cannot be mounted: ${cause.message}`, cause);
  }
  await mountMore(guest, disks, notes);
  await fixTree(guest, disks, device, wish, notes);
  await guest.leave().catch((cause: unknown) => {
    if (!(cause instanceof Refusal)) throw cause;
    throw prepareFailed(cause.message, cause);
  });
}

/** What is added: all else is written over in place. */
const ownFiles: readonly string[] = [
  ...[...addedNetworkFiles, NVME_RULES, DRACUT_FILE, MARKER, OWN_UNIT],
];

/** All that is changed in a root file system; apart from the machine, so that tests need none. */
export async function fixTree(
  tree: DiskTree,
  disks: Disks,
  root: Device,
  wish: PrepareWish,
  notes: Notes,
): Promise<void> {
  await fixInitramfs(tree, notes, root.content.type);
  await fixFstab(tree, notes, disks, root);
  await fixLoaders(tree, notes, disks, root);
  await fixEfiFallback(tree, notes);
  await fixNetwork(tree, notes);
  await giveNvmePatience(tree, notes);
  if (wish.agent === 'off') await switchAgentOff(tree, notes);
  await markRecovered(tree, notes, wish.about);
  const changed = new Set(notes.all.flatMap(({ kind, path }) => (kind === 'changed' ? path : [])));
  await labelAdded(tree, notes, [
    ...ownFiles.filter((path) => changed.has(path)),
    ...(changed.has(MARKER) ? [dirname(MARKER)] : []),
  ]);
}

/** What holds the boot loader, kernels and modules, where it is not the root. */
const morePlaces = ['/usr', '/boot', '/boot/efi', '/efi'];

async function mountMore(guest: Guest, disks: Disks, notes: Notes): Promise<void> {
  const entries = parseFstab((await readText(guest, '/etc/fstab')) ?? '');
  for (const place of morePlaces) {
    const entry = entries.find(({ target }) => target === place);
    if (entry === undefined) continue;
    const told = deviceOfSpec(entry.spec, disks);
    const device = told ?? (told === null && entry.type === 'vfat' ? onlyEsp(disks) : undefined);
    if (!device) {
      notes.add('warning', 'root', place, `${entry.spec} is not here`);
      continue;
    }
    const subvolume = entry.options.find((each) => each.startsWith('subvol=')) ?? '';
    const options = mountOptions(device, 'rw', subvolume);
    await guest
      .mount(`/dev/${device.name}`, device.content.type, options, place)
      .catch((cause: unknown) => {
        if (!(cause instanceof Refusal)) throw cause;
        notes.add('failed', 'root', place, `cannot be mounted: ${cause.message}`);
      });
  }
  await mountUntold(guest, disks, entries, notes);
}

/** systemd mounts an EFI system partition by its type alone, on /efi where that is there, else on /boot. */
async function mountUntold(
  guest: Guest,
  disks: Disks,
  entries: readonly FstabEntry[],
  notes: Notes,
): Promise<void> {
  const isTold = entries.some(({ target, type }) => morePlaces.includes(target) && type === 'vfat');
  const device = isTold ? undefined : onlyEsp(disks);
  if (device === undefined) return;
  for (const place of ['/efi', '/boot/efi', '/boot']) {
    if (entries.some(({ target }) => target === place)) continue;
    const isFolder = (await guest.stat(place)).kind === 'd';
    if (!isFolder || (await guest.list(place)).length > 0) continue;
    await guest
      .mount(`/dev/${device.name}`, 'vfat', mountOptions(device, 'rw', ''), place)
      .then(() => notes.add('found', 'root', place, 'the EFI system partition, by its type'))
      .catch((cause: unknown) => {
        if (!(cause instanceof Refusal)) throw cause;
        notes.add('failed', 'root', place, `cannot be mounted: ${cause.message}`);
      });
    return;
  }
}

/** Where its name cannot be told: there is one alone that it can be. */
function onlyEsp({ devices }: Disks): Device | undefined {
  const found = devices.filter(({ content }) => content.type === 'vfat');
  return found.length === 1 ? found[0] : undefined;
}

/** "/dev/sda, partition 2". */
function nameOf({ name, volume, partition, mapped }: Device, { volumes }: Disks): string {
  if (mapped !== '') return `/dev/mapper/${mapped}`;
  const disk = volume === null ? name : (volumes[volume] ?? name);
  return partition === 0 ? disk : `${disk}, partition ${partition}`;
}

function seenOn(disks: Disks): string {
  const seen = disks.devices
    .filter(({ content }) => content.type !== '')
    .map((device) => `${nameOf(device, disks)} (${device.content.type})`);
  return seen.length === 0 ? 'disks without anything that is known here' : seen.join(', ');
}
