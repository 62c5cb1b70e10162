// P1 on real loop devices: what the tracker reports covers every byte that changed, whatever
// changed it and wherever it came from; and each part of the tracker, taken out, is missed.
import { readFileSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { programLoader } from '../../src/native/loader.ts';
import {
  addPartition,
  createLoopDevice,
  diskFolder,
  type LoopDevice,
  memoryFolder,
  removePartitions,
  run,
} from '../tools/loop-device.ts';
import { areCountsKnown, readMarks } from '../tools/pinned-marks.ts';
import { changeOnce, mixChanges, sweepBlocks } from '../tools/random-changes.ts';
import { omissions, Replica, type ReplicaOptions } from '../tools/replica.ts';

const MIB = 1024 * 1024;
const rounds = process.env.TEST_FULL ? 20 : 4;
const cleanups: (() => unknown)[] = [];
let instances = 0;

afterEach(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean();
});

function loop(sizeBytes: number, parent?: string): LoopDevice {
  const device = createLoopDevice(sizeBytes, parent);
  cleanups.push(() => device.remove());
  return device;
}

/** Until the test ends: a loop device keeps such a setting after it has been detached. */
function setQueue(disk: string, name: string, value: string): void {
  const file = `/sys/block/${basename(disk)}/queue/${name}`;
  const before = readFileSync(file, 'utf8');
  cleanups.push(() => writeFileSync(file, before));
  writeFileSync(file, value);
}

async function open(
  paths: string[],
  options: Omit<ReplicaOptions, 'paths' | 'instance'> = {},
): Promise<Replica> {
  const instance = `tracker-test-${process.pid}-${instances++}`;
  const replica = await Replica.open({ paths, instance, ...options });
  cleanups.push(() => replica.closeAndDetach());
  return replica;
}

/** Until it was quiet for two looks: from here on the counts can be compared. */
async function compared(replica: Replica): Promise<void> {
  const [folder] = replica.tracker.pins!.volumes;
  await expect.poll(() => areCountsKnown(folder!)).toBe(true);
}

/** Drains again and again while `change` runs, then until nothing is pending. */
async function follow(replica: Replica, change: Promise<void>): Promise<void> {
  let end: { error?: unknown } | undefined;
  change.then(
    () => (end = {}),
    (error) => (end = { error }),
  );
  while (!end) await replica.drain();
  if (end.error) throw end.error;
  await replica.settle();
}

/** A disk of 64 MiB and three sectors with a partition from 1 MiB + 512 bytes on. */
function partitioned(parent: string): { disk: string; partition: string } {
  const { path } = loop(64 * MIB + 3 * 512, parent);
  cleanups.push(() => removePartitions(path));
  return { disk: path, partition: addPartition(path, 'start=2049, size=90113, type=83') };
}

describe('differential', () => {
  const cases = [
    { which: 'disk', parent: memoryFolder },
    { which: 'disk', parent: diskFolder },
    { which: 'partition', parent: memoryFolder },
    { which: 'partition', parent: diskFolder },
  ] as const;
  for (const { which, parent } of cases) {
    it(`covers every change of a ${which} in ${parent}, through disk and partition`, async () => {
      const devices = partitioned(parent);
      const replica = await open([devices[which]]);
      await replica.readAll();
      for (let seed = 1; seed <= rounds; seed++) {
        const paths = [devices.disk, devices.partition];
        await follow(replica, mixChanges(paths, { seed, operations: 300 }));
        expect(await replica.differences(0), `seed ${seed}`).toEqual([]);
      }
      expect(replica.engine.counters(0)).toMatchObject({ taint: '', isStatAlive: true });
    });
  }

  it('covers what a file system does, trim included, in marks of 64 KiB', async () => {
    const { path, directory } = loop(256 * MIB);
    const replica = await open([path], { memoryBudgetBytes: 16 * 1024 });
    expect(replica.volumes[0]!.granularityBytes).toBeGreaterThan(4096);
    await replica.readAll();
    const mount = `${directory}/mount`;
    const script = `mkfs.ext4 -q ${path} && mkdir ${mount} && mount ${path} ${mount} &&
      for i in 1 2 3; do cp -r /usr/include/linux ${mount}/$i; sync; done &&
      rm -r ${mount}/2 && fstrim ${mount} && umount ${mount}`;
    const changed = Promise.resolve().then(() => run('sh', '-c', script));
    await follow(replica, changed.then());
    expect(await replica.differences(0)).toEqual([]);
  });

  it('marks all of a discard of 4 GiB', async () => {
    const { path } = loop(5 * 1024 * MIB);
    const replica = await open([path], { keepsImages: false, imageBytes: 0 });
    await changeOnce('t', path, 512 * MIB, 4096 * MIB);
    const { result } = await replica.drain();
    expect(result.firstBlocks).toBe(1024 * 1024);
  });
});

describe('every block written once, 64 at a time', () => {
  for (const parent of [memoryFolder, diskFolder]) {
    it(`loses none while drains go on, on loop devices in ${parent}`, async () => {
      const { path } = loop(64 * MIB, parent);
      const replica = await open([path]);
      await replica.readAll();
      for (let seed = 1; seed <= rounds; seed++) {
        await follow(replica, sweepBlocks(path, seed));
        expect(await replica.differences(0), `seed ${seed}`).toEqual([]);
      }
    });
  }

  it('loses some where neither completions nor flight are followed (canary)', async () => {
    const { path } = loop(64 * MIB, diskFolder);
    const omit = omissions.completionMarks | omissions.flightCounts;
    const replica = await open([path], { omit });
    await replica.readAll();
    let lost = 0;
    for (let seed = 1; seed <= 40 && lost === 0; seed++) {
      await follow(replica, sweepBlocks(path, seed));
      lost = (await replica.differences(0)).length;
    }
    expect(lost).toBeGreaterThan(0);
  });

  it('loses none where completions go unseen, counts them, and forgets them at rest', async () => {
    const { path } = loop(64 * MIB);
    const replica = await open([path], { loseOneIn: 7, omit: 0 });
    await replica.readAll();
    await compared(replica);
    await follow(replica, sweepBlocks(path, 1));
    expect(await replica.differences(0)).toEqual([]);
    const missed = () => replica.engine.counters(0).missedCompletions;
    await expect.poll(missed).toBeGreaterThan((64 * MIB) / 4096);
    const isAtRest = { pendingBlocks: 0, taint: '' };
    await expect.poll(() => replica.engine.counters(0)).toMatchObject(isAtRest);
  });
});

