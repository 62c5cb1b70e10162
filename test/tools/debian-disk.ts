/**
 * A real Debian 12 that boots by BIOS from a GPT disk: systemd, the cloud kernel, an initramfs of
 * initramfs-tools with MODULES=most, GRUB, ext4, a login on the serial console, DHCP on any card, SQLite.
 * The tree is made once by mmdebstrap into test/.cache (a minute and a half); a disk is made of it by files
 * alone in some seconds: nothing is mounted, no loop device. Packages come from where the machine's own do.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';

const cache = resolve(import.meta.dirname, '../.cache');
const MIB = 1 << 20;
const SECTOR = 512;
const CORE_SECTOR = 2048;
export const ROOT_START = 2 * MIB;
const GRUB = '/usr/lib/grub/i386-pc';
const ROOT_LABEL = 'debian-root';
const STEP = 4 * MIB;

const packages = [
  ...['systemd-sysv', 'udev', 'kmod', 'initramfs-tools', 'linux-image-cloud-amd64', 'zstd'],
  ...['e2fsprogs', 'logsave', 'sqlite3', 'libstdc++6', 'login', 'passwd', 'iproute2'],
];
/** What a machine of a test never reads, and would be replicated all the same. */
const leftOut = [
  ...['/usr/share/man/*', '/usr/share/locale/*', '/usr/share/doc/*', '/usr/share/info/*'],
  ...['/usr/share/zoneinfo/*', '/usr/share/bash-completion/*', '/lib/udev/hwdb.d/*'],
  '/lib/modules/*/kernel/arch/x86/kvm/*',
  ...['infiniband', 'gpu', 'media', 'scsi', 'md', 'usb', 'comedi', 'target', 'hid', 'cpufreq'].map(
    (name) => `/lib/modules/*/kernel/drivers/${name}/*`,
  ),
  ...['xfs', 'btrfs', 'ocfs2', 'gfs2', 'ceph', 'cifs', 'smb', 'nfs', 'nfsd', 'f2fs', 'jfs'].map(
    (name) => `/lib/modules/*/kernel/fs/${name}/*`,
  ),
  ...['netfilter', 'sched', 'openvswitch', 'ipv6', 'ipv4', 'sctp', 'tipc', 'sunrpc', 'ceph'].map(
    (name) => `/lib/modules/*/kernel/net/${name}/*`,
  ),
];

const grubConfig = (version: string): string => `set timeout=0
menuentry 'Debian GNU/Linux' {
  search --no-floppy --label --set=root ${ROOT_LABEL}
  linux /boot/vmlinuz-${version} root=LABEL=${ROOT_LABEL} ro console=tty0 console=ttyS0,115200
  initrd /boot/initrd.img-${version}
}
`;
const core = `set prefix=(hd0,gpt2)/boot/grub
configfile /boot/grub/grub.cfg
`;
const fstab = `LABEL=${ROOT_LABEL} / ext4 errors=remount-ro 0 1`;
const network = `[Match]
Type=ether
[Network]
DHCP=ipv4
`;
/** Timers and the like, of which a machine that lives for minutes has no use. */
const masked = [
  ...['apt-daily.timer', 'apt-daily-upgrade.timer', 'dpkg-db-backup.timer', 'fstrim.timer'],
  ...['e2scrub_all.timer', 'e2scrub_reap.service', 'systemd-tmpfiles-clean.timer'],
  ...['systemd-pstore.service', 'systemd-hwdb-update.service', 'getty@tty1.service'],
];

/** The tree of a fresh Debian as a tar archive; made where it is missing. */
function debianTree(): string {
  const words = [
    ...['--variant=essential', '--mode=root', '--format=tar', '--quiet'],
    '--aptopt=APT::Install-Recommends "false"',
    // An installer's disk tells the initramfs which fsck to take along.
    '--essential-hook=cd "$1/etc"; mkdir -p initramfs-tools/conf.d; echo FSTYPE=ext4 >initramfs-tools/conf.d/fsck',
    // Only the installation itself had use for these.
    '--customize-hook=cd "$1"; rm -rf lib/udev/hwdb.bin usr/share/perl/5* usr/lib/*/perl/5* usr/lib/*/gconv',
    ...leftOut.map((path) => `--dpkgopt=path-exclude=${path}`),
    `--include=${packages.join(',')}`,
    'bookworm',
  ];
  const path = join(cache, `debian-tree-${digestOf(...words)}.tar`);
  if (existsSync(path)) return path;
  mkdirSync(cache, { recursive: true });
  const part = `${path}.${process.pid}`;
  try {
    run('mmdebstrap', ...words, part);
    // Of older recipes.
    const isOld = (name: string) => /^debian-tree-[0-9a-f]+\.tar$/.test(name);
    for (const name of readdirSync(cache).filter(isOld)) rmSync(join(cache, name), { force: true });
    renameSync(part, path);
  } finally {
    rmSync(part, { force: true });
  }
  return path;
}

export interface DebianDiskOptions {
  /** Where the disk is written: a sparse file. */
  readonly out: string;
  /** For the tree while it is in the making; removed. */
  readonly workFolder: string;
  readonly sizeBytes: number;
  readonly hostname: string;
  /** Puts more into the tree, which lies in the folder named. */
  readonly fill: (tree: string) => void;
}

