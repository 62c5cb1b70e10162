/**
 * Everything that the doctor can find: a stable code, how severe it is as a rule, and what to do about it.
 * Codes are only added. A judge may find a case less or more severe than the rule.
 */
import type { Finding, Severity } from '../machine.ts';

interface Entry {
  readonly severity: Severity;
  readonly action: string;
}
const entry = (severity: Severity, action = ''): Entry => ({ severity, action });

export const doctorCatalogue = {
  // storage
  'root-found': entry('fine'),
  'root-unknown': entry(
    'may-block',
    'Run the doctor as root on the machine itself, outside of containers.',
  ),
  'root-kind': entry(
    'blocks-boot',
    'Only a root file system on local disks can be started elsewhere.',
  ),
  'root-file-system': entry(
    'may-block',
    'Try it by a drill: this root file system needs help to boot.',
  ),
  'root-not-replicated': entry(
    'blocks-boot',
    'Give the disks named to agent run as --volume, too.',
  ),
  'root-partition-only': entry(
    'blocks-boot',
    'Replicate whole disks: a part of one has no partition table and no boot loader.',
  ),
  'boot-not-replicated': entry('blocks-boot', 'Give the disk named to agent run as --volume, too.'),
  'boot-other-disk': entry(
    'may-block',
    'Start from the disk named: firmware may try another first.',
  ),
  'volumes-unknown': entry(
    'advice',
    'Give --volume as to agent run: without, all disks are taken for replicated.',
  ),
  'volume-refused': entry('data-left-behind', 'Without it the agent does not start: correct it.'),
  'tracker-volume': entry(
    'advice',
    'Give the whole disks beneath: with --tracker auto, all volumes are read over and over (scan).',
  ),
  'mount-not-replicated': entry(
    'data-left-behind',
    'Give the disk to agent run as --volume, or see that its data is not needed.',
  ),
  'network-data': entry('advice', 'It is not on the disks: see that it can be reached from there.'),
  'sector-size': entry(
    'may-block',
    'EBS shows sectors of 512 bytes, with which this table is not found: move to a disk with 512.',
  ),
  'swap-not-replicated': entry(
    'advice',
    'The machine starts without this swap; mark it nofail in fstab.',
  ),
  'swap-replicated': entry(
    'advice',
    'What is swapped is replicated, too: put it on a disk of its own.',
  ),
  'crypt-person': entry(
    'blocks-boot',
    'Somebody has to type the passphrase on the console, or give the machine a key that travels.',
  ),
  'crypt-hardware': entry(
    'blocks-boot',
    'The TPM or token stays behind: add a passphrase that you know (cryptsetup luksAddKey).',
  ),
  'crypt-key-file': entry('advice', 'See that the file with the key is in the initramfs.'),
  'root-stacked': entry('may-block', 'Install the tools named and make the initramfs anew.'),
  multipath: entry('may-block', 'There is one path only elsewhere: try it by a drill.'),
  'lvm-devices-file': entry(
    'may-block',
    'It names disks by serial numbers: set use_devicesfile=0 in lvm.conf.',
  ),
  'lvm-filter': entry(
    'may-block',
    'The filter names devices: let it accept nvme, vd and xvd, too.',
  ),
  // boot loader
  'boot-chain': entry('fine'),
  'boot-table-unreadable': entry(
    'advice',
    'Run the doctor as root: the partition table was not read.',
  ),
  'boot-table-missing': entry(
    'blocks-boot',
    'Neither firmware starts a disk without partition table.',
  ),
  'bios-boot-missing': entry(
    'may-block',
    'GRUB needs a bios_boot partition on GPT: add one, grub-install.',
  ),
  'boot-code-missing': entry('blocks-boot', 'Install the boot loader on that disk (grub-install).'),
  'esp-missing': entry('blocks-boot', 'UEFI needs an EFI system partition on a replicated disk.'),
  'fallback-loader-missing': entry(
    'blocks-boot',
    'Boot preparation copies it there; for good: grub-install --removable (or --force-extra-removable).',
  ),
  'fallback-loader-unknown': entry('may-block', 'Mount the ESP and look again: is EFI/BOOT there?'),
  'secure-boot': entry('advice', 'Use a target without it, or with the same keys enrolled.'),
  'kernel-missing': entry('blocks-boot', 'Install a kernel and a boot loader on the disk.'),
  'loader-missing': entry(
    'may-block',
    'Neither GRUB nor loader entries were found: is it booted otherwise?',
  ),
  'root-name': entry(
    'blocks-boot',
    'Boot preparation writes UUID=...; for good: root=UUID=..., then update-grub or grubby.',
  ),
  'resume-name': entry('advice', 'The machine waits for it: use UUID=..., or noresume.'),
  'console-serial': entry(
    'advice',
    'Add console=ttyS0 (arm: ttyAMA0) to the kernel command line, or clouds show no boot log.',
  ),
  // fstab
  'fstab-names': entry('fine'),
  'fstab-device-name': entry(
    'blocks-boot',
    'Boot preparation writes UUID=... of what it can tell; for good: do so here.',
  ),
  'fstab-missing': entry(
    'may-block',
    'No such device is here now: correct the entry, or add nofail.',
  ),
  'fstab-left-behind': entry(
    'blocks-boot',
    'Replicate its disk. Boot preparation adds nofail, and the machine boots without it.',
  ),
  'fstab-network': entry('may-block', 'Add nofail: the server may not be reachable from there.'),
  'fstab-type': entry('may-block', 'Add nofail, or see that its module and helper are installed.'),
  // drivers
  'initramfs-drivers': entry('fine'),
  'initramfs-missing': entry('blocks-boot', 'Make it: update-initramfs -c -k RELEASE, or dracut.'),
  'initramfs-unreadable': entry('may-block', 'Look by lsinitramfs or lsinitrd: virtio_blk, nvme?'),
  'driver-virtio': entry(
    'blocks-boot',
    'Boot preparation adds it; for good: initramfs-tools/modules, or dracut --add-drivers.',
  ),
  'driver-nvme': entry(
    'blocks-boot',
    'Boot preparation adds it; for good: initramfs-tools/modules, or dracut --add-drivers.',
  ),
  'driver-absent': entry(
    'blocks-boot',
    'This kernel has no such module: install the full kernel package.',
  ),
  'driver-network': entry(
    'may-block',
    'It boots without a network: install the full kernel package.',
  ),
  'driver-xen': entry('advice', 'Only EC2 instance types older than Nitro need it.'),
  'driver-hyperv': entry('advice', 'Only Azure and Hyper-V need them.'),
  'initramfs-host-only': entry(
    'advice',
    'The next one has only drivers of this machine: MODULES=most, or hostonly="no" for dracut.',
  ),
  'boot-space': entry(
    'may-block',
    'Free space there: the initramfs is made anew before a boot elsewhere.',
  ),
  // network
  'network-portable': entry('fine'),
  'network-mac': entry(
    'may-block',
    'Boot preparation adds DHCP on any card; for good: match by name or driver.',
  ),
  'network-name': entry(
    'may-block',
    'Boot preparation adds DHCP on any card; for good: match "e*".',
  ),
  'network-static': entry('advice', 'The address fits only a network with the same subnet.'),
  'network-unknown': entry('advice', 'No network configuration was found where it usually lies.'),
  'cloud-init': entry('fine'),
  'cloud-init-missing': entry('advice', 'No key and no host name will be taken from the cloud.'),
  // the machine and the agent
  architecture: entry(
    'blocks-boot',
    'Choose a target of this architecture; EC2 has x86_64 and aarch64.',
  ),
  'tracker-ready': entry('fine'),
  'tracker-kernel': entry(
    'advice',
    'The bpf tracker needs Linux 5.17 with BTF; --tracker scan works.',
  ),
  'agent-on-volume': entry(
    'advice',
    'A clone starts the agent, too; it is refused as other hardware.',
  ),
} as const satisfies Record<string, Entry>;

export type FindingCode = keyof typeof doctorCatalogue;

/** A finding with the catalogue's severity and advice, or another severity. */
export function found(
  code: FindingCode,
  subject: string,
  seen: string,
  severity: Severity = doctorCatalogue[code].severity,
): Finding {
  return { code, severity, subject, seen, action: doctorCatalogue[code].action };
}
