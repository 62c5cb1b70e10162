// Volumes on real block devices: geometry, refusals, and what the tracker finds when it is opened
// again.
import { execFile, spawnSync } from 'node:child_process';
import { closeSync, ftruncateSync, openSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { afterEach, describe, expect, it } from 'vitest';
import { alignedBuffer, detachTracker, openDevice, openTracker } from '../../src/native/index.ts';
import type { TrackedVolumeOptions } from '../../src/native/types.ts';
import {
  addPartition,
  createLoopDevice,
  type LoopDevice,
  removePartitions,
  run,
} from '../tools/loop-device.ts';
import { changeOnce } from '../tools/random-changes.ts';
import { Replica } from '../tools/replica.ts';

const MIB = 1024 * 1024;
const cleanups: (() => unknown)[] = [];
let instances = 0;
const newInstance = () => `device-test-${process.pid}-${instances++}`;

afterEach(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean();
});

function loop(sizeBytes: number): LoopDevice {
  const device = createLoopDevice(sizeBytes);
  cleanups.push(() => device.remove());
  return device;
}

function volumeOf(path: string): TrackedVolumeOptions {
  const device = openDevice(path);
  const { geometry } = device;
  device.close();
  return { path, geometry };
}

function partitionOf(disk: string): string {
  cleanups.push(() => removePartitions(disk));
  return addPartition(disk, 'start=4096, size=32768, type=83');
}

describe('geometry', () => {
  it('of a disk and its partition', () => {
    const { path } = loop(64 * MIB);
    const { geometry: disk } = volumeOf(path);
    const { geometry: partition } = volumeOf(partitionOf(path));
    expect(disk).toMatchObject({ kind: 'disk', sizeBytes: 64 * MIB, startBytes: 0 });
    expect(disk.sectorBytes).toBe(512);
    expect(partition).toMatchObject({ kind: 'partition', sizeBytes: 16 * MIB });
    expect(partition.startBytes).toBe(2 * MIB);
    expect([partition.diskMajor, partition.diskMinor]).toEqual([disk.diskMajor, disk.diskMinor]);
    expect(partition.diskSequence).toBe(disk.diskSequence);
    expect(disk.diskSequence).toBeGreaterThan(0);
  });

  it('reads past the page cache, and tells where a device ends', async () => {
    const { path } = loop(MIB + 512);
    const device = openDevice(path);
    const buffer = alignedBuffer(2 * MIB);
    await changeOnce('d', path, MIB, 512);
    expect(await device.read(buffer.subarray(0, 512), MIB)).toBe(512);
    expect(buffer.subarray(0, 512).some((byte) => byte !== 0)).toBe(true);
    expect(await device.read(buffer, 0)).toBe(MIB + 512);
    expect(await device.nextData(4096)).toEqual({ offset: 4096, length: MIB - 4096 + 512 });
    await expect(device.read(buffer.subarray(0, 512), 100)).rejects.toMatchObject({
      code: 'ERR_DEVICE_READ',
      context: { errno: 'EINVAL', offset: 100 },
    });
    device.close();
  });
});

describe('refusals', () => {
  it('names a disk given with its partition', async () => {
    const { path } = loop(64 * MIB);
    const volumes = [volumeOf(path), volumeOf(partitionOf(path))];
    await expect(openTracker({ backend: 'auto', volumes })).rejects.toMatchObject({
      code: 'ERR_TRACKER_OVERLAP',
    });
  });

  it('bpf does not take a file; auto scans it, and says why', async () => {
    const { directory } = loop(MIB);
    const volumes = [volumeOf(join(directory, 'image'))];
    await expect(openTracker({ backend: 'bpf', volumes })).rejects.toMatchObject({
      code: 'ERR_TRACKER_REFUSED',
    });
    const tracker = await openTracker({ backend: 'auto', volumes });
    expect(tracker.backend).toBe('scan');
    expect(tracker.backendReason).toContain('regular file');
  });

  it('a second agent of the same name is refused while the first lives', async () => {
    const { path } = loop(MIB);
    const instance = newInstance();
    const volumes = [volumeOf(path)];
    const first = await openTracker({ backend: 'bpf', volumes, instance });
    cleanups.push(() => detachTracker(instance));
    await expect(openTracker({ backend: 'auto', volumes, instance })).rejects.toMatchObject({
      code: 'ERR_TRACKER_IN_USE',
    });
    first.close();
  });
});

