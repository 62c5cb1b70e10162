/**
 * The agent's core in virtual time: simulated devices, trackers, engine and network around it, and the
 * fake staging at the other end. A writer writes; every point is checked against what a power cut at its
 * T could have left (P2).
 */
import { type Agent, createAgent } from '../../../src/agent/agent.ts';
import { createInlinePipeline } from '../../../src/agent/pipeline.ts';
import type { AgentVolume } from '../../../src/agent/ports.ts';
import { defaultSettings } from '../../../src/agent/replication-state.ts';
import type { AgentSettings } from '../../../src/agent/state-types.ts';
import { UnderstudyError } from '../../../src/base/errors.ts';
import { createLog } from '../../../src/base/log.ts';
import type { Extent } from '../../../src/model/geometry.ts';
import type { Engine, EngineEvents } from '../../../src/native/types.ts';
import { SimulatedDevice } from '../../simulation/device.ts';
import { SimulatedEngine } from '../../simulation/engine.ts';
import { Random } from '../../simulation/random.ts';
import { type FlipWord, FULL_SCHEME, SimulatedTracker } from '../../simulation/tracker.ts';
import { VirtualClock } from '../../simulation/virtual-clock.ts';
import { FakeStaging } from './fake-staging.ts';
import { createMemoryNetwork, type MemoryNetwork } from './memory-transport.ts';

const BUFFERS = 8;
const BUFFER_BYTES = 256 * 1024;
const START_WALL_MS = Date.UTC(2026, 0, 1);

/** A volume of the world; what it reports can be bent by a test. */
export class WorldVolume {
  readonly name: string;
  readonly device: SimulatedDevice;
  readonly isScanned: boolean;
  tracker: SimulatedTracker;
  isGone = false;
  /** Only these extents hold data; null: all of it. */
  data: Extent[] | null = null;
  private renewals = 0;
  private isOut = false;
  /** How often it was plugged in: who opened it before sees nothing of it any more. */
  private plugged = 1;
  private readonly word: FlipWord;

  constructor(name: string, sizeBytes: number, isScanned: boolean, word: FlipWord) {
    this.name = name;
    this.device = new SimulatedDevice(name, sizeBytes);
    this.isScanned = isScanned;
    this.word = word;
    this.tracker = this.freshTracker();
  }

  /** History is lost: as after a reboot. */
  forget(): void {
    this.tracker.detach();
    this.tracker = this.freshTracker();
  }

  private freshTracker(): SimulatedTracker {
    this.renewals += 1;
    const digit = this.name.length.toString(16);
    const generation = `${digit}${this.renewals.toString(16)}`.padStart(32, '0');
    return new SimulatedTracker(this.device, generation, this.word, FULL_SCHEME);
  }

  unplug(): void {
    this.isOut = true;
    this.plugged += 1;
  }

  plug(): void {
    this.isOut = false;
  }

  /** Which plugging in is opened. */
  open(): number {
    if (this.isOut) throw new UnderstudyError('ERR_DEVICE_OPEN', `open of ${this.name}: ENOENT`);
    return this.plugged;
  }

  port(isFresh: boolean): AgentVolume {
    const { device, tracker } = this;
    let opened = this.open();
    return {
      name: this.name,
      isScanned: this.isScanned,
      tracked: {
        path: this.name,
        generation: tracker.generation,
        fresh: isFresh,
        freshReason: isFresh ? 'first' : '',
        granularityBytes: 4096,
        committedEpoch: tracker.committedEpoch,
        synced: tracker.synced,
      },
      device: {
        path: this.name,
        geometry: {
          sizeBytes: device.sizeBytes,
          sectorBytes: 512,
          kind: this.data === null ? 'disk' : 'file',
          diskMajor: 1,
          diskMinor: 1,
          startBytes: 0,
          diskSequence: 1,
        },
        read: async () => 0,
        nextData: async (offset) => this.nextData(offset),
        currentSizeBytes: () => {
          if (this.isGone) throw this.goneError();
          return opened === this.plugged ? device.sizeBytes : 0;
        },
        named: () => (this.isOut ? 'nothing' : 'same'),
        reopen: () => {
          opened = this.open();
        },
        close: () => undefined,
      },
    };
  }

  goneError: () => UnderstudyError = () => {
    throw new Error('set by the test');
  };

  private nextData(offset: number): Extent | null {
    if (this.data === null) return { offset, length: this.device.sizeBytes - offset };
    const next = this.data.find((extent) => extent.offset + extent.length > offset);
    if (next === undefined) return null;
    const from = Math.max(offset, next.offset);
    return { offset: from, length: next.offset + next.length - from };
  }
}

export class AgentWorld {
  readonly clock = new VirtualClock();
  readonly random: Random;
  readonly network: MemoryNetwork;
  readonly staging = new FakeStaging();
  readonly word: FlipWord = { epoch: 0 };
  readonly volumes: WorldVolume[];
  readonly logLines: string[] = [];
  readonly settings: AgentSettings;
  agent!: Agent;
  givenUp: UnderstudyError | null = null;
  bandwidth = 0;
  lives = 0;

