/**
 * Gives the initramfs of every kernel on a disk the drivers of another machine: checked by its contents,
 * and what is missing appended from the disk's own modules (initramfs-archive.ts). What makes new ones on
 * that machine is told of them, too.
 */
import { MIB } from '../../base/units.ts';
import type { DiskTree } from './disk-tree.ts';
import { fixUnified, unifiedImages } from './fix-unified.ts';
import { appendedArchive, indexFiles, type Kernel, lackOf } from './initramfs-archive.ts';
import { InitramfsError, readInitramfs } from './initramfs-files.ts';
import { parseBuiltIn, parseDependencies } from './kernel-modules.ts';
import { initramfsOf, isEntryToken, parseEntry } from './loader-entries.ts';
import type { Notes } from './report.ts';
import { attempt, entryFolders, filesIn, ORIGINAL, readText } from './tree-text.ts';

const MAX_KERNELS = 8;
const MAX_FOLDERS = 256;
const MAX_IMAGE_BYTES = 256 * MIB;
const MAX_LIST_BYTES = 16 * MIB;
const MAX_MODULE_BYTES = 64 * MIB;
const SPARE_BYTES = MIB;
const MAX_TOKENS = 16;
const ABOUT = 'initramfs';

/** Where an initramfs lies, by distribution. */
const imagePaths = (release: string): string[] => [
  `/boot/initrd.img-${release}`,
  `/boot/initramfs-${release}.img`,
  `/boot/initrd-${release}`,
  `/boot/initrd-${release}.img`,
];

/** `rootType`: the root's file system. */
export async function fixInitramfs(tree: DiskTree, notes: Notes, rootType: string): Promise<void> {
  const releases = await kernelReleases(tree);
  if (releases.length === 0) {
    notes.add('warning', ABOUT, '', 'no kernel with its modules was found on the disk');
  }
  if (releases.length > MAX_KERNELS) {
    notes.add('warning', ABOUT, '', `only the newest ${MAX_KERNELS} of ${releases.length} kernels`);
  }
  const wanted = new Set<string>();
  for (const release of releases.slice(0, MAX_KERNELS)) {
    for (const name of await fixKernel(tree, notes, release, rootType)) wanted.add(name);
  }
  if (wanted.size > 0) await keepForNext(tree, notes, [...wanted]);
}

/** Newest first; such as have modules. */
async function kernelReleases(tree: DiskTree): Promise<string[]> {
  const folders = (await tree.list('/lib/modules')).filter(({ kind }) => kind === 'd');
  const releases: string[] = [];
  for (const { name } of folders.slice(0, MAX_FOLDERS)) {
    if (!/^[\w.+~-]{1,128}$/.test(name)) continue;
    if ((await tree.stat(`/lib/modules/${name}/modules.dep`)).kind === 'f') releases.push(name);
  }
  const { compare } = new Intl.Collator('en', { numeric: true });
  return releases.sort((a, b) => compare(b, a));
}

/** The modules that had to be put in. */
async function fixKernel(
  tree: DiskTree,
  notes: Notes,
  release: string,
  rootType: string,
): Promise<readonly string[]> {
  const images = await imagesOf(tree, notes, release, rootType);
  let added: readonly string[] = [];
  for (const path of images) {
    await attempt(notes, ABOUT, path, async () => {
      added = await fixImage(tree, notes, await kernelOf(tree, release), path, rootType);
    });
  }
  return added;
}

/** What a boot of that kernel may begin with: an initramfs, or one that was in a unified image. */
async function imagesOf(
  tree: DiskTree,
  notes: Notes,
  release: string,
  rootType: string,
): Promise<string[]> {
  const images: string[] = [];
  const own = await imageOf(tree, release);
  if (own !== null) images.push(own);
  const unified = await unifiedImages(tree, release);
  for (const each of unified) {
    await attempt(notes, ABOUT, each.path, async () => {
      const path = await fixUnified(tree, notes, await kernelOf(tree, release), each, rootType);
      if (path !== null && !images.includes(path)) images.push(path);
    });
  }
  if (own === null && unified.length === 0) {
    notes.add('warning', ABOUT, '', `no initramfs for ${release}`);
  }
  return images;
}

async function kernelOf(tree: DiskTree, release: string): Promise<Kernel> {
  const folder = `/lib/modules/${release}`;
  const dependencies = (await tree.read(`${folder}/modules.dep`, MAX_LIST_BYTES)).toString(
    'latin1',
  );
  return {
    ...{ release, dependencies, list: parseDependencies(dependencies) },
    builtIn: parseBuiltIn((await readText(tree, `${folder}/modules.builtin`)) ?? ''),
  };
}

async function imageOf(tree: DiskTree, release: string): Promise<string | null> {
  for (const path of [...imagePaths(release), ...(await entryPaths(tree, release))]) {
    if ((await tree.stat(path)).kind === 'f') return path;
  }
  return null;
}

