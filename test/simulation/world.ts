/**
 * One whole world from one seed: a source server with busy volumes, its agent, the network, a staging
 * service and its disk, in virtual time, with faults for a while and then none. While it runs and at its
 * end it holds the promises against what it knows:
 *
 *   P1/P2  every recovery point is a state that a power cut at its T could have left, over all volumes
 *   P3     every image is read back through the store, which checks every digest
 *   P4     what was acknowledged is there after every restart; what is visible never changes
 *   P6     after a reboot of the source a new generation is synced before any new point
 * and that, once the faults have stopped, replication catches up: the newest point is young and whole.
 */
import { createHash } from 'node:crypto';
import { UnderstudyError } from '../../src/base/errors.ts';
import { createLog, type Log, silentLog } from '../../src/base/log.ts';
import { MIB } from '../../src/base/units.ts';
import type { ListedPoint, Store } from '../../src/store/types.ts';
import { FaultyDisk } from './disk.ts';
import { SimulatedNetwork } from './network.ts';
import { Random } from './random.ts';
import { SERVER, SourceHost } from './source-host.ts';
import { StagingHost } from './staging-host.ts';
import { FULL_SCHEME, type SchemeRules } from './tracker.ts';
import { START_WALL_MS, VirtualClock } from './virtual-clock.ts';

export interface WorldOptions {
  readonly seed: number;
  readonly rules?: SchemeRules;
  /** A canary: staging's disk says that it has synced, and has not. */
  readonly syncLies?: boolean;
  /** Receives the log of agent, staging and faults. */
  readonly onLog?: (line: string) => void;
}

export interface WorldReport {
  readonly seed: number;
  readonly points: number;
  readonly imagesChecked: number;
  readonly faults: Readonly<Record<string, number>>;
  readonly writes: number;
}

/** A breach of a promise, with the seed that shows it again. */
export class Breach extends Error {}

const FAULTS_UNTIL_MS = 12_000;
/** Longer than the longest wait of a reconnect, a retry and a cut together. */
const QUIET_MS = 45_000;

type FaultName =
  | 'kill-agent'
  | 'reboot-source'
  | 'kill-staging'
  | 'power-cut'
  | 'cut-network'
  | 'half-open'
  | 'slow-network'
  | 'disk-full'
  | 'read-errors'
  | 'request-point'
  | 'burst';

const FAULTS: readonly FaultName[] = [
  'kill-agent',
  'kill-agent',
  'reboot-source',
  'kill-staging',
  'power-cut',
  'power-cut',
  'cut-network',
  'cut-network',
  'half-open',
  'slow-network',
  'disk-full',
  'read-errors',
  'request-point',
  'burst',
];

export class World {
  private readonly clock = new VirtualClock();
  private readonly random: Random;
  private readonly log: Log;
  private readonly disk: FaultyDisk;
  private readonly network: SimulatedNetwork;
  private readonly source: SourceHost;
  private readonly staging: StagingHost;
  private readonly options: WorldOptions;
  private readonly faults: Record<string, number> = {};
  /** Digests of images of points that were seen: a visible point never changes (P4). */
  private readonly seen = new Map<string, string>();
  /** Epochs that the agent was told to be committed, by "generation:epoch". */
  private readonly acknowledged = new Set<string>();
  private imagesChecked = 0;

  constructor(options: WorldOptions) {
    this.options = options;
    this.random = new Random(options.seed);
    const { clock, random } = this;
    this.log =
      options.onLog === undefined
        ? silentLog
        : createLog({ clock, level: 'debug', sink: options.onLog });
    const latency = random.fork();
    this.disk = new FaultyDisk({ clock, latencyMs: () => latency.between(0.001, 0.3) });
    this.disk.syncLies = options.syncLies ?? false;
    this.network = new SimulatedNetwork(clock, random.fork());
    const { log, network, disk } = this;
    this.source = new SourceHost({
      clock,
      network,
      log,
      random: random.fork(),
      volumes: 1 + random.below(2),
      sizeBytes: random.pick([0.5, 1, 1.5]) * MIB + random.pick([0, 4096, 512, 65536 - 512]),
      chains: 1 + random.below(3),
      rules: options.rules ?? FULL_SCHEME,
      onAcknowledged: (generation, epoch) => this.acknowledged.add(`${generation}:${epoch}`),
    });
    this.staging = new StagingHost({ clock, network, disk, log, random: random.fork() });
  }

  async run(): Promise<WorldReport> {
    void this.staging.start();
    this.source.startAgent();
    this.source.startWriters();
    let now = 0;
    while (now < FAULTS_UNTIL_MS) {
      now += this.random.between(200, 2000);
      await this.advance(now);
      await this.inflict(this.random.pick(FAULTS), now);
    }
    await this.heal(now);
    await this.advance(now + QUIET_MS);
    await this.judge();
    return {
      seed: this.options.seed,
      points: this.seen.size,
      imagesChecked: this.imagesChecked,
      faults: this.faults,
      writes: this.source.devices.reduce((sum, device) => sum + device.writes.length, 0),
    };
  }

  private async advance(untilMs: number): Promise<void> {
    await this.clock.runUntil(untilMs);
    const { givenUp } = this.source;
    if (givenUp !== null)
      this.fail(`the agent gave up: ${givenUp.code} ${givenUp.message}`, givenUp);
    if (this.staging.failure !== null) {
      this.fail(`staging failed: ${String(this.staging.failure)}`, this.staging.failure);
    }
  }

