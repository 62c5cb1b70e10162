/** A machine on which the doctor finds nothing, and parts to make others of it. */
import type {
  DeviceFacts,
  FstabEntry,
  KernelFacts,
  MachineFacts,
  MountFacts,
  VolumeToldFacts,
} from '../../../src/model/doctor/facts.ts';

export const volume = (device: string, over: Partial<VolumeToldFacts> = {}): VolumeToldFacts => ({
  path: `/dev/${device}`,
  device,
  refusal: '',
  trackerRefusal: '',
  ...over,
});
export const device = (name: string, over: Partial<DeviceFacts> = {}): DeviceFacts => ({
  name,
  kind: 'disk',
  disk: name,
  sizeBytes: 2 ** 34,
  sectorBytes: 512,
  slaves: [],
  ...over,
});
export const part = (name: string, disk: string) => device(name, { kind: 'partition', disk });
export const mount = (
  target: string,
  devices: string[],
  type = 'ext4',
  source = '',
): MountFacts => ({
  target,
  devices,
  type,
  source: source || `/dev/${devices[0] ?? ''}`,
});
export const row = (
  spec: string,
  target: string,
  type = 'ext4',
  options = '',
  at = '',
): FstabEntry => ({
  spec,
  target,
  type,
  options: options.split(',').filter(Boolean),
  device: at,
});
export const grub = (root: string, rest = 'console=ttyS0') => ({
  path: '/boot/grub/grub.cfg',
  text: `set root='hd0,gpt2'\n\tlinux /boot/vmlinuz root=${root} ro ${rest}\n`,
});

export const drivers = ['virtio_pci', 'virtio_blk', 'virtio_scsi', 'sd_mod', 'nvme'];
export const all = [...drivers, 'virtio_net', 'ena', 'hv_vmbus', 'hv_storvsc', 'xen_blkfront'];
export const kernel: KernelFacts = {
  release: '6.1.0',
  isRunning: true,
  path: '/boot/vmlinuz-6.1.0',
  modules: new Set(all),
  builtIn: new Set(['ext4']),
  initramfs: {
    state: 'read',
    path: '/boot/initrd.img-6.1.0',
    detail: '',
    sizeBytes: 2 ** 25,
    modules: new Set(all),
    programs: new Set(['lvm', 'cryptsetup', 'mdadm']),
  },
};
export const withImage = (
  over: Partial<KernelFacts['initramfs']>,
  rest: Partial<KernelFacts> = {},
) => ({
  kernels: [{ ...kernel, ...rest, initramfs: { ...kernel.initramfs, ...over } }],
});

/** BIOS, one GPT disk, all of it replicated: nothing but "fine". */
export const good: MachineFacts = {
  timeMs: 1,
  architecture: 'x86_64',
  kernel: '6.1.0',
  system: 'Good Linux',
  cpuCount: 2,
  memoryBytes: 2 ** 32,
  bootMode: 'bios',
  isSecureBoot: null,
  commandLine: 'root=UUID=a console=ttyS0',
  hasBtf: true,
  devices: [device('vda'), part('vda1', 'vda'), part('vda2', 'vda')],
  tables: [
    {
      disk: 'vda',
      kind: 'gpt',
      hasBootCode: true,
      types: ['21686148-6449-6e6f-744e-656564454649', '0fc63daf-8483-4772-8e79-3d69d8477de4'],
    },
  ],
  mounts: [mount('/proc', [], 'proc', 'proc'), mount('/', ['vda2'])],
  swaps: [],
  fstab: [row('UUID=a', '/', 'ext4', '', 'vda2')],
  crypttab: [],
  fileSystems: ['ext4'],
  loader: [grub('UUID=a')],
  hasFallbackLoader: null,
  kernels: [kernel],
  initramfsConfig: [{ path: '/etc/initramfs-tools/initramfs.conf', text: 'MODULES=most\n' }],
  network: [{ path: '/etc/network/interfaces', text: 'auto lo\niface lo inet loopback\n' }],
  hasCloudInit: true,
  lvm: [],
  bootFreeBytes: 2 ** 30,
  agentDevices: [],
  volumes: [volume('vda')],
};
