/**
 * Boot preparation around its virtual machine: answers of a hostile one, superblocks, devices, the overlay
 * read back, the appliance and its kernel, and what `auto` means where there is none.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import type { Launcher } from '../../src/recovery/launcher.ts';
import { openAppliance } from '../../src/recovery/prepare/appliance.ts';
import { findKernel } from '../../src/recovery/prepare/appliance-kernel.ts';
import { parseDevices } from '../../src/recovery/prepare/devices.ts';
import { CONTENT_BYTES, contentOf } from '../../src/recovery/prepare/file-system.ts';
import { findRoot } from '../../src/recovery/prepare/find-root.ts';
import { Guest, GuestTalk, Refusal } from '../../src/recovery/prepare/guest.ts';
import { parseDependencies, withNeeds } from '../../src/recovery/prepare/kernel-modules.ts';
import { Preparation } from '../../src/recovery/prepare/preparation.ts';
import { readOverlay, withPreparation } from '../../src/recovery/prepare/prepared-images.ts';
import fc from './support/properties.ts';
import { shortFolder } from './support/short-folder.ts';

let folder: string;
beforeEach(() => {
  folder = shortFolder('understudy-prepare-');
});
afterEach(() => rmSync(folder, { recursive: true }));

describe('answers of the virtual machine', () => {
  let server: Server;
  let peer: Socket;
  let guest: Guest;
  let heard = '';
  let answers: (string | Buffer)[] = [];

  beforeEach(async () => {
    heard = '';
    const path = join(folder, 'talk');
    server = createServer((socket) => {
      peer = socket;
      socket.on('data', (bytes) => {
        heard += bytes.toString('latin1');
        const next = answers.shift();
        if (next !== undefined) socket.write(next);
      });
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
    guest = new Guest(await GuestTalk.connect(path, systemClock));
  });
  afterEach(() => {
    peer.destroy();
    server.close();
  });

  it('are what was asked for, whatever bytes are in them', async () => {
    answers = ['ok 6\nab\n\0ok', 'ok 4\nf 7\n', 'ok 10\nda b\0ffoo\0', 'no 6\nw\u009bhy?'];
    expect((await guest.read('/etc/a b')).toString('latin1')).toBe('ab\n\0ok');
    expect(await guest.stat('/x')).toEqual({ kind: 'f', sizeBytes: 7 });
    expect(await guest.list('/etc')).toEqual([
      { kind: 'd', name: 'a b' },
      { kind: 'f', name: 'foo' },
    ]);
    await expect(guest.read('/none')).rejects.toEqual(new Refusal('w hy?'));
    expect(heard).toBe('read 1048576 /etc/a b\nstat /x\nlist /etc\nread 1048576 /none\n');
  });

  it('to a content come after it was asked for', async () => {
    answers = ['ok 0\n', 'ok 0\n'];
    await guest.write('/etc/x', Buffer.from('hello'), 0o600);
    expect(heard).toBe('write 5 600 /etc/x\nhello');
  });

  it.each([
    ['more than was asked for', 'ok 99999999\n'],
    ['no answer', 'perhaps\n'],
    ['a line without end', 'o'.repeat(200)],
    ['a refusal without end', 'no 999999999\n'],
    ['a stat of no sense', 'ok 3\nhm\n'],
    ['more than one answer', 'ok 4\nf 7\nok 4\nf 8\n'],
  ])('that are %s end the preparation', async (_what, answer) => {
    answers = [answer];
    const both = guest.stat('/x').then(() => guest.stat('/y'));
    await expect(both).rejects.toMatchObject({ code: 'ERR_PREPARE_FAILED' });
  });

  it('that break off are an error, and so is what comes unasked', async () => {
    const waiting = guest.stat('/x');
    const failed = expect(waiting).rejects.toMatchObject({ code: 'ERR_PREPARE_FAILED' });
    await new Promise((resolve) => setTimeout(resolve, 20));
    peer.destroy();
    await failed;
    await expect(guest.stat('/y')).rejects.toMatchObject({ code: 'ERR_PREPARE_FAILED' });
  });

  it('never get a name that would be another request', async () => {
    await expect(guest.read('/etc/x\nend')).rejects.toBeInstanceOf(Refusal);
    await expect(guest.mount('/dev/x', 'ext4', 'a b', '/y')).rejects.toBeInstanceOf(Refusal);
    expect(heard).toBe('');
  });

  it('about two roots and no word of a boot loader are an error that names them', async () => {
    const files: Record<string, string> = { 'etc/passwd': 'x', 'etc/fstab': 'x' };
    const fake = {
      list: async () => [],
      mount: async () => undefined,
      unmount: async () => undefined,
      stat: async (path: string) => {
        const name = path.replace('/disk/look/', '');
        return { kind: name === 'etc' ? 'd' : name in files ? 'f' : null, sizeBytes: 1 };
      },
      read: async (path: string) => {
        const text = files[path.replace('/disk/look/', '')];
        if (text === undefined) throw new Refusal('no');
        return Buffer.from(text);
      },
    } as unknown as Guest;
    const device = (name: string, uuid: string) => ({
      ...{ name, sizeBytes: 1, partition: 1, volume: 0, mapped: '' },
      content: { type: 'ext4' as const, uuid, label: '' },
      ...{ partUuid: '', partLabel: '' },
    });
    const disks = { volumes: ['a'], devices: [device('vda1', 'u1'), device('vda2', 'u2')] };
    await expect(findRoot(fake, disks)).rejects.toMatchObject({
      ...{ code: 'ERR_PREPARE_FAILED', message: expect.stringContaining('vda1; vda2') },
    });
    files['usr/lib/os-release'] = `PRETTY_NAME="A\x1b]0;B\x9b${'c'.repeat(500)}"\n`;
    const said = await findRoot(fake, disks).catch((error: Error) => error.message);
    expect(said).toMatch(/^several root file systems.*: vda1 A [ -~\xa0-\xff]{1,100}; vda2 A/);
    expect(String(said).length).toBeLessThan(400);
    delete files['usr/lib/os-release'];
    files['boot/grub/grub.cfg'] = 'linux /k root=UUID=u2 ro\n';
    expect((await findRoot(fake, disks))?.device.name).toBe('vda2');
  });
});

describe('devices', () => {
  it('are told line by line, with their volume by the serial of the disk', () => {
    const text = 'vda|4096|0|block|volume1|\nvda2|2048|2|vda||\ndm-0|99|0|block||vg-root\njunk|x\n';
    expect(parseDevices(text)).toEqual([
      { name: 'vda', sizeBytes: 4096 * 512, partition: 0, volume: 1, mapped: '' },
      { name: 'vda2', sizeBytes: 2048 * 512, partition: 2, volume: 1, mapped: '' },
      { name: 'dm-0', sizeBytes: 99 * 512, partition: 0, volume: null, mapped: 'vg-root' },
    ]);
    fc.assert(fc.property(fc.string(), (any) => void parseDevices(any)));
  });

  const uuid = '0b1e7c5a-6d41-4f0e-9a55-1f2e3d4c5b6a';
  it.each([
    ['ext4', 40, ['mkfs.ext4', '-q', '-U', uuid, '-L', 'sys', '-F']],
    ['xfs', 320, ['mkfs.xfs', '-q', '-m', `uuid=${uuid}`, '-L', 'sys']],
    ['btrfs', 120, ['mkfs.btrfs', '-q', '-U', uuid, '-L', 'sys']],
    ['swap', 10, ['mkswap', '-q', '-U', uuid, '-L', 'sys']],
  ])('with %s are known by what the tools of that file system write', (type, mib, words) => {
    const path = join(folder, 'disk');
    writeFileSync(path, '', { mode: 0o600 });
    truncateSync(path, mib * 2 ** 20);
    const [program = '', ...rest] = words;
    execFileSync(program, [...rest, path], { stdio: 'pipe' });
    const head = execFileSync('head', ['-c', String(CONTENT_BYTES), path]);
    expect(contentOf(head)).toEqual({ type, uuid, label: 'sys' });
  });

  it('with FAT are known by their number', () => {
    const path = join(folder, 'disk');
    writeFileSync(path, Buffer.alloc(40 * 2 ** 20));
    execFileSync('mkfs.vfat', ['-F', '32', '-i', '1234abcd', '-n', 'ESP', path], { stdio: 'pipe' });
    const { type, uuid: id } = contentOf(readFileSync(path).subarray(0, CONTENT_BYTES));
    expect([type, id]).toEqual(['vfat', '1234-ABCD']);
  });

  it('with anything else are read without failing', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 9000 }), (any) => void contentOf(any)));
    expect(contentOf(Buffer.alloc(0)).type).toBe('');
    expect(contentOf(Buffer.from(`${'\0'.repeat(512)}LABELONE`)).type).toBe('lvm');
    expect(contentOf(Buffer.from('LUKS\xba\xbe', 'latin1')).type).toBe('luks');
  });
});

it('an overlay is read as its changed extents, zeros that were written among them', async () => {
  const path = join(folder, 'overlay');
  const size = 10 * 2 ** 20;
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(size)]);
  const words = ['write -P 7 65536 65536', 'write -P 9 131072 65536', 'write -z 1048576 65536'];
  execFileSync('qemu-io', ['-f', 'qcow2', ...words.flatMap((word) => ['-c', word]), path]);
  const overlay = await readOverlay(path, 'one', size);
  expect(overlay.changed).toEqual([
    { offset: 65_536, length: 131_072 },
    { offset: 1_048_576, length: 65_536 },
  ]);
  const bytes = await overlay.read(65_536 + 65_530, 12);
  expect([...bytes]).toEqual([7, 7, 7, 7, 7, 7, 9, 9, 9, 9, 9, 9]);
  expect((await overlay.read(1_048_576, 65_536)).every((byte) => byte === 0)).toBe(true);
});

it('modules are loaded after all that they need', () => {
  const list = parseDependencies(
    'k/a.ko.xz: k/b-c.ko.xz k/d.ko.xz\nk/b-c.ko.xz: k/d.ko.xz\nk/d.ko.xz:\nx y\n',
  );
  expect(withNeeds(list, ['a', 'none'])).toEqual(['d', 'b_c', 'a']);
});

/** A kernel with one module, as a folder. */
function kernelFolder(release = '6.1.0-1'): string {
  const root = join(folder, 'kernels');
  const modules = join(root, 'lib/modules', release);
  mkdirSync(join(modules, 'kernel'), { recursive: true });
  mkdirSync(join(root, 'boot'), { recursive: true });
  writeFileSync(join(root, 'boot', `vmlinuz-${release}`), 'a kernel');
  writeFileSync(join(modules, 'kernel/virtio_blk.ko'), 'a module');
  writeFileSync(join(modules, 'modules.dep'), 'kernel/virtio_blk.ko:\n');
  return root;
}

