/**
 * Disks of other distributions, by the documented forms of their files: names of partitions, entries of the
 * Boot Loader Specification, kernel-install's folders, unified images, SELinux, networks.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { partitionName, TABLE_BYTES } from '../../src/model/partition-table.ts';
import {
  type Device,
  type Disks,
  deviceOfSpec,
  withContents,
} from '../../src/recovery/prepare/devices.ts';
import { findRoot } from '../../src/recovery/prepare/find-root.ts';
import { type Guest, Refusal } from '../../src/recovery/prepare/guest.ts';
import { APPENDED_MARK, readInitramfs } from '../../src/recovery/prepare/initramfs-files.ts';
import { initramfsOf, parseEntry } from '../../src/recovery/prepare/loader-entries.ts';
import { planNetwork } from '../../src/recovery/prepare/network.ts';
import { newcArchive } from '../../src/recovery/prepare/newc-archive.ts';
import { NVME_RULES } from '../../src/recovery/prepare/nvme-patience.ts';
import { fixTree, type PrepareWish } from '../../src/recovery/prepare/prepare.ts';
import { Notes } from '../../src/recovery/prepare/report.ts';
import { readUnifiedImage } from '../../src/recovery/prepare/unified-image.ts';
import { FolderTree } from './support/folder-tree.ts';
import fc from './support/properties.ts';
import { unifiedImage } from './support/unified-image.ts';

let folder: string;
let tree: FolderTree;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'understudy-layouts-'));
  tree = new FolderTree(join(folder, 'tree'));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** The head of a disk that sfdisk has given a table. */
function tableOf(...lines: string[]): Buffer {
  const path = join(folder, 'disk');
  writeFileSync(path, '');
  truncateSync(path, 40 * 2 ** 20);
  execFileSync('sfdisk', ['-q', path], { input: `${lines.join('\n')}\n` });
  return readFileSync(path).subarray(0, TABLE_BYTES);
}
const GUID = '0b1e7c5a-6d41-4f0e-9a55-1f2e3d4c5b6a';

describe('the names of partitions', () => {
  it('are those of a GPT, by number, holes among them', () => {
    const head = tableOf(
      'label: gpt',
      `1 : size=8M, uuid=${GUID.toUpperCase()}, name="Root A"`,
      '3 : size=8M',
    );
    expect(partitionName(head, 1)).toEqual({ uuid: GUID, label: 'Root A' });
    expect(partitionName(head, 2)).toBeNull();
    expect(partitionName(head, 3)?.label).toBe('');
  });

  it('are of an MBR its signature and the number, of logical ones too', () => {
    const head = tableOf('label: dos', 'label-id: 0x00c0ffee', 'size=8M', 'size=8M, type=5');
    expect(partitionName(head, 1)).toEqual({ uuid: '00c0ffee-01', label: '' });
    expect(partitionName(head, 5)?.uuid).toBe('00c0ffee-05');
  });

  it('of anything else are none', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 9000 }), (any) => void partitionName(any, 1)));
    expect(partitionName(Buffer.alloc(TABLE_BYTES), 1)).toBeNull();
  });

  it('lead to devices, in fstab and on the command line', () => {
    const head = tableOf('label: gpt', `size=8M, uuid=${GUID}, name=boot`, 'size=8M');
    const bare = (name: string, partition: number) => ({
      ...{ name, partition, sizeBytes: 2 ** 23, volume: 0, mapped: '' },
    });
    const devices = withContents(
      [bare('vda1', 1), bare('vda', 0), bare('vda2', 2)],
      [Buffer.alloc(0), head, Buffer.alloc(0)],
    );
    const disks = { volumes: ['/dev/sda'], devices };
    for (const spec of [
      `PARTUUID=${GUID}`,
      `PARTUUID="${GUID.toUpperCase()}"`,
      `/dev/disk/by-partuuid/${GUID}`,
      'PARTLABEL=boot',
      '/dev/disk/by-partlabel/boot',
    ]) {
      expect(deviceOfSpec(spec, disks), spec).toMatchObject({ name: 'vda1' });
    }
    expect(deviceOfSpec('PARTLABEL=', disks)).toBeUndefined();
    expect(deviceOfSpec(`PARTUUID=${GUID.replace('0b', '0c')}`, disks)).toBeUndefined();
    expect(deviceOfSpec(`PARTUUID=${GUID}/PARTNROFF=1`, disks)).toBeNull();
  });
});

const R = '5.14.0-503.el9.x86_64';
const M = `/lib/modules/${R}`;
const ID = '0123456789abcdef0123456789abcdef';
const root: Device = {
  ...{ name: 'vda2', sizeBytes: 2 ** 30, partition: 2, volume: 0, mapped: '' },
  ...{ content: { type: 'xfs', uuid: 'aaaa-root', label: '' }, partUuid: GUID, partLabel: '' },
};
const disks: Disks = { devices: [root], volumes: ['/dev/sda'] };
const wish: PrepareWish = {
  ...{ volumes: ['/dev/sda'], agent: 'off', hasLvm: false },
  about: { kind: 'drill', job: 'j1', server: 's', point: 'p' },
};

