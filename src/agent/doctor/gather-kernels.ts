/** The kernels that may boot next, their drivers and their initramfs, as facts. */
import type { InitramfsFacts, KernelFacts, TextFile } from '../../model/doctor/facts.ts';
import { listInitramfs } from './initramfs.ts';
import type { Tree } from './tree.ts';

/** The running one and the newest: what else lies there is seldom started. */
export async function gatherKernels(tree: Tree, running: string): Promise<KernelFacts[]> {
  const found = await findKernels(tree);
  const newest = [...found.keys()].sort(compareReleases).at(-1);
  const unified = [...found].find(([name]) => name.includes(running));
  if (unified !== undefined && !found.has(running)) found.set(running, unified[1]);
  const releases = new Set([running, newest ?? running]);
  const kernels: KernelFacts[] = [];
  for (const release of releases) {
    const own = found.get(release) ?? { path: '', initramfs: '' };
    const isRunning = release === running;
    const { modules, builtIn } = await driversOf(tree, release, isRunning);
    const initramfs = await readInitramfs(tree, await initramfsPath(tree, release, own.initramfs));
    kernels.push({ release, isRunning, path: own.path, modules, builtIn, initramfs });
  }
  return kernels;
}

const numbersIn = (release: string): number[] => (release.match(/\d+/g) ?? []).map(Number);
export function compareReleases(a: string, b: string): number {
  const [x, y] = [numbersIn(a), numbersIn(b)];
  for (let i = 0; i < Math.max(x.length, y.length); i += 1) {
    const difference = (x[i] ?? -1) - (y[i] ?? -1);
    if (difference !== 0) return difference;
  }
  return a < b ? -1 : 1;
}

interface Found {
  readonly path: string;
  /** '' where its name has to be guessed. */
  readonly initramfs: string;
}

async function findKernels(tree: Tree): Promise<Map<string, Found>> {
  const found = new Map<string, Found>();
  for (const base of ['/boot', '/boot/efi', '/efi']) {
    for (const { text } of await tree.texts(`${base}/loader/entries`, /\.conf$/)) {
      const told = (key: string) => new RegExp(`^${key}\\s+(\\S+)`, 'm').exec(text)?.[1] ?? '';
      const [linux, initrd] = [told('linux'), told('initrd')];
      const release = told('version') || linux.replace(/^.*vmlinuz-/, '');
      if (release === '' || linux === '' || /rescue/.test(linux)) continue;
      const path = await firstOf(tree, [`${base}${linux}`, linux]);
      const initramfs = initrd === '' ? '' : await firstOf(tree, [`${base}${initrd}`, initrd]);
      if (path !== '') found.set(release, { path, initramfs });
    }
  }
  for (const base of ['/boot', '/boot/efi', '/efi']) {
    for (const name of await tree.list(`${base}/EFI/Linux`)) {
      // A kernel with its initramfs in one file: the latter is not looked into.
      const path = `${base}/EFI/Linux/${name}`;
      if (name.endsWith('.efi')) found.set(name.slice(0, -4), { path, initramfs: path });
    }
  }
  for (const name of await tree.list('/boot')) {
    const release = /^(?:vmlinu[xz]|kernel|Image|zImage)-(?!.*rescue)(.+)$/.exec(name)?.[1];
    if (release === undefined || found.has(release)) continue;
    found.set(release, { path: `/boot/${name}`, initramfs: '' });
  }
  return found;
}

/** The first path that exists; '' where none does. */
async function firstOf(tree: Tree, paths: readonly string[]): Promise<string> {
  for (const path of paths) if (await tree.exists(path)) return path;
  return '';
}

function initramfsPath(tree: Tree, release: string, told: string): Promise<string> {
  const names = [
    `initrd.img-${release}`,
    `initramfs-${release}.img`,
    `initrd-${release}`,
    `initrd-${release}.img`,
  ];
  return told === ''
    ? firstOf(
        tree,
        names.map((name) => `/boot/${name}`),
      )
    : Promise.resolve(told);
}

/** drivers/nvme/host/nvme.ko.xz is `nvme`; the kernel takes `-` for `_`. */
const moduleName = (path: string): string | null =>
  /([^/]+)\.ko(?:\.\w+)?$/.exec(path)?.[1]?.replaceAll('-', '_') ?? null;

function modulesIn(paths: readonly string[]): Set<string> {
  return new Set(paths.map(moduleName).filter((name) => name !== null));
}

async function driversOf(tree: Tree, release: string, isRunning: boolean) {
  const folder = `/lib/modules/${release}`;
  const listed = await tree.text(`${folder}/modules.dep`);
  const modules = modulesIn(listed.split('\n').map((line) => line.split(':')[0]!));
  const builtIn = modulesIn((await tree.text(`${folder}/modules.builtin`)).split('\n'));
  // A kernel without modules: what it has is loaded.
  if (isRunning && listed === '' && builtIn.size === 0) {
    for (const name of await tree.list('/sys/module')) builtIn.add(name.replaceAll('-', '_'));
    for (const bus of ['virtio', 'pci', 'vmbus', 'xen']) {
      for (const name of await tree.list(`/sys/bus/${bus}/drivers`)) {
        builtIn.add(name.replaceAll('-', '_'));
      }
    }
    const types = (await tree.text('/proc/filesystems')).split('\n');
    for (const type of types) builtIn.add(type.replace(/^nodev/, '').trim());
  }
  return { modules, builtIn };
}

const PROGRAMS: Record<string, string> = {
  lvm: 'lvm',
  vgchange: 'lvm',
  cryptsetup: 'cryptsetup',
  'systemd-cryptsetup': 'cryptsetup',
  mdadm: 'mdadm',
};

async function readInitramfs(tree: Tree, path: string): Promise<InitramfsFacts> {
  const nothing = { path, detail: '', sizeBytes: 0, modules: new Set<string>() };
  const none = { ...nothing, programs: new Set<string>() };
  if (path === '') return { ...none, state: 'missing' };
  const sizeBytes = await tree.size(path);
  try {
    const names = await listInitramfs(await tree.at(path));
    const programs = names.map((name) => PROGRAMS[name.replace(/^.*\//, '')]);
    return {
      ...none,
      ...{ state: 'read', sizeBytes, modules: modulesIn(names) },
      programs: new Set(programs.filter((name) => name !== undefined)),
    };
  } catch (error) {
    return { ...none, state: 'unreadable', sizeBytes, detail: (error as Error).message };
  }
}

/** In the order in which their makers read them. */
export async function gatherInitramfsConfig(tree: Tree): Promise<TextFile[]> {
  const confs = /\.conf$/;
  return [
    ...(await tree.texts('/etc/initramfs-tools', /^initramfs\.conf$/)),
    ...(await tree.texts('/etc/initramfs-tools/conf.d', /^[\w.-]+$/)),
    ...(await tree.texts('/etc', /^dracut\.conf$/)),
    ...(await tree.texts('/usr/lib/dracut/dracut.conf.d', confs)),
    ...(await tree.texts('/etc/dracut.conf.d', confs)),
  ];
}