describe('the appliance', () => {
  it('is made of the newest kernel, once', async () => {
    const root = kernelFolder('6.1.0-9');
    kernelFolder('6.1.0-10');
    expect((await findKernel(root, folder)).release).toBe('6.1.0-10');
    const made = await openAppliance(join(folder, 'appliance'), root);
    expect(made.release).toBe('6.1.0-10');
    expect(readFileSync(made.kernelPath, 'utf8')).toBe('a kernel');
    const archive = readFileSync(made.initramfsPath, 'latin1');
    for (const name of ['init\0', 'serve\0', 'bin/busybox\0', 'modules/virtio_blk.ko\0']) {
      expect(archive).toContain(name);
    }
    expect(await openAppliance(join(folder, 'appliance'), root)).toEqual(made);
    expect(readdirSync(join(folder, 'appliance'))).toHaveLength(1);
    writeFileSync(join(root, 'boot/vmlinuz-6.1.0-10'), 'a newer kernel');
    expect(await openAppliance(join(folder, 'appliance'), root)).not.toEqual(made);
  });

  it.each([
    ['is not there', 'nowhere', 'there is no'],
    ['is empty', '', 'and there is none in'],
    ['is no package', 'x.deb', 'cannot be unpacked'],
  ])('of a place that %s is one clear error, and nothing is left', async (_what, name, said) => {
    if (name === 'x.deb') writeFileSync(join(folder, name), 'no package');
    const place = name === '' ? join(folder, 'empty') : join(folder, name);
    if (name === '') mkdirSync(place);
    await expect(openAppliance(join(folder, 'appliance'), place)).rejects.toMatchObject({
      ...{ code: 'ERR_APPLIANCE_KERNEL', message: expect.stringContaining(said) },
    });
    expect(readdirSync(join(folder, 'appliance'))).toEqual([]);
  });
});

