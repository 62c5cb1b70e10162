/**
 * The disk of a physical server that does not boot elsewhere: Debian's generic kernel, where every driver is
 * a module, and an initramfs as initramfs-tools makes it with MODULES=dep on a machine with SATA disks: no
 * virtio, no NVMe. Its fstab names /dev/sda2 and a disk that is left behind, its network is bound to
 * ens192, nothing is told of a serial console, the agent's unit is there. Busybox is the system; modules
 * are loaded by kmod through its own indexes, as on Debian. Made once into test/.cache by files alone.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { gzipSync } from 'node:zlib';
import { parseDependencies, withNeeds } from '../../src/recovery/prepare/kernel-modules.ts';
import { type ArchiveEntry, newcArchive } from '../../src/recovery/prepare/newc-archive.ts';
import { installEfiGrub, installGrub, MIB, makeDisk, placeEsp, run, sized } from './bare-disk.ts';
import { type KernelPackage, kernelPackage, unpackedPackage } from './kernel-package.ts';

const cache = resolve(import.meta.dirname, '../.cache');
export const ROOT_UUID = '0b1e7c5a-6d41-4f0e-9a55-1f2e3d4c5b6a';

export interface OldServer {
  readonly fileSystem: 'ext4' | 'xfs' | 'btrfs';
  /**
   * efi: its loader lies in a folder of its own, and its firmware had an entry that is not on the disk.
   * unified: kernel, initramfs and command line are one program beside systemd-boot; /boot is empty, partitions
   * are named by their own ids, and nothing says where the EFI system partition is mounted.
   */
  readonly label: 'gpt' | 'mbr' | 'efi' | 'unified';
}
export const ROOT_PART = '6b0d3f6c-2f7d-4f57-9d0b-3f0a4f2d9c11';
const UNIFIED_ESP_BYTES = 64 * MIB;

const onDisk = [
  ...['ahci', 'sd_mod', 'ext4', 'xfs', 'btrfs', 'crc32c_generic', 'crc32c_intel'],
  ...['virtio_pci', 'virtio_blk', 'virtio_scsi', 'virtio_net', 'nvme', 'ena'],
];
const inInitramfs = ['ahci', 'sd_mod', 'ext4', 'xfs', 'btrfs', 'crc32c_generic'];

const initramfsInit = `#!/bin/sh
export PATH=/bin:/sbin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
modprobe -q crc32c_generic
[ -e /conf/modules ] && for m in $(cat /conf/modules); do modprobe -q $m; done
find /sys/devices -name modalias | while read -r file; do modprobe -q "$(cat $file)"; done
for word in $(cat /proc/cmdline); do case $word in root=*) root=\${word#root=};; esac; done
for try in 1 2 3 4 5 6 7 8 9 10; do
  case $root in
    /*) [ -b $root ] && device=$root;;
    PARTUUID=*) for each in /sys/class/block/*; do
        id=$(blkid -p -o value -s PART_ENTRY_UUID /dev/\${each##*/} 2>/dev/null)
        [ "$id" = "\${root#PARTUUID=}" ] && device=/dev/\${each##*/}
      done;;
    *) device=$(findfs $root 2>/dev/null);;
  esac
  [ -n "$device" ] && break
  sleep 0.5
done
if [ -z "$device" ]; then
  cat /proc/partitions /proc/modules >/dev/ttyS0
  echo "ALERT!  $root does not exist.  Dropping to a shell!" >/dev/ttyS0
  exec sh </dev/console >/dev/console 2>&1
fi
for type in ext4 xfs btrfs; do
  modprobe -q $type
  mount -t $type $device /root 2>/dev/null && break
done
[ -d /root/proc ] || echo "ALERT!  $device cannot be mounted" >/dev/ttyS0
mount --move /proc /root/proc; mount --move /sys /root/sys; mount --move /dev /root/dev
exec switch_root /root /sbin/init
`;
const bootScript = `#!/bin/sh
export PATH=/bin:/sbin
exec >/dev/ttyS0
for word in $(cat /proc/cmdline); do case $word in console=*) echo "told: $word";; esac; done
grep -v '^#' /etc/fstab | while read -r spec place rest; do echo "fstab: $spec $place $rest"; done
[ "$(readlink /etc/systemd/system/understudy-agent.service)" = /dev/null ] && echo "agent: off" || echo "agent: on"
grep -q understudy /etc/network/interfaces && echo "network: any card"
echo "clone of: $(tr -d '\\n' </etc/understudy/recovered.json)"
`;
const inittab = `::sysinit:/etc/boot
ttyS0::respawn:/sbin/getty -L ttyS0 115200 vt100
`;

