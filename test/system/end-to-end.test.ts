/** The main job on real block devices: replicate while in use, cut, go on after losses, give back to the byte. */
import { truncateSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { attachLoop, digestOfFile, makeFileSystem, mount, sh } from './helpers/device.ts';
import { type Scratch, withScratch } from './helpers/scratch.ts';
import { type Daemon, detachAgent, Staging, startAgent } from './helpers/understudy.ts';
import { waitFor } from './helpers/wait.ts';
import { RecordLoad } from './helpers/writers.ts';

const MIB = 1 << 20;

interface World {
  readonly staging: Staging;
  readonly disks: readonly string[];
  readonly unmount: readonly (() => void)[];
  readonly loads: readonly RecordLoad[];
}

/** Two busy disks and a staging service. */
async function busyWorld(scratch: Scratch, perSecond: number): Promise<World> {
  const kinds = ['ext4', 'xfs'] as const;
  const disks = kinds.map((kind) => attachLoop(scratch, scratch.path(kind), 320 * MIB).device);
  for (const [at, kind] of kinds.entries()) makeFileSystem(disks[at]!, kind);
  const places = kinds.map((kind) => scratch.path(`${kind}.mounted`));
  const unmount = kinds.map((kind, at) => mount(scratch, disks[at]!, places[at]!, { kind }));
  const loads: RecordLoad[] = [];
  for (const [at, place] of places.entries()) {
    loads.push(await RecordLoad.start(scratch, place, `load-${at}`, perSecond));
  }
  return { staging: await Staging.start(scratch), disks, unmount, loads };
}

/** Stops all writes, cuts, and compares both images with the devices, byte by byte. */
async function expectEqualWhenQuiet(scratch: Scratch, world: World): Promise<void> {
  for (const load of world.loads) await load.stop();
  for (const unmount of world.unmount) unmount();
  const point = await world.staging.createPoint(scratch.server);
  expect(point.missingVolumes).toEqual([]);
  for (const disk of world.disks) {
    const out = scratch.path(`${disk.replaceAll('/', '-')}.image`);
    await world.staging.export(point.id, disk, out);
    expect(digestOfFile(out), disk).toBe(digestOfFile(disk));
  }
}

const generationsOf = (point: { volumes: readonly { generation: string }[] } | undefined) =>
  point?.volumes.map((volume) => volume.generation).sort();

describe('replication of busy disks', () => {
  it('syncs under writes, makes points, and a quiet moment comes back to the byte', async () => {
    await withScratch('e2e', async (scratch) => {
      const world = await busyWorld(scratch, 800);
      startAgent(scratch, world.staging, { volumes: world.disks });
      const points = await world.staging.waitForPoints(4);
      for (const point of points) {
        expect(point.volumes.map((volume) => volume.volume).sort()).toEqual(
          [...world.disks].sort(),
        );
        expect(point.cut.method).toBe('validated');
      }
      const { machine } = await world.staging.server(scratch.server);
      expect(machine?.cpuCount).toBeGreaterThan(0);
      expect(machine?.memoryBytes).toBeGreaterThan(MIB);
      const times = points.map((point) => Date.parse(point.time));
      expect(times).toEqual(times.toSorted((a, b) => b - a));
      await expectEqualWhenQuiet(scratch, world);
      const { exitCode, out, err } = await world.staging.run('repo', 'check', '--read-data');
      expect(`${exitCode} ${err}`).toBe('0 ');
      expect(out).not.toBe('');
    });
  });

  it('goes on without a rescan after the agent was killed, with what was written meanwhile', async () => {
    await withScratch('takeover', async (scratch) => {
      const world = await busyWorld(scratch, 800);
      const options = { volumes: world.disks };
      const first = startAgent(scratch, world.staging, options);
      const before = (await world.staging.waitForPoints(2))[0];
      await first.kill();
      // Writes go on with nobody to read them.
      await waitFor(
        'disconnection',
        async () => (await world.staging.server(scratch.server)).connected === false,
        {
          timeoutMs: 120_000,
        },
      );
      const count = (await world.staging.points()).length;
      startAgent(scratch, world.staging, options);
      const after = (await world.staging.waitForPoints(count + 2))[0];
      expect(generationsOf(after)).toEqual(generationsOf(before));
      await expectEqualWhenQuiet(scratch, world);
    });
  });

  it('reconnects to a staging service that was restarted, without a rescan', async () => {
    await withScratch('restart', async (scratch) => {
      const world = await busyWorld(scratch, 400);
      startAgent(scratch, world.staging, { volumes: world.disks });
      const before = (await world.staging.waitForPoints(2))[0];
      const { port, dataFolder } = world.staging;
      expect(await world.staging.daemon.stop()).toBe(0);
      const staging = await Staging.start(scratch, { dataFolder, listen: `127.0.0.1:${port}` });
      const held = await staging.points();
      expect(held.map((point) => point.id)).toContain(before?.id);
      const after = (await staging.waitForPoints(held.length + 2))[0];
      expect(generationsOf(after)).toEqual(generationsOf(before));
      await expectEqualWhenQuiet(scratch, { ...world, staging });
    });
  });

  it('detach ends the tracking: the next agent rescans by digests and says so', async () => {
    await withScratch('detach', async (scratch) => {
      const world = await busyWorld(scratch, 200);
      const options = { volumes: world.disks };
      const agent: Daemon = startAgent(scratch, world.staging, options);
      const before = (await world.staging.waitForPoints(2))[0];
      expect(await agent.stop()).toBe(0);
      await detachAgent(scratch.server);
      const count = (await world.staging.points()).length;
      startAgent(scratch, world.staging, options);
      const after = (await world.staging.waitForPoints(count + 1))[0];
      expect(generationsOf(after)).not.toEqual(generationsOf(before));
      await expectEqualWhenQuiet(scratch, world);
    });
  });
});

describe('a volume in trouble', () => {
  /** Two plain disks; `trouble` happens to the first after its points have begun. */
  async function inTrouble(
    name: string,
    trouble: (disk: { device: string; backing: string }) => void,
    then: (staging: Staging, disks: string[], server: string) => Promise<void>,
  ): Promise<void> {
    await withScratch(name, async (scratch) => {
      const disks = ['one', 'two'].map((each) => attachLoop(scratch, scratch.path(each), 64 * MIB));
      for (const disk of disks) {
        sh(
          'dd',
          'if=/dev/urandom',
          `of=${disk.device}`,
          'bs=1M',
          'count=8',
          'oflag=direct',
          'status=none',
        );
      }
      const staging = await Staging.start(scratch);
      const devices = disks.map((disk) => disk.device);
      startAgent(scratch, staging, { volumes: devices });
      await staging.waitForPoints(2);
      trouble(disks[0]!);
      await then(staging, devices, scratch.server);
    });
  }

  const volumeState = async (staging: Staging, server: string, volume: string) =>
    (await staging.server(server)).volumes.find((held) => held.volume === volume);

  it('that grows is synced anew at its new size, and points go on', async () => {
    await inTrouble(
      'grow',
      ({ device, backing }) => {
        truncateSync(backing, 96 * MIB);
        sh('losetup', '-c', device);
        sh(
          'dd',
          'if=/dev/urandom',
          `of=${device}`,
          'bs=1M',
          'count=4',
          'seek=90',
          'oflag=direct',
          'status=none',
        );
      },
      async (staging, [grown]) => {
        await waitFor(
          'a whole point at the new size',
          async () => {
            const newest = await staging.newest();
            const held = newest?.volumes.find((volume) => volume.volume === grown);
            return newest?.missingVolumes.length === 0 && held?.sizeBytes === 96 * MIB;
          },
          { timeoutMs: 120_000, everyMs: 500 },
        );
      },
    );
  });

  it('whose reads fail says why, and the other volume goes on', async () => {
    await inTrouble(
      'read-error',
      // The backing file shrinks under the device: reads beyond its end fail.
      ({ device, backing }) => {
        sh(
          'dd',
          'if=/dev/urandom',
          `of=${device}`,
          'bs=1M',
          'count=2',
          'seek=40',
          'oflag=direct',
          'status=none',
        );
        truncateSync(backing, 4 * MIB);
        sh(
          'dd',
          'if=/dev/urandom',
          `of=${device}`,
          'bs=4k',
          'count=1',
          'oflag=direct',
          'status=none',
        );
      },
      async (staging, [broken, sound], server) => {
        await waitFor(
          'a partial point of the sound volume, and a reason at the broken one',
          async () => {
            const newest = await staging.newest();
            const reason = (await volumeState(staging, server, broken!))?.reason ?? '';
            return (
              newest !== undefined &&
              newest.missingVolumes.join() === broken &&
              newest.volumes.some((volume) => volume.volume === sound) &&
              reason !== ''
            );
          },
          { timeoutMs: 120_000, everyMs: 500 },
        );
      },
    );
  });
});
