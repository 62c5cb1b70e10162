/**
 * The agent's core end to end in virtual time, against a fake staging: what arrives there is right, whatever
 * happens to network, processes and devices on the way.
 */
import { describe, expect, it } from 'vitest';
import { stateOf } from '../../src/agent/report.ts';
import { UnderstudyError } from '../../src/base/errors.ts';
import { MIB } from '../../src/base/units.ts';
import { AgentWorld } from './support/agent-world.ts';

const one = (sizeBytes = 2 * MIB) => [{ name: '/dev/a', sizeBytes }];
const two = [
  { name: '/dev/a', sizeBytes: 2 * MIB },
  { name: '/dev/bb', sizeBytes: MIB + 3 * 4096 + 512 },
];
const epochs = (world: AgentWorld): number[] =>
  world.agent.state.volumes.map((volume) => volume.committedEpoch);

describe('initial sync', () => {
  it('ends in points that are right while writes go on', async () => {
    const world = new AgentWorld(1, two);
    world.fill(0);
    world.fill(1);
    const stops = [world.writer(0, 2), world.writer(1, 3)];
    world.start();
    await world.points(5);
    for (const stop of stops) stop();
    await world.points(2);
    expect(world.violations()).toEqual([]);
    expect(world.staging.points.at(-1)!.images.size).toBe(2);
    const status = world.agent.status();
    expect(status).toMatchObject({ state: 'continuous', cuts: world.staging.points.length });
  });

  it('sends zeros neither as content nor as many entries', async () => {
    const world = new AgentWorld(2, one(32 * MIB));
    world.start();
    await world.points(1);
    expect(world.staging.receivedPieceBytes).toBe(0);
    expect(world.staging.hellos).toHaveLength(1);
  });

  it('tells holes without reading them', async () => {
    const world = new AgentWorld(3, one(64 * MIB));
    world.volumes[0]!.data = [{ offset: 40 * MIB, length: 4096 }];
    world.write(0, (40 * MIB) / 512, 8);
    world.start();
    await world.points(1);
    expect(world.staging.counts.offer).toBeLessThan(4);
    expect(world.violations()).toEqual([]);
  });

  it('goes on where staging had it after the connection was lost', async () => {
    const world = new AgentWorld(4, one(16 * MIB));
    world.fill(0);
    world.start();
    await world.until('half', () => (world.agent.state.volumes[0]!.sync?.sentChunk ?? 0) > 100);
    world.network.cut();
    await world.points(1);
    const offers = world.staging.counts.offer!;
    expect(offers).toBeLessThan(64 + 16);
    expect(world.violations()).toEqual([]);
    expect(world.staging.hellos.length).toBe(2);
  });

  it('stops asking where staging needs everything, and asks again where it does not', async () => {
    const world = new AgentWorld(25, one(40 * MIB));
    world.fill(0);
    await world.run(20);
    world.start();
    await world.points(1);
    expect(world.staging.counts.patch).toBeGreaterThan(40);
    expect(world.violations()).toEqual([]);
    const { patch, offer } = world.staging.counts;
    await world.kill();
    world.volumes[0]!.forget();
    world.start();
    await world.points(1);
    expect(world.staging.counts.patch).toBe(patch);
    expect(world.staging.counts.offer).toBeGreaterThan(offer! + 150);
    expect(world.violations()).toEqual([]);
  });

  it('does not send what staging has', async () => {
    const world = new AgentWorld(5, one(4 * MIB));
    world.fill(0);
    await world.run(20);
    world.start();
    await world.points(1);
    const before = world.staging.receivedPieceBytes;
    await world.kill();
    world.volumes[0]!.forget();
    world.start();
    await world.points(1);
    expect(world.staging.receivedPieceBytes).toBe(before);
    expect(world.agent.status().dedupeHits).toBeGreaterThan(10);
    expect(world.logLines.join()).not.toMatch(/"level":"error"/);
  });
});

