/** /etc/fstab and /etc/crypttab: what a boot would wait for elsewhere, and who would have to type. Pure. */
import type { Finding } from '../machine.ts';
import { found } from './catalogue.ts';
import {
  beneath,
  devicePath,
  devicePaths,
  isHardwareName,
  isNetworkType,
  mountAt,
  notReplicated,
} from './devices.ts';
import type { CrypttabEntry, FstabEntry, MachineFacts } from './facts.ts';

const KNOWN_TYPES: ReadonlySet<string> = new Set([
  ...['auto', 'swap', 'none', 'ext2', 'ext3', 'ext4', 'xfs', 'btrfs', 'vfat', 'msdos', 'f2fs'],
  ...['jfs', 'reiserfs', 'iso9660', 'udf', 'udf,iso9660', 'squashfs', 'tmpfs', 'ramfs', 'overlay'],
  ...['proc', 'sysfs', 'devpts', 'devtmpfs', 'debugfs', 'tracefs', 'cgroup', 'cgroup2', 'bpf'],
  ...['securityfs', 'configfs', 'hugetlbfs', 'mqueue', 'efivarfs', 'fuse', 'fuseblk'],
]);
const isKnownType = (type: string): boolean => KNOWN_TYPES.has(type) || type.startsWith('fuse.');

export function judgeFstab(facts: MachineFacts): Finding[] {
  const findings = facts.fstab.flatMap((entry) => judgeEntry(facts, entry));
  if (facts.fstab.length === 0 || findings.some(({ severity }) => severity !== 'advice')) {
    return findings;
  }
  const seen = `${facts.fstab.length} entries, none that another machine would stumble over`;
  return [found('fstab-names', '/etc/fstab', seen), ...findings];
}

const has = ({ options }: FstabEntry, ...wanted: string[]): boolean =>
  options.some((option) => wanted.includes(option));

function judgeEntry(facts: MachineFacts, entry: FstabEntry): Finding[] {
  const { spec, target, type } = entry;
  if (has(entry, 'noauto', 'nofail', 'x-systemd.automount')) return lenient(entry);
  const shown = `${spec} on ${target}`;
  if (isNetworkType(type) || has(entry, '_netdev')) return [found('fstab-network', target, shown)];
  const findings: Finding[] = [];
  if (!isKnownType(type) && !facts.fileSystems.includes(type)) {
    findings.push(found('fstab-type', target, `${shown} is ${type}`));
  }
  if (!isDeviceSpec(spec)) return findings;
  if (isHardwareName(spec)) findings.push(byDeviceName(entry, shown));
  else if (entry.device === '') findings.push(found('fstab-missing', target, shown));
  return [...findings, ...leftBehind(facts, entry)];
}

/** The boot does not wait for these; a name that will not fit is still worth a word. */
const lenient = ({ spec, target }: FstabEntry): Finding[] =>
  isHardwareName(spec)
    ? [found('fstab-device-name', target, `${spec}, not waited for`, 'advice')]
    : [];

const isDeviceSpec = (spec: string): boolean =>
  spec.startsWith('/dev/') || /^(?:UUID|LABEL|PARTUUID|PARTLABEL|ID)=/.test(spec);

/** The root is mounted already when fstab is read, and swap is given up after a wait. */
function byDeviceName({ target, type }: FstabEntry, shown: string): Finding {
  const isWaited = target === '/' || type === 'swap';
  return found('fstab-device-name', target, shown, isWaited ? 'may-block' : undefined);
}

function leftBehind(facts: MachineFacts, { device, target, type }: FstabEntry): Finding[] {
  if (device === '' || target === '/') return [];
  const missing = notReplicated(facts, [device]);
  if (missing.length === 0) return [];
  const seen = `its disk ${devicePaths(missing)} is not replicated`;
  return [found('fstab-left-behind', target, seen, type === 'swap' ? 'may-block' : undefined)];
}

/** Of encrypted devices, those that a boot opens. */
export function judgeCrypt(facts: MachineFacts): Finding[] {
  const root = mountAt(facts, '/')?.devices ?? [];
  const underRoot = root.flatMap((name) => beneath(facts, name));
  const isRoot = underRoot.some(({ kind }) => kind === 'crypt');
  const findings = facts.crypttab.flatMap((entry) => judgeCryptEntry(entry));
  if (isRoot && facts.crypttab.length === 0) {
    const seen = 'the root file system is encrypted, and crypttab does not say by which key';
    findings.push(found('crypt-person', '/', seen));
  }
  const needed = { raid: 'mdadm', lvm: 'lvm', crypt: 'cryptsetup' } as const;
  const running = facts.kernels.find(({ isRunning }) => isRunning);
  for (const [kind, program] of Object.entries(needed)) {
    if (running?.initramfs.state !== 'read') break;
    const isUsed = underRoot.some((device) => device.kind === kind);
    // Whatever opens it here is in the initramfs already, maybe under another name (systemd's).
    if (!isUsed || running.initramfs.programs.has(program)) continue;
    const seen = `/ is on ${kind}, and the initramfs has no ${program}`;
    findings.push(found('root-stacked', running.initramfs.path, seen));
  }
  const paths = underRoot.filter(({ kind }) => kind === 'multipath');
  return [
    ...findings,
    ...paths.map(({ name }) => found('multipath', devicePath(name), 'the root is on multipath')),
  ];
}

function judgeCryptEntry({ name, spec, key, options }: CrypttabEntry): Finding[] {
  const isLazy = options.some((option) => option === 'noauto' || option === 'nofail');
  const severity = isLazy ? 'advice' : undefined;
  const hardware = options.find((option) =>
    /^(?:tpm2-device|fido2-device|pkcs11-uri)=/.test(option),
  );
  if (hardware !== undefined) {
    return [found('crypt-hardware', name, `${spec} is opened by ${hardware}`, severity)];
  }
  if (/^\/dev\/u?random$/.test(key)) return [];
  if (key === '' || key === 'none' || key === '-') {
    return [found('crypt-person', name, `${spec} asks for a passphrase`, severity)];
  }
  return [found('crypt-key-file', name, `${spec} is opened by ${key}`)];
}

export function judgeLvm(facts: MachineFacts): Finding[] {
  if (!facts.devices.some(({ kind }) => kind === 'lvm')) return [];
  return facts.lvm.flatMap(({ path, text }) => {
    const lines = text.split('\n').filter((line) => !line.trim().startsWith('#'));
    const ids = lines.find((line) => /IDTYPE=(?!devname|lvmlv|crypt_uuid|md_uuid)/.test(line));
    if (ids !== undefined) return [found('lvm-devices-file', path, ids.trim())];
    const filter = lines.find((line) => /^\s*(?:global_)?filter\s*=/.test(line));
    const isNarrow = filter !== undefined && /["']r[|/]\.\*/.test(filter);
    return isNarrow ? [found('lvm-filter', path, filter.trim())] : [];
  });
}