/** A kernel's modules; its initramfs, without any of them. */
function kernel(): Buffer {
  const names = ['kernel/drivers/nvme/host/nvme.ko', 'kernel/fs/xfs/xfs.ko'];
  tree.put(`${M}/modules.dep`, names.map((name) => `${name}:\n`).join(''));
  for (const name of names) tree.put(`${M}/${name}`, name);
  const init = { path: 'init', mode: 0o100755, content: Buffer.from('#!') };
  return gzipSync(newcArchive([init]));
}

async function fixed(): Promise<Notes> {
  const notes = new Notes();
  await fixTree(tree, disks, root, wish, notes);
  return notes;
}
const said = (notes: Notes, kind: string) =>
  notes.all.flatMap((each) => (each.kind === kind ? `${each.about}: ${each.text}` : []));
const hasDrivers = async (path: string) => {
  const { files } = await readInitramfs(Buffer.from(tree.text(path), 'latin1'));
  return files.has(APPENDED_MARK) && files.has(`lib/modules/${R}/kernel/drivers/nvme/host/nvme.ko`);
};

const entry = (more: string) =>
  `title Red\nversion ${R}\nlinux /vmlinuz-${R}\n${more}options root=/dev/sda2 ro $tuned_params\n`;

describe('entries of the Boot Loader Specification', () => {
  it('name the initramfs of their kernel, microcode before it', () => {
    const text = entry(`initrd /ucode.img /x/initrd $tuned_initrd\n`);
    const { version, options } = parseEntry(text);
    expect([version, options]).toEqual([R, 'root=/dev/sda2 ro $tuned_params']);
    expect(initramfsOf(parseEntry(text), '/boot/loader/entries', R)).toEqual([
      ...['/boot/x/initrd', '/x/initrd'],
    ]);
    expect(initramfsOf(parseEntry(text), '/boot/loader/entries', '6.1')).toEqual([]);
    const outside = parseEntry(entry('initrd /../etc/shadow\n'));
    expect(initramfsOf(outside, '/boot/loader/entries', R)).toEqual([]);
  });

  it.each([
    ['/boot', `/boot/${ID}/${R}/initrd`, ''],
    ['/boot/efi', `/boot/efi/fedora/${R}/initrd`, ''],
    ['/efi', '/efi/own/ramdisk', 'initrd /own/ramdisk\n'],
    ['/boot', `/boot/initramfs-${R}.img`, `initrd /initramfs-${R}.img $tuned_initrd\n`],
  ])('below %s lead to %s, which gets the drivers', async (place, path, line) => {
    tree.put(path, kernel());
    tree.put(`${place}/loader/entries/${ID}-${R}.conf`, entry(line));
    const notes = await fixed();
    expect(await hasDrivers(path)).toBe(true);
    expect(tree.text(`${place}/loader/entries/${ID}-${R}.conf`)).toContain(
      'options root=UUID=aaaa-root ro $tuned_params console=tty0 console=ttyS0,115200\n',
    );
    expect(said(notes, 'warning').join()).not.toContain('no initramfs');
  });

  it('say which of two roots is meant', async () => {
    const files: Record<string, string> = { 'etc/passwd': 'x', 'etc/fstab': 'x' };
    files['boot/loader/entries/a-6.conf'] = 'linux /k\noptions root=UUID=u1\n';
    files['boot/loader/entries/a-10.conf'] = 'linux /k\noptions quiet\noptions root=UUID=u2\n';
    const name = (path: string) => path.replace('/disk/look/', '');
    const fake = {
      ...{ mount: async () => undefined, unmount: async () => undefined },
      list: async (path: string) =>
        Object.keys(files)
          .filter((each) => each.startsWith(`${name(path)}/`))
          .map((each) => ({ kind: 'f', name: each.slice(name(path).length + 1) })),
      stat: async (path: string) => ({
        kind: name(path) === 'etc' ? 'd' : name(path) in files ? 'f' : null,
      }),
      read: async (path: string) => {
        const text = files[name(path)];
        if (text === undefined) throw new Refusal('no');
        return Buffer.from(text);
      },
    } as unknown as Guest;
    const device = (each: string, uuid: string): Device => ({
      ...root,
      ...{ name: each, content: { type: 'xfs', uuid, label: '' } },
    });
    const devices = [device('vda1', 'u1'), device('vda2', 'u2')];
    const found = await findRoot(fake, { volumes: ['a'], devices });
    expect(found?.device.name).toBe('vda2');
  });
});

