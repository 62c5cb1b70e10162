/** The target `qemu`: the contract of launchers, with real machines, and disks that do not boot. */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import type { Launch } from '../../src/recovery/launcher.ts';
import { createQemuLauncher } from '../../src/recovery/qemu/launcher.ts';
import type { LaunchEnd, LaunchKind } from '../../src/recovery/runner.ts';
import { bootDisk, spoilRoot } from '../tools/boot-disk.ts';
import {
  LaunchRecord,
  type LaunchWorld,
  launcherSuite,
  launchOf,
} from '../unit/support/launcher-suite.ts';
import { launchWorld } from './helpers/launch-world.ts';
import { askGuest, BOOT_MS, freePort } from './helpers/machines.ts';
import { waitFor } from './helpers/wait.ts';

const launcher = createQemuLauncher(systemClock);
const worldOf = (disk: Buffer, options: Record<string, unknown>) =>
  launchWorld(launcher, disk, options);

launcherSuite('qemu', () => worldOf(readFileSync(bootDisk()), {}));

/** Runs until `isSo`, and then as told. */
async function runUntil(
  world: LaunchWorld,
  record: LaunchRecord,
  options: { kind: LaunchKind; starts?: number; isSo: () => boolean | Promise<boolean> },
): Promise<LaunchEnd> {
  const { kind, starts = 1, isSo } = options;
  const [stop, leave] = [new AbortController(), new AbortController()];
  const checked = await launcher.check(world.options, world.point, world.openImage, kind);
  const launch = launchOf(world, record, checked, { stop: stop.signal, leave: leave.signal });
  const running = launcher.run({ ...launch, kind, starts });
  running.catch(() => stop.abort());
  while (!stop.signal.aborted && !(await isSo()))
    await new Promise((done) => setTimeout(done, 100));
  stop.abort({ timeoutMs: 0 });
  return running;
}

it('boots a disk by its EFI system partition alone, and on NVMe waits while the point is away', async () => {
  const port = await freePort();
  const far = { network: 'user', forward: `${port}:80`, check: true, keepRunning: true };
  const world = await worldOf(readFileSync(bootDisk('uefi')), { bus: 'nvme', ...far });
  const record = new LaunchRecord();
  const stop = new AbortController();
  const signals = { stop: stop.signal, leave: new AbortController().signal };
  try {
    const checked = await launcher.check(world.options, world.point, world.openImage, 'drill');
    expect(checked).toMatchObject({ firmware: 'uefi' });
    const launch = launchOf(world, record, checked, signals);
    const running = launcher.run(launch);
    running.catch(() => undefined);
    const isUp = () => record.check !== null;
    await waitFor('the login prompt', isUp, { timeoutMs: BOOT_MS });
    expect(record.check).toMatchObject({ passed: true, detail: 'drilled login:' });
    // Away for longer than the guest's driver has patience: it gives its controller up, and gets it back.
    expect(await askGuest(port, 'patience', '1000', BOOT_MS)).toBe('set');
    await world.cut();
    const answer = askGuest(port, 'far', '1200', BOOT_MS);
    answer.catch(() => undefined);
    const said = () => readFileSync(join(launch.folder, 'console.log'), 'latin1');
    const isReset = () => said().includes('timeout, reset controller');
    await waitFor('a reset of the controller', isReset, { timeoutMs: BOOT_MS });
    await world.restore();
    expect(await answer).toBe('read');
    expect(said()).not.toMatch(/I\/O error/);
    stop.abort();
    expect(await running).toBe('done');
  } finally {
    await launcher.clean(record.made);
    await world.close();
  }
});

