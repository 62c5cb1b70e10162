/**
 * P3, P4: whatever is killed, cut or filled up, at any moment: nothing acknowledged is lost, nothing torn is
 * visible, every point reads back whole, and lag comes down again.
 */
import { randomInt } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { attachLoop, checkFileSystem, makeFileSystem, mount, sh } from './helpers/device.ts';
import { type Scratch, withScratch } from './helpers/scratch.ts';
import { type Daemon, Staging, startAgent } from './helpers/understudy.ts';
import { pause, scaled, waitFor } from './helpers/wait.ts';
import { Wire } from './helpers/wire.ts';
import { RecordLoad } from './helpers/writers.ts';

const MIB = 1 << 20;

interface World {
  readonly disk: string;
  readonly load: RecordLoad;
}

async function busyDisk(scratch: Scratch, perSecond = 1000): Promise<World> {
  const disk = attachLoop(scratch, scratch.path('disk'), 200 * MIB).device;
  makeFileSystem(disk, 'ext4');
  mount(scratch, disk, scratch.path('mounted'), { kind: 'ext4' });
  return {
    disk,
    load: await RecordLoad.start(scratch, scratch.path('mounted'), 'crash', perSecond),
  };
}

/** Exports a point, mounts it, and compares every record. */
async function expectPointRight(
  scratch: Scratch,
  staging: Staging,
  world: World,
  point: { id: string; time: string },
): Promise<void> {
  const image = scratch.path(`${point.id}.image`);
  await staging.export(point.id, world.disk, image, '--yes');
  const loop = attachLoop(scratch, image);
  const place = scratch.path(`${point.id}.restored`);
  const unmount = mount(scratch, loop.device, place, { kind: 'ext4', isCopy: true });
  expect(world.load.faults(place, point.time), point.id).toEqual([]);
  unmount();
  checkFileSystem(loop.device, 'ext4');
}

async function expectRepositoryWhole(staging: Staging): Promise<void> {
  const { exitCode, err } = await staging.run('repo', 'check', '--read-data');
  expect(`${exitCode} ${err}`).toBe('0 ');
}

const idsOf = (points: readonly { id: string }[]): string[] => points.map((point) => point.id);

/** A few of many, the oldest and the newest among them. */
function sampleOf<Item>(items: readonly Item[], count: number): Item[] {
  const step = Math.max(1, (items.length - 1) / Math.max(1, count - 1));
  const picked = new Set<Item>();
  for (let at = 0; at < items.length; at += step) picked.add(items[Math.round(at)]!);
  return [...picked];
}

describe('kill -9', () => {
  const rounds = scaled(3, 100);

  it(`of staging and agent, ${rounds} rounds under load, loses nothing acknowledged`, async () => {
    await withScratch('kill', async (scratch) => {
      const world = await busyDisk(scratch);
      let staging = await Staging.start(scratch, { words: ['--keep', 'all=1h'] });
      const { port, dataFolder } = staging;
      const options = { volumes: [world.disk], cutInterval: '300ms' };
      let agent: Daemon = startAgent(scratch, staging, options);
      await staging.waitForPoints(1);
      for (let round = 0; round < rounds; round += 1) {
        await pause(randomInt(50, 1500));
        const acknowledged = idsOf(await staging.points());
        const victims = ['staging', 'agent', 'both'][randomInt(3)];
        if (victims !== 'agent') await staging.daemon.kill();
        if (victims !== 'staging') await agent.kill();
        if (victims !== 'agent') {
          staging = await Staging.start(scratch, {
            dataFolder,
            listen: `127.0.0.1:${port}`,
            words: ['--keep', 'all=1h'],
          });
        }
        const held = new Set(idsOf(await staging.points()));
        expect(
          acknowledged.filter((id) => !held.has(id)),
          `round ${round}: ${victims}`,
        ).toEqual([]);
        if (victims !== 'staging') agent = startAgent(scratch, staging, options);
        await staging.waitForPoints(held.size + 1);
      }
      await world.load.stop();
      await expectRepositoryWhole(staging);
      for (const point of sampleOf(await staging.points(), scaled(3, 20))) {
        await expectPointRight(scratch, staging, world, point);
      }
    });
  });
});