describe('the option prepare', () => {
  const launcher = {
    ...{ target: 'x', run: async () => 'done', clean: async () => undefined },
    check: async (given: object) => ({ ...given, checked: true }),
  } as unknown as Launcher;
  const preparation = (kernel: string) =>
    new Preparation({ clock: systemClock, folder: join(folder, 'data'), kernel });
  const check = (
    kernel: string,
    given: Record<string, unknown>,
    standard: 'auto' | 'none' = 'auto',
  ) =>
    withPreparation(launcher, preparation(kernel), standard).check(
      ...([given, {}, null, 'drill'] as unknown as Parameters<Launcher['check']>),
    );

  it('is auto where nothing was told, or as told', async () => {
    mkdirSync(join(folder, 'data'));
    const plain = { checked: true, agent: 'auto' };
    expect(await check(kernelFolder(), {})).toEqual({ ...plain, prepare: 'auto' });
    expect(await check(kernelFolder(), {}, 'none')).toEqual({ ...plain, prepare: 'none' });
    const told = { prepare: 'none', agent: 'on', own: 1 };
    expect(await check('/nowhere', told)).toEqual({ ...told, checked: true });
    await expect(check(kernelFolder(), { prepare: 'x' })).rejects.toThrow(
      '`prepare` must be one of',
    );
  });

  it('that was asked for is an error where there is no kernel; else it goes without, and says so', async () => {
    mkdirSync(join(folder, 'data'));
    await expect(check('/nowhere', { prepare: 'auto' })).rejects.toMatchObject({
      code: 'ERR_APPLIANCE_KERNEL',
    });
    expect(await check('/nowhere', {})).toMatchObject({
      ...{ prepare: 'none', prepareNot: expect.stringContaining('linux-image-cloud-amd64') },
    });
  });
});
