/**
 * The cheapest disk that boots like a server's: GPT, GRUB, Debian's cloud kernel, an initramfs that looks
 * for its root file system by label and gives up as Debian's does, and busybox as the system. It prints a
 * login prompt on the serial console, counts its boots on the disk, shuts down by its power button, and
 * answers HTTP on port 80, where small programs write rows, tell them, and look around (cgi-bin below),
 * and ssh on port 22 with the key beside the disk. On the serial console root needs no password; the
 * operator has one.
 * Made once into test/.cache, by files alone: nothing is mounted, no loop device, about 10 s.
 *
 *   bios   GRUB in a bios_boot partition        uefi   GRUB in an EFI system partition, and nothing else
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { type ArchiveEntry, newcArchive } from '../../src/recovery/prepare/newc-archive.ts';
import { installEfiGrub, installGrub, MIB, makeDisk, run, sized } from './bare-disk.ts';
import { type KernelPackage, kernelPackage } from './kernel-package.ts';

const cache = resolve(import.meta.dirname, '../.cache');
const DISK_BYTES = 80 * MIB;
const ROOT_START = { bios: 2 * MIB, uefi: 9 * MIB };
const modules = ['virtio_pci', 'virtio_blk', 'virtio_net', 'nvme', 'ext4', 'button', 'evdev'];

export type BootFirmware = 'bios' | 'uefi';

const initramfsInit = `#!/bin/sh
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for m in ${modules.join(' ')}; do modprobe -q $m; done
for word in $(cat /proc/cmdline); do case $word in root=*) root=\${word#root=};; esac; done
for try in 1 2 3 4 5 6 7 8 9 10; do
  device=$(findfs $root 2>/dev/null) && break
  sleep 0.5
done
if [ -z "$device" ]; then
  echo "ALERT!  $root does not exist.  Dropping to a shell!" >/dev/console
  exec sh </dev/console >/dev/console 2>&1
fi
mount -t ext4 $device /root
mount --move /proc /root/proc; mount --move /sys /root/sys; mount --move /dev /root/dev
exec switch_root /root /sbin/init
`;
const bootScript = `#!/bin/sh
export PATH=/bin:/sbin
hostname drilled
count=$(cat /var/boots 2>/dev/null || echo 0)
echo $((count + 1)) >/var/boots
echo "boots: $((count + 1))" >/dev/ttyS0
sync
for disk in /sys/block/*; do echo "disk: $(basename $disk) $(cat $disk/size)" >/dev/ttyS0; done
ip link set lo up
if ip link set eth0 up 2>/dev/null; then
  ip address add 10.0.2.15/24 dev eth0
  ip route add default via 10.0.2.2
  httpd -p 80 -h /www
  dropbear -s -r /etc/dropbear.key
fi
for event in /dev/input/event*; do
  (dd if=$event of=/dev/null bs=24 count=1 2>/dev/null && poweroff) &
done
`;
const CGI_HEAD = String.raw`#!/bin/sh
export PATH=/bin:/sbin
printf 'Content-Type: text/plain\r\n\r\n'
`;
/** Answers of http://GUEST/cgi-bin/NAME?QUERY. */
const programs: Readonly<Record<string, string>> = {
  write: 'echo "$QUERY_STRING" >>/var/ledger && sync && echo written',
  rows: 'cat /var/ledger',
  fill: 'dd if=/dev/urandom of=/var/fill bs=65536 count=$QUERY_STRING 2>/dev/null && sync && echo filled',
  uuid: 'cat /sys/class/dmi/id/product_uuid',
  patience: 'echo $QUERY_STRING >/sys/block/nvme0n1/queue/io_timeout && echo set',
  far: `dd if=/dev/nvme0n1 of=/dev/null bs=65536 skip=$QUERY_STRING count=1 iflag=direct 2>/dev/null &&
    echo read || echo failed`,
  fetch: String.raw`printf 'GET / HTTP/1.0\r\n\r\n' |
    nc -w 3 ${'$'}{QUERY_STRING%:*} ${'$'}{QUERY_STRING#*:} | tail -n 1 | grep . || echo unreachable`,
};
const inittab = `::sysinit:/etc/boot
ttyS0::respawn:/sbin/getty -L ttyS0 115200 vt100
::shutdown:/bin/umount -a -r
`;
/** Of the operator, who logs in on the serial console. */
export const OPERATOR_PASSWORD = 'drill it';
/** openssl passwd -6 -salt understudy */
const OPERATOR_HASH =
  '$6$understudy$OHvumLYBDnEqMwtISUkxCiFxRDsk4nr5d1FP6VKbU1rPEMXLuPnAnPjqGl3JDjG53eartAGeWXDzC5zOdRPCv.';
const accounts = `root::0:0:root:/root:/bin/sh
operator:${OPERATOR_HASH}:1000:1000:operator:/:/bin/sh
`;
const grubConfig = `set root=(hd0,gpt2)
linux /boot/vmlinuz root=LABEL=drill-root console=tty0 console=ttyS0,115200
initrd /boot/initrd
boot
`;

