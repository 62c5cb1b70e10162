/** Boot preparation's pure parts about text: fstab, boot loaders, network. */

import { describe, expect, it } from 'vitest';
import { type Device, type Disks, deviceOfSpec } from '../../src/recovery/prepare/devices.ts';
import { toldByGrub } from '../../src/recovery/prepare/find-root.ts';
import { parseFstab, rewriteFstab } from '../../src/recovery/prepare/fstab.ts';
import { type LoaderKind, rewriteLoader } from '../../src/recovery/prepare/kernel-line.ts';
import { planNetwork } from '../../src/recovery/prepare/network.ts';
import fc from './support/properties.ts';

const device = (
  name: string,
  volume: number | null,
  partition: number,
  type: Device['content']['type'],
  uuid: string,
  more: { label?: string; mapped?: string; partUuid?: string } = {},
): Device => ({
  ...{ name, volume, partition, sizeBytes: 2 ** 30, mapped: more.mapped ?? '' },
  content: { type, uuid, label: more.label ?? '' },
  ...{ partUuid: more.partUuid ?? '', partLabel: '' },
});
const root = device('vda2', 0, 2, 'ext4', 'aaaa-root', { label: 'system' });
const disks: Disks = {
  volumes: ['/dev/sda', 'sdb'],
  devices: [
    device('vda', 0, 0, '', ''),
    device('vda1', 0, 1, 'vfat', '1234-ABCD'),
    root,
    device('vda3', 0, 3, 'swap', 'aaaa-swap'),
    device('vdb', 1, 0, '', ''),
    device('vdb1', 1, 1, 'xfs', 'bbbb-data'),
    device('dm-0', null, 0, 'ext4', 'cccc-lv', { mapped: 'vg0-my--home' }),
  ],
};

describe('a device by the name that a disk has for it', () => {
  it.each([
    ['UUID=aaaa-root', 'vda2'],
    ['UUID="AAAA-ROOT"', 'vda2'],
    ['LABEL=system', 'vda2'],
    ['/dev/disk/by-uuid/1234-ABCD', 'vda1'],
    ['/dev/sda3', 'vda3'],
    ['/dev/sdb1', 'vdb1'],
    ['/dev/mapper/vg0-my--home', 'dm-0'],
    ['/dev/vg0/my-home', 'dm-0'],
    ['/dev/sdc1', undefined],
    ['/dev/sda9', undefined],
    ['UUID=ffff', undefined],
    ['PARTUUID=1-2', null],
    ['/dev/mapper/none-here', null],
  ])('%s', (spec, name) => {
    const found = deviceOfSpec(spec, disks);
    expect(found === null ? null : found?.name).toBe(name);
  });

  it('is the first disk where one volume alone says nothing of hardware', () => {
    const one = { ...disks, volumes: ['root-disk'] };
    expect(deviceOfSpec('/dev/sda2', one)?.name).toBe('vda2');
    expect(deviceOfSpec('/dev/nvme0n1p3', one)?.name).toBe('vda3');
    expect(deviceOfSpec('/dev/disk/by-path/pci-0000:00:1f.2-ata-1-part1', one)?.name).toBe('vda1');
    expect(deviceOfSpec('/dev/sdb1', one)).toBeUndefined();
  });
});

const fstab = (text: string) => rewriteFstab(text, disks, root);

