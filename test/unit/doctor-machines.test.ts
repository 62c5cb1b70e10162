/** The doctor on recorded machines: what it sees of them, and what it finds. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { runDoctor } from '../../src/agent/doctor/doctor.ts';
import { gatherFacts } from '../../src/agent/doctor/gather.ts';
import { examine } from '../../src/model/doctor/examine.ts';
import type { MachineReport, Severity } from '../../src/model/machine.ts';
import { layOut, readRecorded } from './support/recorded-machine.ts';

const refusalOf = () => ({ refusal: '', trackerRefusal: '' });
let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'understudy-machine-'));
});
afterEach(() => rmSync(root, { recursive: true }));

async function look(name: string, volumes: string[] | null): Promise<MachineReport> {
  layOut(readRecorded(name), root);
  const program = '/usr/lib/understudy/dist/cli/main.js';
  return examine(await gatherFacts({ root, timeMs: 7, volumes, program, refusalOf }));
}
const codesOf = ({ findings }: MachineReport, severity: Severity): string[] =>
  findings
    .filter((each) => each.severity === severity)
    .map((each) => `${each.code} ${each.subject}`.trim());

describe('Debian', () => {
  it('boots elsewhere; its interface would have another name', async () => {
    const report = await look('debian', ['/dev/vda']);
    expect(report).toMatchObject({
      timeMs: 7,
      architecture: 'x86_64',
      kernel: '6.1.0-56-amd64',
      system: 'Debian GNU/Linux 12 (bookworm)',
      bootMode: 'bios',
      cpuCount: 2,
      memoryBytes: 4023148 * 1024,
      bootVolume: '/dev/vda',
    });
    expect(codesOf(report, 'blocks-boot')).toEqual([]);
    expect(codesOf(report, 'may-block')).toEqual(['network-name /etc/network/interfaces']);
    expect(codesOf(report, 'data-left-behind')).toEqual([]);
    expect(codesOf(report, 'advice').sort()).toEqual([
      'agent-on-volume',
      'cloud-init-missing',
      'console-serial',
      'swap-replicated /dev/vda4',
    ]);
    expect(codesOf(report, 'fine').sort()).toEqual([
      'boot-chain',
      'fstab-names /etc/fstab',
      'initramfs-drivers /boot/initrd.img-6.1.0-56-amd64',
      'root-found /',
      'tracker-ready',
    ]);
  });

  it('does not boot from a volume that is the root partition alone', async () => {
    const report = await look('debian', ['/dev/vda3']);
    expect(codesOf(report, 'blocks-boot')).toEqual(['root-partition-only /']);
  });
});

describe('Ubuntu', () => {
  it('boots elsewhere, and leaves behind the disk that nobody replicates', async () => {
    const report = await look('ubuntu', ['/dev/sda']);
    expect(report).toMatchObject({ bootMode: 'uefi', cpuCount: 4, bootVolume: '/dev/sda' });
    expect(codesOf(report, 'blocks-boot')).toEqual([]);
    expect(codesOf(report, 'may-block')).toEqual([
      'network-name /etc/netplan/00-installer-config.yaml',
    ]);
    expect(codesOf(report, 'data-left-behind')).toEqual(['mount-not-replicated /srv/data one']);
    expect(codesOf(report, 'advice').sort()).toEqual([
      'agent-on-volume',
      'secure-boot',
      'tracker-kernel',
    ]);
    expect(codesOf(report, 'fine')).toContain('cloud-init');
  });

  it('lacks nothing once both disks are replicated', async () => {
    const report = await look('ubuntu', ['/dev/sda', '/dev/sdb']);
    expect(codesOf(report, 'data-left-behind')).toEqual([]);
  });

  it('blocks where only the data is replicated', async () => {
    const report = await look('ubuntu', ['/dev/sdb']);
    expect(codesOf(report, 'blocks-boot')).toEqual([
      'root-not-replicated /',
      'boot-not-replicated /boot',
      'boot-not-replicated /boot/efi',
      'fstab-left-behind /boot',
      'fstab-left-behind /boot/efi',
    ]);
    expect(report.bootVolume).toBe('');
  });
});

describe('a machine with a unified kernel image', () => {
  it('has a kernel, whose initramfs is not looked into', async () => {
    const machine = readRecorded('ubuntu');
    const { files, initramfs } = machine;
    for (const path of Object.keys(files))
      if (/^\/boot\/(?:grub|vmlinuz)/.test(path)) delete files[path];
    for (const path of Object.keys(initramfs)) delete initramfs[path];
    delete files['/boot/efi/EFI/ubuntu/grub.cfg'];
    const image = '/boot/efi/EFI/Linux/abc-5.15.0-119-generic.efi';
    files[image] = 'MZ and so on';
    layOut(machine, root);
    const program = '/usr/bin/understudy';
    const options = { root, timeMs: 7, volumes: ['/dev/sda', '/dev/sdb'], program };
    const report = examine(await gatherFacts({ ...options, refusalOf }));
    expect(codesOf(report, 'blocks-boot')).toEqual([]);
    expect(codesOf(report, 'may-block')).toContain(`initramfs-unreadable ${image}`);
    expect(codesOf(report, 'may-block')).not.toContain('loader-missing /boot');
  });
});

describe('RHEL and the like', () => {
  it('does not boot: the initramfs has only drivers of the hypervisor that it was made on', async () => {
    const report = await look('rhel', ['/dev/sda']);
    const image = '/boot/initramfs-5.14.0-427.13.1.el9_4.x86_64.img';
    expect(codesOf(report, 'blocks-boot')).toEqual([
      `driver-virtio ${image}`,
      `driver-nvme ${image}`,
    ]);
    expect(codesOf(report, 'may-block')).toEqual([
      'lvm-devices-file /etc/lvm/devices/system.devices',
      'network-name /etc/NetworkManager/system-connections/ens192.nmconnection',
    ]);
    expect(codesOf(report, 'advice')).toEqual(
      expect.arrayContaining([
        'initramfs-host-only /usr/lib/dracut/dracut.conf.d/01-dist.conf',
        'console-serial',
        'network-static /etc/NetworkManager/system-connections/ens192.nmconnection',
      ]),
    );
  });
});

describe('a machine on which everything is wrong', () => {
  it('is told so, worst first', async () => {
    const report = await look('broken', ['/dev/sda']);
    expect(codesOf(report, 'blocks-boot')).toEqual([
      'boot-code-missing /dev/sda',
      'root-name /boot/grub/grub.cfg',
      'fstab-device-name /var/lib/mysql',
      'fstab-left-behind /var/lib/mysql',
      'crypt-person secret',
    ]);
    expect(codesOf(report, 'may-block')).toEqual([
      'sector-size /dev/sdb',
      'initramfs-unreadable /boot/initrd.img-4.9.0-19-amd64',
      'driver-network 4.9.0-19-amd64',
      'fstab-device-name /',
      'fstab-device-name none',
      'fstab-left-behind none',
      'fstab-missing /old',
      'fstab-network /home',
      'fstab-type /pool',
      'network-name /etc/network/interfaces',
      'network-mac /etc/udev/rules.d/70-persistent-net.rules',
    ]);
    expect(codesOf(report, 'data-left-behind')).toEqual(['mount-not-replicated /var/lib/mysql']);
    expect(codesOf(report, 'advice')).toEqual(
      expect.arrayContaining([
        'swap-not-replicated /dev/sdb2',
        'resume-name /boot/grub/grub.cfg',
        'initramfs-host-only /etc/initramfs-tools/conf.d/driver-policy',
        'network-data /home',
        'tracker-kernel',
      ]),
    );
    const ranks = report.findings.map(({ severity }) => severity);
    expect(ranks.lastIndexOf('blocks-boot')).toBeLessThan(ranks.indexOf('may-block'));
  });

  it('an empty folder is judged, too, and never as fine', async () => {
    const report = examine(
      await gatherFacts({ root, timeMs: 0, volumes: null, program: '/x', refusalOf }),
    );
    expect(codesOf(report, 'fine')).toEqual([]);
    expect(codesOf(report, 'blocks-boot')).toContain('kernel-missing /boot');
  });
});

describe('this machine', () => {
  it('is looked at without failing, and a volume that is none is named', async () => {
    const report = await runDoctor({ timeMs: 1, volumes: ['/nonexistent'] });
    expect(report.cpuCount).toBeGreaterThan(0);
    expect(report.memoryBytes).toBeGreaterThan(2 ** 20);
    expect(report.kernel).not.toBe('');
    const refused = report.findings.find(({ code }) => code === 'volume-refused');
    expect(refused).toMatchObject({ subject: '/nonexistent', severity: 'data-left-behind' });
    expect(refused?.seen).toContain('ENOENT');
  });
});
