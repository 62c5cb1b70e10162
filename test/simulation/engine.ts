/**
 * The simulated reader and cutter: the Engine contract of `src/native/types.ts` over simulated devices
 * and trackers, in virtual time. Reads take time, run many at once, and see each block at some moment in
 * between; a cut flips, harvests, reads, validates, and goes round again while blocks are contested.
 */
import type { Clock } from '../../src/base/clock.ts';
import { BLOCK_BYTES, type Extent } from '../../src/model/geometry.ts';
import type {
  DeviceGeometry,
  Engine,
  EngineEvents,
  PassResult,
  ReadFault,
  TrackedVolume,
  VolumeCounters,
} from '../../src/native/types.ts';
import type { Random } from './random.ts';
import { type FlipWord, geometryOf, type SimulatedTracker, trackedVolume } from './tracker.ts';

const DEPTH = 8;
const MAX_BLOCKS_PER_READ = 16;

interface Target {
  volume: number;
  offset: number;
  length: number;
}
interface Slot {
  buffer: number;
  used: number;
  /** Reads into it that have not ended. */
  reading: number;
  pieces: (Target & { at: number })[];
}
interface JobResult {
  outcome: PassResult['outcome'];
  timeMs: number;
  passes: number;
  first: number;
  last: number;
  contested: number;
  carried: number;
  startedMs: number;
}

export class SimulatedEngine implements Engine {
  /** For the world's books. */
  onCommitted: (generation: string, epoch: number) => void = () => undefined;
  private readonly trackers: readonly SimulatedTracker[];
  private readonly buffers: readonly Uint8Array[];
  private readonly events: EngineEvents;
  private readonly clock: Clock;
  private readonly random: Random;
  private readonly word: FlipWord;
  private readonly pending: Set<number>[];
  private readonly newGeneration: () => string;
  private free: number[];
  private waiting: (() => void)[] = [];
  private held: Slot[] = [];
  private current: Slot | null = null;
  private faults: ReadFault[] = [];
  private carried = 0;
  private closed = false;
  private busy = false;

  constructor(
    trackers: readonly SimulatedTracker[],
    buffers: readonly Uint8Array[],
    events: EngineEvents,
    world: { clock: Clock; random: Random; word: FlipWord; newGeneration: () => string },
  ) {
    this.newGeneration = world.newGeneration;
    this.trackers = trackers;
    this.buffers = buffers;
    this.events = events;
    this.clock = world.clock;
    this.random = world.random;
    this.word = world.word;
    this.free = buffers.map((_, index) => index);
    this.pending = trackers.map((tracker) => new Set(tracker.takeOver()));
  }

  read(job: number, volume: number, extents: readonly Extent[]): void {
    void this.run(job, async (result) => {
      const maximum = this.buffers[0]!.length;
      for (const extent of extents) {
        for (let done = 0; done < extent.length; done += maximum) {
          const length = Math.min(maximum, extent.length - done);
          await this.readInto({ volume, offset: extent.offset + done, length }, job, false);
        }
      }
      result.outcome = 'drained';
    });
  }

  drain(job: number, volumes: readonly number[]): void {
    void this.run(job, async (result) => {
      await this.flip(result);
      result.last = await this.pass(job, volumes, false, result);
      result.outcome = 'drained';
    });
  }

  cut(job: number, volumes: readonly number[], deadlineMs: number): void {
    void this.run(job, async (result) => {
      const end = this.clock.monotonicMs() + deadlineMs;
      while (!this.closed) {
        await this.flip(result);
        result.last = await this.pass(job, volumes, true, result);
        if (result.passes === 1) result.first = result.last;
        if (result.contested === 0 && this.faults.length === 0) {
          result.outcome = 'valid';
          return;
        }
        if (this.clock.monotonicMs() > end || this.faults.length > 0) {
          result.outcome = 'deadline';
          return;
        }
      }
    });
  }

  release(buffer: number): void {
    this.free.push(buffer);
    this.waiting.shift()?.();
  }

  pend(volume: number, extents: readonly Extent[]): void {
    for (const block of extents.flatMap(blocksOfExtent)) this.pending[volume]!.add(block);
  }

  pendOutstanding(volume: number): void {
    for (const block of this.trackers[volume]!.outstanding) this.pending[volume]!.add(block);
  }