  constructor(
    seed: number,
    volumes: { name: string; sizeBytes: number; isScanned?: boolean }[],
    settings: Partial<AgentSettings> = {},
  ) {
    this.random = new Random(seed);
    this.network = createMemoryNetwork(this.clock);
    this.network.setDelay(0.4);
    this.network.listen((connect) => this.staging.accept(connect));
    this.volumes = volumes.map(
      (each) => new WorldVolume(each.name, each.sizeBytes, each.isScanned ?? false, this.word),
    );
    this.settings = {
      ...defaultSettings,
      cutIntervalMs: 1000,
      drainThresholdBytes: BUFFERS * BUFFER_BYTES * 0.3,
      syncBuffers: 2,
      ...settings,
    };
  }

  start(): void {
    const buffers = Array.from({ length: BUFFERS }, () => new Uint8Array(BUFFER_BYTES));
    const ports = this.volumes.map((volume) =>
      volume.port(volume.isScanned || this.lives === 0 || volume.tracker.committedEpoch === 0),
    );
    this.lives += 1;
    this.agent = createAgent({
      clock: this.clock,
      log: createLog({ clock: this.clock, sink: (line) => this.logLines.push(line) }),
      random: () => this.random.next(),
      dialer: this.network.dialer,
      pipeline: createInlinePipeline(buffers),
      buffers,
      createEngine: (events) => this.createEngine(buffers, events),
      volumes: ports,
      identity: { server: 'world', hardwareId: 'h', bootId: 'b', agentVersion: '1' },
      pid: 1,
      settings: this.settings,
      bandwidth: this.bandwidth,
      onGivenUp: (error) => {
        this.givenUp = error;
      },
    });
    this.agent.start();
  }

  private createEngine(buffers: Uint8Array[], events: EngineEvents): Engine {
    const { clock, word } = this;
    const trackers = this.volumes.map((volume) => volume.tracker);
    const random = this.random.fork();
    const newGeneration = () => Buffer.from(random.bytes(16)).toString('hex');
    const world = { clock, random, word, newGeneration };
    const engine = new SimulatedEngine(trackers, buffers, events, world);
    const renew = engine.renew.bind(engine);
    engine.renew = (volume, reason) => {
      this.volumes[volume]!.open();
      return renew(volume, reason);
    };
    return engine;
  }

  /** The agent dies with all that it knows; trackers live on. */
  async kill(): Promise<void> {
    this.network.cut();
    await this.agent.close();
  }

  async run(ms: number): Promise<void> {
    await this.clock.runUntil(this.clock.monotonicMs() + ms);
    if (this.givenUp !== null) throw this.givenUp;
  }

  async until(what: string, holds: () => boolean, limitMs = 60_000): Promise<void> {
    const end = this.clock.monotonicMs() + limitMs;
    while (!holds()) {
      if (this.clock.monotonicMs() > end) {
        throw new Error(
          `not within ${limitMs} ms: ${what}\n${this.logLines.slice(-20).join('\n')}`,
        );
      }
      await this.run(20);
    }
  }

  points(count: number): Promise<void> {
    const wanted = this.staging.points.length + count;
    return this.until(`${count} points`, () => this.staging.points.length >= wanted);
  }

  /** One write: queued now, landing sector by sector, completed a little later. */
  write(volume: number, firstSector: number, sectors: number, zero = false): void {
    const { device } = this.volumes[volume]!;
    const at = (ms: number, run: () => void) => this.clock.after(ms + 0.0001, run);
    at(0.3, () => {
      const write = device.queue(firstSector, sectors, zero, this.clock.monotonicMs());
      const took = this.random.between(0.1, 4);
      for (let i = 0; i < sectors; i += 1) {
        at(this.random.between(0.05, took), () => device.land(write, firstSector + i));
      }
      at(took + 0.01, () =>
        device.complete(write, this.clock.monotonicMs(), this.random.chance(0.98)),
      );
    });
  }

  /** Fills the device once: a third of it, in scattered runs. */
  fill(volume: number): void {
    const { device } = this.volumes[volume]!;
    for (let sector = 0; sector < device.sectors; sector += 96) {
      this.write(volume, sector, Math.min(32, device.sectors - sector));
    }
  }

  /** Random writes until `stop` is called. */
  writer(volume: number, everyMs: number, hotSectors = 0): () => void {
    let isOn = true;
    const { device } = this.volumes[volume]!;
    const next = () => {
      if (!isOn) return;
      const range = hotSectors > 0 && this.random.chance(0.3) ? hotSectors : device.sectors;
      const sectors = 1 + this.random.below(12);
      const first = this.random.below(Math.max(1, range - sectors));
      this.write(volume, first, Math.min(sectors, device.sectors - first), this.random.chance(0.1));
      this.clock.after(this.random.between(0.2, 2) * everyMs, next);
    };
    next();
    return () => {
      isOn = false;
    };
  }

  /** What is wrong with the points; empty when all are states that a power cut could have left. */
  violations(): string[] {
    return this.staging.points.flatMap((point) =>
      [...point.images].flatMap(([name, image]) => {
        const volume = this.volumes.find((each) => each.name === name)!;
        const wrong = volume.device.violation(image, point.timeMs - START_WALL_MS);
        return wrong === null ? [] : [wrong];
      }),
    );
  }
}