describe('a unified kernel image', () => {
  const image = (options: string, initramfs: Buffer) =>
    unifiedImage({ '.cmdline': options, '.uname': R, '.linux': 'a kernel', '.initrd': initramfs });
  const PATH = `/efi/EFI/Linux/${ID}-${R}.efi`;

  it('is read, whatever it holds', () => {
    const read = readUnifiedImage(image('root=PARTUUID=1 ro\n', Buffer.from('cpio')));
    expect(read).toMatchObject({ release: R, options: 'root=PARTUUID=1 ro' });
    expect(read!.kernel.toString()).toBe('a kernel');
    expect(read!.initramfs.toString()).toBe('cpio');
    const whole = image('x', Buffer.from('cpio'));
    fc.assert(
      fc.property(fc.nat(whole.length - 1), fc.nat(255), (at, byte) => {
        const bytes = Buffer.from(whole);
        bytes[at] = byte;
        readUnifiedImage(bytes);
        readUnifiedImage(bytes.subarray(0, at));
      }),
    );
    expect(readUnifiedImage(Buffer.from('MZ'))).toBeNull();
  });

  it('without drivers is taken apart beside itself, once; its menu begins with what came of it', async () => {
    tree.put(PATH, image('root=/dev/sda2 ro', kernel()));
    tree.put('/efi/EFI/systemd/systemd-bootx64.efi', 'menu');
    tree.put('/efi/loader/loader.conf', 'timeout 3\ndefault other*\n');
    const before = tree.text(PATH);
    await fixed();
    expect(await hasDrivers(`/efi/understudy/${R}/initrd`)).toBe(true);
    expect(tree.text(`/efi/understudy/${R}/linux`)).toBe('a kernel');
    expect(tree.text(`/efi/loader/entries/understudy-${R}.conf`)).toBe(
      `title Understudy: ${R}\nversion ${R}\nlinux /understudy/${R}/linux\n` +
        `initrd /understudy/${R}/initrd\n` +
        'options root=UUID=aaaa-root ro console=tty0 console=ttyS0,115200\n',
    );
    expect(tree.text('/efi/loader/loader.conf')).toBe('timeout 3\ndefault understudy-*\n');
    expect(tree.text('/efi/EFI/BOOT/BOOTX64.EFI')).toBe('menu');
    expect(tree.text(PATH)).toBe(before);
    tree.written.length = 0;
    await fixed();
    expect(tree.written).toEqual([]);
  });

  it('that cannot be helped is told: no menu, no room', async () => {
    tree.put(PATH, image('root=UUID=aaaa-root', kernel()));
    const alone = await fixed();
    expect(said(alone, 'warning').join()).toMatch(/it has no nvme, xfs; without systemd-boot/);
    // Firmware starts it by itself all the same.
    expect(tree.text('/efi/EFI/BOOT/BOOTX64.EFI')).toBe(tree.text(PATH));
    tree.put('/efi/EFI/systemd/systemd-bootx64.efi', 'menu');
    tree.free = 1000;
    expect(said(await fixed(), 'failed').join()).toMatch(/unified-image: .*no room/);
    expect((await tree.stat(`/efi/understudy/${R}/linux`)).kind).toBeNull();
  });

  it('that has the drivers stays as it is', async () => {
    kernel();
    const module = (path: string) => ({ path, mode: 0o100644, content: Buffer.from('x') });
    const folderOf = `lib/modules/${R}/kernel`;
    const inside = newcArchive(['nvme', 'xfs'].map((name) => module(`${folderOf}/${name}.ko`)));
    tree.put(PATH, image('root=UUID=aaaa-root', inside));
    const notes = await fixed();
    expect(said(notes, 'found').join()).toContain('unified-image: has the drivers');
    expect(said(notes, 'warning').join()).toContain('no serial console');
    expect((await tree.stat('/efi/loader')).kind).toBeNull();
  });
});