describe('fstab', () => {
  it('names by UUID what it named by hardware; the rest stays byte for byte', () => {
    const old = [
      '# <file system>\t\\040',
      '/dev/sda2  /\text4   defaults,noatime 0 1',
      '',
      '/dev/sda3\tnone\tswap\tsw\t0\t0',
      'UUID=1234-ABCD /boot/efi vfat umask=0077 0 1',
      'tmpfs /tmp tmpfs defaults 0 0',
      'proc /proc proc defaults 0 0',
      'nas:/export /srv nfs defaults 0 0',
    ].join('\n');
    const { text, notes } = fstab(old);
    expect(text).toBe(
      old.replace('/dev/sda2', 'UUID=aaaa-root').replace('/dev/sda3', 'UUID=aaaa-swap'),
    );
    expect(notes.map(({ text: said }) => said)).toEqual([
      '/dev/sda2 (/) is UUID=aaaa-root',
      '/dev/sda3 (none) is UUID=aaaa-swap',
    ]);
    expect(fstab(text)).toEqual({ text, notes: [] });
  });

  it.each([
    ['/dev/sdc1 /srv ext4 defaults 0 2', '/dev/sdc1 /srv ext4 nofail 0 2'],
    ['UUID=gone /srv ext4 noatime 0 2', 'UUID=gone /srv ext4 noatime,nofail 0 2'],
    ['/dev/sdc1 none swap sw', '/dev/sdc1 none swap sw,nofail'],
    ['/dev/sdc1 /srv ext4', '/dev/sdc1 /srv ext4 nofail'],
    // The partition of that number holds something else.
    ['/dev/sda1 /srv xfs defaults 0 0', '/dev/sda1 /srv xfs nofail 0 0'],
  ])('does not wait for what is left behind: %s', (old, made) => {
    const { text, notes } = fstab(old);
    expect(text).toBe(made);
    expect(notes).toMatchObject([{ kind: 'warning' }]);
    expect(fstab(text).text).toBe(made);
  });

  it.each([
    'UUID=gone /srv ext4 nofail 0 2',
    'UUID=gone /srv ext4 noauto 0 2',
    'PARTUUID=1-2 /srv ext4 defaults 0 2',
    '/dev/mapper/vg1-x /srv ext4 defaults 0 2',
    'LABEL=system / ext4 defaults 0 1',
  ])('leaves alone: %s', (line) => {
    expect(fstab(line)).toEqual({ text: line, notes: [] });
  });

  it.each([
    ['in an array', { type: 'raid' }, 'ext4'],
    ['encrypted', { type: 'luks' }, 'xfs'],
    ['in LVM that could not be opened', { type: 'lvm' }, 'ext4'],
    ['of a kind that is not known here', { type: '' }, 'ntfs3'],
  ] as const)(
    'a file system %s is still waited for: its services would begin without it',
    (...told) => {
      const [, { type: held }, type] = told;
      const devices = [root, device('vdc1', 1, 1, held, '')];
      const line = `UUID=hidden /var/lib/db ${type} defaults 0 2`;
      const { text, notes } = rewriteFstab(line, { ...disks, devices }, root);
      expect(text).toBe(line);
      expect(notes).toMatchObject([
        { kind: 'warning', text: expect.stringContaining('left as it is') },
      ]);
      const gone = rewriteFstab('/dev/sdz1 /srv ext4 defaults 0 2', { ...disks, devices }, root);
      expect(gone.text).toContain('nofail');
    },
  );

  it('gives the root the UUID of what was found to be the root, whatever it said', () => {
    expect(fstab('UUID=old / ext4 defaults 0 1').text).toBe('UUID=aaaa-root / ext4 defaults 0 1');
  });

  it('is read and rewritten whatever it holds', () => {
    const word = fc.constantFrom(
      '/dev/sda2',
      'UUID=x',
      '/',
      '\\040',
      '#',
      ' ',
      '\t',
      '\n',
      'ext4',
      ',',
    );
    fc.assert(
      fc.property(fc.array(fc.oneof(word, fc.string()), { maxLength: 40 }), (words) => {
        const { text } = fstab(words.join(''));
        expect(fstab(text).text).toBe(text);
        parseFstab(text);
      }),
    );
  });
});

const loader = (kind: LoaderKind, text: string) =>
  rewriteLoader({ path: '/x', kind, text }, disks, root);
const SERIAL = 'console=tty0 console=ttyS0,115200';

