/**
 * The appliance: a kernel and an initramfs that we make, in which disks are prepared (appliance-script.ts).
 * Busybox, the modules for disks and file systems, lvm and chcon where this machine has them. Made once for each recipe
 * under DATA/appliance and used by all jobs; an unfinished one never has the name.
 */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { gunzipSync, zstdDecompressSync } from 'node:zlib';
import { UnderstudyError } from '../../base/errors.ts';
import { diskError, nodeDisk } from '../../base/node-disk.ts';
import { syncFile } from '../qemu/disks.ts';
import { runProgram } from '../qemu/programs.ts';
import { type ApplianceKernel, findKernel } from './appliance-kernel.ts';
import { initScript, serveScript } from './appliance-script.ts';
import { type ModuleList, parseDependencies, withNeeds } from './kernel-modules.ts';
import { type ArchiveEntry, newcArchive } from './newc-archive.ts';

export interface Appliance {
  readonly kernelPath: string;
  readonly initramfsPath: string;
  readonly release: string;
  readonly hasLvm: boolean;
}

/** Loaded by need: "base" at once, a file system before it is mounted. What is built in is no file. */
const groups: Record<string, readonly string[]> = {
  base: ['virtio_pci', 'virtio_mmio', 'virtio_console', 'virtio_blk', 'crc32c_generic'],
  ext4: ['ext4', 'mbcache', 'jbd2', 'crc16'],
  xfs: ['libcrc32c', 'xfs'],
  btrfs: ['xxhash_generic', 'blake2b_generic', 'sha256_generic', 'libcrc32c', 'btrfs'],
  vfat: ['nls_cp437', 'nls_iso8859_1', 'nls_ascii', 'nls_utf8', 'vfat'],
  lvm: ['dm_mod', 'dm_mirror', 'dm_snapshot', 'dm_thin_pool', 'dm_raid'],
};
/** Programs of this machine that go along with their libraries, in folders of their own. */
const packed = { lvm: 'lvm', chcon: 'label' } as const;
const BUSYBOX_PLACES = ['/bin/busybox', '/usr/bin/busybox'];
const SYSTEM_FOLDERS = ['/usr/sbin', '/sbin', '/usr/bin', '/bin'];
const FORMAT = 'appliance 2';

