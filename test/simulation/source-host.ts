/**
 * The simulated source server: devices with writers in ordered chains (a chain issues a write only when
 * its last one is complete), the trackers that outlive the agent, and the agent's process, which can be
 * killed, started again, or lost with the whole machine (a reboot: tracking is lost, P6).
 */
import { type Agent, createAgent } from '../../src/agent/agent.ts';
import { createInlinePipeline } from '../../src/agent/pipeline.ts';
import { defaultSettings } from '../../src/agent/replication-state.ts';
import type { UnderstudyError } from '../../src/base/errors.ts';
import type { Log } from '../../src/base/log.ts';
import { KIB } from '../../src/base/units.ts';
import type { Device } from '../../src/native/types.ts';
import { SimulatedDevice, type SimulatedWrite } from './device.ts';
import { SimulatedEngine } from './engine.ts';
import type { SimulatedNetwork } from './network.ts';
import { ProcessClock } from './process-clock.ts';
import type { Random } from './random.ts';
import {
  type FlipWord,
  geometryOf,
  type SchemeRules,
  SimulatedTracker,
  trackedVolume,
} from './tracker.ts';
import type { VirtualClock } from './virtual-clock.ts';

export const SERVER = 'sim';
const BUFFERS = 8;
const BUFFER_BYTES = 256 * KIB;

export interface SourceOptions {
  readonly clock: VirtualClock;
  readonly random: Random;
  readonly network: SimulatedNetwork;
  readonly log: Log;
  readonly volumes: number;
  readonly sizeBytes: number;
  readonly chains: number;
  readonly rules: SchemeRules;
  readonly onAcknowledged: (generation: string, epoch: number) => void;
}

export class SourceHost {
  readonly devices: readonly SimulatedDevice[];
  agent: Agent | null = null;
  /** Set when the agent has given up by itself; a world that allows none of it fails on this. */
  givenUp: UnderstudyError | null = null;
  private trackers: SimulatedTracker[] = [];
  private engine: SimulatedEngine | null = null;
  private process: ProcessClock | null = null;
  private bootId = 0;
  private readonly word: FlipWord = { epoch: 0 };
  private readonly options: SourceOptions;

  constructor(options: SourceOptions) {
    this.options = options;
    this.devices = Array.from(
      { length: options.volumes },
      (_, index) => new SimulatedDevice(`/dev/sim${index}`, options.sizeBytes),
    );
    this.boot();
  }

  startAgent(): void {
    const { random, network, log } = this.options;
    const clock = new ProcessClock(this.options.clock);
    this.process = clock;
    const fork = random.fork();
    const newGeneration = () => Buffer.from(fork.bytes(16)).toString('hex');
    const buffers = Array.from({ length: BUFFERS }, () => new Uint8Array(BUFFER_BYTES));
    this.agent = createAgent({
      clock,
      log,
      random: () => fork.next(),
      dialer: network,
      buffers,
      pipeline: createInlinePipeline(buffers),
      createEngine: (events) => {
        const world = { clock, random: fork, word: this.word, newGeneration };
        this.engine = new SimulatedEngine(this.trackers, buffers, events, world);
        this.engine.onCommitted = this.options.onAcknowledged;
        return this.engine;
      },
      volumes: this.trackers.map((tracker) => ({
        name: tracker.device.path,
        device: deviceView(tracker.device),
        tracked: trackedVolume(tracker, tracker.freshReason),
        isScanned: false,
      })),
      identity: {
        server: SERVER,
        hardwareId: 'a'.repeat(64),
        bootId: `boot-${this.bootId}`,
        agentVersion: 'simulated',
      },
      pid: 1,
      settings: { ...defaultSettings, cutIntervalMs: 1000, drainThresholdBytes: 128 * KIB },
      bandwidth: 0,
      onGivenUp: (error) => {
        this.givenUp = error;
      },
    });
    for (const tracker of this.trackers) tracker.freshReason = '';
    this.agent.start();
  }

  /** kill -9: nothing is said to anyone; what is pinned goes on. */
  killAgent(): void {
    this.process?.kill();
    this.options.network.killAgent();
    void this.engine?.close();
    this.agent = null;
    this.engine = null;
  }

  /** The machine restarts: the devices keep their bytes, tracking and the agent are gone. */
  reboot(): void {
    this.killAgent();
    this.boot();
  }

  startWriters(): void {
    for (let chain = 0; chain < this.options.chains; chain += 1) {
      this.nextWrite(this.options.random.fork(), Number.POSITIVE_INFINITY);
    }
  }

  /** More of them, for a while. */
  burst(untilMs: number): void {
    for (let chain = 0; chain < 8; chain += 1) {
      this.nextWrite(this.options.random.fork(), untilMs);
    }
  }

  private boot(): void {
    this.bootId += 1;
    // What was in flight when the power went is as it is: nothing more lands.
    for (const device of this.devices) device.powerCut(this.options.clock.monotonicMs());
    for (const tracker of this.trackers) tracker.detach();
    this.word.epoch = 0;
    this.trackers = this.devices.map((device) => {
      const generation = Buffer.from(this.options.random.bytes(16)).toString('hex');
      return new SimulatedTracker(device, generation, this.word, this.options.rules);
    });
  }

  /** One write after the other; a fifth of them goes to a few hot blocks, as a log's tail does. */
  private nextWrite(random: Random, untilMs: number): void {
    const { clock } = this.options;
    if (clock.monotonicMs() > untilMs) return;
    const pause = fractional(clock, random.between(1, 60));
    clock.after(pause, () => {
      const device = random.pick(this.devices);
      const sectors = random.chance(0.1) ? 1 + random.below(150) : 1 + random.below(16);
      const hot = random.chance(0.2);
      const first = hot ? 8 * random.below(16) : random.below(device.sectors - sectors);
      const count = hot ? 8 : sectors;
      const write = device.queue(first, count, random.chance(0.1), clock.monotonicMs());
      this.land(device, write, random, untilMs);
    });
  }

  private land(
    device: SimulatedDevice,
    write: SimulatedWrite,
    random: Random,
    untilMs: number,
  ): void {
    const { clock } = this.options;
    const takes = random.between(0.2, 8);
    const boot = this.bootId;
    // Sectors land in a few groups, in any order.
    const groups = 1 + random.below(4);
    for (let group = 0; group < groups; group += 1) {
      const delay = fractional(clock, random.next() * takes * 0.9);
      clock.after(delay, () => {
        if (boot !== this.bootId) return;
        for (let at = group; at < write.sectors; at += groups) {
          device.land(write, write.firstSector + at);
        }
      });
    }
    clock.after(fractional(clock, takes + 0.5), () => {
      if (boot === this.bootId) {
        device.complete(write, clock.monotonicMs(), !random.chance(0.002));
      }
      this.nextWrite(random, untilMs);
    });
  }
}

/** A delay that does not end at a whole millisecond, where cuts happen. */
function fractional(clock: VirtualClock, delayMs: number): number {
  const due = clock.monotonicMs() + delayMs;
  return Number.isInteger(due) ? delayMs + 0.137 : delayMs;
}

function deviceView(device: SimulatedDevice): Device {
  return {
    path: device.path,
    geometry: geometryOf(device),
    async read(buffer, offset) {
      const content = device.read(offset, buffer.length);
      buffer.set(content);
      return content.length;
    },
    nextData: (offset) =>
      Promise.resolve(
        offset >= device.sizeBytes ? null : { offset, length: device.sizeBytes - offset },
      ).then((extent) => extent),
    currentSizeBytes: () => device.sizeBytes,
    named: () => 'same',
    reopen: () => undefined,
    close: () => undefined,
  };
}