  committed(volume: number, epoch: number): void {
    const tracker = this.trackers[volume]!;
    tracker.committedEpoch = epoch;
    this.onCommitted(tracker.generation, epoch);
    tracker.synced = true;
    for (const block of [...tracker.outstanding]) {
      if (!this.pending[volume]!.has(block)) tracker.outstanding.delete(block);
    }
  }

  counters(volume: number): VolumeCounters {
    const tracker = this.trackers[volume]!;
    return {
      queuedSectors: 0,
      completedSectors: 0,
      missedCompletions: 0,
      recursionMisses: 0,
      taint: tracker.taint,
      suspectBlocks: 0,
      pendingBlocks: this.pending[volume]!.size,
      outstandingBlocks: tracker.outstanding.size,
      writtenBytesSinceFlip: tracker.writtenSinceFlip,
      isStatAlive: true,
    };
  }

  renew(volume: number, reason: string): { tracked: TrackedVolume; geometry: DeviceGeometry } {
    const tracker = this.trackers[volume]!;
    tracker.renew(this.newGeneration());
    this.pending[volume]!.clear();
    const tracked = trackedVolume(tracker, reason);
    return { tracked, geometry: geometryOf(tracker.device) };
  }

  async close(): Promise<void> {
    this.closed = true;
    for (const wake of this.waiting.splice(0)) wake();
  }

  private async run(job: number, work: (result: JobResult) => Promise<void>): Promise<void> {
    if (this.busy) throw new Error('the engine was given a second job at once');
    this.busy = true;
    this.faults = [];
    const result: JobResult = {
      outcome: 'aborted',
      timeMs: 0,
      passes: 0,
      first: 0,
      last: 0,
      contested: 0,
      carried: 0,
      startedMs: this.clock.monotonicMs(),
    };
    await this.pause(0.01);
    await work(result);
    this.busy = false;
    if (this.closed) return;
    this.handOver(job);
    this.events.onDone(
      {
        job,
        outcome: result.outcome,
        timeMs: result.timeMs,
        durationMs: this.clock.monotonicMs() - result.startedMs,
        passes: result.passes,
        firstBlocks: result.first,
        lastBlocks: result.last,
        contestedBlocks: result.contested,
        carriedBlocks: this.carried,
      },
      this.faults,
    );
  }

  /** T: at a whole millisecond, so that it never ties with a write's event. */
  private async flip(result: JobResult): Promise<void> {
    const now = this.clock.monotonicMs();
    await this.pause(Math.ceil(now + 0.001) - now);
    const old = this.word.epoch & 1;
    const collect = (plane: number) => {
      this.trackers.forEach((tracker, volume) => {
        for (const block of tracker.harvest(plane)) this.pending[volume]!.add(block);
      });
    };
    collect(1 - old);
    result.timeMs = this.clock.wallMs();
    this.word.epoch += 1;
    collect(old);
    for (const tracker of this.trackers) tracker.writtenSinceFlip = 0;
    result.passes += 1;
    result.contested = 0;
    this.carried = 0;
  }

  /** Reads what is pending; returns the number of blocks read. */
  private async pass(
    job: number,
    volumes: readonly number[],
    holdBack: boolean,
    result: JobResult,
  ): Promise<number> {
    const targets: Target[] = [];
    for (const volume of volumes) targets.push(...this.takePending(volume));
    if (holdBack) this.supersede(targets);
    let next = 0;
    const lane = async () => {
      while (next < targets.length && !this.closed) {
        const target = targets[next]!;
        next += 1;
        await this.readInto(target, job, holdBack);
        if (blocksOfTarget(target).some((b) => this.trackers[target.volume]!.isContested(b))) {
          result.contested += 1;
        }
      }
    };
    await Promise.all(Array.from({ length: DEPTH }, lane));
    return targets.reduce((sum, target) => sum + target.length / BLOCK_BYTES, 0);
  }