describe('cuts under load', () => {
  it('give right points on two volumes at one instant', async () => {
    const world = new AgentWorld(6, two, { cutIntervalMs: 300 });
    const stops = [world.writer(0, 5, 64), world.writer(1, 7, 64)];
    world.start();
    await world.points(15);
    for (const stop of stops) stop();
    await world.points(2);
    expect(world.violations()).toEqual([]);
  });

  it('go on with small windows', async () => {
    const world = new AgentWorld(7, two, { cutIntervalMs: 300 });
    world.staging.windowBytes = 64 * 1024;
    world.fill(0);
    world.fill(1);
    const stop = world.writer(0, 1);
    world.start();
    await world.points(6);
    stop();
    await world.points(1);
    expect(world.violations()).toEqual([]);
    // One batch may be larger than the window: then it goes alone.
    expect(world.staging.maxInFlightBytes).toBeLessThan(256 * 1024 + 64 * 1024);
  });

  it('make the point that an operator asks for at once', async () => {
    const world = new AgentWorld(8, one(), { cutIntervalMs: 60_000 });
    world.start();
    await world.points(1);
    world.staging.say({ type: 'cut-request', requestId: 'now' });
    await world.until('it', () => world.staging.points.at(-1)!.requestId === 'now', 1000);
  });
});

describe('flow', () => {
  it('keeps to the bandwidth', async () => {
    const world = new AgentWorld(9, one(16 * MIB));
    world.bandwidth = 64 * 1024;
    world.fill(0);
    await world.run(20);
    const began = world.clock.monotonicMs();
    world.start();
    await world.points(1);
    const seconds = (world.clock.monotonicMs() - began) / 1000;
    const bytes = world.agent.status().wireBytes;
    expect(bytes / seconds).toBeLessThan(1.1 * world.bandwidth);
    expect(bytes / seconds).toBeGreaterThan(0.5 * world.bandwidth);
  });

  it('sends no more than the window while nothing becomes durable, and goes on afterwards', async () => {
    const world = new AgentWorld(10, one(16 * MIB));
    world.staging.isSlow = true;
    world.staging.windowBytes = 256 * 1024;
    world.fill(0);
    await world.run(20);
    world.start();
    await world.run(5000);
    expect(world.staging.points.length).toBe(0);
    expect(world.staging.maxInFlightBytes).toBeLessThanOrEqual(256 * 1024);
    world.staging.isSlow = false;
    world.staging.store();
    await world.points(1);
    expect(world.violations()).toEqual([]);
  });
});

describe('lost acknowledgements', () => {
  it('are known again after a reconnect: no rescan, no point lost', async () => {
    const world = new AgentWorld(11, two);
    const stop = world.writer(0, 3);
    world.start();
    await world.points(2);
    world.staging.loseAnswers = 1;
    await world.points(4);
    stop();
    expect(world.staging.hellos.length).toBe(2);
    expect(world.staging.hellos.map((h) => h.volumes[0]!.generation)).toHaveLength(2);
    expect(new Set(world.staging.hellos.map((h) => h.volumes[0]!.generation)).size).toBe(1);
    expect(world.violations()).toEqual([]);
  });

  it('are known again by an agent that takes over', async () => {
    const world = new AgentWorld(12, two);
    const stop = world.writer(0, 3);
    world.start();
    await world.points(2);
    const before = epochs(world)[0]!;
    world.staging.loseAnswers = 1;
    await world.points(1);
    await world.kill();
    await world.run(700);
    world.start();
    await world.points(3);
    stop();
    expect(epochs(world)[0]).toBeGreaterThan(before + 2);
    expect(new Set(world.staging.hellos.map((h) => h.volumes[0]!.generation)).size).toBe(1);
    expect(world.violations()).toEqual([]);
  });

  it('an agent killed at any moment goes on without a rescan', async () => {
    const world = new AgentWorld(13, two, { cutIntervalMs: 200 });
    const stops = [world.writer(0, 6), world.writer(1, 8)];
    world.start();
    await world.points(2);
    for (let life = 0; life < 12; life += 1) {
      await world.run(world.random.between(5, 400));
      await world.kill();
      await world.run(world.random.between(1, 300));
      world.start();
    }
    await world.points(3);
    for (const stop of stops) stop();
    await world.points(1);
    expect(new Set(world.staging.hellos.map((h) => h.volumes[0]!.generation)).size).toBe(1);
    expect(world.violations()).toEqual([]);
  });

  it('a connection lost at any moment costs nothing but time', async () => {
    const world = new AgentWorld(14, two, { cutIntervalMs: 200, backoffCapMs: 200 });
    const stops = [world.writer(0, 6), world.writer(1, 8)];
    world.start();
    for (let i = 0; i < 25; i += 1) {
      await world.run(world.random.between(5, 500));
      world.network.cut();
    }
    await world.points(3);
    for (const stop of stops) stop();
    await world.points(1);
    expect(world.violations()).toEqual([]);
  });

  it('a half-open connection is found and replaced', async () => {
    const world = new AgentWorld(15, one());
    world.start();
    await world.points(1);
    world.network.stall(true);
    await world.run(9000);
    expect(world.agent.state.connection.kind).not.toBe('open');
    world.network.stall(false);
    await world.points(2);
    expect(world.agent.status().state).toBe('continuous');
  });
});