describe('opened again, the tracker', () => {
  const openAgain = async (path: string, instance: string) => {
    const tracker = await openTracker({ backend: 'bpf', volumes: [volumeOf(path)], instance });
    tracker.close();
    return tracker.volumes[0]!;
  };
  const opened = async (sizeBytes = 16 * MIB) => {
    const device = loop(sizeBytes);
    const instance = newInstance();
    const first = await openAgain(device.path, instance);
    cleanups.push(() => detachTracker(instance));
    expect(first).toMatchObject({ fresh: true, freshReason: 'first' });
    return { device, instance, first };
  };

  it('goes on with the same generation', async () => {
    const { device, instance, first } = await opened();
    const again = await openAgain(device.path, instance);
    expect(again).toMatchObject({ fresh: false, generation: first.generation });
  });

  it('finds a device that has been resized', async () => {
    const { device, instance, first } = await opened();
    truncateSync(join(device.directory, 'image'), 32 * MIB);
    run('losetup', '-c', device.path);
    const again = await openAgain(device.path, instance);
    expect(again).toMatchObject({ fresh: true, freshReason: 'resized' });
    expect(again.generation).not.toBe(first.generation);
  });

  it('finds another device under the same path', async () => {
    const { device, instance } = await opened();
    run('losetup', '-d', device.path);
    const fd = openSync(join(device.directory, 'other'), 'w');
    ftruncateSync(fd, 16 * MIB);
    closeSync(fd);
    // Whoever looked at the device (udev, blkid) may have kept it for a moment.
    const other = join(device.directory, 'other');
    await expect.poll(() => spawnSync('losetup', [device.path, other]).status).toBe(0);
    expect(await openAgain(device.path, instance)).toMatchObject({
      fresh: true,
      freshReason: 'device-replaced',
    });
  });

  it('finds that a program has gone', async () => {
    const { device, instance } = await opened();
    run('sh', '-c', `rm /sys/fs/bpf/understudy/${instance}/volume_*/rq_complete`);
    expect(await openAgain(device.path, instance)).toMatchObject({
      fresh: true,
      freshReason: 'program-gone',
    });
  });

  it('lets go of volumes that are replicated no longer', async () => {
    const { instance } = await opened();
    const other = loop(MIB);
    await openAgain(other.path, instance);
    const pins = run('ls', `/sys/fs/bpf/understudy/${instance}`).split('\n');
    expect(pins.filter((name) => name.startsWith('volume_'))).toHaveLength(1);
  });
});

