/**
 * Unified kernel images (unified-image.ts) of a disk. One that has the drivers stays as it is. Of one that
 * lacks them, or whose root is a name of hardware, kernel and initramfs are laid beside it, as an entry of
 * systemd-boot that comes first and is prepared like any other; the image itself stays.
 */
import { MIB } from '../../base/units.ts';
import { isHardwareSpec } from './devices.ts';
import type { DiskTree } from './disk-tree.ts';
import { type Kernel, lackOf } from './initramfs-archive.ts';
import { InitramfsError, readInitramfs } from './initramfs-files.ts';
import type { Notes } from './report.ts';
import { attempt, ORIGINAL, readText } from './tree-text.ts';
import { readUnifiedImage, type UnifiedImage } from './unified-image.ts';

const ABOUT = 'unified-image';
const MAX_IMAGE_BYTES = 256 * MIB;
const SPARE_BYTES = MIB;
const MAX_IMAGES = 8;
const FIRST = 'default understudy-*';
const places = ['/boot/efi', '/efi', '/boot'];

export interface UnifiedPlace {
  /** Where the EFI system partition is mounted. */
  readonly place: string;
  readonly path: string;
}

/** Those of that kernel, told by their names. */
export async function unifiedImages(tree: DiskTree, release: string): Promise<UnifiedPlace[]> {
  const found: UnifiedPlace[] = [];
  for (const place of places) {
    const files = (await tree.list(`${place}/EFI/Linux`)).filter(
      ({ kind, name }) => kind === 'f' && name.endsWith('.efi') && name.includes(release),
    );
    for (const { name } of files) found.push({ place, path: `${place}/EFI/Linux/${name}` });
  }
  return found.slice(0, MAX_IMAGES);
}

/** The initramfs that was laid beside it, to be prepared; null where there is none. */
export async function fixUnified(
  tree: DiskTree,
  notes: Notes,
  kernel: Kernel,
  { place, path }: UnifiedPlace,
  rootType: string,
): Promise<string | null> {
  const image = readUnifiedImage(await tree.read(path, MAX_IMAGE_BYTES));
  if (image === null) {
    notes.add('warning', ABOUT, path, 'is no unified kernel image that can be read');
    return null;
  }
  const why = await whyNot(kernel, image, rootType);
  if (why === '') {
    notes.add('found', ABOUT, path, 'has the drivers for virtio, NVMe and ENA that its kernel has');
    if (!/console=(?:ttyS|ttyAMA|hvc)\d/.test(image.options)) {
      notes.add('warning', ABOUT, path, 'tells the kernel of no serial console, and is left so');
    }
    return null;
  }
  const hasMenu = (await tree.list(`${place}/EFI/systemd`)).some(({ name }) =>
    /^systemd-boot.*\.efi$/i.test(name),
  );
  if (!hasMenu) {
    notes.add('warning', ABOUT, path, `${why}; without systemd-boot it cannot be helped`);
    return null;
  }
  return layBeside(tree, notes, kernel.release, { place, image, why });
}

/** '' where it boots elsewhere as it is. */
async function whyNot(kernel: Kernel, image: UnifiedImage, rootType: string): Promise<string> {
  const root = /(?:^| )root=(\S+)/.exec(image.options)?.[1] ?? '';
  if (isHardwareSpec(root)) return `its root is ${root}`;
  try {
    const { add } = lackOf(kernel, await readInitramfs(image.initramfs), rootType);
    return add.length === 0 ? '' : `it has no ${add.join(', ')}`;
  } catch (cause) {
    if (!(cause instanceof InitramfsError)) throw cause;
    return `its initramfs cannot be read (${cause.message})`;
  }
}

async function layBeside(
  tree: DiskTree,
  notes: Notes,
  release: string,
  { place, image, why }: { place: string; image: UnifiedImage; why: string },
): Promise<string | null> {
  const folder = `/understudy/${release}`;
  const entry = `${place}/loader/entries/understudy-${release}.conf`;
  const initramfs = `${place}${folder}/initrd`;
  if ((await tree.stat(entry)).kind === 'f') {
    await attempt(notes, ABOUT, entry, () => comeFirst(tree, `${place}/loader/loader.conf`));
    return initramfs;
  }
  const needed = image.kernel.length + image.initramfs.length + SPARE_BYTES;
  const free = await tree.freeBytes(place);
  if (free < needed) {
    notes.add('failed', ABOUT, place, `${why}, and no room: ${needed} bytes, ${free} free`);
    return null;
  }
  let isDone = false;
  await attempt(notes, ABOUT, entry, async () => {
    await tree.write(`${place}${folder}/linux`, image.kernel);
    await tree.write(initramfs, image.initramfs);
    const lines = [
      ...[`title Understudy: ${release}`, `version ${release}`, `linux ${folder}/linux`],
      ...[`initrd ${folder}/initrd`, `options ${image.options}`],
    ];
    // The entry comes last: what is named is there.
    await tree.write(entry, Buffer.from(`${lines.join('\n')}\n`, 'latin1'));
    await comeFirst(tree, `${place}/loader/loader.conf`);
    notes.add('changed', ABOUT, entry, `${why}: taken apart, as an entry that can be changed`);
    isDone = true;
  });
  return isDone ? initramfs : null;
}

async function comeFirst(tree: DiskTree, path: string): Promise<void> {
  const text = await readText(tree, path);
  if (text?.split('\n').includes(FIRST)) return;
  const kept = (text ?? '')
    .split('\n')
    .filter((line) => line !== '' && !/^\s*default\s/.test(line));
  if (text !== null) await tree.copy(path, path + ORIGINAL);
  await tree.write(path, Buffer.from(`${[...kept, FIRST].join('\n')}\n`, 'latin1'));
}