describe('what the kernel is told', () => {
  it('in grub.cfg: the root by UUID and a serial console, in lines of Linux alone', () => {
    const old = [
      "menuentry 'Debian' {",
      '\tset root="hd0,msdos2"',
      '\tlinux\t/boot/vmlinuz-6 root=/dev/sda2 ro  quiet resume=/dev/sda3',
      '\tinitrd\t/boot/initrd.img-6',
      '}',
      '\tlinux16\t/boot/memtest86+.bin',
    ].join('\n');
    const { text } = loader('grub', old);
    const line = `root=UUID=aaaa-root ro  quiet resume=UUID=aaaa-swap ${SERIAL}`;
    expect(text).toBe(old.replace('root=/dev/sda2 ro  quiet resume=/dev/sda3', line));
    expect(loader('grub', text)).toEqual({ text, notes: [] });
  });

  it.each<[LoaderKind, string, string]>([
    [
      'grub',
      'linux /k root=UUID=1 console=tty1',
      'linux /k root=UUID=1 console=tty1 console=ttyS0,115200',
    ],
    ['grub', 'linux /k root=UUID=1 console=ttyS1', 'linux /k root=UUID=1 console=ttyS1'],
    ['entry', 'options root=/dev/sda2 ro', `options root=UUID=aaaa-root ro ${SERIAL}`],
    ['entry', 'options $kernelopts $tuned_params', 'options $kernelopts $tuned_params'],
    ['words', 'root=/dev/sda2 ro', `root=UUID=aaaa-root ro ${SERIAL}`],
    ['extlinux', '  append root=/dev/sda2', `  append root=UUID=aaaa-root ${SERIAL}`],
    ['default', 'GRUB_CMDLINE_LINUX="quiet"', `GRUB_CMDLINE_LINUX="quiet ${SERIAL}"`],
    ['default', 'GRUB_CMDLINE_LINUX=\'a "b"\' # old', `GRUB_CMDLINE_LINUX='a "b" ${SERIAL}' # old`],
    ['default', 'GRUB_CMDLINE_LINUX=quiet # old', `GRUB_CMDLINE_LINUX="quiet ${SERIAL}" # old`],
    // What another line ends, or a shell works out, is not ours to change.
    ['default', 'GRUB_CMDLINE_LINUX="a \\\nb"\n', 'GRUB_CMDLINE_LINUX="a \\\nb"\n'],
    ['default', 'GRUB_CMDLINE_LINUX="a"b\n', 'GRUB_CMDLINE_LINUX="a"b\n'],
    ['default', 'GRUB_CMDLINE_LINUX=$(words)\n', 'GRUB_CMDLINE_LINUX=$(words)\n'],
    ['default', 'GRUB_CMDLINE_LINUX=', `GRUB_CMDLINE_LINUX="${SERIAL}"`],
    ['default', 'GRUB_TIMEOUT=5\n', `GRUB_TIMEOUT=5\nGRUB_CMDLINE_LINUX="${SERIAL}"\n`],
    [
      'default',
      'GRUB_CMDLINE_LINUX_DEFAULT="console=ttyS0"\nGRUB_CMDLINE_LINUX=""',
      'GRUB_CMDLINE_LINUX_DEFAULT="console=ttyS0"\nGRUB_CMDLINE_LINUX=""',
    ],
  ])('%s: %s', (kind, old, made) => {
    expect(loader(kind, old).text).toBe(made);
    expect(loader(kind, made).text).toBe(made);
  });

  it('in grubenv, which keeps its length', () => {
    const block = (text: string) => text + '#'.repeat(1024 - text.length);
    const old = block('# GRUB Environment Block\nkernelopts=root=/dev/sda2 ro \nsaved_entry=0\n');
    const { text } = loader('grubenv', old);
    expect(text).toHaveLength(1024);
    expect(text).toContain(`kernelopts=root=UUID=aaaa-root ro ${SERIAL} \nsaved_entry=0\n###`);
    const foreign = loader('grubenv', block('kernelopts=root=/dev/sda2 title=\xe9\xe9\xe9\n'));
    expect(foreign.text).toHaveLength(1024);
    const long = block(`kernelopts=${'x'.repeat(1000)}\n`);
    expect(loader('grubenv', long)).toMatchObject({ text: long, notes: [{ kind: 'failed' }] });
  });

  it('says what it cannot name', () => {
    const { text, notes } = loader('words', `resume=/dev/sdz1 ${SERIAL}`);
    expect(text).toBe(`resume=/dev/sdz1 ${SERIAL}`);
    expect(notes).toMatchObject([{ kind: 'warning', text: 'resume=/dev/sdz1 is not here' }]);
  });

  it('is rewritten whatever the file holds, and the second time nothing changes', () => {
    const kinds: LoaderKind[] = ['grub', 'entry', 'words', 'extlinux', 'default', 'grubenv'];
    const word = fc.constantFrom(
      'linux ',
      'options ',
      'root=/dev/sda2',
      '\n',
      ' ',
      '"',
      '#',
      'ro ',
    );
    fc.assert(
      fc.property(fc.constantFrom(...kinds), fc.array(fc.oneof(word, fc.string())), (kind, all) => {
        const { text } = loader(kind, all.join(''));
        expect(loader(kind, text).text).toBe(text);
      }),
    );
  });

  it('first in a GRUB configuration says which root is meant', () => {
    const text =
      'linux /a ro\n linux /k root=UUID=1 rootflags=compress=zstd,subvol=@ ro\nlinux /b root=2';
    expect(toldByGrub(text)).toEqual({ root: 'UUID=1', subvolume: 'subvol=@' });
    expect(toldByGrub('')).toBeNull();
  });
});