export function makeDebianDisk(options: DebianDiskOptions): void {
  const { out, workFolder, sizeBytes, hostname, fill } = options;
  const tree = join(workFolder, 'tree');
  const image = join(workFolder, 'root.ext4');
  mkdirSync(tree, { recursive: true });
  try {
    run('tar', '-C', tree, '--numeric-owner', '-xpf', debianTree());
    furnish(tree, hostname);
    fill(tree);
    const rootBytes = sizeBytes - ROOT_START - MIB;
    sized(image, rootBytes);
    run('mkfs.ext4', '-q', '-L', ROOT_LABEL, '-d', tree, image);
    partition(out, sizeBytes, rootBytes);
    placeFile(out, image, ROOT_START);
    installGrub(workFolder, out);
  } finally {
    rmSync(tree, { recursive: true, force: true });
    rmSync(image, { force: true });
  }
}

/** What an installer would ask. */
function furnish(tree: string, hostname: string): void {
  const put = (path: string, text: string) => putFile(tree, path, text);
  put('/etc/hostname', `${hostname}\n`);
  put('/etc/hosts', `127.0.0.1 localhost ${hostname}\n`);
  put('/etc/fstab', `${fstab}\n`);
  put('/etc/machine-id', `${digestOf(hostname, 'machine').padEnd(32, '0').slice(0, 32)}\n`);
  put('/etc/systemd/network/80-any.network', network);
  put('/etc/default/grub', 'GRUB_DEFAULT=0\nGRUB_TIMEOUT=0\nGRUB_CMDLINE_LINUX=""\n');
  const kernel = readdirSync(join(tree, 'boot')).find((name) => name.startsWith('vmlinuz-'))!;
  put('/boot/grub/grub.cfg', grubConfig(kernel.replace('vmlinuz-', '')));
  link(tree, '/lib/systemd/system/systemd-networkd.service', 'multi-user.target.wants');
  for (const name of masked) {
    rmSync(join(tree, 'etc/systemd/system', name), { force: true });
    symlinkSync('/dev/null', join(tree, 'etc/systemd/system', name));
  }
}

/** A file of the tree, with the folders that lead to it. */
export function putFile(tree: string, path: string, content: string | Buffer, mode = 0o644): void {
  const place = join(tree, path);
  mkdirSync(dirname(place), { recursive: true });
  writeFileSync(place, content);
  chmodSync(place, mode);
}

/** A unit of systemd in the tree, started at every boot. */
export function putService(tree: string, name: string, text: string): void {
  const path = `/etc/systemd/system/${name}.service`;
  putFile(tree, path, text);
  link(tree, path, 'multi-user.target.wants');
}

function link(tree: string, unit: string, target: string): void {
  const folder = join(tree, 'etc/systemd/system', target);
  mkdirSync(folder, { recursive: true });
  const name = unit.slice(unit.lastIndexOf('/') + 1);
  if (!existsSync(join(folder, name))) symlinkSync(unit, join(folder, name));
}

function partition(disk: string, sizeBytes: number, rootBytes: number): void {
  sized(disk, sizeBytes);
  const table = [
    'label: gpt',
    `start=${CORE_SECTOR}, size=${ROOT_START / SECTOR - CORE_SECTOR}, type=21686148-6449-6E6F-744E-656564454649`,
    `start=${ROOT_START / SECTOR}, size=${rootBytes / SECTOR}, type=L`,
  ];
  execFileSync('sfdisk', ['-q', disk], { input: `${table.join('\n')}\n` });
}

/** What grub-install does on a BIOS machine with a bios_boot partition. */
function installGrub(workFolder: string, disk: string): void {
  const config = join(workFolder, 'core.cfg');
  const image = join(workFolder, 'core.img');
  writeFileSync(config, core);
  const words = ['-O', 'i386-pc', '-d', GRUB, '-o', image, '-c', config, '-p', '/boot/grub'];
  const modules = ['biosdisk', 'part_gpt', 'ext2', 'normal', 'search_label', 'search', 'linux'];
  run('grub-mkimage', ...words, ...modules, 'boot', 'configfile', 'echo', 'test');
  const bytes = readFileSync(image);
  bytes.writeBigUInt64LE(BigInt(CORE_SECTOR + 1), SECTOR - 12);
  bytes.writeUInt16LE(Math.ceil(bytes.length / SECTOR) - 1, SECTOR - 4);
  place(disk, bytes, CORE_SECTOR * SECTOR);
  const boot = readFileSync(join(GRUB, 'boot.img')).subarray(0, 440);
  boot.writeBigUInt64LE(BigInt(CORE_SECTOR), 0x5c);
  place(disk, boot, 0);
}

const digestOf = (...words: string[]): string =>
  createHash('sha256').update(words.join('\0')).digest('hex').slice(0, 12);

function run(command: string, ...words: string[]): void {
  try {
    execFileSync(command, words, { stdio: ['ignore', 'ignore', 'pipe'] });
  } catch (cause) {
    const said = String((cause as { stderr?: Buffer }).stderr ?? '');
    throw new Error(`${command} failed: ${said.slice(-2000)}`, { cause });
  }
}

function sized(path: string, bytes: number): void {
  const fd = openSync(path, 'w');
  ftruncateSync(fd, bytes);
  closeSync(fd);
}

/** Writes `bytes` at `offset`, zeros left out: the disk stays sparse. */
function place(path: string, bytes: Buffer, offset: number): void {
  const fd = openSync(path, 'r+');
  for (let at = 0; at < bytes.length; at += 65_536) {
    const part = bytes.subarray(at, at + 65_536);
    if (part.some((byte) => byte !== 0)) writeSync(fd, part, 0, part.length, offset + at);
  }
  closeSync(fd);
}

function placeFile(path: string, from: string, offset: number): void {
  const fd = openSync(from, 'r');
  const bytes = Buffer.alloc(STEP);
  let at = 0;
  for (let count = readSync(fd, bytes); count > 0; count = readSync(fd, bytes)) {
    place(path, bytes.subarray(0, count), offset + at);
    at += count;
  }
  closeSync(fd);
}
