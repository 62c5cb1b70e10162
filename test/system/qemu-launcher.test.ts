/** The target `qemu`: the contract of launchers, with real machines, and disks that do not boot. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { silentLog } from '../../src/base/log.ts';
import { createQemuLauncher } from '../../src/recovery/qemu/launcher.ts';
import { createApiHandler } from '../../src/staging/api/handler.ts';
import { ImageDoor } from '../../src/staging/jobs/image-door.ts';
import type { ImageReader, ListedPoint } from '../../src/store/types.ts';
import { bootDisk, spoilRoot } from '../tools/boot-disk.ts';
import { fakeBackend, fakePoint, VOLUME } from '../unit/support/fake-backend.ts';
import {
  LaunchRecord,
  type LaunchWorld,
  launcherSuite,
  launchOf,
} from '../unit/support/launcher-suite.ts';

const TOKEN = 'a-token';
const POINT = '20261120T103107.123Z-00000002';
const launcher = createQemuLauncher(systemClock);

/** The API over a disk in memory, behind the door that launches read through. */
async function worldOf(disk: Buffer, options: Record<string, unknown>): Promise<LaunchWorld> {
  const root = mkdtempSync(join(tmpdir(), 'uvm-'));
  const fake = fakeBackend(disk.subarray(0, 0));
  const openImage = async (): Promise<ImageReader> => ({
    sizeBytes: disk.length,
    etag: 'one',
    read: async (offset, length) => new Uint8Array(disk.subarray(offset, offset + length)),
    nextData: async (offset) => ({ offset, length: disk.length - offset }),
    close: () => undefined,
  });
  const backend = { ...fake, store: { ...fake.store, openImage } };
  const door = new ImageDoor({
    ...{ runFolder: join(root, 'door'), clock: systemClock, log: silentLog, token: TOKEN },
  });
  door.serve(createApiHandler(backend, TOKEN));
  const { volumes, ...rest } = fakePoint(POINT);
  const point: ListedPoint = { ...rest, volumes: [{ ...volumes[0]!, sizeBytes: disk.length }] };
  // The door's own folder is not the launch's.
  const launchRoot = mkdtempSync(join(tmpdir(), 'uvm-'));
  return {
    ...{ launcher, root: launchRoot, point, isLasting: true },
    options: { accel: 'tcg', memoryBytes: 256 * 2 ** 20, ...options },
    openImage,
    imageAddress: () => door.address(POINT, VOLUME, join(root, 'door/cookies')),
    async close() {
      await door.close();
      for (const folder of [root, launchRoot]) rmSync(folder, { recursive: true, force: true });
    },
  };
}

launcherSuite('qemu', () => worldOf(readFileSync(bootDisk()), {}));

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
