/**
 * Which file system is the root of the machine that the disks are of: one that holds /etc of a Linux. Where
 * there are several, the boot loader's first entry says which, or nobody does and it is an error.
 */

import { plain } from '../plain-text.ts';
import { type Device, type Disks, deviceOfSpec } from './devices.ts';
import { type Guest, prepareFailed, Refusal } from './guest.ts';
import { parseEntry } from './loader-entries.ts';

export interface Root {
  readonly device: Device;
  /** Mount options that lead to it: "subvol=@", or ''. */
  readonly options: string;
  /** "Debian GNU/Linux 12 (bookworm)"; '' where it does not say. */
  readonly system: string;
}

const LOOK = '/disk/look';
/** Where distributions put the root in a btrfs, besides its default. */
const subvolumes = ['', 'subvol=@', 'subvol=@rootfs', 'subvol=root'];
const rootTypes = new Set(['ext4', 'xfs', 'btrfs']);
const grubConfigs = [
  'boot/grub/grub.cfg',
  'boot/grub2/grub.cfg',
  'grub/grub.cfg',
  'grub2/grub.cfg',
];
const MAX_CONFIG_BYTES = 2 ** 20;
const MAX_NAME = 100;

/** What the first entry of a GRUB configuration boots. */
export interface Told {
  readonly root: string;
  readonly subvolume: string;
}

export function toldByGrub(text: string): Told | null {
  for (const line of text.split('\n')) {
    if (!/^\s*linux(?:16|efi)?\s/.test(line)) continue;
    const root = /\sroot=(\S+)/.exec(line)?.[1];
    if (root === undefined) continue;
    const subvolume = /\srootflags=\S*?(subvol=[^\s,]+)/.exec(line)?.[1] ?? '';
    return { root, subvolume };
  }
  return null;
}

/** Null: no root of a Linux that can be mounted here. ERR_PREPARE_FAILED where it cannot be told which. */
export async function findRoot(guest: Guest, disks: Disks): Promise<Root | null> {
  const found: Root[] = [];
  const told: Told[] = [];
  for (const device of disks.devices) {
    const { type } = device.content;
    if (!rootTypes.has(type)) continue;
    for (const options of type === 'btrfs' ? subvolumes : ['']) {
      const seen = await lookAt(guest, device, options);
      if (seen === null) continue;
      told.push(...seen.told);
      if (seen.system !== null) found.push({ device, options, system: seen.system });
      if (options === '' && seen.system !== null) break;
    }
  }
  const first = found[0];
  if (first === undefined || found.length === 1) return first ?? null;
  return chosen(found, told, disks);
}

function chosen(found: readonly Root[], told: readonly Told[], disks: Disks): Root {
  const named = found.filter(({ device, options }) =>
    told.some(
      ({ root, subvolume }) =>
        deviceOfSpec(root, disks) === device &&
        (options === '' || subvolume === '' || subvolume.replace('=/', '=') === options),
    ),
  );
  if (named.length === 1) return named[0]!;
  const all = found.map(({ device, options, system }) =>
    [device.name, options, system].filter(Boolean).join(' '),
  );
  const message = `several root file systems, and no boot loader says which: ${all.join('; ')}`;
  throw prepareFailed(message);
}

interface Seen {
  readonly told: readonly Told[];
  /** Null: it is no root. */
  readonly system: string | null;
}

async function lookAt(guest: Guest, device: Device, options: string): Promise<Seen | null> {
  try {
    await guest.mount(
      `/dev/${device.name}`,
      device.content.type,
      mountOptions(device, 'ro', options),
      LOOK,
    );
  } catch (cause) {
    if (cause instanceof Refusal) return null;
    throw cause;
  }
  try {
    const told: Told[] = [];
    for (const path of grubConfigs) {
      const text = await textOf(guest, `${LOOK}/${path}`);
      const one = text === null ? null : toldByGrub(text);
      if (one !== null) told.push(one);
    }
    told.push(...(await toldByEntries(guest)));
    return { told, system: await systemIn(guest) };
  } finally {
    await guest.unmount(LOOK);
  }
}

/** The newest entry of each folder: it is the one that is booted, where nobody has chosen another. */
async function toldByEntries(guest: Guest): Promise<Told[]> {
  const told: Told[] = [];
  for (const folder of ['boot/loader/entries', 'loader/entries']) {
    const entries = (await guest.list(`${LOOK}/${folder}`)).filter(
      ({ kind, name }) => kind === 'f' && name.endsWith('.conf') && !name.includes('rescue'),
    );
    const { compare } = new Intl.Collator('en', { numeric: true });
    const newest = entries.map(({ name }) => name).sort((a, b) => compare(b, a))[0];
    const text = newest === undefined ? null : await textOf(guest, `${LOOK}/${folder}/${newest}`);
    const one = text === null ? null : toldByGrub(`linux x ${parseEntry(text).options}`);
    if (one !== null) told.push(one);
  }
  return told;
}

/** Two file systems of one UUID (a copy beside its source) are no reason not to look. */
export function mountOptions(device: Device, access: 'ro' | 'rw', options: string): string {
  const own = device.content.type === 'xfs' ? 'nouuid' : '';
  return [access, own, options].filter(Boolean).join(',');
}

async function systemIn(guest: Guest): Promise<string | null> {
  const is = async (path: string) => (await guest.stat(`${LOOK}/${path}`)).kind;
  if ((await is('etc')) !== 'd' || (await is('etc/passwd')) !== 'f') return null;
  const hasTable = (await is('etc/fstab')) === 'f';
  const release = await is('etc/os-release');
  if (!hasTable && release === null) return null;
  const texts = [`${LOOK}/usr/lib/os-release`, `${LOOK}/etc/os-release`];
  for (const path of texts) {
    const name = /^PRETTY_NAME="?([^"\n]*)/m.exec((await textOf(guest, path)) ?? '')?.[1];
    if (name !== undefined) return plain(name).slice(0, MAX_NAME);
  }
  return '';
}

async function textOf(guest: Guest, path: string): Promise<string | null> {
  try {
    return (await guest.read(path, MAX_CONFIG_BYTES)).toString('latin1');
  } catch (cause) {
    if (cause instanceof Refusal) return null;
    throw cause;
  }
}
