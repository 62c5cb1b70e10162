/** The target `qemu`: the contract of launchers, with real machines, and disks that do not boot. */
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { createQemuLauncher } from '../../src/recovery/qemu/launcher.ts';
import { bootDisk, spoilRoot } from '../tools/boot-disk.ts';
import { LaunchRecord, launcherSuite, launchOf } from '../unit/support/launcher-suite.ts';
import { launchWorld } from './helpers/launch-world.ts';

const launcher = createQemuLauncher(systemClock);
const worldOf = (disk: Buffer, options: Record<string, unknown>) =>
  launchWorld(launcher, disk, options);

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
