/**
 * The configuration of a disk's system, made to fit another machine: fstab, boot loaders, network, and the
 * replicating agent. What is written where is decided by pure files beside this one.
 */
import type { Device, Disks } from './devices.ts';
import type { DiskTree } from './disk-tree.ts';
import { rewriteFstab } from './fstab.ts';
import { type LoaderKind, rewriteLoader } from './kernel-line.ts';
import {
  isNetworkFile,
  type NetworkFile,
  networkFiles,
  networkFolders,
  planNetwork,
} from './network.ts';
import type { Notes } from './report.ts';
import { attempt, entryFolders, filesIn, ORIGINAL, readText, rewrite } from './tree-text.ts';

export async function fixFstab(
  tree: DiskTree,
  notes: Notes,
  disks: Disks,
  root: Device,
): Promise<void> {
  const path = '/etc/fstab';
  const text = await readText(tree, path);
  if (text === null) notes.add('warning', 'fstab', path, 'is not there');
  else await rewrite(tree, notes, path, text, rewriteFstab(text, disks, root));
  const crypttab = (await readText(tree, '/etc/crypttab')) ?? '';
  for (const line of crypttab.split('\n').filter((each) => /^\s*[^#\s]/.test(each))) {
    const name = line.trim().split(/\s+/)[0]!;
    notes.add('warning', 'crypttab', '/etc/crypttab', `${name} is encrypted: left as it is`);
  }
}

const fixedLoaders: readonly (readonly [LoaderKind, string])[] = [
  ['grub', '/boot/grub/grub.cfg'],
  ['grub', '/boot/grub2/grub.cfg'],
  ['grubenv', '/boot/grub/grubenv'],
  ['grubenv', '/boot/grub2/grubenv'],
  ['default', '/etc/default/grub'],
  ['words', '/etc/kernel/cmdline'],
  ['extlinux', '/boot/extlinux/extlinux.conf'],
  ['extlinux', '/boot/syslinux/syslinux.cfg'],
];
const EFI_VENDORS = '/boot/efi/EFI';
const MAX_VENDORS = 32;

async function loaderPaths(tree: DiskTree): Promise<(readonly [LoaderKind, string])[]> {
  const paths = [...fixedLoaders];
  for (const { kind, name } of (await tree.list(EFI_VENDORS)).slice(0, MAX_VENDORS)) {
    if (kind === 'd') paths.push(['grub', `${EFI_VENDORS}/${name}/grub.cfg`]);
  }
  for (const folder of entryFolders) {
    const entries = (await filesIn(tree, folder)).filter((path) => path.endsWith('.conf'));
    for (const path of entries) paths.push(['entry', path]);
  }
  return paths;
}

export async function fixLoaders(
  tree: DiskTree,
  notes: Notes,
  disks: Disks,
  root: Device,
): Promise<void> {
  let count = 0;
  for (const [kind, path] of await loaderPaths(tree)) {
    const text = await readText(tree, path);
    if (text === null) continue;
    if (kind !== 'default' && kind !== 'grubenv') count += 1;
    await rewrite(tree, notes, path, text, rewriteLoader({ path, kind, text }, disks, root));
  }
  if (count === 0) notes.add('warning', 'kernel-line', '', 'no configuration of a boot loader');
}

/** All are held at once. */
const MAX_NETWORK_FILE_BYTES = 65_536;

export async function fixNetwork(tree: DiskTree, notes: Notes): Promise<void> {
  const files: NetworkFile[] = [];
  const paths = [...networkFiles];
  for (const folder of networkFolders) paths.push(...(await filesIn(tree, folder)));
  for (const path of paths.filter(isNetworkFile)) {
    const text = await readText(tree, path, MAX_NETWORK_FILE_BYTES);
    if (text !== null) files.push({ path, text });
  }
  const hasCloudInit = (await tree.stat('/etc/cloud/cloud.cfg')).kind === 'f';
  const plan = planNetwork(files, hasCloudInit);
  notes.addAll(plan.notes.filter(({ kind }) => kind !== 'changed'));
  for (const change of plan.changes) {
    await attempt(notes, 'network', change.path, async () => {
      const content = Buffer.from(change.text, 'latin1');
      if (change.kind === 'replace') await tree.copy(change.path, change.path + ORIGINAL);
      await tree.write(change.path, content, change.kind === 'write' ? change.mode : undefined);
      notes.addAll(
        plan.notes.filter((each) => each.kind === 'changed' && each.path === change.path),
      );
    });
  }
}

const UNIT = 'understudy-agent.service';
export const OWN_UNIT = `/etc/systemd/system/${UNIT}`;
const unitFolders = [
  '/usr/local/lib/systemd/system',
  '/usr/lib/systemd/system',
  '/lib/systemd/system',
];

/** Off: masked as systemd does it, by a link to /dev/null; a unit of the same place is put aside. */
export async function switchAgentOff(tree: DiskTree, notes: Notes): Promise<void> {
  const own = (await tree.stat(OWN_UNIT)).kind;
  // A device: it is masked already.
  if (own === 'o') {
    notes.add('found', 'agent', OWN_UNIT, 'is off');
    return;
  }
  let isThere = own !== null;
  for (const folder of unitFolders) {
    isThere ||= (await tree.stat(`${folder}/${UNIT}`)).kind === 'f';
  }
  if (!isThere) {
    notes.add('found', 'agent', '', `no ${UNIT}`);
    return;
  }
  await attempt(notes, 'agent', OWN_UNIT, async () => {
    if (own !== null) await tree.move(OWN_UNIT, OWN_UNIT + ORIGINAL);
    await tree.link('/dev/null', OWN_UNIT);
    notes.add('changed', 'agent', OWN_UNIT, 'switched off in this clone');
  });
}

export const MARKER = '/etc/understudy/recovered.json';

/** Tells the machine itself, and who logs in, what it is a clone of. */
export async function markRecovered(
  tree: DiskTree,
  notes: Notes,
  about: Readonly<Record<string, string>>,
): Promise<void> {
  const text = `${JSON.stringify({ format: 1, ...about }, null, 2)}\n`;
  if ((await readText(tree, MARKER)) === text) return;
  await attempt(notes, 'agent', MARKER, async () => {
    await tree.write(MARKER, Buffer.from(text));
    notes.add('changed', 'agent', MARKER, 'says what this machine was made of');
  });
}