describe('the tripwire', () => {
  it('counts exactly where writes found no room in the queue and were tried again', async () => {
    const { path } = loop(64 * MIB);
    setQueue(path, 'nr_requests', '4');
    const replica = await open([path]);
    await compared(replica);
    await sweepBlocks(path, 1);
    await replica.settle();
    expect(await replica.differences(0)).toEqual([]);
    const queuedSectors = (64 * MIB) / 512;
    const counted = () => {
      const { completedSectors, missedCompletions, ...rest } = replica.engine.counters(0);
      return { ...rest, sectors: completedSectors + missedCompletions };
    };
    await expect
      .poll(counted)
      .toMatchObject({ queuedSectors, sectors: queuedSectors, pendingBlocks: 0, taint: '' });
    await sleep(1500); // and it stays so
    expect(counted()).toMatchObject({ queuedSectors, sectors: queuedSectors, taint: '' });
  });

  it('finds writes that the programs never saw queued', async () => {
    const { path } = loop(64 * MIB);
    const replica = await open([path], { omit: omissions.plainWrites });
    await compared(replica);
    await changeOnce('d', path, 0, 4096);
    await expect.poll(() => replica.engine.counters(0).taint).toBe('untracked writes');
  });

  it('has been looked at when a cut is told, not up to a second later', async () => {
    const { path } = loop(64 * MIB);
    const replica = await open([path], { omit: omissions.plainWrites });
    await compared(replica);
    await changeOnce('d', path, 0, 4096);
    await replica.cut();
    expect(replica.engine.counters(0).taint).toBe('untracked writes');
  });

  it('says so where the block layer keeps no counts', async () => {
    const { path } = loop(64 * MIB);
    setQueue(path, 'iostats', '0');
    const replica = await open([path]);
    const isBlind = { isStatAlive: false, taint: '' };
    await expect.poll(() => replica.engine.counters(0)).toMatchObject(isBlind);
    await changeOnce('d', path, 0, 4096);
    expect((await replica.drain()).result.firstBlocks).toBe(1);
  });
});

describe('a volume that cannot be opened anew', () => {
  it('is told, and the engine goes on with what it had', async () => {
    const { path } = loop(64 * MIB);
    const replica = await open([path]);
    const { tracker, engine } = replica;
    const { control, volumes } = tracker.pins!;
    tracker.renew = (index) => {
      programLoader().detach(control, basename(volumes[index]!));
      return tracker.volumes[index]!;
    };
    expect(() => engine.renew(0, 'test')).toThrow(
      expect.objectContaining({ code: 'ERR_TRACKER_PIN' }),
    );
    await sleep(1500); // the engine's thread looks at all volumes once a second
    await changeOnce('d', path, 0, 4096);
    expect((await replica.drain()).result.outcome).toBe('drained');
  });
});

describe('each part, taken out, is missed (canaries)', () => {
  const block = 4321;
  const marksAfterWrite = async (omit: number) => {
    const { path } = loop(64 * MIB);
    const replica = await open([path], { omit });
    await changeOnce('d', path, block * 4096, 4096);
    return readMarks(replica.tracker.pins!.volumes[0]!, block, (64 * MIB) / 4096);
  };
  const marked = { leaf: true, summary: true };
  const unmarked = { leaf: false, summary: false };

  it('a write is marked at queue or issue, and at completion', async () => {
    expect(await marksAfterWrite(0)).toEqual({ queued: marked, completed: marked });
    const { queueMarks, issueMarks, completionMarks } = omissions;
    expect(await marksAfterWrite(queueMarks)).toEqual({ queued: marked, completed: marked });
    expect(await marksAfterWrite(issueMarks)).toEqual({ queued: marked, completed: marked });
    expect((await marksAfterWrite(queueMarks | issueMarks)).queued).toEqual(unmarked);
    expect((await marksAfterWrite(completionMarks)).completed).toEqual(unmarked);
  });

  const cases = [
    { name: 'discards', omit: omissions.discard, kinds: 't' },
    { name: 'writes of zeroes', omit: omissions.writeZeroes, kinds: 'p' },
    { name: 'plain writes', omit: omissions.plainWrites, kinds: 'd' },
    { name: 'long ranges', omit: omissions.longRanges, kinds: 't' },
  ];
  for (const { name, omit, kinds } of cases) {
    for (const taken of [0, omit]) {
      it(`${name}: ${taken === 0 ? 'covered' : 'not covered where left out'}`, async () => {
        const { path } = loop(64 * MIB);
        const replica = await open([path], { omit: taken });
        await sweepBlocks(path, 1);
        await replica.readAll();
        await replica.settle();
        if (name === 'long ranges') await changeOnce('t', path, 0, 48 * MIB);
        else await mixChanges([path], { seed: 1, operations: 50, kinds });
        await replica.settle();
        const lost = await replica.differences(0);
        expect(lost.length > 0).toBe(taken !== 0);
      });
    }
  }
});