  /** Pending blocks as extents; those that may be in flight stay pending for the next pass too. */
  private takePending(volume: number): Target[] {
    const tracker = this.trackers[volume]!;
    const blocks = [...this.pending[volume]!].sort((a, b) => a - b);
    this.pending[volume]!.clear();
    const targets: Target[] = [];
    for (const block of blocks) {
      if (tracker.isInFlight(block)) {
        this.pending[volume]!.add(block);
        this.carried += 1;
      }
      const offset = block * BLOCK_BYTES;
      const length = Math.min(BLOCK_BYTES, tracker.device.sizeBytes - offset);
      const last = targets.at(-1);
      const joins =
        last !== undefined &&
        last.offset + last.length === offset &&
        last.length < MAX_BLOCKS_PER_READ * BLOCK_BYTES;
      if (joins) last.length += length;
      else targets.push({ volume, offset, length });
    }
    return targets;
  }

  /** Drops from held buffers what this pass reads anew. */
  private supersede(targets: readonly Target[]): void {
    const fresh = new Set(
      targets.flatMap((target) => blocksOfTarget(target).map((b) => `${target.volume}:${b}`)),
    );
    for (const slot of [...this.held, ...(this.current === null ? [] : [this.current])]) {
      slot.pieces = slot.pieces.flatMap((piece) =>
        blocksOfTarget(piece)
          .filter((block) => !fresh.has(`${piece.volume}:${block}`))
          .map((block) => {
            const offset = block * BLOCK_BYTES;
            const end = Math.min(offset + BLOCK_BYTES, piece.offset + piece.length);
            const at = piece.at + offset - piece.offset;
            return { volume: piece.volume, offset, length: end - offset, at };
          }),
      );
    }
  }

  private async readInto(target: Target, job: number, holdBack: boolean): Promise<void> {
    const room = await this.room(target.length, job, holdBack);
    if (room === null) return;
    const { slot, at } = room;
    const device = this.trackers[target.volume]!.device;
    const took = this.random.between(0.05, 2);
    const early = this.random.next() * took;
    await this.pause(early);
    const content = device.read(target.offset, target.length);
    await this.pause(took - early);
    slot.reading -= 1;
    if (device.isBad(target.offset, target.length)) {
      this.faults.push({ ...target, errno: 'EIO' });
      this.pend(target.volume, [target]);
      return;
    }
    this.buffers[slot.buffer]!.set(content, at);
    slot.pieces.push({ ...target, at });
    slot.pieces.sort((a, b) => a.at - b.at);
  }

  /** Room in a buffer, taken at once; hands over the oldest buffers where none is free. */
  private async room(
    length: number,
    job: number,
    holdBack: boolean,
  ): Promise<{ slot: Slot; at: number } | null> {
    while (!this.closed) {
      if (this.current !== null && this.current.used + length > this.capacity) {
        this.held.push(this.current);
        this.current = null;
      }
      const buffer = this.current === null ? this.free.shift() : undefined;
      if (buffer !== undefined) this.current = { buffer, used: 0, reading: 0, pieces: [] };
      if (this.current !== null) {
        const slot = this.current;
        const at = slot.used;
        slot.used += length;
        slot.reading += 1;
        return { slot, at };
      }
      const count = this.settledSlots(holdBack ? 1 : this.held.length);
      if (count > 0) this.emit(this.held.splice(0, count), job);
      else if (this.held.length > 0) await this.pause(0.5);
      else await new Promise<void>((resolve) => this.waiting.push(resolve));
    }
    return null;
  }

  /** How many of the oldest held slots, at most, have no read under way. */
  private settledSlots(most: number): number {
    const busy = this.held.findIndex(({ reading }) => reading > 0);
    return Math.min(most, busy < 0 ? this.held.length : busy);
  }

  private get capacity(): number {
    return this.buffers[0]!.length;
  }

  private handOver(job: number): void {
    const slots = this.current === null ? this.held : [...this.held, this.current];
    this.held = [];
    this.current = null;
    this.emit(slots, job);
  }

  private emit(slots: readonly Slot[], job: number): void {
    for (const { buffer, pieces } of slots) {
      if (pieces.length > 0) this.events.onFilled({ buffer, job, pieces });
      else this.release(buffer);
    }
  }

  private pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      this.clock.after(ms, resolve);
    });
  }
}

function blocksOfExtent(extent: Extent): number[] {
  const first = Math.floor(extent.offset / BLOCK_BYTES);
  const end = Math.ceil((extent.offset + extent.length) / BLOCK_BYTES);
  return Array.from({ length: end - first }, (_, index) => first + index);
}
const blocksOfTarget = (target: Target): number[] => blocksOfExtent(target);