describe('a running engine', () => {
  it('taints a volume that is resized, and begins a new generation of it', async () => {
    const device = loop(16 * MIB);
    const other = loop(16 * MIB);
    const paths = [device.path, other.path];
    const imageBytes = 32 * MIB;
    const replica = await Replica.open({ paths, instance: newInstance(), imageBytes });
    cleanups.push(() => replica.closeAndDetach());
    truncateSync(join(device.directory, 'image'), 32 * MIB);
    run('losetup', '-c', device.path);
    await expect.poll(() => replica.engine.counters(0).taint).toBe('resized');
    expect(replica.engine.counters(1).taint).toBe('');
    const { tracked, geometry } = replica.engine.renew(0, 'resized');
    expect(tracked).toMatchObject({ fresh: true, freshReason: 'resized', committedEpoch: 0 });
    expect(tracked.generation).not.toBe(replica.volumes[0]!.generation);
    expect(geometry.sizeBytes).toBe(32 * MIB);
    expect(replica.tracker.volumes[1]!.generation).toBe(replica.volumes[1]!.generation);
    await sleep(1200);
    expect(replica.engine.counters(0).taint).toBe('');
    await changeOnce('d', device.path, 20 * MIB, 8192);
    expect((await replica.drain()).result.firstBlocks).toBe(2);
  });

  it('keeps outstanding what is not committed, and pends it again when asked', async () => {
    const { path } = loop(16 * MIB);
    const replica = await Replica.open({ paths: [path], instance: newInstance() });
    cleanups.push(() => replica.closeAndDetach());
    const { engine } = replica;
    await changeOnce('d', path, 0, 40960);
    expect((await replica.drain()).result.firstBlocks).toBe(10);
    await replica.settle();
    expect(engine.counters(0)).toMatchObject({ pendingBlocks: 0, outstandingBlocks: 10 });
    engine.pendOutstanding(0);
    expect((await replica.drain()).result.firstBlocks).toBe(10);
    engine.pend(0, [{ offset: MIB, length: 5000 }]);
    engine.committed(0, 1);
    await replica.drain([]);
    expect(engine.counters(0)).toMatchObject({ pendingBlocks: 2, outstandingBlocks: 2 });
    expect((await replica.drain()).bytes).toBe(8192);
    engine.committed(0, 2);
    await replica.drain();
    expect(engine.counters(0)).toMatchObject({ pendingBlocks: 0, outstandingBlocks: 0 });
  });

  it('reports read errors as faults and leaves the blocks pending', async () => {
    const device = loop(16 * MIB);
    const replica = await Replica.open({ paths: [device.path], instance: newInstance() });
    cleanups.push(() => replica.closeAndDetach());
    await changeOnce('d', device.path, 8 * MIB, 8192);
    truncateSync(join(device.directory, 'image'), 4 * MIB);
    const { result, faults } = await replica.drain();
    truncateSync(join(device.directory, 'image'), 16 * MIB);
    expect(result.outcome).toBe('drained');
    expect(faults).toEqual([{ volume: 0, offset: 8 * MIB, length: 8192, errno: 'EIO' }]);
    expect(replica.engine.counters(0).pendingBlocks).toBe(2);
    expect((await replica.drain()).bytes).toBe(8192);
  });
});

describe('a process', () => {
  const start = promisify(execFile);
  const addon = join(import.meta.dirname, '../../src/native/index.ts');
  const opening = (path: string, then: string) => `(async () => {
    const native = await import('${addon}');
    const { geometry } = native.openDevice('${path}');
    const volumes = [{ path: '${path}', geometry }];
    const tracker = await native.openTracker({ backend: 'scan', volumes });
    const buffers = [native.alignedBuffer(1 << 20), native.alignedBuffer(1 << 20)];
    let seen = 0;
    const onFilled = () => { seen += 1; if (seen === 1) { ${then} } };
    const engine = native.createEngine({ tracker, buffers, events: { onFilled, onDone() {} } });
    engine.read(1, 0, [{ offset: 0, length: geometry.sizeBytes }]);
  })()`;
  const runScript = (source: string) =>
    start(process.execPath, ['--expose-gc', '-e', source], { timeout: 120_000 });

  it('may exit while its engine waits for buffers', async () => {
    const { path } = loop(16 * MIB);
    await runScript(opening(path, 'process.exit(0)'));
  });

  it('ends by itself once the engine is closed', async () => {
    const { path } = loop(16 * MIB);
    await runScript(opening(path, 'gc(); engine.close()'));
  });

  it('dies of an error in a handler', async () => {
    const { path } = loop(16 * MIB);
    const ended = runScript(opening(path, "throw new Error('in a handler')"));
    await expect(ended).rejects.toThrow('in a handler');
  });

  it('may end a worker thread whose engine is open', async () => {
    const { path } = loop(16 * MIB);
    const source = JSON.stringify(
      opening(path, "require('node:worker_threads').parentPort.postMessage(seen)"),
    );
    const { stdout } = await runScript(`
      const { Worker } = require('node:worker_threads');
      const worker = new Worker(${source}, { eval: true });
      worker.on('message', () => worker.terminate().then(() => console.log('ended')));
    `);
    expect(stdout).toBe('ended\n');
  });
});
