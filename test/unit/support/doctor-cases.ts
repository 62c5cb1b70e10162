/** Machines that differ from a good one in one thing, and what the doctor has to find of it. */
import type { FindingCode } from '../../../src/model/doctor/catalogue.ts';
import type { DeviceFacts, MachineFacts } from '../../../src/model/doctor/facts.ts';
import type { Severity } from '../../../src/model/machine.ts';
import {
  device,
  drivers,
  good,
  grub,
  kernel,
  mount,
  part,
  row,
  volume,
  withImage,
} from './good-machine.ts';

export const second = [device('vdb'), part('vdb1', 'vdb')];
export const withSecond = { devices: [...good.devices, ...second] };
export const uefi = {
  bootMode: 'uefi' as const,
  hasFallbackLoader: true,
  tables: [
    { ...good.tables[0]!, types: ['c12a7328-f81f-11d2-ba4b-00a0c93ec93b'], hasBootCode: false },
  ],
};
export const over = (name: string, kind: DeviceFacts['kind']) => ({
  devices: [...good.devices, device(name, { kind, slaves: ['vda2'] })],
  mounts: [mount('/', [name])],
});
export const net = (path: string, text: string) => ({ network: [{ path, text }] });
export const MAC = '52:54:00:12:34:56';

export type Case = [FindingCode, Severity, string, Partial<MachineFacts>];
export const cases: readonly Case[] = [
  ['root-unknown', 'may-block', 'no root', { mounts: [] }],
  ['root-unknown', 'may-block', 'a root on no disk', { mounts: [mount('/', [])] }],
  ['root-kind', 'blocks-boot', 'root over NFS', { mounts: [mount('/', [], 'nfs4', 'a:/r')] }],
  ['root-kind', 'blocks-boot', 'a container', { mounts: [mount('/', [], 'overlay', 'overlay')] }],
  ['root-file-system', 'may-block', 'ZFS', { mounts: [mount('/', [], 'zfs', 'rpool/root')] }],
  [
    'root-not-replicated',
    'blocks-boot',
    'another volume',
    { ...withSecond, volumes: [volume('vdb')] },
  ],
  [
    'root-not-replicated',
    'blocks-boot',
    'half of a mirror of two',
    {
      devices: [
        ...good.devices,
        ...second,
        device('md0', { kind: 'raid', slaves: ['vda2', 'vdb1'] }),
      ],
      mounts: [mount('/', ['md0'])],
    },
  ],
  ['root-partition-only', 'blocks-boot', 'the partition', { volumes: [volume('vda2')] }],
  [
    'boot-not-replicated',
    'blocks-boot',
    '/boot elsewhere',
    { ...withSecond, mounts: [...good.mounts, mount('/boot', ['vdb1'])] },
  ],
  [
    'boot-other-disk',
    'may-block',
    '/boot on another volume',
    {
      ...withSecond,
      mounts: [...good.mounts, mount('/boot', ['vdb1'])],
      tables: [{ ...good.tables[0]!, disk: 'vdb' }],
      volumes: [...good.volumes!, volume('vdb')],
    },
  ],
  ['volumes-unknown', 'advice', 'nobody told', { volumes: null }],
  [
    'volume-refused',
    'data-left-behind',
    'a refusal',
    { volumes: [volume('vda', { refusal: 'ENOENT' })] },
  ],
  ['tracker-volume', 'advice', 'DAX', { volumes: [volume('vda', { trackerRefusal: 'DAX' })] }],
  [
    'root-partition-only',
    'blocks-boot',
    'the logical volume',
    { ...over('dm-0', 'lvm'), volumes: [volume('dm-0')] },
  ],
  [
    'mount-not-replicated',
    'data-left-behind',
    'a data disk',
    { ...withSecond, mounts: [...good.mounts, mount('/srv', ['vdb1'])] },
  ],
  [
    'mount-not-replicated',
    'advice',
    'a pool',
    { mounts: [...good.mounts, mount('/tank', [], 'zfs', 'tank')] },
  ],
  [
    'network-data',
    'advice',
    'NFS',
    { mounts: [...good.mounts, mount('/home', [], 'nfs4', 'a:/h')] },
  ],
  [
    'sector-size',
    'may-block',
    '4096',
    { devices: [device('vda', { sectorBytes: 4096 }), ...good.devices.slice(1)] },
  ],
  ['swap-not-replicated', 'advice', 'swap elsewhere', { ...withSecond, swaps: ['vdb1'] }],
  ['swap-replicated', 'advice', 'swap on the volume', { swaps: ['vda1'] }],
  [
    'crypt-person',
    'blocks-boot',
    'a passphrase',
    { crypttab: [{ name: 'r', spec: 'UUID=x', key: 'none', options: ['luks'] }] },
  ],
  [
    'crypt-person',
    'advice',
    'one that is not waited for',
    { crypttab: [{ name: 'r', spec: 'UUID=x', key: '-', options: ['nofail'] }] },
  ],
  ['crypt-person', 'blocks-boot', 'a root without crypttab', over('dm-0', 'crypt')],
  [
    'crypt-hardware',
    'blocks-boot',
    'TPM',
    { crypttab: [{ name: 'r', spec: 'UUID=x', key: '-', options: ['tpm2-device=auto'] }] },
  ],
  [
    'crypt-key-file',
    'advice',
    'a key file',
    { crypttab: [{ name: 'd', spec: 'UUID=x', key: '/etc/key', options: [] }] },
  ],
  [
    'root-stacked',
    'may-block',
    'LVM without lvm',
    { ...over('dm-0', 'lvm'), ...withImage({ programs: new Set() }) },
  ],
  ['multipath', 'may-block', 'multipath', over('dm-0', 'multipath')],
  [
    'lvm-devices-file',
    'may-block',
    'WWIDs',
    {
      ...over('dm-0', 'lvm'),
      lvm: [
        { path: '/etc/lvm/devices/system.devices', text: '# LVM\nIDTYPE=sys_wwid IDNAME=naa.6\n' },
      ],
    },
  ],
  [
    'lvm-filter',
    'may-block',
    'a filter',
    {
      ...over('dm-0', 'lvm'),
      lvm: [
        {
          path: '/etc/lvm/lvm.conf',
          text: 'devices {\n filter = [ "a|/dev/sda.*|", "r|.*|" ]\n}\n',
        },
      ],
    },
  ],
  [
    'boot-table-unreadable',
    'advice',
    'not root',
    { tables: [{ disk: 'vda', kind: 'unreadable', hasBootCode: false, types: [] }] },
  ],
  [
    'boot-table-missing',
    'blocks-boot',
    'no table',
    { tables: [{ disk: 'vda', kind: 'none', hasBootCode: false, types: [] }] },
  ],
  [
    'bios-boot-missing',
    'may-block',
    'GPT without bios_boot',
    { tables: [{ ...good.tables[0]!, types: ['x'] }] },
  ],
  [
    'boot-code-missing',
    'blocks-boot',
    'no boot code',
    { tables: [{ ...good.tables[0]!, hasBootCode: false }] },
  ],
  ['esp-missing', 'blocks-boot', 'no ESP', { ...uefi, tables: good.tables }],
  ['fallback-loader-missing', 'blocks-boot', 'no fallback', { ...uefi, hasFallbackLoader: false }],
  [
    'fallback-loader-unknown',
    'may-block',
    'an ESP not mounted',
    { ...uefi, hasFallbackLoader: null },
  ],
  ['secure-boot', 'advice', 'Secure Boot', { ...uefi, isSecureBoot: true }],
  ['kernel-missing', 'blocks-boot', 'no kernel', { kernels: [{ ...kernel, path: '' }] }],
  ['loader-missing', 'may-block', 'no loader', { loader: [] }],
  ['root-name', 'blocks-boot', 'GRUB with sda', { loader: [grub('/dev/sda1')] }],
  [
    'root-name',
    'blocks-boot',
    'GRUB with a path',
    { loader: [grub('/dev/disk/by-path/pci-0000-part1')] },
  ],
  [
    'root-name',
    'blocks-boot',
    'a loader entry',
    {
      loader: [
        {
          path: '/boot/loader/entries/a.conf',
          text: 'title a\noptions ro root=/dev/nvme0n1p2 console=ttyS0\n',
        },
      ],
    },
  ],
  [
    'root-name',
    'blocks-boot',
    "GRUB's environment",
    {
      loader: [
        { path: '/boot/grub2/grubenv', text: 'kernelopts=root=/dev/vda2 ro console=ttyS0\n' },
      ],
    },
  ],
  [
    'root-name',
    'blocks-boot',
    'the running kernel',
    { loader: [], commandLine: 'root=/dev/xvda1' },
  ],
  [
    'resume-name',
    'advice',
    'resume',
    { loader: [grub('UUID=a', 'resume=/dev/sda5 console=ttyS0')] },
  ],
  ['console-serial', 'advice', 'no console', { loader: [grub('UUID=a', 'quiet')] }],
  [
    'fstab-device-name',
    'blocks-boot',
    'a device',
    { fstab: [row('/dev/vda1', '/srv', 'ext4', '', 'vda1')] },
  ],
  [
    'fstab-device-name',
    'may-block',
    'the root',
    { fstab: [row('/dev/vda2', '/', 'ext4', '', 'vda2')] },
  ],
  [
    'fstab-device-name',
    'may-block',
    'swap',
    { fstab: [row('/dev/vda1', 'none', 'swap', '', 'vda1')] },
  ],
  [
    'fstab-device-name',
    'advice',
    'one with nofail',
    { fstab: [row('/dev/vda1', '/srv', 'ext4', 'nofail', 'vda1')] },
  ],
  ['fstab-missing', 'may-block', 'a stale UUID', { fstab: [row('UUID=gone', '/srv')] }],
  [
    'fstab-left-behind',
    'blocks-boot',
    'data elsewhere',
    { ...withSecond, fstab: [row('UUID=b', '/srv', 'ext4', '', 'vdb1')] },
  ],
  [
    'fstab-left-behind',
    'may-block',
    'swap elsewhere',
    { ...withSecond, fstab: [row('UUID=b', 'none', 'swap', '', 'vdb1')] },
  ],
  ['fstab-network', 'may-block', 'NFS', { fstab: [row('a:/h', '/home', 'nfs')] }],
  [
    'fstab-network',
    'may-block',
    '_netdev',
    { fstab: [row('UUID=i', '/iscsi', 'ext4', '_netdev')] },
  ],
  ['fstab-type', 'may-block', 'an odd type', { fstab: [row('x', '/odd', 'oddfs')] }],
  [
    'initramfs-missing',
    'blocks-boot',
    'none',
    withImage({ state: 'missing', path: '', modules: new Set() }),
  ],
  [
    'initramfs-unreadable',
    'may-block',
    'a damaged one',
    withImage({ state: 'unreadable', detail: 'cut' }),
  ],
  [
    'driver-virtio',
    'blocks-boot',
    'no virtio',
    withImage({ modules: new Set(['nvme', 'sd_mod']) }),
  ],
  [
    'driver-nvme',
    'blocks-boot',
    'no nvme',
    withImage({ modules: new Set(['virtio_pci', 'virtio_blk']) }),
  ],
  [
    'driver-absent',
    'blocks-boot',
    'nvme nowhere',
    withImage(
      { modules: new Set(['virtio_pci', 'virtio_blk']) },
      { modules: new Set(['virtio_net', 'ena']) },
    ),
  ],
  ['driver-network', 'may-block', 'no ENA', withImage({}, { modules: new Set(['virtio_net']) })],
  ['driver-xen', 'advice', 'no Xen', withImage({ modules: new Set(drivers) })],
  ['driver-hyperv', 'advice', 'no Hyper-V', withImage({ modules: new Set(drivers) })],
  [
    'initramfs-host-only',
    'advice',
    'MODULES=dep',
    {
      initramfsConfig: [
        ...good.initramfsConfig,
        { path: '/etc/initramfs-tools/conf.d/x', text: 'MODULES=dep' },
      ],
    },
  ],
  [
    'initramfs-host-only',
    'advice',
    'dracut',
    {
      initramfsConfig: [
        { path: '/usr/lib/dracut/dracut.conf.d/01-dist.conf', text: 'hostonly="yes"' },
      ],
    },
  ],
  ['boot-space', 'may-block', 'a full /boot', { bootFreeBytes: 2 ** 25 }],
  [
    'network-mac',
    'may-block',
    'netplan',
    net(
      '/etc/netplan/a.yaml',
      `network:\n  ethernets:\n    x:\n      match:\n        macaddress: "${MAC}"\n`,
    ),
  ],
  [
    'network-mac',
    'may-block',
    'ifcfg',
    net('/etc/sysconfig/network-scripts/ifcfg-x', `HWADDR=${MAC}\nONBOOT=yes\n`),
  ],
  [
    'network-mac',
    'may-block',
    'a link',
    net('/etc/systemd/network/10-a.link', `[Match]\nMACAddress=${MAC}\n[Link]\nName=lan\n`),
  ],
  [
    'network-mac',
    'may-block',
    'a rule',
    net(
      '/etc/udev/rules.d/70-persistent-net.rules',
      `SUBSYSTEM=="net", ACTION=="add", ATTR{address}=="${MAC}", NAME="eth0"\n`,
    ),
  ],
  [
    'network-mac',
    'may-block',
    'NetworkManager',
    net(
      '/etc/NetworkManager/system-connections/a.nmconnection',
      `[ethernet]\nmac-address=${MAC.toUpperCase()}\n`,
    ),
  ],
  [
    'network-name',
    'may-block',
    'netplan',
    net('/etc/netplan/a.yaml', 'network:\n  ethernets:\n    enp0s3:\n      dhcp4: true\n'),
  ],
  [
    'network-name',
    'may-block',
    'ifupdown',
    net('/etc/network/interfaces', 'iface eth0 inet dhcp\n'),
  ],
  [
    'network-name',
    'may-block',
    'ifcfg',
    net('/etc/sysconfig/network-scripts/ifcfg-eth0', 'DEVICE="eth0"\nBOOTPROTO=dhcp\n'),
  ],
  [
    'network-name',
    'may-block',
    'networkd',
    net('/etc/systemd/network/a.network', '[Match]\nName=ens3\n[Network]\nDHCP=yes\n'),
  ],
  [
    'network-static',
    'advice',
    'netplan',
    net(
      '/etc/netplan/a.yaml',
      'network:\n  ethernets:\n    all:\n      match: {name: "e*"}\n      addresses: [192.0.2.1/24]\n',
    ),
  ],
  [
    'network-static',
    'advice',
    'networkd',
    net('/etc/systemd/network/a.network', '[Match]\nName=e*\n[Network]\nAddress=192.0.2.1/24\n'),
  ],
  ['network-unknown', 'advice', 'nothing', { network: [] }],
  ['cloud-init-missing', 'advice', 'no cloud-init', { hasCloudInit: false }],
  ['architecture', 'blocks-boot', 'another', { architecture: 's390x' }],
  ['tracker-kernel', 'advice', 'an old kernel', { kernel: '5.16.9' }],
  ['tracker-kernel', 'advice', 'no BTF', { hasBtf: false }],
  ['agent-on-volume', 'advice', 'the root disk', { agentDevices: ['vda2'] }],
];
