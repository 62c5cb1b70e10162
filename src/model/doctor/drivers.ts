/**
 * Whether the kernels that may boot find their disk and network elsewhere: what of the drivers is built in,
 * in the initramfs, at least on the disk (then an initramfs can be made with it), or nowhere. Pure.
 */
import { formatSize } from '../../base/units.ts';
import type { Finding } from '../machine.ts';
import { type FindingCode, found } from './catalogue.ts';
import { listed, mountAt } from './devices.ts';
import type { KernelFacts, MachineFacts } from './facts.ts';

/** Each target needs all of one of these lists before the root can be mounted. */
const diskDrivers: readonly { code: FindingCode; oneOf: readonly (readonly string[])[] }[] = [
  {
    code: 'driver-virtio',
    oneOf: [
      ['virtio_pci', 'virtio_blk'],
      ['virtio_pci', 'virtio_scsi', 'sd_mod'],
    ],
  },
  { code: 'driver-nvme', oneOf: [['nvme']] },
  { code: 'driver-hyperv', oneOf: [['hv_vmbus', 'hv_storvsc', 'sd_mod']] },
  { code: 'driver-xen', oneOf: [['xen_blkfront']] },
];
/** Worth a word only where Xen or Hyper-V is a target at all. */
const isRare = (code: FindingCode): boolean => code === 'driver-hyperv' || code === 'driver-xen';
/** Needed once the root is there. EC2's ENA is no part of QEMU. */
const networkDrivers = ['virtio_net', 'ena'];

export function judgeDrivers(facts: MachineFacts): Finding[] {
  const kernels = facts.kernels.filter(({ path }) => path !== '');
  return [
    ...kernels.flatMap((kernel) => judgeKernel(kernel, facts)),
    ...judgeHostOnly(facts),
    ...judgeSpace(facts),
  ];
}

/** The root's own driver comes along as a rule: a file system that is missing would miss here, too. */
function judgeKernel(kernel: KernelFacts, facts: MachineFacts): Finding[] {
  const { initramfs, release, builtIn } = kernel;
  const subject = initramfs.path === '' ? release : initramfs.path;
  const missing = diskDrivers.map(({ code, oneOf }) => ({ code, lacking: lackOf(kernel, oneOf) }));
  const needed = missing.filter(({ code, lacking }) => !isRare(code) && lacking.length > 0);
  const network = judgeNetworkDrivers(kernel);
  if (initramfs.state === 'missing') {
    const type = mountAt(facts, '/')?.type ?? '';
    const isNeedless = needed.length === 0 && builtIn.has(type);
    if (isNeedless) return network;
    return [found('initramfs-missing', release, `no initramfs for ${release}`), ...network];
  }
  if (initramfs.state === 'unreadable') {
    return [found('initramfs-unreadable', subject, initramfs.detail), ...network];
  }
  const lacking = missing.filter((each) => each.lacking.length > 0);
  const findings = lacking.map((each) => judgeLack(kernel, each.code, each.lacking));
  if (needed.length > 0) return [...findings, ...network];
  const seen = `virtio_blk or virtio_scsi, and nvme, are there for ${release}`;
  return [found('initramfs-drivers', subject, seen), ...findings, ...network];
}

/** Of the list of which the least is lacking, what is lacking. */
function lackOf(kernel: KernelFacts, oneOf: readonly (readonly string[])[]): string[] {
  const has = (name: string) => kernel.builtIn.has(name) || kernel.initramfs.modules.has(name);
  const lacks = oneOf.map((list) => list.filter((name) => !has(name)));
  return lacks.reduce((least, lack) => (lack.length < least.length ? lack : least));
}

function judgeLack(kernel: KernelFacts, code: FindingCode, lacking: readonly string[]): Finding {
  const { release, initramfs, modules } = kernel;
  const absent = lacking.filter((name) => !modules.has(name));
  if (absent.length > 0 && !isRare(code)) {
    return found('driver-absent', release, `${listed(absent)}: not built for ${release}`);
  }
  return found(code, initramfs.path, `without ${listed(lacking)}`);
}

function judgeNetworkDrivers({ release, modules, builtIn }: KernelFacts): Finding[] {
  const absent = networkDrivers.filter((name) => !modules.has(name) && !builtIn.has(name));
  if (absent.length === 0) return [];
  return [found('driver-network', release, `${listed(absent)}: not built for ${release}`)];
}

/** initramfs-tools: MODULES=dep. dracut: hostonly, the default unless dracut-config-generic is there. */
function judgeHostOnly({ initramfsConfig }: MachineFacts): Finding[] {
  const settings = initramfsConfig.flatMap(({ path, text }) =>
    text.split('\n').flatMap((line) => {
      const match = /^\s*(MODULES|hostonly)\s*=\s*["']?\s*(\w+)/.exec(line);
      return match === null ? [] : [{ path, name: match[1]!, value: match[2]! }];
    }),
  );
  // Files are read in this order, and the last word counts.
  const last = settings.at(-1);
  const isHostOnly = (last?.name === 'MODULES' && last.value === 'dep') || isYes(last);
  if (last === undefined || !isHostOnly) return [];
  return [found('initramfs-host-only', last.path, `${last.name}=${last.value}`)];
}

const isYes = (setting: { name: string; value: string } | undefined): boolean =>
  setting?.name === 'hostonly' && /^(?:yes|1|true)$/.test(setting.value);

/** The old one stays until the new one is there; drivers may make it larger. */
const SPARE_BYTES = 16 * 2 ** 20;

function judgeSpace({ kernels, bootFreeBytes }: MachineFacts): Finding[] {
  const largest = Math.max(0, ...kernels.map(({ initramfs }) => initramfs.sizeBytes));
  if (bootFreeBytes === null || largest === 0) return [];
  const needed = Math.ceil(1.5 * largest) + SPARE_BYTES;
  if (bootFreeBytes >= needed) return [];
  const sizes = `${formatSize(bootFreeBytes)} free, ${formatSize(needed)} wanted`;
  return [found('boot-space', '/boot', `${sizes} for another initramfs`)];
}