const plan = (files: Record<string, string>, hasCloudInit = false) =>
  planNetwork(
    Object.entries(files).map(([path, text]) => ({ path, text })),
    hasCloudInit,
  );

describe('the network', () => {
  it.each([
    [
      '/etc/netplan/00-installer.yaml',
      'network:\n  ethernets:\n    ens192:\n      addresses: []\n',
    ],
    ['/etc/netplan/01.yaml', '      match:\n        macaddress: 00:11:22:33:44:55\n'],
    ['/etc/systemd/network/10-lan.network', '[Match]\nName=eno1\n'],
    ['/etc/systemd/network/10-lan.network', '[Match]\nMACAddress=00:11:22:33:44:55\n'],
    ['/etc/NetworkManager/system-connections/lan.nmconnection', '[c]\ninterface-name=ens3\n'],
    ['/etc/sysconfig/network-scripts/ifcfg-eth0', 'DEVICE=eth0\nBOOTPROTO=none\n'],
  ])('gets a fallback beside %s', (path, text) => {
    const { changes } = plan({ [path]: text });
    expect(changes).toHaveLength(1);
    expect(changes[0]).toMatchObject({ kind: 'write', text: expect.stringMatching(/dhcp|auto/i) });
    const again = plan({ [path]: text, [changes[0]!.path]: changes[0]!.text });
    expect(again.changes).toEqual([]);
  });

  it.each([
    ['/etc/netplan/a.yaml', 'network:\n  ethernets:\n    all:\n      match: {name: "e*"}\n'],
    ['/etc/systemd/network/a.network', '[Match]\nName=en*\n'],
    ['/etc/systemd/network/a.network', '[Match]\nType=ether\n'],
    [
      '/etc/network/interfaces',
      'auto lo\niface lo inet loopback\nsource /etc/network/interfaces.d/*\n',
    ],
  ])('needs nothing where it fits any card: %s', (path, text) => {
    expect(plan({ [path]: text }).changes).toEqual([]);
  });

  it('of ifupdown: the first card by DHCP, what was there stays', () => {
    const text =
      'auto lo\niface lo inet loopback\nallow-hotplug ens192\niface ens192 inet static\n';
    const { changes } = plan({ '/etc/network/interfaces': text });
    expect(changes).toMatchObject([{ kind: 'replace', path: '/etc/network/interfaces' }]);
    expect(changes[0]!.text.startsWith(text)).toBe(true);
    expect(changes[0]!.text).toContain('auto /e*/1=understudy\niface understudy inet dhcp\n');
    expect(plan({ '/etc/network/interfaces': changes[0]!.text }).changes).toEqual([]);
  });

  it('is no longer bound to the addresses of cards by rules and HWADDR', () => {
    const rule = 'SUBSYSTEM=="net", ATTR{address}=="00:11:22:33:44:55", NAME="eth0"';
    const { changes } = plan({
      '/etc/udev/rules.d/70-persistent-net.rules': `# card\n${rule}\n`,
      '/etc/sysconfig/network-scripts/ifcfg-eth0': 'HWADDR=00:11:22:33:44:55\nONBOOT=yes\n',
    });
    expect(changes.map(({ kind, text }) => [kind, text])).toEqual([
      ['write', expect.stringContaining('BOOTPROTO=dhcp')],
      ['replace', `# card\n#${rule}\n`],
      ['replace', '#HWADDR=00:11:22:33:44:55\nONBOOT=yes\n'],
    ]);
  });

  it("is cloud-init's own where cloud-init is there", () => {
    const files = { '/etc/netplan/50-cloud-init.yaml': '    ens3:\n      macaddress: x\n' };
    // What it has written is not touched; a fallback stands beside it.
    expect(plan(files, true).changes).toMatchObject([{ kind: 'write' }]);
    expect(plan(files, true).notes[0]!.text).toMatch(/left to it/);
    const bound = {
      '/etc/sysconfig/network-scripts/ifcfg-a': '# Created by cloud-init\nHWADDR=x\n',
    };
    expect(plan(bound, true).changes).toMatchObject([{ kind: 'write' }]);
    expect(plan(bound, false).changes).toMatchObject([{ kind: 'write' }, { kind: 'replace' }]);
  });

  it('that is not there is told', () => {
    expect(plan({}).notes).toMatchObject([{ kind: 'warning', about: 'network' }]);
  });
});
