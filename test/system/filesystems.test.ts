/**
 * P2 as applications see it: every recovery point of a busy ext4, xfs or btrfs mounts, its log replays, its
 * own fsck finds nothing, and a SQLite database on it holds every transaction committed before the cut.
 */
import { resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  attachLoop,
  checkFileSystem,
  type FileSystem,
  makeFileSystem,
  mount,
  sh,
} from './helpers/device.ts';
import { withScratch } from './helpers/scratch.ts';
import { Staging, startAgent } from './helpers/understudy.ts';
import { scaled } from './helpers/wait.ts';
import { RecordLoad, SqliteLoad } from './helpers/writers.ts';

const MIB = 1 << 20;
const sqliteTool = resolve(import.meta.dirname, '../tools/sqlite-writer.ts');

const lastTransaction = (database: string): number =>
  Number(sh(process.execPath, sqliteTool, 'check', database));

describe.each<FileSystem>(['ext4', 'xfs', 'btrfs'])('%s', (kind) => {
  it('is clean and complete at every recovery point', async () => {
    await withScratch(kind, async (scratch) => {
      const disk = attachLoop(scratch, scratch.path('disk'), scaled(384, 2048) * MIB).device;
      makeFileSystem(disk, kind);
      const place = scratch.path('mounted');
      const unmountOriginal = mount(scratch, disk, place, { kind });
      const records = await RecordLoad.start(scratch, place, kind, 300);
      const sqlite = await SqliteLoad.start(scratch, place);
      const staging = await Staging.start(scratch);
      startAgent(scratch, staging, { volumes: [disk], cutInterval: '700ms' });
      await staging.waitForPoints(scaled(5, 60), 300_000);
      await records.stop();
      await sqlite.stop();
      const points = await staging.points();
      // btrfs refuses to mount a second device of the same UUID beside the first.
      unmountOriginal();
      for (const point of points) {
        const image = scratch.path('image');
        await staging.export(point.id, disk, image, '--yes');
        const copy = attachLoop(scratch, image);
        if (kind === 'btrfs') sh('btrfs', 'device', 'scan', '--forget');
        const restored = scratch.path('restored');
        const unmount = mount(scratch, copy.device, restored, { kind, isCopy: true });
        expect(records.faults(restored, point.time), point.id).toEqual([]);
        const needed = sqlite.committedBefore(point.time);
        if (needed >= 0) {
          expect(lastTransaction(`${restored}/base.sqlite`)).toBeGreaterThanOrEqual(needed);
        }
        unmount();
        checkFileSystem(copy.device, kind);
        copy.detach();
      }
    });
  });
});
