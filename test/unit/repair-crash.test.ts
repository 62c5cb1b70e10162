/**
 * A repair that is cut short: the power goes at every call, unsynced contents and names are forgotten or
 * kept at random. Every point that could be read before can be read after, and a second repair ends well.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { openRepository } from '../../src/store/offline.ts';
import { repairRepository } from '../../src/store/repair/repair.ts';
import { Random } from '../simulation/random.ts';
import { fixtures, type Verdict } from '../tools/damage-verdict.ts';
import { FaultyDisk } from './support/faulty-disk.ts';

const KINDS = [
  'pack-record-body',
  'pack-footer',
  'pack-truncated',
  'pack-missing',
  'delta-header',
  'base-missing',
  'objects-swapped',
  'points-swapped',
  'index-page',
  'condemned-mark',
];
const STRIDE = Number(process.env.REPAIR_CRASH_STRIDE ?? 7);

/** Puts a fixture on the disk, durably. */
async function put(disk: FaultyDisk, kind: string, root: string): Promise<void> {
  const view = disk.mount();
  const from = join(fixtures, kind);
  for (const entry of readdirSync(from, { recursive: true, withFileTypes: true })) {
    const folder = `${root}${entry.parentPath.slice(from.length)}`;
    await view.makeDirectory(folder);
    if (!entry.isFile()) continue;
    const file = await view.open(`${folder}/${entry.name}`, 'create');
    await file.write([readFileSync(join(entry.parentPath, entry.name))], 0);
    await file.sync();
    await file.close();
  }
  const folders = new Set<string>(['/']);
  for (const path of disk.files(root)) {
    for (let at = path.lastIndexOf('/'); at > 0; at = path.lastIndexOf('/', at - 1)) {
      folders.add(path.slice(0, at));
    }
  }
  for (const folder of folders) await view.syncDirectory(folder);
}

const ids = (
  JSON.parse(readFileSync(join(fixtures, 'points.json'), 'utf8')) as { id: string }[]
).map(({ id }) => id);

async function readable(disk: FaultyDisk): Promise<string[]> {
  const repository = await openRepository('/own', silentLog, disk.mount());
  const right: string[] = [];
  for (const id of ids) {
    try {
      for (const volume of ['/dev/a', '/dev/b']) {
        const image = await repository.openImage(id, volume);
        await image.read(0, image.sizeBytes);
        image.close();
      }
      right.push(id);
    } catch (error) {
      if ((error as { code?: string }).code === undefined) throw error;
    }
  }
  await repository.close();
  return right;
}

async function prepared(kind: string): Promise<FaultyDisk> {
  const disk = new FaultyDisk();
  await put(disk, kind, '/own');
  await put(disk, 'sound', '/other');
  return disk;
}

const repair = (disk: FaultyDisk) =>
  repairRepository({
    ...{ directory: '/own', from: '/other', isDryRun: false, log: silentLog },
    disk: disk.mount(),
  });

describe('a repair that is cut short', () => {
  it.each(KINDS)(
    '%s: leaves a repository that is no worse, and can be done again',
    async (kind) => {
      const { hurt } = JSON.parse(readFileSync(join(fixtures, `${kind}.json`), 'utf8')) as Verdict;
      const whole = await prepared(kind);
      const start = whole.calls;
      expect((await repair(whole)).after).toEqual([]);
      expect(whole.calls).toBeGreaterThan(start);
      for (let call = start + 1; call <= whole.calls; call += STRIDE) {
        const disk = await prepared(kind);
        disk.cutPowerAt(call);
        const isDone = await repair(disk).then(
          () => true,
          () => false,
        );
        // Names that chance puts into one folder take a few calls fewer.
        if (isDone && disk.calls < call) continue;
        expect(isDone).toBe(false);
        const what = `${kind}: power cut at call ${call} of ${whole.calls} (${disk.lastCall})`;
        disk.restart(new Random(call));
        const sound = ids.filter((id) => !hurt.includes(id));
        expect(await readable(disk), what).toEqual(expect.arrayContaining(sound));
        const { after } = await repair(disk);
        expect(after, what).toEqual([]);
        expect(await readable(disk), what).toEqual(ids);
      }
    },
  );

  it('leaves a good repository where the disk is full, and says so', async () => {
    const disk = await prepared('pack-missing');
    disk.capacityBytes = disk.usedBytes + 1000;
    await expect(repair(disk)).rejects.toMatchObject({ code: 'ERR_DISK_FULL' });
    disk.capacityBytes = Number.POSITIVE_INFINITY;
    expect((await repair(disk)).after).toEqual([]);
  });
});
