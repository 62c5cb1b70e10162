/**
 * The simulated kernel side of change tracking for one device: queue marks and completion marks in two
 * planes, sectors in flight by block, the outstanding plane, all of which outlive the agent. It follows
 * the scheme of ARCHITECTURE.md, "The cut"; `rules` lets a canary leave a part of the scheme out.
 */
import { BLOCK_BYTES, SECTOR_BYTES } from '../../src/model/geometry.ts';
import type { DeviceGeometry, TrackedVolume } from '../../src/native/types.ts';
import type { SimulatedDevice, SimulatedWrite, WriteListener } from './device.ts';

/** What a canary may leave out; the shipped scheme has all of it. */
export interface SchemeRules {
  validate: boolean;
  inFlight: boolean;
  queueMarks: boolean;
}
export const FULL_SCHEME: SchemeRules = { validate: true, inFlight: true, queueMarks: true };

/** One word for all volumes: the epoch; its lowest bit names the active plane. */
export interface FlipWord {
  epoch: number;
}

const SECTORS_PER_BLOCK = BLOCK_BYTES / SECTOR_BYTES;

export class SimulatedTracker implements WriteListener {
  readonly device: SimulatedDevice;
  generation: string;
  /** Why the history is new; empty once it has been taken over. */
  freshReason = 'first';
  readonly outstanding = new Set<number>();
  committedEpoch = 0;
  synced = false;
  taint = '';
  writtenSinceFlip = 0;
  private readonly queuePlanes = [new Set<number>(), new Set<number>()] as const;
  private readonly completionPlanes = [new Set<number>(), new Set<number>()] as const;
  private readonly inFlight = new Map<number, number>();
  private readonly word: FlipWord;
  private readonly rules: SchemeRules;

  constructor(device: SimulatedDevice, generation: string, word: FlipWord, rules: SchemeRules) {
    this.device = device;
    this.generation = generation;
    this.word = word;
    this.rules = rules;
    device.listeners.add(this);
  }

  queued(write: SimulatedWrite): void {
    this.writtenSinceFlip += write.sectors * SECTOR_BYTES;
    for (const [block, sectors] of blocksOf(write)) {
      this.inFlight.set(block, (this.inFlight.get(block) ?? 0) + sectors);
      if (this.rules.queueMarks) this.queuePlanes[this.active]!.add(block);
    }
  }

  completed(write: SimulatedWrite): void {
    for (const [block, sectors] of blocksOf(write)) {
      if (this.rules.inFlight) this.completionPlanes[this.active]!.add(block);
      const left = (this.inFlight.get(block) ?? 0) - sectors;
      if (left === 0) this.inFlight.delete(block);
      else this.inFlight.set(block, left);
    }
  }

  /** Marked at queue in the plane that is active now: may hold a write issued after T. */
  isContested(block: number): boolean {
    return this.rules.validate && this.queuePlanes[this.active]!.has(block);
  }

  isInFlight(block: number): boolean {
    return this.rules.inFlight && this.inFlight.has(block);
  }

  /** Moves all marks of a plane to `outstanding` and returns them. */
  harvest(plane: number): number[] {
    const found = new Set([...this.queuePlanes[plane]!, ...this.completionPlanes[plane]!]);
    for (const block of found) this.outstanding.add(block);
    this.queuePlanes[plane]!.clear();
    this.completionPlanes[plane]!.clear();
    return [...found];
  }

  /** What an agent that takes over must read: all marks and all that is outstanding. */
  takeOver(): number[] {
    this.harvest(0);
    this.harvest(1);
    return [...this.outstanding];
  }

  /** A new generation: history is forgotten, what is in flight is not. */
  renew(generation: string): void {
    this.generation = generation;
    this.harvest(0);
    this.harvest(1);
    this.outstanding.clear();
    this.committedEpoch = 0;
    this.synced = false;
    this.taint = '';
  }

  detach(): void {
    this.device.listeners.delete(this);
  }

  private get active(): number {
    return this.word.epoch & 1;
  }
}

export const geometryOf = (device: SimulatedDevice): DeviceGeometry => ({
  sizeBytes: device.sizeBytes,
  sectorBytes: SECTOR_BYTES,
  kind: 'disk',
  diskMajor: 7,
  diskMinor: 0,
  startBytes: 0,
  diskSequence: 1,
});

export const trackedVolume = (tracker: SimulatedTracker, freshReason: string): TrackedVolume => ({
  path: tracker.device.path,
  generation: tracker.generation,
  fresh: freshReason !== '',
  freshReason,
  granularityBytes: BLOCK_BYTES,
  committedEpoch: tracker.committedEpoch,
  synced: tracker.synced,
});

/** Blocks that a write touches, with the number of its sectors in each. */
function blocksOf(write: SimulatedWrite): Map<number, number> {
  const blocks = new Map<number, number>();
  for (let sector = write.firstSector; sector < write.firstSector + write.sectors; sector += 1) {
    const block = Math.floor(sector / SECTORS_PER_BLOCK);
    blocks.set(block, (blocks.get(block) ?? 0) + 1);
  }
  return blocks;
}