/** The path of the disk; it must not be written to. */
export function bootDisk(firmware: BootFirmware = 'bios'): string {
  const recipe = [
    ...[firmware, initramfsInit, bootScript, inittab, grubConfig, String(DISK_BYTES)],
    ...[CGI_HEAD, accounts],
    JSON.stringify(programs),
  ].join('\0');
  const key = createHash('sha256').update(recipe).digest('hex').slice(0, 12);
  const path = join(cache, `boot-disk-${key}.raw`);
  if (existsSync(path)) return path;
  const work = join(cache, `boot-disk-${key}.${process.pid}`);
  mkdirSync(work, { recursive: true });
  try {
    build(work, join(work, 'disk'), firmware);
    renameSync(join(work, 'key'), sshKeyOf(path));
    renameSync(join(work, 'disk'), path);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return path;
}

/** The private key that opens the guest of that disk, for root. */
export const sshKeyOf = (disk: string): string => `${disk}.key`;

function build(work: string, disk: string, firmware: BootFirmware): void {
  const kernel = kernelPackage('cloud');
  const root = join(work, 'root');
  for (const folder of ['bin', 'sbin', 'etc', 'var', 'proc', 'sys', 'dev', 'boot', 'www/cgi-bin']) {
    mkdirSync(join(root, folder), { recursive: true });
  }
  copyFileSync(kernel.image, join(root, 'boot/vmlinuz'));
  writeFileSync(join(root, 'boot/initrd'), initramfs(kernel));
  copyFileSync('/bin/busybox', join(root, 'bin/busybox'));
  const applets = execFileSync('/bin/busybox', ['--list'], { encoding: 'utf8' });
  for (const name of applets.trim().split('\n')) {
    if (name !== 'busybox') symlinkSync('/bin/busybox', join(root, 'bin', name));
  }
  for (const name of ['init', 'getty']) symlinkSync('/bin/busybox', join(root, 'sbin', name));
  writeFileSync(join(root, 'etc/boot'), bootScript);
  chmodSync(join(root, 'etc/boot'), 0o755);
  writeFileSync(join(root, 'etc/inittab'), inittab);
  writeFileSync(join(root, 'www/index.html'), 'up\n');
  for (const [name, script] of Object.entries(programs)) {
    const path = join(root, 'www/cgi-bin', name);
    writeFileSync(path, `${CGI_HEAD}${script}\n`);
    chmodSync(path, 0o755);
  }
  installSsh(work, root);
  const fileSystem = join(work, 'root.ext4');
  sized(fileSystem, DISK_BYTES - ROOT_START[firmware] - MIB);
  run('mkfs.ext4', '-q', '-L', 'drill-root', '-d', root, fileSystem);
  const grub = { config: grubConfig, prefix: '(hd0,gpt2)/boot', modules: ['ext2'] };
  if (firmware === 'bios') {
    makeDisk(disk, 'gpt', fileSystem);
    installGrub(work, disk, grub);
  } else {
    makeDisk(disk, 'efi', fileSystem);
    installEfiGrub(work, disk, grub);
  }
}

/** Debian's dropbear with its libraries; the key of root is left in `work`. */
function installSsh(work: string, root: string): void {
  const key = join(work, 'key');
  run('ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-C', 'a test', '-f', key);
  mkdirSync(join(root, 'root/.ssh'), { recursive: true, mode: 0o700 });
  copyFileSync(`${key}.pub`, join(root, 'root/.ssh/authorized_keys'));
  writeFileSync(join(root, 'etc/passwd'), accounts);
  writeFileSync(join(root, 'etc/shells'), '/bin/sh\n');
  run('dropbearkey', '-t', 'ed25519', '-f', join(root, 'etc/dropbear.key'));
  const needed = execFileSync('ldd', ['/usr/sbin/dropbear'], { encoding: 'utf8' });
  const libraries = [...needed.matchAll(/(\/lib\S+)/g)].map(([path]) => path);
  for (const path of libraries) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    copyFileSync(path, join(root, path));
  }
  copyFileSync('/usr/sbin/dropbear', join(root, 'sbin/dropbear'));
}

/** The modules wanted and what they need, by modules.dep. */
function wantedModules(folder: string): string[] {
  const lines = readFileSync(join(folder, 'modules.dep'), 'utf8').trim().split('\n');
  const needs = new Map(
    lines.map((line) => {
      const [path, rest = ''] = line.split(':');
      return [path!, rest.trim().split(' ').filter(Boolean)] as const;
    }),
  );
  const wanted = new Set<string>();
  for (const [path, all] of needs) {
    if (!modules.some((name) => path.endsWith(`/${name}.ko`))) continue;
    for (const each of [path, ...all]) wanted.add(each);
  }
  // ext4 asks for its checksum by name.
  for (const path of needs.keys())
    if (/\/(?:libcrc32c|crc32c_generic)\.ko$/.test(path)) wanted.add(path);
  return [...wanted];
}

function initramfs(kernel: KernelPackage): Buffer {
  const base = `lib/modules/${kernel.version}`;
  const names = ['modules.dep', 'modules.alias', 'modules.symbols'];
  const files = [...names, ...wantedModules(kernel.modules)];
  const entries: ArchiveEntry[] = [
    { path: 'init', mode: 0o100755, content: Buffer.from(initramfsInit) },
    { path: 'bin/busybox', mode: 0o100755, content: readFileSync('/bin/busybox') },
    ...['sh', 'mount', 'modprobe', 'cat', 'findfs', 'sleep', 'switch_root', 'echo'].map((name) => ({
      path: `bin/${name}`,
      mode: 0o120777,
      content: Buffer.from('busybox'),
    })),
    ...['proc', 'sys', 'dev', 'root'].map((path) => ({ path, mode: 0o40755 })),
    ...files.map((file) => ({
      path: `${base}/${file}`,
      mode: 0o100644,
      content: readFileSync(join(kernel.modules, file)),
    })),
  ];
  return newcArchive(entries);
}

/** A disk whose boot loader works and whose root file system is not the one that it names. */
export function spoilRoot(disk: Buffer): void {
  const label = ROOT_START.bios + 1024 + 120;
  if (disk.toString('latin1', label, label + 10) !== 'drill-root')
    throw new Error('no label there');
  disk.write('other-root', label, 'latin1');
}
