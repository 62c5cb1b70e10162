/**
 * What an initramfs lacks for another machine, and the archive with it that is appended: the kernel unpacks
 * one archive after another, and a later file replaces an earlier one. It holds the modules as they lie on
 * the disk, an index that knows them, and the words by which the initramfs loads them. Pure.
 */
import type { Initramfs } from './initramfs-files.ts';
import { APPENDED_MARK } from './initramfs-files.ts';
import { type ModuleList, moduleName, withNeeds } from './kernel-modules.ts';
import { moduleIndex } from './module-index.ts';
import { type ArchiveEntry, newcArchive } from './newc-archive.ts';

/** Disks of virtual machines and of EC2; then their cards, which would come from the root as well. */
export const diskModules: readonly string[] = [
  ...['virtio_pci', 'virtio_blk', 'virtio_scsi', 'sd_mod', 'nvme'],
];
export const networkModules: readonly string[] = ['virtio_net', 'ena'];

export interface Kernel {
  readonly release: string;
  readonly builtIn: ReadonlySet<string>;
  readonly list: ModuleList;
  /** The text of modules.dep. */
  readonly dependencies: string;
}

export interface Lack {
  /** To be put in, with what they need, in an order of loading. */
  readonly add: readonly string[];
  /** Neither in the kernel nor among its modules. */
  readonly absent: readonly string[];
  /** Of those to be put in, the ones that were wanted. */
  readonly wanted: readonly string[];
}

/** `rootType`: the root's file system. */
export function lackOf(kernel: Kernel, initramfs: Initramfs, rootType: string): Lack {
  const { builtIn, list, release } = kernel;
  const there = modulesIn(initramfs, release);
  const all = [...diskModules, ...networkModules, rootType];
  const isLacking = (name: string) => !builtIn.has(name) && !there.has(name);
  const lacking = all.filter(isLacking);
  const wanted = lacking.filter((name) => list.pathOf.has(name));
  return {
    wanted,
    add: withNeeds(list, wanted).filter(isLacking),
    absent: lacking.filter((name) => !list.pathOf.has(name)),
  };
}

/** Path in the initramfs by the name of the module. */
function modulesIn({ files }: Initramfs, release: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const name of files.keys()) {
    const module = name.includes(`lib/modules/${release}/`) ? moduleName(name) : null;
    if (module !== null) found.set(module, name);
  }
  return found;
}

export interface Additions {
  readonly lack: Lack;
  /** By the name of the module: the file as it lies on the disk. */
  readonly modules: ReadonlyMap<string, Buffer>;
  /** Of lib/modules/RELEASE on the disk: those of `indexFiles` that are there. */
  readonly indexes: ReadonlyMap<string, Buffer>;
}

/** Names alone are in them, no paths: those of the disk are right for any choice of its modules. */
export const indexFiles: readonly string[] = [
  ...['modules.alias', 'modules.alias.bin', 'modules.softdep'],
  ...['modules.symbols', 'modules.symbols.bin'],
];

/** To be written at the end of the image, `at` bytes long: zeros up to a boundary, then the archive. */
export function appendedArchive(
  kernel: Kernel,
  initramfs: Initramfs,
  additions: Additions,
  at: number,
): Buffer {
  const folder = moduleFolder(initramfs, kernel.release);
  const file = (path: string, content: Buffer | string): ArchiveEntry => ({
    ...{ path, mode: 0o100644, content: Buffer.from(content) },
  });
  const lines = dependencyLines(kernel, initramfs);
  const entries = [
    file(APPENDED_MARK, `${additions.lack.add.join('\n')}\n`),
    ...[...additions.modules].map(([name, content]) =>
      file(`${folder}/${kernel.list.pathOf.get(name)}`, content),
    ),
    ...[...additions.indexes].map(([name, content]) => file(`${folder}/${name}`, content)),
    file(`${folder}/modules.dep`, `${[...lines.values()].join('\n')}\n`),
    file(`${folder}/modules.dep.bin`, moduleIndex(lines)),
    ...loadingFiles(initramfs, additions.lack.wanted).map(([path, text]) => file(path, text)),
  ];
  return Buffer.concat([Buffer.alloc(paddingAt(at)), newcArchive(entries)]);
}

const BOUNDARY = 512;
/** LZ4 as the kernel reads it ends at a length of zero: some zeros there must be. */
const LEAST_ZEROS = 16;
const paddingAt = (at: number): number => LEAST_ZEROS + (-(at + LEAST_ZEROS) & (BOUNDARY - 1));

/** A link in the place of a folder must not be replaced by a folder. */
function moduleFolder({ files }: Initramfs, release: string): string {
  const own = [...files.keys()].find((name) => name.includes(`lib/modules/${release}/`));
  const prefix = own?.slice(0, own.indexOf('lib/modules/'));
  if (prefix !== undefined) return `${prefix}lib/modules/${release}`;
  return `${files.get('lib')?.isLink === true ? 'usr/' : ''}lib/modules/${release}`;
}

/** modules.dep of the disk, with the paths of what the initramfs holds in another packing. */
function dependencyLines(kernel: Kernel, initramfs: Initramfs): Map<string, string> {
  const there = modulesIn(initramfs, kernel.release);
  const translated = new Map<string, string>();
  for (const [name, path] of kernel.list.pathOf) {
    const own = there.get(name);
    if (own !== undefined)
      translated.set(path, own.slice(own.indexOf(kernel.release) + kernel.release.length + 1));
  }
  const lines = new Map<string, string>();
  for (const line of kernel.dependencies.split('\n')) {
    const colon = line.indexOf(':');
    const name = moduleName(line.slice(0, Math.max(0, colon)));
    if (name === null) continue;
    const [path = '', ...needs] = [line.slice(0, colon), ...line.slice(colon + 1).split(' ')]
      .filter(Boolean)
      .map((each) => translated.get(each) ?? each);
    lines.set(name, [`${path}:`, ...needs].join(' '));
  }
  return lines;
}

/** What makes it load them: a list of initramfs-tools, or dracut's words. udev would find them as well. */
function loadingFiles({ files }: Initramfs, wanted: readonly string[]): [string, string][] {
  const list = files.get('conf/modules');
  const names = wanted.filter((name) => !networkModules.includes(name));
  // Cards have time until the root is there.
  if (names.length === 0) return [];
  if (list !== undefined || files.has('conf/initramfs.conf')) {
    const old = list?.content.toString('utf8') ?? '';
    const text = `${old}${old === '' || old.endsWith('\n') ? '' : '\n'}${names.join('\n')}\n`;
    return [['conf/modules', text]];
  }
  const isDracut = [...files.keys()].some((name) =>
    /(?:^|\/)lib\/dracut(?:-lib\.sh|\/)/.test(name),
  );
  return isDracut
    ? [['etc/cmdline.d/90-understudy.conf', `rd.driver.pre=${names.join(',')}\n`]]
    : [];
}