describe('a staging that answers pings and nothing else', () => {
  it('is left and dialed again after minutes', async () => {
    const world = new AgentWorld(26, one());
    world.start();
    await world.points(1);
    world.staging.isStuck = true;
    await world.run(290_000);
    expect(world.staging.hellos).toHaveLength(1);
    world.staging.isStuck = false;
    await world.run(20_000);
    expect(world.staging.hellos).toHaveLength(2);
    await world.points(2);
    expect(world.violations()).toEqual([]);
  });
});

describe('disagreement', () => {
  it('with a staging that is behind ends in a rescan by digests, and in an alarm', async () => {
    const world = new AgentWorld(16, one());
    world.fill(0);
    world.start();
    await world.points(3);
    const held = world.staging.held.get('/dev/a')!;
    held.committed = { ...held.committed!, epoch: held.committed!.epoch - 1 };
    const bytes = world.staging.receivedPieceBytes;
    world.network.cut();
    await world.points(2);
    // What came as single blocks is asked for as whole chunks; nothing else is.
    expect(world.staging.receivedPieceBytes).toBeLessThan(1.1 * bytes);
    expect(world.logLines.join()).toMatch(/staging is behind/);
    expect(new Set(world.staging.hellos.map((h) => h.volumes[0]!.generation)).size).toBe(2);
    expect(world.violations()).toEqual([]);
  });

  it('about chunks that staging misses is mended by sending them whole', async () => {
    const world = new AgentWorld(17, one());
    world.fill(0);
    world.start();
    await world.points(2);
    const patches = world.staging.counts.patch ?? 0;
    world.staging.missing = [0, 3, 31];
    await world.points(1);
    expect(world.staging.counts.patch).toBeGreaterThan(patches);
    expect(world.violations()).toEqual([]);
  });

  it('that cannot be mended ends the agent', async () => {
    const world = new AgentWorld(18, one());
    world.staging.refusal = 'ERR_UNAUTHORIZED';
    world.start();
    await expect(world.run(1000)).rejects.toMatchObject({ code: 'ERR_UNAUTHORIZED' });
  });
});

describe('a machine that is not the server', () => {
  it('says so, sends nothing, waits, and goes on once it was let in', async () => {
    const world = new AgentWorld(19, one());
    world.staging.refusal = 'ERR_OTHER_HARDWARE';
    world.start();
    await world.run(60_000);
    expect(world.agent.status().refused).toMatchObject({ code: 'ERR_OTHER_HARDWARE' });
    expect(world.staging.points).toEqual([]);
    expect(world.logLines.filter((line) => line.includes('refuses this machine')).length).toBe(1);
    world.staging.refusal = '';
    await world.points(1);
    expect(world.agent.status().refused).toBeNull();
    expect(world.violations()).toEqual([]);
  });
});