/** One call at a time. `folder`: DATA/appliance. `kernel`: as for findKernel. ERR_APPLIANCE_KERNEL, ERR_APPLIANCE. */
export async function openAppliance(
  folder: string,
  kernel: string | undefined,
): Promise<Appliance> {
  await mkdir(folder, { recursive: true, mode: 0o700 }).catch((cause: unknown) => {
    throw diskError(cause, folder);
  });
  await removeHalfMade(folder);
  const work = await mkdtemp(join(folder, 'new-'));
  try {
    return await make(folder, work, kernel);
  } catch (cause) {
    throw cause instanceof UnderstudyError ? cause : diskError(cause, folder);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function removeHalfMade(folder: string): Promise<void> {
  const names = (await readdir(folder)).filter((name) => name.startsWith('new-'));
  for (const name of names) await rm(join(folder, name), { recursive: true, force: true });
}

async function make(folder: string, work: string, place: string | undefined): Promise<Appliance> {
  const packageKey = place?.endsWith('.deb') && existsSync(place) ? statKey(place) : null;
  // A package is unpacked only to make an appliance: its own name and time tell it.
  const known = packageKey === null ? null : madeBefore(folder, recipeOf(packageKey));
  if (known !== null) return known;
  const kernel = await findKernel(place, work);
  const key = recipeOf(packageKey ?? `${kernel.release} ${statKey(kernel.imagePath)}`);
  const before = madeBefore(folder, key);
  if (before !== null) return before;
  const made = join(work, 'made');
  await mkdir(made);
  const lvm = programOf('lvm');
  const entries = [...(await ownEntries()), ...(await moduleEntries(kernel))];
  await writeFile(join(made, 'initramfs'), newcArchive(entries));
  await copyFile(kernel.imagePath, join(made, 'kernel'));
  const { release } = kernel;
  await writeFile(join(made, 'about.json'), JSON.stringify({ release, hasLvm: lvm !== undefined }));
  const name = join(folder, key);
  if (!existsSync(name)) {
    for (const each of ['initramfs', 'kernel', 'about.json']) await syncFile(join(made, each));
    await nodeDisk.syncDirectory(made);
    await nodeDisk.rename(made, name);
    await nodeDisk.syncDirectory(folder);
  }
  return madeBefore(folder, key)!;
}

const statKey = (path: string): string => {
  const { size, mtimeMs } = statSync(path);
  return `${path} ${size} ${mtimeMs}`;
};

function recipeOf(kernelKey: string): string {
  const own = packedNames.map((name) => programOf(name) ?? '');
  const programs = [...own, ...BUSYBOX_PLACES].filter((path) => existsSync(path));
  const parts = [FORMAT, kernelKey, initScript, serveScript, JSON.stringify(groups)];
  const text = [...parts, ...programs.map(statKey)].join('\0');
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}

function madeBefore(folder: string, key: string): Appliance | null {
  const about = join(folder, key, 'about.json');
  if (!existsSync(about)) return null;
  const { release, hasLvm } = JSON.parse(readFileSync(about, 'utf8')) as Appliance;
  return {
    ...{ release, hasLvm },
    kernelPath: join(folder, key, 'kernel'),
    initramfsPath: join(folder, key, 'initramfs'),
  };
}

const file = (path: string, content: Buffer, mode = 0o100644): ArchiveEntry => ({
  ...{ path, mode, content },
});

async function ownEntries(): Promise<ArchiveEntry[]> {
  const busybox = BUSYBOX_PLACES.find((path) => existsSync(path));
  if (busybox === undefined) throw failed('busybox is not installed here');
  const program = await readFile(busybox);
  if (program.includes('/ld-linux')) throw failed(`${busybox} is not a static program`);
  const applets = (await runProgram(busybox, ['--list'])).split('\n').filter(Boolean);
  return [
    file('init', Buffer.from(initScript), 0o100755),
    file('serve', Buffer.from(serveScript)),
    file('bin/busybox', program, 0o100755),
    ...applets
      .filter((name) => name !== 'busybox')
      .map((name) => ({ path: `bin/${name}`, mode: 0o120777, content: Buffer.from('busybox') })),
    ...(await Promise.all(packedNames.map(packedEntries))).flat(),
  ];
}

const packedNames = Object.keys(packed) as (keyof typeof packed)[];

/** Where this machine has it. */
function programOf(name: keyof typeof packed): string | undefined {
  const folders = [...(process.env.PATH ?? '').split(':'), ...SYSTEM_FOLDERS];
  return folders.map((folder) => join(folder, name)).find((path) => existsSync(path));
}

/** The program and the libraries that it names; their loader is called by name. */
async function packedEntries(name: keyof typeof packed): Promise<ArchiveEntry[]> {
  const program = programOf(name);
  if (program === undefined) return [];
  const told = await runProgram('ldd', [program]);
  const libraries = [...told.matchAll(/(?:=> )?(\/\S+) \(0x/g)].map((match) => match[1]!);
  const all = [program, ...libraries].map(async (path) =>
    file(`${packed[name]}/${packedName(path)}`, await readFile(path), 0o100755),
  );
  return Promise.all(all);
}

const packedName = (path: string): string =>
  /\/ld-[^/]*$/.test(path) ? 'loader' : path.slice(path.lastIndexOf('/') + 1);

/** Unpacked, and one list for each group in the order of loading. */
async function moduleEntries(kernel: ApplianceKernel): Promise<ArchiveEntry[]> {
  const list = await dependenciesOf(kernel);
  const entries = new Map<string, ArchiveEntry>();
  for (const [group, names] of Object.entries(groups)) {
    const order = withNeeds(list, names);
    for (const name of order) {
      const path = join(kernel.modulesFolder, list.pathOf.get(name)!);
      const target = `modules/${name}.ko`;
      if (!entries.has(target)) entries.set(target, file(target, await readModule(path)));
    }
    const lines = order.map((name) => `${name}.ko\n`).join('');
    entries.set(group, file(`modules/${group}`, Buffer.from(lines)));
  }
  return [...entries.values()];
}

/** A package that was only unpacked has no modules.dep yet. */
async function dependenciesOf({ modulesFolder, release }: ApplianceKernel): Promise<ModuleList> {
  const own = join(modulesFolder, 'modules.dep');
  if (existsSync(own)) return parseDependencies(await readFile(own, 'utf8'));
  const base = resolve(modulesFolder, '../../..');
  return parseDependencies(await runProgram('busybox', ['depmod', '-n', '-b', base, release]));
}

async function readModule(path: string): Promise<Buffer> {
  if (path.endsWith('.xz'))
    return Buffer.from(await runProgram('xz', ['-dc', path], 'latin1'), 'latin1');
  const bytes = await readFile(path);
  if (path.endsWith('.gz')) return gunzipSync(bytes);
  return path.endsWith('.zst') ? zstdDecompressSync(bytes) : bytes;
}

const failed = (message: string): UnderstudyError => new UnderstudyError('ERR_APPLIANCE', message);
