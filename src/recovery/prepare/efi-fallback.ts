/**
 * The boot loader that a UEFI firmware starts when it knows no entries: EFI/BOOT/BOOTX64.EFI in the EFI
 * system partition. Entries lie in the memory of the old machine's firmware, not on its disk; many systems
 * have their loader in a folder of their own and nowhere else. A copy of it is put there where none is.
 */
import { MIB } from '../../base/units.ts';
import type { DiskTree } from './disk-tree.ts';
import type { Notes } from './report.ts';
import { attempt } from './tree-text.ts';

const places = ['/boot/efi', '/efi', '/boot'];
const MAX_LOADER_BYTES = 16 * MIB;
const MAX_UNIFIED_BYTES = 256 * MIB;
const MAX_VENDORS = 32;
const MAX_COMPANIONS = 16;
const ABOUT = 'boot-loader';

/** By machine: the name that firmware looks for, and what may stand in for it, the best first. */
const machines = [
  { fallback: 'BOOTX64.EFI', loaders: ['shimx64.efi', 'grubx64.efi', 'systemd-bootx64.efi'] },
  { fallback: 'BOOTAA64.EFI', loaders: ['shimaa64.efi', 'grubaa64.efi', 'systemd-bootaa64.efi'] },
] as const;
/** SUSE names no machine. */
const plainLoaders = ['shim.efi', 'grub.efi'];
/** What shim starts lies beside it. */
const companion = /^(?:grub|mm|MokManager)[a-z0-9]*\.efi$/i;

export async function fixEfiFallback(tree: DiskTree, notes: Notes): Promise<void> {
  for (const place of places) {
    const vendors = (await tree.list(`${place}/EFI`)).filter(({ kind }) => kind === 'd');
    if (vendors.length === 0) continue;
    const names = vendors
      .map(({ name }) => name)
      .filter((name) => !/^(?:boot|microsoft|linux)$/i.test(name));
    await fixPartition(tree, notes, `${place}/EFI`, names.slice(0, MAX_VENDORS));
    return;
  }
}

async function fixPartition(
  tree: DiskTree,
  notes: Notes,
  folder: string,
  vendors: readonly string[],
): Promise<void> {
  for (const { fallback } of machines) {
    if ((await tree.stat(`${folder}/BOOT/${fallback}`)).kind === 'f') {
      notes.add(
        'found',
        ABOUT,
        `${folder}/BOOT/${fallback}`,
        'starts without entries of a firmware',
      );
      return;
    }
  }
  for (const vendor of [...vendors].sort()) {
    const files = (await tree.list(`${folder}/${vendor}`)).filter(({ kind }) => kind === 'f');
    const found = loaderOf(files.map(({ name }) => name));
    if (found === null) continue;
    await attempt(notes, ABOUT, `${folder}/BOOT/${found.fallback}`, async () => {
      const from = `${folder}/${vendor}`;
      for (const name of found.companions) {
        await copyFile(tree, `${from}/${name}`, `${folder}/BOOT/${name}`);
      }
      await copyFile(tree, `${from}/${found.loader}`, `${folder}/BOOT/${found.fallback}`);
      const text = `a copy of ${vendor}/${found.loader}, for a firmware without entries`;
      notes.add('changed', ABOUT, `${folder}/BOOT/${found.fallback}`, text);
    });
    return;
  }
  if (await putUnified(tree, notes, folder)) return;
  notes.add('warning', ABOUT, folder, 'no boot loader that a firmware without entries would start');
}

/** Without any menu firmware starts a unified image itself: the newest one. */
async function putUnified(tree: DiskTree, notes: Notes, folder: string): Promise<boolean> {
  const files = (await tree.list(`${folder}/Linux`)).filter(
    ({ kind, name }) => kind === 'f' && /\.efi$/i.test(name),
  );
  const { compare } = new Intl.Collator('en', { numeric: true });
  const newest = files.map(({ name }) => name).sort((a, b) => compare(b, a))[0];
  if (newest === undefined) return false;
  const [{ fallback }] = machines;
  await attempt(notes, ABOUT, `${folder}/BOOT/${fallback}`, async () => {
    const image = await tree.read(`${folder}/Linux/${newest}`, MAX_UNIFIED_BYTES);
    await tree.write(`${folder}/BOOT/${fallback}`, image);
    const text = `a copy of Linux/${newest}, for a firmware without entries`;
    notes.add('changed', ABOUT, `${folder}/BOOT/${fallback}`, text);
  });
  return true;
}

interface Found {
  readonly fallback: string;
  readonly loader: string;
  readonly companions: readonly string[];
}

function loaderOf(names: readonly string[]): Found | null {
  for (const { fallback, loaders } of machines) {
    const wanted = fallback === 'BOOTX64.EFI' ? [...loaders, ...plainLoaders] : loaders;
    const loader = wanted
      .map((each) => names.find((name) => name.toLowerCase() === each))
      .find((each) => each !== undefined);
    if (loader === undefined) continue;
    const isShim = loader.toLowerCase().startsWith('shim');
    const companions = isShim
      ? names.filter((name) => companion.test(name)).slice(0, MAX_COMPANIONS)
      : [];
    return { fallback, loader, companions };
  }
  return null;
}

async function copyFile(tree: DiskTree, from: string, to: string): Promise<void> {
  await tree.write(to, await tree.read(from, MAX_LOADER_BYTES));
}