/** What loader entries name, and where kernel-install puts it. */
async function entryPaths(tree: DiskTree, release: string): Promise<string[]> {
  const paths: string[] = [];
  for (const folder of entryFolders) {
    for (const path of await filesIn(tree, folder)) {
      const text = path.endsWith('.conf') ? await readText(tree, path) : null;
      if (text !== null) paths.push(...initramfsOf(parseEntry(text), folder, release));
    }
    const place = folder.replace('/loader/entries', '');
    const tokens = (await tree.list(place)).filter(
      ({ kind, name }) => kind === 'd' && isEntryToken(name),
    );
    for (const { name } of tokens.slice(0, MAX_TOKENS))
      paths.push(`${place}/${name}/${release}/initrd`);
  }
  return paths;
}

async function fixImage(
  tree: DiskTree,
  notes: Notes,
  kernel: Kernel,
  path: string,
  rootType: string,
): Promise<readonly string[]> {
  const image = await tree.read(path, MAX_IMAGE_BYTES);
  const initramfs = await readInitramfs(image).catch((cause: unknown) => {
    if (!(cause instanceof InitramfsError)) throw cause;
    notes.add('failed', ABOUT, path, `cannot be read: ${cause.message}`);
    return null;
  });
  if (initramfs === null) return [];
  const lack = lackOf(kernel, initramfs, rootType);
  if (lack.absent.length > 0) {
    notes.add('warning', ABOUT, path, `${kernel.release} has no ${lack.absent.join(', ')}`);
  }
  if (lack.add.length === 0) {
    notes.add('found', ABOUT, path, 'has the drivers for virtio, NVMe and ENA that its kernel has');
    return [];
  }
  const modules = await modulesOf(tree, kernel, lack.add);
  const indexes = await indexesOf(tree, kernel.release);
  const archive = appendedArchive(kernel, initramfs, { lack, modules, indexes }, image.length);
  const free = await tree.freeBytes(path.slice(0, path.lastIndexOf('/')));
  if (free < archive.length + SPARE_BYTES) {
    const text = `no room for ${lack.add.join(', ')}: ${archive.length} bytes, ${free} free`;
    notes.add('failed', ABOUT, path, text);
    return [];
  }
  await tree.append(path, archive);
  notes.add('changed', ABOUT, path, `${lack.add.join(', ')} appended`);
  return lack.wanted;
}

async function modulesOf(
  tree: DiskTree,
  { release, list }: Kernel,
  names: readonly string[],
): Promise<Map<string, Buffer>> {
  const modules = new Map<string, Buffer>();
  for (const name of names) {
    const path = `/lib/modules/${release}/${list.pathOf.get(name)}`;
    modules.set(name, await tree.read(path, MAX_MODULE_BYTES));
  }
  return modules;
}

async function indexesOf(tree: DiskTree, release: string): Promise<Map<string, Buffer>> {
  const indexes = new Map<string, Buffer>();
  for (const name of indexFiles) {
    const path = `/lib/modules/${release}/${name}`;
    if ((await tree.stat(path)).kind !== 'f') continue;
    indexes.set(name, await tree.read(path, MAX_LIST_BYTES));
  }
  return indexes;
}

const TOOLS_LIST = '/etc/initramfs-tools/modules';
const DRACUT_FOLDER = '/etc/dracut.conf.d';
export const DRACUT_FILE = `${DRACUT_FOLDER}/90-understudy.conf`;

/** The next initramfs that the machine makes has them as well. */
async function keepForNext(tree: DiskTree, notes: Notes, names: readonly string[]): Promise<void> {
  const list = await readText(tree, TOOLS_LIST);
  if (list !== null) {
    const known = new Set(list.split('\n').map((line) => line.trim().replaceAll('-', '_')));
    const missing = names.filter((name) => !known.has(name));
    const end = list === '' || list.endsWith('\n') ? '' : '\n';
    await attempt(notes, ABOUT, TOOLS_LIST, async () => {
      await tree.copy(TOOLS_LIST, TOOLS_LIST + ORIGINAL);
      await tree.write(TOOLS_LIST, Buffer.from(`${list}${end}${missing.join('\n')}\n`, 'latin1'));
      notes.add('changed', ABOUT, TOOLS_LIST, `${missing.join(', ')} for the next one`);
    });
  }
  if ((await tree.stat(DRACUT_FOLDER)).kind === 'd') {
    await attempt(notes, ABOUT, DRACUT_FILE, async () => {
      await tree.write(DRACUT_FILE, Buffer.from(`add_drivers+=" ${names.join(' ')} "\n`));
      notes.add('changed', ABOUT, DRACUT_FILE, `${names.join(', ')} for the next one`);
    });
  }
}
