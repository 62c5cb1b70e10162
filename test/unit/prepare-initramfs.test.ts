/** Boot preparation's work on an initramfs: read, judged, appended to; and on a whole root file system. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Device, Disks } from '../../src/recovery/prepare/devices.ts';
import { InitramfsError, readInitramfs } from '../../src/recovery/prepare/initramfs-files.ts';
import { moduleIndex } from '../../src/recovery/prepare/module-index.ts';
import { type ArchiveEntry, newcArchive } from '../../src/recovery/prepare/newc-archive.ts';
import { fixTree, type PrepareWish } from '../../src/recovery/prepare/prepare.ts';
import { Notes, noteLine } from '../../src/recovery/prepare/report.ts';
import { FolderTree } from './support/folder-tree.ts';
import fc from './support/properties.ts';

const file = (path: string, content = path, mode = 0o100644): ArchiveEntry => ({
  ...{ path, mode, content: Buffer.from(content) },
});
const R = '6.1.0-9-amd64';
const K = `usr/lib/modules/${R}/kernel`;
const names = async (image: Buffer) => [...(await readInitramfs(image)).files.keys()];

describe('an initramfs', () => {
  const early = newcArchive([file('kernel/x86/microcode/GenuineIntel.bin')]);
  const main = newcArchive([file('init'), file(`${K}/fs/ext4/ext4.ko`)]);
  const own = newcArchive([file('understudy-prepared'), file('late')]);
  const zeros = Buffer.alloc(700);
  const packed: [string, Buffer][] = [
    ['plain', main],
    ['gzip', gzipSync(main)],
    ['zstd', zstdCompressSync(main)],
    ['xz', execFileSync('xz', ['-c', '--check=crc32'], { input: main })],
    ['lz4', execFileSync('lz4', ['-lc'], { input: main })],
  ];

  it.each(packed)(
    'packed by %s is read, with microcode before and archives of ours behind',
    async (_kind, body) => {
      const aligned = Buffer.alloc((-body.length & 511) + 512);
      const image = Buffer.concat([early, zeros, body, aligned, own, zeros, own]);
      const { files } = await readInitramfs(image);
      expect([...files.keys()]).toEqual(
        expect.arrayContaining(['kernel/x86/microcode/GenuineIntel.bin', 'init', 'late']),
      );
      expect(files.get('init')!.content.toString()).toBe('init');
      expect(await names(body)).toContain(`${K}/fs/ext4/ext4.ko`);
    },
  );

  it('of no sense is refused, never guessed at', async () => {
    const cut = gzipSync(main).subarray(0, 60);
    for (const bytes of [
      Buffer.alloc(0),
      Buffer.from('junk and more'),
      cut,
      main.subarray(0, 300),
    ]) {
      await expect(readInitramfs(bytes)).rejects.toBeInstanceOf(InitramfsError);
    }
    const changed = fc.array(fc.tuple(fc.nat(main.length - 1), fc.nat(255)), { maxLength: 9 });
    await fc.assert(
      fc.asyncProperty(changed, fc.constantFrom(...packed.slice(0, 3)), async (all, [, body]) => {
        const image = Buffer.from(body);
        for (const [at, byte] of all) image[at % image.length] = byte;
        await readInitramfs(image).catch((error) => expect(error).toBeInstanceOf(InitramfsError));
      }),
      { numRuns: 60 },
    );
  });

  it('that unpacks without end is refused', async () => {
    const bomb = gzipSync(Buffer.alloc(600 * 2 ** 20), { level: 1 });
    await expect(readInitramfs(bomb)).rejects.toBeInstanceOf(InitramfsError);
  });

  it('of parts that unpack to too much together is refused', async () => {
    const half = newcArchive([file('big', '\0'.repeat(2 ** 20))]);
    const part = zstdCompressSync(half);
    const two = Buffer.concat([part, part]);
    await expect(readInitramfs(two, 2 ** 20)).rejects.toBeInstanceOf(InitramfsError);
    expect((await readInitramfs(two, 4 * 2 ** 20)).files.size).toBe(1);
  });

  it.each([
    ['entries', () => Array<Buffer>(210_000).fill(main.subarray(0, main.indexOf('070701', 6)))],
    ['parts', () => Array<Buffer>(300).fill(main)],
  ])('of %s without end is refused', async (_what, parts) => {
    await expect(readInitramfs(Buffer.concat(parts()))).rejects.toThrow('than any initramfs has');
  });
});

/** modprobe's search, by libkmod's description of the file. */
function lookUp(index: Buffer, key: string): string | null {
  if (index.readUInt32BE(0) !== 0xb007f457 || index.readUInt32BE(4) !== 0x00020001) return null;
  const textAt = (at: number) => index.toString('latin1', at, index.indexOf(0, at));
  let offset = index.readUInt32BE(8);
  let rest = key;
  for (;;) {
    let at = offset & 0x0fffffff;
    if (offset & 0x80000000) {
      const prefix = textAt(at);
      if (!rest.startsWith(prefix)) return null;
      rest = rest.slice(prefix.length);
      at += prefix.length + 1;
    }
    let next = 0;
    if (offset & 0x20000000) {
      const [first, last] = [index[at]!, index[at + 1]!];
      const code = rest.charCodeAt(0);
      if (code >= first && code <= last) next = index.readUInt32BE(at + 2 + 4 * (code - first));
      at += 2 + 4 * (last - first + 1);
    }
    if (rest === '') return offset & 0x40000000 ? textAt(at + 8) : null;
    if (next === 0) return null;
    offset = next;
    rest = rest.slice(1);
  }
}

