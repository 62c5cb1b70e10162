/**
 * Debian's kernels, unpacked once into test/.cache: the cloud kernel (NVMe built in, virtio as modules) and
 * the generic one (all of them modules). What depmod writes is there, by busybox, as on no installed
 * system: text alone, no .bin; who needs those calls kmod's depmod.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';

const cache = resolve(import.meta.dirname, '../.cache');

export interface KernelPackage {
  /** Holds boot/ and lib/modules/. */
  readonly folder: string;
  readonly image: string;
  /** lib/modules/VERSION in the folder. */
  readonly modules: string;
  readonly version: string;
}

const metaPackages = { cloud: 'linux-image-cloud-amd64', generic: 'linux-image-amd64' } as const;

export function kernelPackage(kind: keyof typeof metaPackages): KernelPackage {
  const folder = unpackedPackage(kernelName(metaPackages[kind]), (work, version) => {
    run('/bin/busybox', 'depmod', '-b', work, version.replace(/^linux-image-/, ''));
  });
  const version = readdirSync(join(folder, 'lib/modules'))[0]!;
  return {
    ...{ folder, version },
    image: join(folder, `boot/vmlinuz-${version}`),
    modules: join(folder, 'lib/modules', version),
  };
}

function kernelName(meta: string): string {
  const depends = execFileSync('apt-cache', ['depends', meta], { encoding: 'utf8' });
  const name = /Depends: (linux-image-\S+)/.exec(depends)?.[1];
  if (name === undefined) throw new Error(`${meta} is not among the Debian packages`);
  return name;
}

/** The files of a Debian package, in a folder of the cache; no script of it is run. */
export function unpackedPackage(
  name: string,
  finish: (folder: string, name: string) => void = () => undefined,
): string {
  const path = join(cache, `package-${name}`);
  if (existsSync(path)) return path;
  const work = `${path}.${process.pid}`;
  mkdirSync(join(work, 'files'), { recursive: true });
  try {
    execFileSync('apt-get', ['download', '-qq', name], { cwd: work, stdio: 'pipe' });
    const archive = readdirSync(work).find((file) => file.endsWith('.deb'))!;
    run('dpkg-deb', '-x', join(work, archive), join(work, 'files'));
    finish(join(work, 'files'), name);
    if (!existsSync(path)) renameSync(join(work, 'files'), path);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return path;
}

function run(command: string, ...words: string[]): void {
  execFileSync(command, words, { stdio: ['ignore', 'ignore', 'pipe'] });
}