  private async inflict(fault: FaultName, now: number): Promise<void> {
    this.faults[fault] = (this.faults[fault] ?? 0) + 1;
    this.log.info(`fault: ${fault}`);
    const { random, network, source, staging, disk } = this;
    const later = random.between(50, 3000);
    switch (fault) {
      case 'kill-agent':
        source.killAgent();
        this.clock.after(later, () => this.reviveAgent());
        break;
      case 'reboot-source':
        source.reboot();
        this.clock.after(later, () => this.reviveAgent());
        break;
      case 'kill-staging':
      case 'power-cut':
        if (fault === 'power-cut') staging.powerCut();
        else staging.kill();
        await this.advance(now + later);
        void staging.start();
        await this.settle();
        await this.checkPoints();
        break;
      case 'cut-network':
        network.cut();
        break;
      case 'half-open':
        network.isHalfOpen = true;
        this.clock.after(later * 3, () => {
          network.isHalfOpen = false;
        });
        break;
      case 'slow-network':
        network.rate = random.between(20, 400);
        break;
      case 'disk-full':
        disk.capacityBytes = disk.usedBytes() + random.below(300_000);
        this.clock.after(later, () => {
          disk.capacityBytes = Number.POSITIVE_INFINITY;
        });
        break;
      case 'read-errors': {
        const device = random.pick(source.devices);
        device.badSectors.add(random.below(device.sectors));
        this.clock.after(later, () => device.badSectors.clear());
        break;
      }
      case 'request-point':
        staging.requestPoint(`request-${now}`);
        break;
      case 'burst':
        source.burst(now + later);
        break;
    }
  }

  private reviveAgent(): void {
    if (this.source.agent === null) this.source.startAgent();
  }

  private async heal(now: number): Promise<void> {
    this.network.isHalfOpen = false;
    this.network.rate = 20_000;
    this.disk.capacityBytes = Number.POSITIVE_INFINITY;
    for (const device of this.source.devices) device.badSectors.clear();
    await this.advance(now + 1);
    this.reviveAgent();
    if (!this.staging.isRunning) void this.staging.start();
  }

  /** At the end: all points, the last of them young and whole, and all of it again after a power cut. */
  private async judge(): Promise<void> {
    await this.checkPoints();
    const [newest] = await this.listPoints();
    const now = this.clock.wallMs();
    if (newest === undefined) return this.fail('no recovery point after the faults stopped');
    const age = now - Date.parse(newest.time);
    if (age > 15_000) this.fail(`the newest point is ${age} ms old: replication does not catch up`);
    if (newest.missingVolumes.length > 0) this.fail('the newest point is partial');
    if (newest.volumes.length !== this.source.devices.length) this.fail('a volume is left out');
    this.source.killAgent();
    this.staging.powerCut();
    void this.staging.start();
    await this.settle();
    await this.advance(this.clock.monotonicMs() + 2000);
    await this.checkPoints();
  }

  /** Lets what is under way come to an end, a second of virtual time. */
  private settle(): Promise<void> {
    return this.advance(this.clock.monotonicMs() + 1000);
  }

  private store(): Store {
    const { store } = this.staging;
    if (store === null) throw new Breach(`seed ${this.options.seed}: staging is not running`);
    return store;
  }

  /** Drives virtual time while a call of the store runs. */
  private async await<T>(promise: Promise<T>): Promise<T> {
    let isDone = false;
    const settled = promise.finally(() => {
      isDone = true;
    });
    settled.catch(() => undefined);
    for (let step = 0; step < 100_000 && !isDone; step += 1) {
      await this.clock.runUntil(this.clock.monotonicMs() + 1);
    }
    if (!isDone) this.fail('a call of the store does not end');
    return settled;
  }

  private listPoints(): Promise<ListedPoint[]> {
    return this.await(this.store().points({ server: SERVER, limit: 100_000 }));
  }

  private async checkPoints(): Promise<void> {
    if (!this.staging.isRunning) return;
    const points = await this.listPoints();
    const visible = new Set(points.map(({ id }) => id));
    for (const id of this.seen.keys()) {
      if (!visible.has(id)) this.fail(`point ${id} was visible and is gone`);
    }
    const committed = new Set(
      points.flatMap(({ volumes }) => volumes.map((v) => `${v.generation}:${v.epoch}`)),
    );
    for (const name of this.acknowledged) {
      if (!committed.has(name)) this.fail(`epoch ${name} was acknowledged and is gone`);
    }
    for (const point of points) await this.checkPoint(point);
  }

  private async checkPoint(point: ListedPoint): Promise<void> {
    const timeMs = Date.parse(point.time) - START_WALL_MS;
    const known = this.seen.get(point.id);
    // An old point is read again now and then: it must still be what it was.
    if (known !== undefined && !this.random.chance(0.05)) return;
    const digest = createHash('sha256');
    for (const { volume } of point.volumes) {
      const device = this.source.devices.find(({ path }) => path === volume)!;
      const image = await this.readImage(point.id, volume);
      digest.update(image);
      this.imagesChecked += 1;
      const violation = device.violation(image, timeMs);
      if (violation !== null) this.fail(`point ${point.id}: ${violation}`);
    }
    const found = digest.digest('hex');
    if (known !== undefined && known !== found) this.fail(`point ${point.id} has changed`);
    this.seen.set(point.id, found);
  }

  private async readImage(point: string, volume: string): Promise<Uint8Array> {
    try {
      const image = await this.await(this.store().openImage(point, volume));
      const bytes = await this.await(image.read(0, image.sizeBytes));
      image.close();
      return bytes;
    } catch (error) {
      return this.fail(`point ${point}, ${volume}: ${String(error)}`, error);
    }
  }

  private fail(message: string, cause?: unknown): never {
    const detail = cause instanceof UnderstudyError ? ` ${JSON.stringify(cause.context)}` : '';
    const time = this.clock.monotonicMs().toFixed(1);
    throw new Breach(`seed ${this.options.seed} at ${time} ms: ${message}${detail}`, { cause });
  }
}