describe('the network', () => {
  async function withWire(
    name: string,
    then: (wire: Wire, staging: Staging, scratch: Scratch) => Promise<void>,
  ): Promise<void> {
    await withScratch(name, async (scratch) => {
      const world = await busyDisk(scratch, 600);
      const staging = await Staging.start(scratch);
      const wire = await Wire.start(scratch, staging.port);
      startAgent(scratch, staging, { volumes: [world.disk], url: wire.url, cutInterval: '500ms' });
      await staging.waitForPoints(2);
      const generation = (await staging.points())[0]!.volumes[0]!.generation;
      await then(wire, staging, scratch);
      const newest = (await staging.points())[0]!;
      expect(newest.volumes[0]!.generation, 'no rescan').toBe(generation);
      await world.load.stop();
      await expectPointRight(scratch, staging, world, await staging.createPoint(scratch.server));
      await expectRepositoryWhole(staging);
    });
  }

  const more = async (staging: Staging, count: number) =>
    staging.waitForPoints((await staging.points()).length + count);

  it('cut again and again: the agent comes back and goes on', async () => {
    await withWire('cut', async (wire, staging) => {
      for (let round = 0; round < scaled(3, 30); round += 1) {
        await pause(randomInt(20, 700));
        wire.cut();
      }
      wire.refuse(true);
      await pause(1500);
      wire.refuse(false);
      await more(staging, 2);
    });
  });

  it('half-open: found within seconds, and left behind', async () => {
    await withWire('half-open', async (wire, staging) => {
      wire.silence();
      await more(staging, 2);
    });
  });

  it('slow: lag grows, and comes down once it is fast again', async () => {
    await withWire('slow', async (wire, staging, scratch) => {
      wire.slow(200_000);
      await pause(6000);
      wire.slow(Number.POSITIVE_INFINITY);
      await more(staging, 3);
      await waitFor(
        'small lag',
        async () => ((await staging.server(scratch.server)).lagMs ?? 1e9) < 3000,
        {
          timeoutMs: 120_000,
        },
      );
    });
  });
});

describe('a full disk in staging', () => {
  it('stops replication with a clear reason, and goes on once there is room, with nothing lost', async () => {
    await withScratch('full', async (scratch) => {
      const world = await busyDisk(scratch, 400);
      sh('mkdir', scratch.path('small'));
      sh('mount', '-t', 'tmpfs', '-o', 'size=48m', 'tmpfs', scratch.path('small'));
      scratch.defer(() => void sh('umount', scratch.path('small')));
      const dataFolder = scratch.path('small/data');
      let staging = await Staging.start(scratch, { dataFolder });
      const { port } = staging;
      startAgent(scratch, staging, { volumes: [world.disk], cutInterval: '500ms' });
      await staging.waitForPoints(1);
      let acknowledged: string[] = [];
      await waitFor(
        'the disk to be full',
        async () => {
          if (!staging.daemon.isRunning) return true;
          const listed = await staging.run('point', 'list', '--json', '--limit', '10000');
          if (listed.exitCode === 0) acknowledged = idsOf(JSON.parse(listed.out));
          return /ERR_DISK_FULL/.test(staging.daemon.errors);
        },
        { timeoutMs: 180_000, everyMs: 500 },
      );
      sh('mount', '-o', 'remount,size=2g', scratch.path('small'));
      let held: string[] = [];
      await waitFor(
        'new points',
        async () => {
          // A service that has given up, now or later, is started again by its supervisor.
          if (!staging.daemon.isRunning) {
            staging = await Staging.start(scratch, { dataFolder, listen: `127.0.0.1:${port}` });
          }
          const listed = await staging.run('point', 'list', '--json', '--limit', '10000');
          if (listed.exitCode === 0) held = idsOf(JSON.parse(listed.out));
          return held.length >= acknowledged.length + 2;
        },
        { timeoutMs: 120_000, everyMs: 300 },
      );
      expect(acknowledged.filter((id) => !held.includes(id))).toEqual([]);
      await world.load.stop();
      await expectRepositoryWhole(staging);
      await expectPointRight(scratch, staging, world, await staging.createPoint(scratch.server));
    });
  });
});
