/**
 * Copies of a repository that is far away: what comes next is read while something is written, within the
 * bounds of requests and bytes; the copy, its errors and what it leaves out are those of one window after the
 * other; and once it has failed nothing is read any more.
 */
import { describe, expect, it } from 'vitest';
import type { Disk, FarReads } from '../../src/base/disk.ts';
import { UnderstudyError } from '../../src/base/errors.ts';
import { CHUNK_BYTES } from '../../src/model/geometry.ts';
import type { CopyPlace, CopyReport } from '../../src/store/types.ts';
import { BucketLife } from './support/bucket-life.ts';
import { expectWhole, placeOn } from './support/copy-world.ts';
import { FaultyDisk } from './support/faulty-disk.ts';
import { SourceVolume } from './support/store-world.ts';

const MIB = 2 ** 20;
const FAR: FarReads = { requests: 6, bytes: 12 * MIB };

async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i += 1) await new Promise((go) => setImmediate(go));
}

/** A volume of `mib` MiB, no two chunks of which are the same, and points that have changed it. */
async function lived(mib: number, seed: number, points = 2): Promise<BucketLife> {
  const life = new BucketLife(new FaultyDisk(), seed, true, FAR);
  const volume = new SourceVolume('/dev/a', mib * MIB, 'a'.repeat(32));
  life.volumes.splice(0, life.volumes.length, volume);
  const noise = life.random.bytes(CHUNK_BYTES);
  for (let at = 0; at < mib * MIB; at += CHUNK_BYTES) {
    volume.content.set(noise, at);
    volume.content.set(Buffer.from(`${at}`), at);
  }
  await life.open({ segmentBytes: 8 * MIB, baseAfterDeltas: 30, smallPackBytes: 100_000 });
  const ingest = await life.connect();
  for (let i = 0; i < points; i += 1) {
    await life.writeAndCommit(ingest, 8);
    await life.store!.seal(life.acknowledged.at(-1)!.id);
  }
  await ingest.close();
  await life.store!.close();
  life.disk.reopen();
  return life;
}

async function copied(life: BucketLife, place: CopyPlace): Promise<CopyReport> {
  const offline = await life.offline();
  try {
    return await offline.copy(place, {});
  } finally {
    await offline.close();
  }
}

interface Told {
  reads: number;
  mostReads: number;
  mostBytes: number;
  /** Writes to packs of the copy during which something was being read. */
  overlaps: number;
  writes: number;
}

/** Reads of the bucket and writes of the copy take their time. */
function watched(life: BucketLife, disk: Disk): { told: Told; disk: Disk } {
  const told: Told = { reads: 0, mostReads: 0, mostBytes: 0, overlaps: 0, writes: 0 };
  let bytes = 0;
  const read = life.objects.read.bind(life.objects);
  life.objects.read = async (name, offset, length) => {
    told.reads += 1;
    bytes += name.startsWith('packs/') ? length : 0;
    told.mostReads = Math.max(told.mostReads, told.reads);
    told.mostBytes = Math.max(told.mostBytes, bytes);
    await turns(60);
    try {
      return await read(name, offset, length);
    } finally {
      told.reads -= 1;
      bytes -= name.startsWith('packs/') ? length : 0;
    }
  };
  const open: Disk['open'] = async (path, mode) => {
    const file = await disk.open(path, mode);
    if (mode !== 'create' || !path.endsWith('.pack')) return file;
    return {
      ...{ path: file.path, read: file.read.bind(file), truncate: file.truncate.bind(file) },
      ...{ size: file.size.bind(file), sync: file.sync.bind(file), close: file.close.bind(file) },
      async write(buffers, offset) {
        told.writes += 1;
        if (told.reads > 0) told.overlaps += 1;
        await turns(5);
        await file.write(buffers, offset);
      },
    };
  };
  return { told, disk: { ...disk, open } };
}

describe('a copy of what is far away', () => {
  it('reads on while it writes, within the bounds of requests and bytes', async () => {
    const life = await lived(20, 1);
    const to = new FaultyDisk();
    const { told, disk } = watched(life, to.mount());
    expect(await copied(life, { ...placeOn(to), disk })).toMatchObject({ points: 2, skipped: [] });
    expect(told.writes).toBeGreaterThan(12);
    expect(told.overlaps).toBeGreaterThan(told.writes / 2);
    expect(told.mostReads).toBeGreaterThan(2);
    expect(told.mostReads).toBeLessThanOrEqual(FAR.requests);
    expect(told.mostBytes).toBeLessThanOrEqual(FAR.bytes + MIB); // the cache rounds up to its blocks
    await expectWhole(to, life.acknowledged);
  });

  it('fails with the error of the request that failed, and reads no more; the next one finishes', async () => {
    const life = await lived(12, 2);
    const { objects } = life;
    objects.delay = () => turns(2);
    const before = objects.requests.length;
    await copied(life, placeOn(new FaultyDisk()));
    const total = objects.requests.length - before;
    expect(total).toBeGreaterThan(15);
    const to = new FaultyDisk();
    for (let n = 1; n <= total; n += 5) {
      const offline = await life.offline();
      const from = objects.requests.length;
      objects.before = (_kind, name, count) => {
        if (count < from + n) return;
        throw new UnderstudyError('ERR_OBJECTS_UNAVAILABLE', `planned: ${name}`);
      };
      const target = n === 1 ? to : new FaultyDisk();
      const failed = await offline.copy(placeOn(target), {}).then(
        () => null,
        ({ code }: UnderstudyError) => code,
      );
      // The offline reader has made some of the requests already.
      if (failed !== null) expect(failed).toBe('ERR_OBJECTS_UNAVAILABLE');
      const begun = objects.requests.length;
      await turns(40);
      expect(objects.requests.length, `request ${n}`).toBe(begun);
      objects.before = () => undefined;
      await offline.close();
    }
    await copied(life, placeOn(to));
    await expectWhole(to, life.acknowledged);
  });

  it('leaves out the points that one that is near leaves out', async () => {
    const life = await lived(16, 3, 4);
    const near = new BucketLife(new FaultyDisk(), 3, true);
    const packs = [...life.objects.held].filter(([name]) => name.startsWith('packs/'));
    // What the last point has changed lies in a small pack, and the first one's in large ones.
    const [, { bytes }] = packs.sort((a, b) => a[1].bytes.length - b[1].bytes.length)[0]!;
    bytes[bytes.length >> 1]! ^= 1;
    for (const [name, held] of life.objects.held) near.objects.held.set(name, held);
    life.objects.delay = () => turns(1);
    const reportOf = async (one: BucketLife) => {
      const { points, skipped, held, maps, pieces } = await copied(one, placeOn(new FaultyDisk()));
      return { points, skipped, held, maps, pieces };
    };
    const report = await reportOf(life);
    expect(report.skipped.length).toBeGreaterThan(0);
    expect(report.points).toBeGreaterThan(0);
    expect(report).toEqual(await reportOf(near));
  });
});