it('goes on with the copy after a reboot of this machine, on the disks that it has kept', async () => {
  const disk = randomBytes(16 * 2 ** 20);
  const slow = { copyRateBytes: 4 * 2 ** 20 };
  const world = await worldOf(disk, { firmware: 'bios', network: 'none', ...slow });
  const record = new LaunchRecord();
  const raw = join(world.root, 'disk.raw');
  writeFileSync(raw, disk);
  try {
    const [stop, leave] = [new AbortController(), new AbortController()];
    const checked = await launcher.check(world.options, world.point, world.openImage, 'failover');
    const signals = { stop: stop.signal, leave: leave.signal };
    const launchAs = (starts: number): Launch => ({
      ...launchOf(world, record, checked, signals),
      ...{ kind: 'failover', starts },
    });
    const launch = launchAs(1);
    const left = launcher.run({
      ...launch,
      progress: (done) => (done > 2 ** 21 ? leave.abort() : undefined),
    });
    expect(await left).toBe('left');
    expect(record.standsAlone).toBe(false);
    for (const { kind, name } of record.made) {
      if (kind === 'process') process.kill(Number(readFileSync(name, 'utf8')), 'SIGKILL');
    }
    rmSync(launch.runFolder, { recursive: true });
    await expect(launcher.run(launchAs(1))).rejects.toMatchObject({
      ...{ code: 'ERR_LAUNCH_GONE', message: expect.stringContaining('--again job-1') },
    });
    const isSo = () => record.standsAlone;
    const hurried = { ...world, options: { ...world.options, copyRateBytes: 0 } };
    expect(await runUntil(hurried, record, { kind: 'failover', starts: 2, isSo })).toBe('done');
    const product = record.made.find(({ isProduct }) => isProduct === true)!;
    const path = join(product.name, 'disk0.qcow2');
    execFileSync('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', raw, path]);
  } finally {
    await launcher.clean(record.made);
    await world.close();
  }
});

/** The same, and the image tells of a hole between the two offsets. */
function withHole(world: LaunchWorld, from: number, to: number): LaunchWorld {
  return {
    ...world,
    async openImage(volume) {
      const image = await world.openImage(volume);
      const nextData = async (offset: number) => {
        if (offset < from) return { offset, length: from - offset };
        const start = Math.max(offset, to);
        return start < image.sizeBytes ? { offset: start, length: image.sizeBytes - start } : null;
      };
      return { ...image, nextData };
    },
  };
}

it('copies in the background until the disk is the point, byte by byte, and needs nothing else', async () => {
  // It holds no boot code, so the guest writes nothing: what is there was copied.
  const disk = randomBytes(24 * 2 ** 20);
  const hole = [2 * 2 ** 20 + 512, 9 * 2 ** 20] as const;
  disk.fill(0, ...hole);
  const world = withHole(await worldOf(disk, { firmware: 'bios', network: 'none' }), ...hole);
  const record = new LaunchRecord();
  const raw = join(world.root, 'disk.raw');
  writeFileSync(raw, disk);
  try {
    const isSo = () => record.standsAlone;
    expect(await runUntil(world, record, { kind: 'failover', isSo })).toBe('done');
    const product = record.made.find(({ isProduct }) => isProduct === true)!;
    await launcher.clean(record.made.filter((made) => made !== product));
    const path = join(product.name, 'disk0.qcow2');
    execFileSync('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', raw, path]);
    expect(record.said).toContain('stands alone: nothing of the recovery point is needed any more');

    // Again, and nobody serves the point any more.
    const alone = { ...world, imageAddress: () => Promise.reject(new Error('not needed')) };
    let isUp = false;
    const again = {
      ...{ kind: 'failover' as const, starts: 2 },
      isSo: () => {
        isUp ||= record.said.at(-1)?.startsWith('stands alone') === true;
        return isUp;
      },
    };
    record.said.length = 0;
    expect(await runUntil(alone, record, again)).toBe('done');
    execFileSync('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', raw, path]);
  } finally {
    await launcher.clean(record.made);
    await world.close();
  }
});

it.each([
  ['a root file system that is not there', { firmware: 'bios' }, /ALERT! +LABEL=drill-root/],
  [
    'nothing that UEFI would boot',
    { firmware: 'uefi', network: 'none' },
    /UEFI Interactive Shell|No bootable option/,
  ],
])(
  'the check of a disk with %s fails as soon as the console says so',
  async (_what, options, said) => {
    const disk = readFileSync(bootDisk());
    spoilRoot(disk);
    const world = await worldOf(disk, { ...options, check: true, timeoutMs: 120_000 });
    const record = new LaunchRecord();
    try {
      const checked = await launcher.check(world.options, world.point, world.openImage, 'drill');
      await expect(launcher.run(launchOf(world, record, checked))).rejects.toMatchObject({
        ...{ code: 'ERR_BOOT_CHECK', message: expect.stringMatching(said) },
      });
      expect(record.check).toMatchObject({ passed: false, detail: expect.stringMatching(said) });
      expect(record.said.join('\n')).toContain('screenshot.png');
    } finally {
      await launcher.clean(record.made);
      await world.close();
    }
  },
);
