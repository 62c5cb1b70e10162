/**
 * How long the system on a disk waits for an NVMe disk that does not answer. A machine that is launched from a
 * point reads it through staging, which may be away for hours; the kernel's driver gives up after half a
 * minute and resets the controller, and the whole machine stands still until the read is answered. With a
 * longer limit only those wait who read what is not there yet. Told by a rule for the NVMe disks of QEMU and
 * of EC2 alone: at home, a real disk keeps the limit of its driver.
 */
import type { DiskTree } from './disk-tree.ts';
import type { Notes } from './report.ts';
import { attempt, readText } from './tree-text.ts';

export const NVME_RULES = '/etc/udev/rules.d/90-understudy-nvme.rules';
/** As long as its image server asks on. */
const LIMIT_MS = 24 * 3_600_000;

const rule = (model: string): string =>
  [
    ...['ACTION=="add|change"', 'SUBSYSTEM=="block"', 'KERNEL=="nvme*"', 'ENV{DEVTYPE}=="disk"'],
    ...[`ATTRS{model}=="${model}*"`, `ATTR{queue/io_timeout}="${LIMIT_MS}"`],
  ].join(', ');

const text = `# Written by the boot preparation of Understudy: wait for disks that are read over a network.
${rule('QEMU NVMe Ctrl')}
${rule('Amazon Elastic Block Store')}
`;

/** Where there is udev. */
export async function giveNvmePatience(tree: DiskTree, notes: Notes): Promise<void> {
  const folders = ['/etc/udev', '/usr/lib/udev', '/lib/udev'];
  let isThere = false;
  for (const folder of folders) isThere ||= (await tree.stat(folder)).kind === 'd';
  if (!isThere || (await readText(tree, NVME_RULES)) === text) return;
  await attempt(notes, 'nvme', NVME_RULES, async () => {
    await tree.write(NVME_RULES, Buffer.from(text));
    notes.add('changed', 'nvme', NVME_RULES, 'on QEMU and EC2, a disk that is away is waited for');
  });
}