const rootSpec = (label: OldServer['label']): string =>
  label === 'unified' ? `PARTUUID=${ROOT_PART}` : `/dev/sda${label === 'mbr' ? 1 : 2}`;

const files = (version: string, { fileSystem, label }: OldServer): Record<string, string> => ({
  'etc/passwd': 'root:x:0:0:root:/root:/bin/sh\n',
  'etc/os-release': 'PRETTY_NAME="Old Server 1"\n',
  'etc/fstab': [
    '# made by hand',
    `${rootSpec(label)} / ${fileSystem} defaults 0 1`,
    ...(label === 'efi' ? ['/dev/sda1 /boot/efi vfat umask=0077 0 1'] : []),
    '/dev/sdb1 /srv xfs defaults 0 2\n',
  ].join('\n'),
  'etc/default/grub': 'GRUB_TIMEOUT=5\nGRUB_CMDLINE_LINUX=""\n',
  'etc/initramfs-tools/modules': '# one a line\n',
  'etc/network/interfaces':
    'auto lo\niface lo inet loopback\nallow-hotplug ens192\niface ens192 inet static\n  address 192.0.2.7/24\n',
  'etc/systemd/system/understudy-agent.service':
    '[Service]\nExecStart=/usr/bin/understudy agent run\n',
  'etc/inittab': inittab,
  'etc/selinux/config': 'SELINUX=enforcing\n',
  ...(label === 'unified' ? {} : { 'boot/grub/grub.cfg': grubConfig(version, label) }),
});

const grubConfig = (version: string, label: OldServer['label']): string => `set timeout=0
menuentry 'Old Server' {
	linux /boot/vmlinuz-${version} root=${label === 'mbr' ? '/dev/sda1' : `UUID=${ROOT_UUID}`} ro quiet
	initrd /boot/initrd.img-${version}
}
`;

