/** From firmware to kernel: partition table, boot code, ESP, boot loader, kernel command line. Pure. */
import type { Finding } from '../machine.ts';
import { partitionTypes } from '../partition-table.ts';
import { found } from './catalogue.ts';
import { devicePath, disksBeneath, isHardwareName, mountAt } from './devices.ts';
import type { MachineFacts, TableFacts, TextFile } from './facts.ts';

export function judgeBoot(facts: MachineFacts): Finding[] {
  const chain = [...judgeTable(facts), ...judgeLoader(facts)];
  if (facts.isSecureBoot === true) {
    chain.push(found('secure-boot', '', 'Secure Boot is on'));
  }
  chain.push(...judgeNames(facts), ...judgeConsole(facts));
  if (chain.some(({ severity }) => severity === 'blocks-boot')) return chain;
  const [disk] = bootDisks(facts);
  const table = facts.tables.find((each) => each.disk === disk);
  if (disk === undefined || table === undefined) return chain;
  const mode = facts.bootMode === 'unknown' ? '' : `${facts.bootMode.toUpperCase()}, `;
  const seen = `${mode}${table.kind.toUpperCase()} on ${devicePath(disk)}`;
  return [found('boot-chain', '', seen), ...chain];
}

/** Disks of /boot, the first first. */
function bootDisks(facts: MachineFacts): string[] {
  const mount = mountAt(facts, '/boot') ?? mountAt(facts, '/');
  return disksBeneath(facts, mount?.devices ?? []);
}

function judgeTable(facts: MachineFacts): Finding[] {
  const disks = bootDisks(facts);
  const tables = facts.tables.filter(({ disk }) => disks.includes(disk));
  const [first] = tables;
  if (first === undefined) return [];
  const path = devicePath(first.disk);
  if (first.kind === 'unreadable') return [found('boot-table-unreadable', path, 'not readable')];
  if (first.kind === 'none') {
    return [found('boot-table-missing', path, 'the disk has no partition table')];
  }
  return facts.bootMode === 'uefi' ? judgeUefi(facts) : judgeBios(facts, tables, path);
}

function judgeBios(facts: MachineFacts, tables: readonly TableFacts[], path: string): Finding[] {
  if (facts.bootMode !== 'bios') return [];
  if (!tables.some(({ hasBootCode }) => hasBootCode)) {
    return [found('boot-code-missing', path, 'its first sector holds no boot code')];
  }
  const isMissing = tables.every(
    ({ kind, types }) => kind === 'gpt' && !types.includes(partitionTypes.biosBoot),
  );
  return isMissing ? [found('bios-boot-missing', path, 'GPT, BIOS, and no bios_boot')] : [];
}

function judgeUefi(facts: MachineFacts): Finding[] {
  const isEsp = (type: string) =>
    type === partitionTypes.efiSystem || type === partitionTypes.mbrEfiSystem;
  if (!facts.tables.some(({ types }) => types.some(isEsp))) {
    return [found('esp-missing', '', 'UEFI, and no EFI system partition on any disk')];
  }
  if (facts.hasFallbackLoader === true) return [];
  return facts.hasFallbackLoader === null
    ? [found('fallback-loader-unknown', 'ESP', 'the EFI system partition is not mounted')]
    : [found('fallback-loader-missing', 'ESP', 'there is no EFI/BOOT/BOOT*.EFI')];
}

function judgeLoader(facts: MachineFacts): Finding[] {
  const findings: Finding[] = [];
  if (facts.kernels.every(({ path }) => path === '')) {
    findings.push(found('kernel-missing', '/boot', 'no kernel: it was started from outside'));
  }
  // A unified kernel image is started by the firmware itself.
  const isUnified = facts.kernels.some(({ path }) => path.endsWith('.efi'));
  if (facts.loader.length === 0 && !isUnified) {
    findings.push(found('loader-missing', '/boot', 'neither grub.cfg nor loader/entries'));
  }
  return findings;
}

/** What kernels are told in configurations of boot loaders, line by line. */
function kernelLines({ path, text }: TextFile): string[] {
  const pattern = path.endsWith('.conf')
    ? /^options\s/
    : path.endsWith('grubenv')
      ? /^kernelopts=/
      : /^\s*linux(?:16|efi)?\s/;
  return text.split('\n').filter((line) => pattern.test(line));
}

/** Values of `root` or `resume` in a kernel's command line. */
function valuesOf(name: 'root' | 'resume', line: string): string[] {
  const words = line.replace(/^kernelopts=/, '').split(/\s+/);
  return words
    .filter((word) => word.startsWith(`${name}=`))
    .map((word) => word.slice(name.length + 1));
}

function judgeNames(facts: MachineFacts): Finding[] {
  const told: TextFile[] = facts.loader.flatMap((file) =>
    kernelLines(file).map((text) => ({ path: file.path, text })),
  );
  const running = { path: '/proc/cmdline', text: facts.commandLine };
  const findings: Finding[] = [];
  // What the machine runs with now says nothing where the configuration tells what comes next.
  for (const { path, text } of told.length > 0 ? told : [running]) {
    for (const value of valuesOf('root', text).filter(isHardwareName)) {
      findings.push(found('root-name', path, `root=${value}`));
    }
    for (const value of valuesOf('resume', text).filter(isHardwareName)) {
      findings.push(found('resume-name', path, `resume=${value}`));
    }
  }
  return unique(findings);
}

const unique = (findings: readonly Finding[]): Finding[] =>
  findings.filter(
    ({ code, subject, seen }, i) =>
      i === findings.findIndex((f) => f.code === code && f.subject === subject && f.seen === seen),
  );

function judgeConsole(facts: MachineFacts): Finding[] {
  const lines = facts.loader.flatMap(kernelLines);
  const all = lines.length > 0 ? lines : [facts.commandLine];
  if (all.some((line) => /\bconsole=(?:ttyS|ttyAMA|hvc)\d/.test(line))) return [];
  return [found('console-serial', '', 'the kernel is not told of a serial console')];
}
