/** Rolling chains of snapshots, and launches over them, against the world.double. */
import { randomBytes } from 'node:crypto';
import { beforeEach, describe, expect, it } from 'vitest';
import type { VolumeSource } from '../../src/recovery/ec2/launch.ts';
import type { LaunchRecord } from '../../src/recovery/ec2/launch-record.ts';
import {
  type ChainRecord,
  endChain,
  type PrestageOptions,
  prestage,
} from '../../src/recovery/ec2/prestage.ts';
import { PutQuota } from '../../src/recovery/ec2/put-quota.ts';
import type { ImageOverlay } from '../../src/recovery/image-overlay.ts';
import { BLOCK_BYTES } from '../tools/ebs-double.ts';
import { cleanIn, launchIn, planOf, rootDisk } from './support/aws-launch.ts';
import {
  differences,
  expectKilled,
  hurriedClock,
  imageOf,
  killAt,
  memoryRecord,
  useAwsWorld,
} from './support/aws-world.ts';
import { bootDisk } from './support/boot-disk.ts';

const world = useAwsWorld();
const disk = rootDisk();

describe('the rolling chain', () => {
  let journal: ReturnType<typeof memoryRecord<ChainRecord>>;
  let history: Map<string, Buffer>;
  beforeEach(() => {
    journal = memoryRecord<ChainRecord>();
    history = new Map([['p1', disk]]);
  });

  const stage = (point: string, over: Partial<PrestageOptions> = {}) =>
    prestage(world.aws, {
      ...{ job: 'chain-1', server: 'web1', point, plan: planOf(), journal, timeoutMinutes: 60 },
      sources: [
        {
          volume: 'vda',
          image: imageOf(history.get(point)!),
          changedSince: async (from) => {
            const before = history.get(from);
            return before === undefined ? null : () => differences(before, history.get(point)!);
          },
        },
      ],
      quota: new PutQuota(hurriedClock, { putsPerSecond: 1e6 }),
      stop: new AbortController().signal,
      onProgress: () => undefined,
      onNote: () => undefined,
      ...over,
    });

  function write(point: string, at: number): void {
    const disk = Buffer.from([...history.values()].at(-1)!);
    randomBytes(50).copy(disk, at);
    history.set(point, disk);
  }
  const volumeOf = (id: string, point: string) => {
    const disk = history.get(point)!;
    return world.double.ebs.volume(id, disk.length).subarray(0, disk.length).equals(disk);
  };

  it('puts only what differs, and keeps one snapshot', async () => {
    const [first] = await stage('p1');
    expect(first).toMatchObject({ kind: 'full' });
    write('p2', BLOCK_BYTES + 100);
    const [second] = await stage('p2');
    expect(second).toMatchObject({ kind: 'delta', putBlocks: 1 });
    expect(volumeOf(second!.snapshotId, 'p2')).toBe(true);
    expect([...world.double.ebs.snapshots.keys()]).toEqual([second!.snapshotId]);
    expect((await stage('p2'))[0]).toMatchObject({ kind: 'keep', putBlocks: 0 });
  });

  it('is begun anew when its head is gone, the point is forgotten, or the key is another', async () => {
    await stage('p1');
    world.double.ebs.snapshots.clear();
    write('p2', 7000);
    expect((await stage('p2'))[0]).toMatchObject({ kind: 'full' });
    history.delete('p2');
    write('p3', 9000);
    const [third] = await stage('p3');
    expect(third).toMatchObject({ kind: 'full' });
    write('p4', 9500);
    const [fourth] = await stage('p4', { plan: planOf({ encrypted: true }) });
    expect(fourth).toMatchObject({ kind: 'full' });
    expect(volumeOf(fourth!.snapshotId, 'p4')).toBe(true);
    expect(world.double.ebs.snapshots.size).toBe(1);
  });

  it.each([true, false])(
    'killed at any call, and gone on with towards the same or a newer point (carried out: %s)',
    async (isDone) => {
      for (const next of ['p2', 'p3']) {
        for (let at = 1; at < 12; at += 1) {
          journal = memoryRecord<ChainRecord>();
          history = new Map([['p1', disk]]);
          world.double.ebs.snapshots.clear();
          const job = `chain-${next}-${at}`;
          await stage('p1', { job });
          write('p2', BLOCK_BYTES + 100);
          write('p3', 200);
          const { stop, revive } = killAt(world, at, isDone, journal);
          await stage('p2', { job, stop }).catch(expectKilled);
          revive();
          const [done] = await stage(next, { job });
          expect(volumeOf(done!.snapshotId, next)).toBe(true);
          const head = journal.record!.volumes[0]!;
          expect(head).toMatchObject({ upload: null, held: [done!.snapshotId] });
          // Also what was begun in the instant before, and of which nothing was written down.
          expect([...world.double.ebs.snapshots.keys()]).toEqual([done!.snapshotId]);
        }
      }
    },
  );

  it('a launch uploads over its head only what differs, and a cleanup leaves it', async () => {
    const [first] = await stage('p1');
    write('p2', BLOCK_BYTES + 100);
    const { head } = journal.record!.volumes[0]!;
    const record = memoryRecord<LaunchRecord>();
    const before = world.double.calls.length;
    const delta = {
      ...{ volume: 'vda', image: imageOf(history.get('p2')!), head },
      changed: () => differences(history.get('p1')!, history.get('p2')!),
    };
    const done = await launchIn(world, {
      point: 'p2',
      sources: [delta],
      plan: planOf(),
      journal: record,
    });
    expect(volumeOf(done.snapshotIds[0]!, 'p2')).toBe(true);
    const puts = world.double.calls.slice(before).filter((call) => call === 'PutSnapshotBlock');
    expect(puts).toHaveLength(1);
    await cleanIn(world, record.record!);
    expect([...world.double.ebs.snapshots.keys()]).toEqual([first!.snapshotId]);
    // A launch of the very point takes the head as it is, and leaves it, too.
    const same = memoryRecord<LaunchRecord>();
    const kept = { volume: 'vda', image: imageOf(disk), head };
    await launchIn(world, {
      job: 'job-2',
      point: 'p1',
      sources: [kept],
      plan: planOf(),
      journal: same,
    });
    await cleanIn(world, same.record!);
    expect([...world.double.ebs.snapshots.keys()]).toEqual([first!.snapshotId]);
  });

  it('what an image still refers to is deleted at a later time', async () => {
    const [first] = await stage('p1');
    const used = { id: 'ami-1', name: 'n', form: {}, tags: {}, snapshots: [first!.snapshotId] };
    world.double.ec2.images.set('ami-1', used);
    write('p2', 100);
    await stage('p2');
    expect(world.double.ebs.snapshots.size).toBe(2);
    world.double.ec2.images.clear();
    await stage('p2');
    expect(world.double.ebs.snapshots.size).toBe(1);
  });

  it('snapshots of a volume that the server has no more are deleted; so are all at its end', async () => {
    await stage('p1');
    const vdb = { volume: 'vdb', image: imageOf(disk), changedSince: async () => null };
    const [vda] = journal.record!.volumes;
    await stage('p1', { sources: [vdb] });
    expect(journal.record!.volumes.map(({ volume }) => volume)).toEqual(['vdb']);
    expect([...world.double.ebs.snapshots.keys()]).not.toContain(vda!.head!.snapshotId);
    expect(world.double.ebs.snapshots.size).toBe(1);
    const end = () => endChain(world.aws, { journal, stop: new AbortController().signal });
    const { snapshotId } = journal.record!.volumes[0]!.head!;
    const used = { id: 'ami-1', name: 'n', form: {}, tags: {}, snapshots: [snapshotId] };
    world.double.ec2.images.set('ami-1', used);
    expect(await end()).toBe(false);
    expect(journal.record!.volumes).toMatchObject([{ head: null, held: [snapshotId] }]);
    world.double.ec2.images.clear();
    expect(await end()).toBe(true);
    expect(world.double.ebs.snapshots.size).toBe(0);
    expect(journal.record!.volumes).toEqual([]);
  });

  it('a launch goes on whole where its parent vanishes, and where the chain has gone on meanwhile', async () => {
    await stage('p1');
    write('p2', BLOCK_BYTES + 100);
    const first = journal.record!.volumes[0]!.head!;
    const image = imageOf(history.get('p2')!);
    const changed = () => differences(history.get('p1')!, history.get('p2')!);
    world.double.fault = (call) => {
      if (call === 'StartSnapshot') world.double.ebs.snapshots.delete(first.snapshotId);
      return undefined;
    };
    const source = { volume: 'vda', image, head: first, changed };
    const notes: string[] = [];
    const onNote = (text: string) => notes.push(text);
    const gone = await launchIn(world, { point: 'p2', sources: [source], onNote });
    expect(volumeOf(gone.snapshotIds[0]!, 'p2')).toBe(true);
    expect(notes.join()).toContain('whole upload');
    world.double.fault = () => undefined;
    await stage('p1');
    const begun = journal.record!.volumes[0]!.head!;
    const record = memoryRecord<LaunchRecord>();
    const over = { job: 'job-2', point: 'p2', journal: record };
    const { stop, revive } = killAt(world, 5, true, record);
    const sources = [{ ...source, head: begun }];
    await launchIn(world, { ...over, sources, stop }).catch(expectKilled);
    revive();
    expect(record.record!.volumes[0]!.upload!.request.parentSnapshotId).toBe(begun.snapshotId);
    write('p3', 200);
    await stage('p3');
    const head = journal.record!.volumes[0]!.head!;
    const back = () => differences(history.get('p3')!, history.get('p2')!);
    const done = await launchIn(world, { ...over, sources: [{ ...source, head, changed: back }] });
    expect(volumeOf(done.snapshotIds[0]!, 'p2')).toBe(true);
  });

  it('a prepared disk is launched, over the head or whole, and the chain keeps what the point holds', async () => {
    await stage('p1');
    write('p2', BLOCK_BYTES + 100);
    const { head } = journal.record!.volumes[0]!;
    const point = history.get('p2')!;
    const wanted = Buffer.from(point);
    const patch = randomBytes(700);
    patch.copy(wanted, 3 * BLOCK_BYTES - 300);
    const overlay: ImageOverlay = {
      id: 'prepared-1',
      changed: [{ offset: 3 * BLOCK_BYTES - 512, length: 1024 }],
      read: async (offset, length) => wanted.subarray(offset, offset + length),
    };
    const source = { volume: 'vda', image: imageOf(point), overlay };
    const over = (from: string) => () => differences(history.get(from)!, point);
    const equals = (id: string, bytes: Buffer) =>
      world.double.ebs.volume(id, bytes.length).subarray(0, bytes.length).equals(bytes);
    const putsOf = async (job: string, at: Partial<VolumeSource>) => {
      const before = world.double.calls.length;
      const sources = [{ ...source, ...at }];
      const done = await launchIn(world, { job, point: 'p2', sources, plan: planOf() });
      expect(equals(done.snapshotIds[0]!, wanted)).toBe(true);
      return world.double.calls.slice(before).filter((call) => call === 'PutSnapshotBlock').length;
    };
    // The changed block, and the two that the preparation touched.
    expect(await putsOf('job-delta', { head, changed: over('p1') })).toBe(3);
    await stage('p2');
    const next = journal.record!.volumes[0]!.head!;
    expect(equals(next.snapshotId, point)).toBe(true);
    // The head holds the very point: only what was prepared is put over it.
    expect(await putsOf('job-same', { head: next, changed: () => [] })).toBe(2);
    expect(await putsOf('job-whole', {})).toBeGreaterThan(3);
    write('p3', 100);
    const [third] = await stage('p3');
    expect(third).toMatchObject({ kind: 'delta', putBlocks: 1 });
    expect(volumeOf(third!.snapshotId, 'p3')).toBe(true);
  });

  it('prepared anew in the middle of a launch, the disk is uploaded anew', async () => {
    const record = memoryRecord<LaunchRecord>();
    const overlayOf = (id: string, byte: number): ImageOverlay => ({
      ...{ id, changed: [{ offset: 512, length: 512 }] },
      read: async (_offset, length) => Buffer.alloc(length, byte),
    });
    const launched = (overlay: ImageOverlay, stop?: AbortSignal) =>
      launchIn(world, {
        ...{ sources: [{ volume: 'vda', image: imageOf(mbr), overlay }], journal: record },
        ...(stop !== undefined && { stop }),
      });
    const mbr = Buffer.concat([bootDisk({ table: 'mbr' }, 4096), randomBytes(3 * BLOCK_BYTES)]);
    const { stop, revive } = killAt(world, 9, true, record);
    await launched(overlayOf('one', 1), stop).catch(expectKilled);
    revive();
    expect(record.record!.imageId).toBe(null);
    const done = await launched(overlayOf('two', 2));
    expect([...world.double.ebs.snapshots.keys()]).toEqual(done.snapshotIds);
    const [held] = done.snapshotIds;
    expect(world.double.ebs.volume(held!, 1024).subarray(512, 1024)).toEqual(Buffer.alloc(512, 2));
  });
});