describe('SELinux', () => {
  const prepare = async (mode: string) => {
    tree.put('/etc/selinux/config', `# how\nSELINUX=${mode}\n`);
    tree.put('/etc/NetworkManager/system-connections/lan', '[c]\ninterface-name=ens3\n');
    tree.put('/etc/sysconfig/network-scripts/ifcfg-eth0', 'DEVICE=eth0\n');
    tree.put('/etc/dracut.conf.d/x', '');
    tree.put('/etc/systemd/system/understudy-agent.service', '[Service]\n');
    tree.put('/usr/lib/udev/x', '');
    tree.put(`/boot/initramfs-${R}.img`, kernel());
    return fixed();
  };
  const of = (type: string) => `system_u:object_r:${type}:s0`;

  it.each(['enforcing', 'permissive'])(
    '%s: what is added has the labels of its places',
    async (mode) => {
      await prepare(mode);
      expect(Object.fromEntries(tree.labels)).toEqual({
        '/etc/NetworkManager/system-connections/understudy.nmconnection':
          of('NetworkManager_etc_rw_t'),
        '/etc/sysconfig/network-scripts/ifcfg-understudy': of('net_conf_t'),
        [NVME_RULES]: of('etc_t'),
        '/etc/dracut.conf.d/90-understudy.conf': of('etc_t'),
        '/etc/understudy/recovered.json': of('etc_t'),
        '/etc/understudy': of('etc_t'),
        '/etc/systemd/system/understudy-agent.service': of('systemd_unit_file_t'),
      });
      tree.labels.clear();
      await fixed();
      expect(tree.labels.size).toBe(0);
    },
  );

  it('that is off needs none; where there can be none that is told', async () => {
    await prepare('disabled');
    expect(tree.labels.size).toBe(0);
    rmSync(join(folder, 'tree'), { recursive: true });
    tree.full.add('/etc/sysconfig/network-scripts/ifcfg-understudy');
    tree.full.add(NVME_RULES);
    const write = tree.write.bind(tree);
    tree.write = async (path, content) => {
      const wasFull = tree.full.delete(path);
      await write(path, content);
      if (wasFull) tree.full.add(path);
    };
    const notes = await prepare('enforcing');
    expect(said(notes, 'warning').join()).toMatch(
      /selinux: no label for .*ifcfg-understudy, .*nvme.rules: where it enforces/,
    );
  });
});

describe('NVMe', () => {
  it('has time where udev is, on QEMU and EC2 alone; written once', async () => {
    await fixed();
    expect((await tree.stat(NVME_RULES)).kind).toBeNull();
    tree.put('/usr/lib/udev/rules.d/x', '');
    await fixed();
    const rules = tree
      .text(NVME_RULES)
      .split('\n')
      .filter((line) => /^ACTION/.test(line));
    expect(rules).toHaveLength(2);
    expect(rules[0]).toContain(
      'ATTRS{model}=="QEMU NVMe Ctrl*", ATTR{queue/io_timeout}="86400000"',
    );
    tree.written.length = 0;
    await fixed();
    expect(tree.written).toEqual([]);
  });
});

const plan = (files: Record<string, string>, hasCloudInit = false) =>
  planNetwork(
    Object.entries(files).map(([path, text]) => ({ path, text })),
    hasCloudInit,
  );

describe('networks', () => {
  it.each([
    // Ubuntu's installer, netplan with a name of its own for a card.
    [
      '/etc/netplan/00-installer-config.yaml',
      'network:\n  ethernets:\n    ens160:\n      dhcp4: true\n',
    ],
    [
      '/etc/netplan/50-cloud-init.yaml',
      '      match:\n        macaddress: 00:0c:29:1:2:3\n      set-name: lan0\n',
    ],
    ['/etc/systemd/network/10-lan.network', '[Match]\nName=lan0\n'],
    ['/etc/NetworkManager/system-connections/a', '[ethernet]\nmac-address=00:11:22:33:44:55\n'],
  ])('of %s get a fallback, also where cloud-init is there', (path, text) => {
    const { changes } = plan({ [path]: text }, true);
    expect(changes).toHaveLength(1);
    expect(changes[0]).toMatchObject({ kind: 'write' });
  });

  it.each(['br0', 'bond0', 'vlan5', 'lo', 'en* eth*', 'wlan0'])(
    'of networkd for %s are bound to no card',
    (name) => {
      expect(plan({ '/etc/systemd/network/x.network': `[Match]\nName=${name}\n` }).changes).toEqual(
        [],
      );
    },
  );

  it('of wicked get a file for each name of a first card, but where there is one', () => {
    const lo = { '/etc/sysconfig/network/ifcfg-lo': 'STARTMODE=nfsroot\n' };
    expect(plan(lo).changes).toEqual([]);
    const files = { ...lo, '/etc/sysconfig/network/ifcfg-eth0': "BOOTPROTO='static'\n" };
    const { changes, notes } = plan(files);
    const paths = changes.map(({ path }) => path);
    expect(paths).toContain('/etc/sysconfig/network/ifcfg-ens5');
    expect(paths).toContain('/etc/sysconfig/network/ifcfg-enp0s3');
    expect(paths).not.toContain('/etc/sysconfig/network/ifcfg-eth0');
    expect(changes[0]!.text).toContain("BOOTPROTO='dhcp'\nSTARTMODE='hotplug'\n");
    expect(notes.filter(({ kind }) => kind === 'changed')).toHaveLength(changes.length);
    const again = Object.fromEntries(changes.map(({ path, text }) => [path, text]));
    expect(plan({ ...files, ...again }).changes).toEqual([]);
  });
});