describe('failures of devices', () => {
  it('read errors stall their volume alone, until it can be read', async () => {
    const world = new AgentWorld(19, two, { retryVolumeMs: 500 });
    world.start();
    await world.points(2);
    world.volumes[1]!.device.badSectors.add(100);
    world.write(1, 96, 8);
    await world.points(3);
    expect(world.staging.points.at(-1)!.images.size).toBe(1);
    expect(world.agent.status().volumes[1]).toMatchObject({
      state: 'stalled',
      reason: expect.stringMatching(/read error EIO at byte/),
    });
    world.volumes[1]!.device.badSectors.clear();
    await world.until('both', () => world.staging.points.at(-1)!.images.size === 2);
    expect(world.violations()).toEqual([]);
  });

  it('read errors in an initial sync do not make a hole in it', async () => {
    const world = new AgentWorld(20, one(8 * MIB), { retryVolumeMs: 500 });
    world.fill(0);
    await world.run(20);
    world.volumes[0]!.device.badSectors.add(8000);
    world.start();
    await world.run(3000);
    expect(world.staging.points.length).toBe(0);
    expect(world.staging.held.get('/dev/a')!.synced).toBeLessThanOrEqual((8000 * 512) / 65536);
    world.volumes[0]!.device.badSectors.clear();
    await world.points(1);
    expect(world.violations()).toEqual([]);
  });

  it('a device that vanishes is left out', async () => {
    const world = new AgentWorld(21, two);
    world.start();
    await world.points(2);
    const gone = world.volumes[1]!;
    gone.goneError = () => new UnderstudyError('ERR_DEVICE_GONE', 'no such device');
    gone.isGone = true;
    await world.points(3);
    expect(world.staging.points.at(-1)!.images.size).toBe(1);
    const volume = world.agent.state.volumes[1]!;
    expect(stateOf(world.agent.state, volume)).toBe('stalled');
    expect(volume.reason).toMatch(/vanished/);
  });
});

describe('a device that is unplugged', () => {
  for (const isScanned of [false, true]) {
    it(`and plugged in again goes on${isScanned ? ', scanned' : ''}`, async () => {
      const world = new AgentWorld(25, [{ ...one()[0]!, isScanned }], { retryVolumeMs: 500 });
      world.fill(0);
      await world.run(50);
      world.start();
      await world.points(2);
      const [volume] = world.volumes;
      volume!.unplug();
      const before = world.staging.points.length;
      await world.run(3000);
      expect(world.staging.points.length).toBe(before);
      volume!.plug();
      await world.points(3);
      expect(world.violations()).toEqual([]);
      const hellos = world.staging.hellos.length;
      await world.points(3);
      expect(world.staging.hellos.length).toBe(hellos);
    });
  }

  it('for a moment while it is read the first time is not taken for zeros', async () => {
    const world = new AgentWorld(26, one(8 * MIB));
    world.fill(0);
    await world.run(50);
    world.start();
    const synced = () => world.agent.state.volumes[0]!.sync?.nextChunk ?? 0;
    await world.until('half', () => synced() > 32);
    const [volume] = world.volumes;
    volume!.data = [];
    await world.run(100);
    volume!.data = null;
    await world.points(1);
    expect(world.violations()).toEqual([]);
  });
});

describe('scanned volumes', () => {
  const scanned = [{ name: '/file', sizeBytes: 4 * MIB + 512, isScanned: true }];

  it('give points where nothing changed in between', async () => {
    const world = new AgentWorld(22, scanned);
    world.fill(0);
    await world.run(50);
    world.start();
    await world.points(2);
    world.write(0, 77, 9);
    await world.points(3);
    expect(world.staging.points.every((point) => point.method === 'scan')).toBe(true);
    expect(world.violations()).toEqual([]);
  });

  it('give none while writes go on', async () => {
    const world = new AgentWorld(23, scanned);
    world.fill(0);
    const stop = world.writer(0, 1);
    world.start();
    await world.run(8000);
    expect(world.staging.points.length).toBe(0);
    stop();
    await world.points(1);
    expect(world.violations()).toEqual([]);
  });

  it('offer again only what changed', async () => {
    const world = new AgentWorld(24, [{ name: '/file', sizeBytes: 32 * MIB, isScanned: true }]);
    world.fill(0);
    await world.run(50);
    world.start();
    await world.points(2);
    const offers = world.staging.counts.offer!;
    world.write(0, 4000, 3);
    await world.points(2);
    expect(world.staging.counts.offer! - offers).toBeLessThan(3);
  });
});