/** The path of the disk; it must not be written to. */
export function oldServer(server: OldServer): string {
  const kernel = kernelPackage('generic');
  const parts = [initramfsInit, bootScript, JSON.stringify(files(kernel.version, server)), 'v2'];
  const recipe = [...parts, onDisk.join(), inInitramfs.join(), JSON.stringify(server)].join('\0');
  const key = createHash('sha256').update(recipe).digest('hex').slice(0, 12);
  const path = join(cache, `old-server-${key}.raw`);
  if (existsSync(path)) return path;
  const work = join(cache, `old-server-${key}.${process.pid}`);
  mkdirSync(work, { recursive: true });
  try {
    build(work, server, kernel);
    renameSync(join(work, 'disk'), path);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return path;
}

function build(work: string, server: OldServer, kernel: KernelPackage): void {
  const root = join(work, 'root');
  layOut(root, server, kernel);
  const image = join(work, 'root.image');
  sized(image, 300 * MIB);
  if (server.fileSystem === 'ext4') {
    run('mkfs.ext4', '-q', '-U', ROOT_UUID, '-d', root, image);
  } else if (server.fileSystem === 'btrfs') {
    run('mkfs.btrfs', '-q', '-U', ROOT_UUID, '--rootdir', root, image);
  } else {
    writeFileSync(join(work, 'proto'), `/\n0 0\nd--755 0 0\n${prototype(root)}\n`);
    run('mkfs.xfs', '-q', '-m', `uuid=${ROOT_UUID}`, '-p', join(work, 'proto'), image);
  }
  const disk = join(work, 'disk');
  if (server.label === 'unified') {
    makeDisk(disk, 'efi', image, { espBytes: UNIFIED_ESP_BYTES, rootPart: ROOT_PART });
    installUnified(work, disk, kernel);
    return;
  }
  makeDisk(disk, server.label, image);
  const part = server.label === 'mbr' ? 'msdos1' : 'gpt2';
  const fileSystem = { ext4: 'ext2', xfs: 'xfs', btrfs: 'btrfs' }[server.fileSystem];
  const grub = {
    ...{ config: `set root=(hd0,${part})\nconfigfile /boot/grub/grub.cfg\n` },
    ...{ prefix: `(hd0,${part})/boot/grub`, modules: [fileSystem, 'configfile', 'normal'] },
  };
  if (server.label === 'efi') installEfiGrub(work, disk, grub, 'acme/grubx64.efi');
  else installGrub(work, disk, grub);
}

/** As ukify does it: the parts are added to a program of systemd's that starts them. */
function installUnified(work: string, disk: string, kernel: KernelPackage): void {
  const loaders = join(unpackedPackage('systemd-boot-efi'), 'usr/lib/systemd/boot/efi');
  const [image, words, menu] = ['unified.efi', 'words', 'loader.conf'].map((name) =>
    join(work, name),
  );
  writeFileSync(words!, `root=PARTUUID=${ROOT_PART} ro quiet`);
  writeFileSync(menu!, 'timeout 0\n');
  const initrd = join(work, 'initrd');
  writeFileSync(initrd, initramfs(join(work, 'initramfs'), kernel));
  const sections = {
    '.cmdline': [words!, '0x30000'],
    '.linux': [kernel.image, '0x2000000'],
    '.initrd': [initrd, '0x3000000'],
  };
  const added = Object.entries(sections).flatMap(([name, [path, at]]) => [
    ...['--add-section', `${name}=${path}`, '--change-section-vma', `${name}=${at}`],
  ]);
  run('objcopy', ...added, join(loaders, 'linuxx64.efi.stub'), image!);
  const files = {
    'EFI/systemd/systemd-bootx64.efi': join(loaders, 'systemd-bootx64.efi'),
    [`EFI/Linux/old-${kernel.version}.efi`]: image!,
    'loader/loader.conf': menu!,
  };
  placeEsp(work, disk, files, UNIFIED_ESP_BYTES);
}

function layOut(root: string, server: OldServer, kernel: KernelPackage): void {
  const folders = ['bin', 'sbin', 'var', 'proc', 'sys', 'dev', 'run', 'tmp', 'root', 'boot/grub'];
  for (const folder of folders) mkdirSync(join(root, folder), { recursive: true });
  for (const [path, text] of Object.entries(files(kernel.version, server))) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  writeFileSync(join(root, 'etc/boot'), bootScript);
  chmodSync(join(root, 'etc/boot'), 0o755);
  copyFileSync('/bin/busybox', join(root, 'bin/busybox'));
  const applets = execFileSync('/bin/busybox', ['--list'], { encoding: 'utf8' });
  for (const name of applets.trim().split('\n')) {
    if (name !== 'busybox') symlinkSync('/bin/busybox', join(root, 'bin', name));
  }
  for (const name of ['init', 'getty']) symlinkSync('/bin/busybox', join(root, 'sbin', name));
  modulesInto(join(root, 'lib/modules'), kernel, onDisk);
  copyFileSync(kernel.image, join(root, `boot/vmlinuz-${kernel.version}`));
  if (server.label === 'unified') {
    mkdirSync(join(root, 'efi'));
    rmSync(join(root, `boot/vmlinuz-${kernel.version}`));
    return;
  }
  const made = initramfs(join(root, '..', 'initramfs'), kernel);
  writeFileSync(join(root, `boot/initrd.img-${kernel.version}`), made);
}

/** With all that kmod's depmod writes. */
function modulesInto(folder: string, kernel: KernelPackage, names: readonly string[]): void {
  const target = join(folder, kernel.version);
  mkdirSync(target, { recursive: true });
  const list = parseDependencies(readFileSync(join(kernel.modules, 'modules.dep'), 'utf8'));
  for (const name of withNeeds(list, names)) {
    const path = list.pathOf.get(name)!;
    mkdirSync(dirname(join(target, path)), { recursive: true });
    copyFileSync(join(kernel.modules, path), join(target, path));
  }
  for (const name of ['modules.builtin', 'modules.builtin.modinfo', 'modules.order']) {
    copyFileSync(join(kernel.modules, name), join(target, name));
  }
  const kmod = join(unpackedPackage('kmod'), 'bin/kmod');
  const depmod = join(folder, 'depmod');
  symlinkSync(kmod, depmod);
  run(depmod, '-b', resolve(folder, '../..'), kernel.version);
  rmSync(depmod);
}

/** usr/lib, with lib as a link to it, as on a merged Debian. */
function initramfs(work: string, kernel: KernelPackage): Buffer {
  modulesInto(join(work, 'lib/modules'), kernel, inInitramfs);
  const kmod = join(unpackedPackage('kmod'), 'bin/kmod');
  // Busybox knows no PARTUUID.
  const blkid = '/sbin/blkid';
  const told = execFileSync('ldd', [kmod, blkid], { encoding: 'utf8' });
  const libraries = [
    ...new Set([...told.matchAll(/(?:=> )?(\/\S+) \(0x/g)].map((match) => match[1]!)),
  ];
  const file = (path: string, content: Buffer | string, mode = 0o100755): ArchiveEntry => ({
    ...{ path, mode, content: Buffer.from(content) },
  });
  const link = (path: string, to: string) => file(path, to, 0o120777);
  const tools = ['sh', 'mount', 'cat', 'findfs', 'sleep', 'switch_root', 'find', 'echo', 'ls'];
  const modules = readdirSync(join(work, 'lib'), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
  const entries = [
    link('lib', 'usr/lib'),
    link('lib64', 'usr/lib64'),
    file('init', initramfsInit),
    file('conf/initramfs.conf', 'MODULES=dep\n', 0o100644),
    file('conf/modules', '', 0o100644),
    file('bin/busybox', readFileSync('/bin/busybox')),
    file('sbin/kmod', readFileSync(kmod)),
    file('sbin/blkid', readFileSync(blkid)),
    link('sbin/modprobe', 'kmod'),
    ...tools.map((name) => link(`bin/${name}`, 'busybox')),
    ...libraries.map((path) => file(path.replace(/^\/(?:usr\/)?/, 'usr/'), readFileSync(path))),
    ...['proc', 'sys', 'dev', 'root'].map((path) => ({ path, mode: 0o40755 })),
    ...modules.map((path) =>
      file(`usr/${path.slice(work.length + 1)}`, readFileSync(path), 0o100644),
    ),
  ];
  return gzipSync(newcArchive(entries), { level: 1 });
}

/** A prototype file of mkfs.xfs: names, modes, sources. */
function prototype(folder: string): string {
  const lines = readdirSync(folder, { withFileTypes: true }).map(({ name }) => {
    const path = join(folder, name);
    const stat = lstatSync(path);
    if (stat.isDirectory()) return `${name} d--755 0 0\n${prototype(path)}`;
    if (stat.isSymbolicLink()) return `${name} l--777 0 0 ${readlinkSync(path)}`;
    return `${name} ---${(stat.mode & 1) === 1 ? '755' : '644'} 0 0 ${path}`;
  });
  return `${lines.join('\n')}\n$`;
}
