/**
 * Boot preparation, on real virtual machines: a physical server's disk whose initramfs knows only SATA does
 * not boot on NVMe as it is, and boots when it is prepared; its fstab, console, network and agent fit.
 */
import { execFileSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { createExportLauncher } from '../../src/recovery/export-launcher.ts';
import type { Launch } from '../../src/recovery/launcher.ts';
import { endProcess, processOf } from '../../src/recovery/made.ts';
import { Preparation } from '../../src/recovery/prepare/preparation.ts';
import type { PrepareReport } from '../../src/recovery/prepare/report.ts';
import { createQemuLauncher } from '../../src/recovery/qemu/launcher.ts';
import { runProgram, startProgram } from '../../src/recovery/qemu/programs.ts';
import { kernelPackage } from '../tools/kernel-package.ts';
import { type OldServer, oldServer, ROOT_PART, ROOT_UUID } from '../tools/old-server.ts';
import { LaunchRecord, type LaunchWorld, launchOf } from '../unit/support/launcher-suite.ts';
import { launchWorld } from './helpers/launch-world.ts';
import { waitFor } from './helpers/wait.ts';

const data = mkdtempSync(join(tmpdir(), 'uprep-'));
afterAll(() => rmSync(data, { recursive: true, force: true }));

const preparation = () =>
  new Preparation({ clock: systemClock, folder: data, kernel: kernelPackage('cloud').folder });
const options = { check: true, bus: 'nvme', timeoutMs: 240_000, memoryBytes: 512 * 2 ** 20 };

interface Result {
  readonly record: LaunchRecord;
  readonly error: Error | null;
  /** What the machine's console said. */
  readonly said: string;
  readonly report: PrepareReport | null;
}

async function launched(disk: Buffer, given: Record<string, unknown>): Promise<Result> {
  const launcher = createQemuLauncher(systemClock, { preparation: preparation() });
  const world: LaunchWorld = await launchWorld(launcher, disk, { ...options, ...given });
  const record = new LaunchRecord();
  const folder = join(world.root, 'job');
  try {
    const checked = await launcher.check(world.options, world.point, world.openImage, 'drill');
    const error = await launcher.run(launchOf(world, record, checked)).then(
      () => null,
      (cause: Error) => cause,
    );
    const isPrepared = checked.prepare === 'auto';
    const report = isPrepared ? readFileSync(join(folder, 'prepare.json'), 'utf8') : 'null';
    return {
      ...{ record, error, report: JSON.parse(report) as PrepareReport | null },
      said: readFileSync(join(folder, 'console.log'), 'latin1'),
    };
  } finally {
    await launcher.clean(record.made);
    await world.close();
  }
}

it('a server without the drivers does not boot on NVMe as it is', async () => {
  const disk = readFileSync(oldServer({ fileSystem: 'ext4', label: 'gpt' }));
  const { error, record, said } = await launched(disk, { prepare: 'none' });
  expect(error).toMatchObject({
    code: 'ERR_BOOT_CHECK',
    message: expect.stringContaining(`ALERT!  UUID=${ROOT_UUID} does not exist`),
  });
  expect(said).not.toContain('told: console');
  expect(record.said.join('\n')).toContain('the disks boot as they are: as asked for');
});

it('the same server boots on NVMe when it is prepared, and fits its new place', async () => {
  const disk = readFileSync(oldServer({ fileSystem: 'ext4', label: 'gpt' }));
  const { error, said, report, record } = await launched(disk, {});
  expect(error).toBeNull();
  expect(record.check).toMatchObject({ passed: true });
  expect(report).toMatchObject({ state: 'prepared', system: 'Old Server 1' });
  for (const line of [
    'told: console=ttyS0,115200',
    `fstab: UUID=${ROOT_UUID} / ext4 defaults 0 1`,
    'fstab: /dev/sdb1 /srv xfs nofail 0 2',
    'agent: off',
    'network: any card',
    '"kind": "drill"',
  ]) {
    expect(said).toContain(line);
  }
  const log = record.said.join('\n');
  expect(log).toMatch(/initramfs: .*nvme.* appended/);
  expect(log).toContain('WARNING fstab: /etc/fstab: /dev/sdb1 (/srv) is not here: nofail');
});

it('a preparation that is stopped ends its machine, and nothing is left', async () => {
  const disk = readFileSync(oldServer({ fileSystem: 'ext4', label: 'gpt' }));
  const launcher = createQemuLauncher(systemClock, { preparation: preparation() });
  const world = await launchWorld(launcher, disk, options);
  const record = new LaunchRecord();
  const stop = new AbortController();
  const signals = { stop: stop.signal, leave: new AbortController().signal };
  try {
    const checked = await launcher.check(world.options, world.point, world.openImage, 'drill');
    const running = launcher.run(launchOf(world, record, checked, signals));
    const ended = expect(running).rejects.toMatchObject({ code: 'ERR_PREPARE_FAILED' });
    const pidfile = () => record.made.find(({ name }) => name.endsWith('prepare.pid'))?.name;
    const isUp = () => pidfile() !== undefined && processOf(pidfile()!) !== null;
    await waitFor('the machine of the preparation', isUp, { timeoutMs: 120_000 });
    const path = pidfile()!;
    stop.abort();
    await ended;
    expect(processOf(path)).toBeNull();
    await launcher.clean(record.made);
    expect(readdirSync(world.root)).toEqual(['job']);
  } finally {
    await launcher.clean(record.made);
    await world.close();
  }
});

/** The files of an export, in the world's folder of products. */
async function exported(disk: Buffer, given: Record<string, unknown>): Promise<Buffer> {
  const launcher = createExportLauncher(preparation());
  const world = await launchWorld(launcher, disk, {});
  const record = new LaunchRecord();
  try {
    const checked = await launcher.check(given, world.point, world.openImage, 'drill');
    await launcher.run(launchOf(world, record, checked));
    return readFileSync(Object.values(record.access!)[0]!);
  } finally {
    await launcher.clean(record.made);
    await world.close();
  }
}

it('a server whose UEFI knew its loader by an entry boots where there is none', async () => {
  const disk = readFileSync(oldServer({ fileSystem: 'ext4', label: 'efi' }));
  const asItIs = await launched(disk, { prepare: 'none' });
  expect(asItIs.error?.message).toMatch(/No bootable option|UEFI Interactive Shell/);
  const { error, said, report } = await launched(disk, {});
  expect(error).toBeNull();
  expect(said).toContain('told: console=ttyS0,115200');
  expect(changes(report!, 'boot-loader')).toEqual([
    'a copy of acme/grubx64.efi, for a firmware without entries',
  ]);
});

it('a server of one unified image, named by its partition, boots when it is prepared', async () => {
  const disk = readFileSync(oldServer({ fileSystem: 'ext4', label: 'unified' }));
  const { error, said, report } = await launched(disk, {});
  expect(error).toBeNull();
  expect(said).toContain(`fstab: PARTUUID=${ROOT_PART} / ext4 defaults 0 1`);
  expect(said).toContain('told: console=ttyS0,115200');
  expect(changes(report!, 'boot-loader')[0]).toMatch(/^a copy of systemd\/systemd-bootx64.efi/);
  expect(changes(report!, 'unified-image')[0]).toMatch(/nvme.*: taken apart/);
  expect(changes(report!, 'initramfs')[0]).toMatch(/nvme.* appended/);
});

// The same way to other places: each a minute of two cores, left to the full run.
if (process.env.TEST_FULL === '1') {
  it('an export that is prepared boots as it is', async () => {
    const disk = readFileSync(oldServer({ fileSystem: 'ext4', label: 'gpt' }));
    expect((await exported(disk, {})).equals(disk)).toBe(true);
    const file = await exported(disk, { prepare: 'auto' });
    expect(labelOf(file, '/etc/understudy/recovered.json')).toBe('system_u:object_r:etc_t:s0');
    const { error, said } = await launched(file, { prepare: 'none' });
    expect(error).toBeNull();
    expect(said).toContain('told: console=ttyS0,115200');
  });
}

/** The SELinux label of a file in the root of a GPT disk. */
function labelOf(disk: Buffer, path: string): string {
  const root = join(data, 'root.ext4');
  writeFileSync(root, disk.subarray(2 * 2 ** 20));
  const words = ['-R', `ea_get -V ${path} security.selinux`, root];
  return execFileSync('/usr/sbin/debugfs', words, { encoding: 'latin1', stdio: 'pipe' }).replace(
    /\0.*$/s,
    '',
  );
}

/** Prepares the disk of a failover `times` times, one after another over one overlay. */
async function prepared(server: OldServer, times: number): Promise<PrepareReport[]> {
  const path = oldServer(server);
  const root = mkdtempSync(join(tmpdir(), 'uprep-'));
  const [runFolder, folder] = [join(root, 'run'), join(root, 'job')];
  for (const each of [runFolder, folder]) mkdirSync(each);
  const [socketPath, overlayPath] = [join(runFolder, 'd.sock'), join(root, 'overlay')];
  const pidfile = join(runFolder, 'd.pid');
  const signal = new AbortController().signal;
  const launch = {
    ...{ folder, runFolder, clock: systemClock, stop: signal, leave: signal, jobId: 'job-1' },
    ...{ kind: 'failover', options: { prepare: 'auto' }, say: () => undefined },
    ...{ making: async () => undefined, phase: async () => undefined },
    point: { id: 'p1', server: 'old', volumes: [{ volume: '/dev/sda' }] },
  } as unknown as Launch;
  try {
    await startProgram({
      ...{ name: 'nbdkit', pidfile, clock: systemClock, logPath: join(folder, 'nbdkit.log') },
      words: ['--readonly', '--unix', socketPath, '--pidfile', pidfile, 'file', path],
    });
    const size = String(statSync(path).size);
    await runProgram('qemu-img', ['create', '-q', '-f', 'qcow2', overlayPath, size]);
    const disks = [{ socketPath, overlayPath, sectorBytes: 512 }];
    const reports: PrepareReport[] = [];
    for (let time = 0; time < times; time += 1) {
      reports.push((await preparation().prepare(launch, disks, 'tcg'))!);
    }
    return reports;
  } finally {
    await endProcess(pidfile, systemClock);
    rmSync(root, { recursive: true, force: true });
  }
}

const changes = ({ notes }: PrepareReport, about: string): string[] =>
  notes.filter((note) => note.kind === 'changed' && note.about === about).map(({ text }) => text);

it('a root on XFS under an MBR is found; done again, nothing changes', async () => {
  const [first, second] = await prepared({ fileSystem: 'xfs', label: 'mbr' }, 2);
  expect(first!.notes[0]!.text).toBe('/dev/sda, partition 1: Old Server 1 on xfs');
  expect(changes(first!, 'initramfs')[0]).toMatch(/nvme.* appended/);
  expect(changes(first!, 'kernel-line')).toContain(`root=/dev/sda1 is root=UUID=${ROOT_UUID}`);
  // In a failover the agent stays on.
  expect(changes(first!, 'agent')).toEqual(['says what this machine was made of']);
  expect(second!.state).toBe('prepared');
  expect(second!.notes.filter(({ kind }) => kind === 'changed' || kind === 'failed')).toEqual([]);
});

if (process.env.TEST_FULL === '1') {
  it('a root on btrfs under a GPT is found', async () => {
    const [first] = await prepared({ fileSystem: 'btrfs', label: 'gpt' }, 1);
    expect(first!.notes[0]!.text).toBe('/dev/sda, partition 2: Old Server 1 on btrfs');
    expect(changes(first!, 'initramfs')[0]).toMatch(/nvme.* appended/);
  });
}
