/**
 * Looks at a machine for the doctor: reads files of the system, judges nothing. A recorded machine is a
 * folder with the same files below another root. Nothing of the machine is changed, nothing is run but
 * the program that unpacks an initramfs of a rare compression.
 */
import { machine } from 'node:os';
import { mountOf } from '../../model/doctor/devices.ts';
import type { MachineFacts, TextFile, VolumeToldFacts } from '../../model/doctor/facts.ts';
import type { BootMode } from '../../model/machine.ts';
import {
  type Devices,
  gatherCrypttab,
  gatherDevices,
  gatherFstab,
  gatherMounts,
  gatherSwaps,
  gatherTables,
} from './gather-devices.ts';
import { gatherInitramfsConfig, gatherKernels } from './gather-kernels.ts';
import { Tree } from './tree.ts';

export interface GatherOptions {
  /** Below which the machine's files lie; '/' by default. */
  readonly root?: string;
  /** Wall clock. */
  readonly timeMs: number;
  /** As given to the agent; null: nobody told. */
  readonly volumes: readonly string[] | null;
  /** Why agent or tracker would not take a volume. */
  readonly refusalOf: (path: string) => Pick<VolumeToldFacts, 'refusal' | 'trackerRefusal'>;
  /** The agent's program. */
  readonly program: string;
}

export async function gatherFacts(options: GatherOptions): Promise<MachineFacts> {
  const tree = new Tree(options.root);
  const devices = await gatherDevices(tree);
  const mounts = await gatherMounts(tree, devices);
  const kernel = await tree.text('/proc/sys/kernel/osrelease');
  const program = mountOf({ mounts }, await tree.resolve(options.program));
  return {
    timeMs: options.timeMs,
    kernel,
    ...(await gatherMachine(tree)),
    ...(await gatherFirmware(tree)),
    devices: devices.all,
    tables: await gatherTables(tree, devices.all),
    mounts,
    swaps: await gatherSwaps(tree, devices),
    fstab: await gatherFstab(tree, devices, mounts),
    crypttab: await gatherCrypttab(tree),
    fileSystems: (await tree.text('/proc/filesystems'))
      .split('\n')
      .map((line) => line.replace(/^nodev/, '').trim()),
    loader: await gatherLoader(tree),
    hasFallbackLoader: await findFallbackLoader(tree, mounts),
    kernels: await gatherKernels(tree, kernel),
    initramfsConfig: await gatherInitramfsConfig(tree),
    network: await gatherNetwork(tree),
    hasCloudInit: await tree.exists('/etc/cloud/cloud.cfg'),
    lvm: [
      ...(await tree.texts('/etc/lvm', /^lvm\.conf$/)),
      ...(await tree.texts('/etc/lvm/devices', /\.devices$/)),
    ],
    bootFreeBytes: await tree.freeBytes('/boot'),
    agentDevices: program?.devices ?? [],
    volumes: await gatherVolumes(tree, devices, options),
  };
}

const architectureOf = async (tree: Tree): Promise<string> =>
  (await tree.text('/proc/sys/kernel/arch')) || machine();

async function gatherMachine(tree: Tree) {
  const release = await tree.text('/etc/os-release');
  const told = (key: string) => new RegExp(`^${key}="?([^"\\n]*)`, 'm').exec(release)?.[1] ?? '';
  const processors = (await tree.text('/proc/cpuinfo')).match(/^processor\s*:/gm) ?? [];
  const memory = /^MemTotal:\s*(\d+) kB/m.exec(await tree.text('/proc/meminfo'))?.[1];
  return {
    architecture: await architectureOf(tree),
    system: told('PRETTY_NAME') || told('NAME'),
    cpuCount: processors.length,
    memoryBytes: 1024 * Number(memory ?? 0),
    commandLine: await tree.text('/proc/cmdline'),
    hasBtf: await tree.exists('/sys/kernel/btf/vmlinux'),
  };
}

const SECURE_BOOT = '/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c';

async function gatherFirmware(tree: Tree) {
  const isUefi = await tree.exists('/sys/firmware/efi');
  // Four bytes of attributes, then the value.
  const variable = await tree.head(SECURE_BOOT, 5);
  const hasBios = /^(?:x86_64|i[3-6]86)$/.test(await architectureOf(tree));
  const bootMode: BootMode = isUefi ? 'uefi' : hasBios ? 'bios' : 'unknown';
  return { bootMode, isSecureBoot: variable?.length === 5 ? variable[4] === 1 : null };
}

async function gatherLoader(tree: Tree): Promise<TextFile[]> {
  const grub = /^(?:grub\.cfg|grubenv)$/;
  const folders = ['/boot/grub', '/boot/grub2'];
  for (const vendor of await tree.list('/boot/efi/EFI')) folders.push(`/boot/efi/EFI/${vendor}`);
  const files: TextFile[] = [];
  for (const folder of folders) files.push(...(await tree.texts(folder, grub)));
  for (const base of ['/boot', '/boot/efi', '/efi']) {
    files.push(...(await tree.texts(`${base}/loader/entries`, /\.conf$/)));
  }
  return files;
}

/** On the file system of an ESP: names there have no case. */
async function findFallbackLoader(
  tree: Tree,
  mounts: MachineFacts['mounts'],
): Promise<boolean | null> {
  const isEsp = ({ target, type }: MachineFacts['mounts'][number]) =>
    type === 'vfat' && ['/boot/efi', '/efi', '/boot'].includes(target);
  const esp = mounts.find(isEsp);
  if (esp === undefined) return null;
  const inFolder = async (folder: string, name: RegExp) =>
    (await tree.list(folder)).filter((each) => name.test(each)).map((each) => `${folder}/${each}`);
  for (const efi of await inFolder(esp.target, /^efi$/i)) {
    for (const boot of await inFolder(efi, /^boot$/i)) {
      if ((await inFolder(boot, /^boot(?:x64|aa64|ia32)\.efi$/i)).length > 0) return true;
    }
  }
  return false;
}

async function gatherNetwork(tree: Tree): Promise<TextFile[]> {
  const places: readonly [string, RegExp][] = [
    ['/etc/netplan', /\.ya?ml$/],
    ['/etc/network', /^interfaces$/],
    ['/etc/network/interfaces.d', /^[\w.-]+$/],
    ['/etc/sysconfig/network-scripts', /^ifcfg-(?!lo$)[\w.-]+$/],
    ['/etc/sysconfig/network', /^ifcfg-(?!lo$)[\w.-]+$/],
    ['/etc/NetworkManager/system-connections', /\.nmconnection$/],
    ['/etc/systemd/network', /\.(?:network|link)$/],
    ['/etc/udev/rules.d', /net.*\.rules$/],
    ['/etc/cloud/cloud.cfg.d', /network.*\.cfg$/],
  ];
  const files: TextFile[] = [];
  for (const [folder, name] of places) files.push(...(await tree.texts(folder, name)));
  return files;
}

async function gatherVolumes(
  tree: Tree,
  devices: Devices,
  { volumes, refusalOf }: GatherOptions,
): Promise<VolumeToldFacts[] | null> {
  if (volumes === null) return null;
  const told: VolumeToldFacts[] = [];
  for (const path of volumes) {
    const name = (await tree.resolve(path)).replace(/^\/dev\//, '').replaceAll('/', '!');
    const isKnown = devices.all.some((device) => device.name === name);
    told.push({ path, device: isKnown ? name : '', ...refusalOf(path) });
  }
  return told;
}