it('the index that modprobe reads gives every name back, and no other', () => {
  const name = fc.stringMatching(/^[a-z0-9_]{1,12}$/);
  fc.assert(
    fc.property(fc.uniqueArray(name, { maxLength: 60 }), name, (all, other) => {
      const lines = new Map(all.map((each) => [each, `kernel/${each}.ko: kernel/x.ko`]));
      const index = moduleIndex(lines);
      for (const each of all) expect(lookUp(index, each)).toBe(lines.get(each));
      expect(lookUp(index, other)).toBe(lines.get(other) ?? null);
    }),
  );
});

let folder: string;
let tree: FolderTree;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'understudy-prepare-'));
  tree = new FolderTree(folder);
});
afterEach(() => rmSync(folder, { recursive: true }));

const root: Device = {
  ...{ name: 'vda1', sizeBytes: 2 ** 30, partition: 1, volume: 0, mapped: '' },
  content: { type: 'ext4', uuid: 'aaaa-root', label: '' },
  ...{ partUuid: 'p-1', partLabel: '' },
};
const disks: Disks = { devices: [root], volumes: ['/dev/sda'] };
const drill: PrepareWish = {
  ...{ volumes: ['/dev/sda'], agent: 'off', hasLvm: false },
  about: { kind: 'drill', job: 'j1', server: 's', point: 'p' },
};
const IMAGE = `/boot/initrd.img-${R}`;
const M = `/lib/modules/${R}`;
const dependencies = [
  'kernel/drivers/virtio/virtio.ko:',
  'kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko',
  'kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko',
  'kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko',
  'kernel/drivers/nvme/host/nvme.ko: kernel/drivers/nvme/host/nvme-core.ko',
  'kernel/drivers/nvme/host/nvme-core.ko:',
  'kernel/fs/ext4/ext4.ko:',
  '',
].join('\n');

/** A Debian with one kernel; `suffix`: how its modules are packed on the disk. */
function server({ suffix = '', inside = ['fs/ext4/ext4.ko'] } = {}): void {
  const text = dependencies.replaceAll('.ko', `.ko${suffix}`);
  tree.put(`${M}/modules.dep`, text);
  tree.put(
    `${M}/modules.builtin`,
    'kernel/drivers/scsi/sd_mod.ko\nkernel/drivers/scsi/virtio_scsi.ko\n',
  );
  tree.put(`${M}/modules.alias.bin`, 'aliases');
  for (const line of text.split('\n').filter(Boolean)) {
    const path = line.slice(0, line.indexOf(':'));
    tree.put(`${M}/${path}`, `module ${path}`);
  }
  const entries = inside.map((path) => file(`${K}/${path}`));
  const parts = [file('lib', 'usr/lib', 0o120777), file('conf/modules', 'dm-mod\n'), ...entries];
  tree.put(IMAGE, gzipSync(newcArchive(parts)));
  tree.put('/etc/fstab', '/dev/sda1 / ext4 defaults 0 1\n');
  tree.put('/etc/default/grub', 'GRUB_CMDLINE_LINUX=""\n');
  tree.put('/etc/initramfs-tools/modules', '# none\nnvme\n');
  tree.put('/boot/grub/grub.cfg', `linux /boot/vmlinuz-${R} root=/dev/sda1 ro quiet\n`);
  tree.put('/etc/network/interfaces', 'allow-hotplug ens192\niface ens192 inet dhcp\n');
  tree.put('/etc/systemd/system/understudy-agent.service', '[Service]\n');
}

async function fixed(wish = drill): Promise<Notes> {
  const notes = new Notes();
  await fixTree(tree, disks, root, wish, notes);
  return notes;
}
const texts = (notes: Notes, kind: string) =>
  notes.all.filter((each) => each.kind === kind).map(({ about, text }) => `${about}: ${text}`);

describe('a root file system', () => {
  it('gets the drivers that its initramfs lacks, with what they need and an index that knows all', async () => {
    server();
    const notes = await fixed();
    const { files } = await readInitramfs(Buffer.from(tree.text(IMAGE), 'latin1'));
    for (const name of [
      'virtio/virtio',
      'block/virtio_blk',
      'nvme/host/nvme',
      'nvme/host/nvme-core',
    ]) {
      const path = `kernel/drivers/${name}.ko`;
      expect(files.get(`usr/lib/modules/${R}/${path}`)?.content.toString()).toBe(`module ${path}`);
    }
    expect(files.get('lib')!.isLink).toBe(true);
    expect(files.has(`lib/modules/${R}/modules.dep`)).toBe(false);
    const index = files.get(`usr/lib/modules/${R}/modules.dep.bin`)!.content;
    const line = 'kernel/drivers/nvme/host/nvme.ko: kernel/drivers/nvme/host/nvme-core.ko';
    expect(lookUp(index, 'nvme')).toBe(line);
    expect(lookUp(index, 'ext4')).toBe('kernel/fs/ext4/ext4.ko:');
    expect(files.get(`usr/lib/modules/${R}/modules.alias.bin`)!.content.toString()).toBe('aliases');
    const loaded = files.get('conf/modules')!.content.toString();
    expect(loaded).toBe('dm-mod\nvirtio_pci\nvirtio_blk\nnvme\n');
    expect(tree.text('/etc/initramfs-tools/modules')).toBe(
      '# none\nnvme\nvirtio_pci\nvirtio_blk\n',
    );
    expect(texts(notes, 'warning')).toContain(`initramfs: ${R} has no virtio_net, ena`);
    expect(texts(notes, 'failed')).toEqual([]);
  });

  it('done again is left as it is, byte for byte', async () => {
    server();
    await fixed();
    tree.written.length = 0;
    const before = tree.text(IMAGE);
    const notes = await fixed();
    expect(tree.written).toEqual([]);
    expect(texts(notes, 'changed')).toEqual([]);
    expect(tree.text(IMAGE)).toBe(before);
  });

  it('keeps each original beside what was changed', async () => {
    server();
    await fixed();
    expect(tree.text('/etc/fstab.understudy-original')).toBe('/dev/sda1 / ext4 defaults 0 1\n');
    expect(tree.text('/etc/fstab')).toBe('UUID=aaaa-root / ext4 defaults 0 1\n');
    expect(tree.text('/boot/grub/grub.cfg.understudy-original')).toContain('root=/dev/sda1');
    expect(tree.text('/etc/systemd/system/understudy-agent.service.understudy-original')).toBe(
      '[Service]\n',
    );
  });

  it('has its agent off in a drill, and on where that is wished', async () => {
    server();
    const path = '/etc/systemd/system/understudy-agent.service';
    await fixed({ ...drill, agent: 'on' });
    expect((await tree.stat(path)).kind).toBe('f');
    const notes = await fixed();
    expect((await tree.stat(path)).kind).toBe('o');
    expect(texts(notes, 'changed')).toEqual(['agent: switched off in this clone']);
    expect(JSON.parse(tree.text('/etc/understudy/recovered.json'))).toEqual({
      format: 1,
      ...drill.about,
    });
  });

  it('with packed modules has them in its initramfs as they are; those inside keep their names', async () => {
    server({ suffix: '.xz' });
    await fixed();
    const { files } = await readInitramfs(Buffer.from(tree.text(IMAGE), 'latin1'));
    const index = files.get(`usr/lib/modules/${R}/modules.dep.bin`)!.content;
    expect(lookUp(index, 'ext4')).toBe('kernel/fs/ext4/ext4.ko:');
    expect(lookUp(index, 'nvme')).toContain('nvme.ko.xz: kernel/drivers/nvme/host/nvme-core.ko.xz');
    expect(files.has(`usr/lib/modules/${R}/kernel/drivers/nvme/host/nvme.ko.xz`)).toBe(true);
  });

  it('with an initramfs of dracut has words for that one', async () => {
    server();
    tree.put(IMAGE, gzipSync(newcArchive([file('usr/lib/dracut-lib.sh')])));
    await fixed();
    const { files } = await readInitramfs(Buffer.from(tree.text(IMAGE), 'latin1'));
    expect(files.get('etc/cmdline.d/90-understudy.conf')!.content.toString()).toBe(
      'rd.driver.pre=virtio_pci,virtio_blk,nvme,ext4\n',
    );
  });

  it('whose initramfs lacks cards alone gets these, and no words', async () => {
    server();
    const ena = 'kernel/drivers/net/ethernet/amazon/ena/ena.ko';
    tree.put(`${M}/modules.dep`, `${dependencies}${ena}:\n`);
    tree.put(`${M}/${ena}`, 'ena');
    const inside = dependencies.split('\n').flatMap((line) => line.split(':')[0] || []);
    const parts = [file('usr/lib/dracut-lib.sh'), file('conf/modules', 'own\n')];
    const modules = inside.map((path) => file(`usr/lib/modules/${R}/${path}`));
    tree.put(IMAGE, gzipSync(newcArchive([...parts, ...modules])));
    await fixed();
    const { files } = await readInitramfs(Buffer.from(tree.text(IMAGE), 'latin1'));
    expect(files.get(`usr/lib/modules/${R}/${ena}`)!.content.toString()).toBe('ena');
    expect(files.get('conf/modules')!.content.toString()).toBe('own\n');
  });

  it('without room in /boot is told so, and its initramfs stays whole', async () => {
    server();
    tree.free = 1000;
    const before = tree.text(IMAGE);
    const notes = await fixed();
    expect(texts(notes, 'failed')).toEqual([expect.stringContaining('no room for')]);
    expect(tree.text(IMAGE)).toBe(before);
    expect(tree.text('/etc/initramfs-tools/modules')).toBe('# none\nnvme\n');
  });

  it('that refuses one change gets the others', async () => {
    server();
    tree.full.add('/etc/fstab');
    const notes = await fixed();
    expect(texts(notes, 'failed')).toEqual(['fstab: No space left on device']);
    expect(tree.text('/boot/grub/grub.cfg')).toContain('root=UUID=aaaa-root');
  });

  it.each([
    [['grubx64.efi'], { 'BOOTX64.EFI': 'grubx64.efi' }],
    [
      ['shimx64.efi', 'grubx64.efi', 'mmx64.efi', 'fbx64.efi', 'grub.cfg'],
      {
        ...{ 'BOOTX64.EFI': 'shimx64.efi', 'grubx64.efi': 'grubx64.efi' },
        'mmx64.efi': 'mmx64.efi',
      },
    ],
    [['shim.efi', 'grub.efi'], { 'BOOTX64.EFI': 'shim.efi', 'grub.efi': 'grub.efi' }],
    [['grubaa64.efi'], { 'BOOTAA64.EFI': 'grubaa64.efi' }],
  ])('of UEFI gets the loader that a firmware without entries starts: %j', async (has, made) => {
    server();
    for (const name of has) tree.put(`/boot/efi/EFI/debian/${name}`, name);
    tree.put('/boot/efi/EFI/Microsoft/Boot/bootmgfw.efi', 'x');
    const notes = await fixed();
    expect(texts(notes, 'changed').join()).toContain('for a firmware without entries');
    const files = (await tree.list('/boot/efi/EFI/BOOT')).map(({ name }) => name).sort();
    expect(files).toEqual(Object.keys(made).sort());
    for (const [name, from] of Object.entries(made)) {
      expect(tree.text(`/boot/efi/EFI/BOOT/${name}`)).toBe(from);
    }
    expect(texts(await fixed(), 'changed')).toEqual([]);
  });

  it('of UEFI that has that loader keeps it; without any that is told', async () => {
    server();
    tree.put('/boot/efi/EFI/BOOT/BOOTX64.EFI', 'own');
    tree.put('/boot/efi/EFI/debian/grubx64.efi', 'other');
    await fixed();
    expect(tree.text('/boot/efi/EFI/BOOT/BOOTX64.EFI')).toBe('own');
    rmSync(join(folder, 'boot/efi'), { recursive: true });
    tree.put('/boot/efi/EFI/acme/readme', 'x');
    expect(texts(await fixed(), 'warning').join()).toContain('boot-loader: no boot loader');
  });

  it('with an initramfs that cannot be read is told so', async () => {
    server();
    tree.put(IMAGE, 'no archive at all');
    expect(texts(await fixed(), 'failed')).toEqual([
      expect.stringMatching(/initramfs: cannot be read: of an unknown packing/),
    ]);
  });

  it('with a kernel whose list of modules cannot be read gets all else', async () => {
    server();
    tree.put(`${M}/modules.dep`, Buffer.alloc(17 * 2 ** 20));
    const notes = await fixed();
    expect(texts(notes, 'failed')).toEqual(['initramfs: too large']);
    expect(tree.text('/boot/grub/grub.cfg')).toContain('root=UUID=aaaa-root');
  });

  it('with network files of no sense and size does not have them held', async () => {
    server();
    tree.put('/etc/netplan/1.yaml', `eth0:\n  macaddress: x\n${'#'.repeat(70_000)}`);
    expect(texts(await fixed(), 'changed').join()).not.toContain('a card of any name');
  });

  it('that is nearly empty is prepared as far as it goes', async () => {
    const notes = await fixed();
    expect(texts(notes, 'failed')).toEqual([]);
    expect(texts(notes, 'warning').length).toBeGreaterThan(2);
  });
});

it('notes are bounded, and nothing in them acts on a terminal', () => {
  const notes = new Notes();
  for (let i = 0; i < 2000; i += 1)
    notes.add('warning', 'fstab', '/etc\u001b[2J', `x\u0007${'y'.repeat(9999)}`);
  expect(notes.all.length).toBe(500);
  expect(noteLine(notes.all[0]!)).toMatch(/^prepare: WARNING fstab: \/etc \[2J: x y+$/);
  expect(noteLine(notes.all[0]!).length).toBeLessThan(500);
});
