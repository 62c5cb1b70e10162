/**
 * The open epoch of one volume: what has arrived since the last commit. New entries go into memory leaf
 * by leaf; beyond a budget, or when the journal segment that holds them is to go, memory is frozen and
 * written to a run file, so that neither memory nor the journal grows with the volume (P4: `stored`
 * survives any restart). Layers lie over each other: runs, oldest first, then frozen, then memory.
 *
 * Laying the same entries over a second time changes nothing (a later one overrides an earlier one, block
 * by block), so a replay may begin anywhere before the end of what a run covers.
 */
import { assert } from '../../base/errors.ts';
import type { IndexedEntry } from '../../model/entry.ts';
import {
  chunksInLeaf,
  composeLeaves,
  type Leaf,
  layEntriesOver,
  splitByLeaf,
} from '../leaves/leaf.ts';
import type { LeafFile, LeafFileInfo } from '../leaves/leaf-file.ts';
import { type LeafSource, MemoryLeaves } from '../leaves/leaf-source.ts';
import type { OpenEpochName } from '../packs/segment.ts';

/** What a map slot and its key cost, about. */
const LEAF_OVERHEAD_BYTES = 64;
const NO_DIGEST = '0'.repeat(64);

export class OpenEpoch {
  readonly name: OpenEpochName;
  /** Chunks [0, syncedChunks) have been offered and their contents have arrived. */
  syncedChunks = 0;
  /** Lowest journal segment that holds something of this epoch which no run has; Infinity: none. */
  oldestSegment = Number.POSITIVE_INFINITY;
  private runs: LeafFile[];
  private frozen: MemoryLeaves[] = [];
  private memory = new Map<number, Leaf>();
  private bytes = 0;

  constructor(name: OpenEpochName, runs: LeafFile[] = []) {
    this.name = name;
    this.runs = runs;
  }

  get memoryBytes(): number {
    return this.bytes;
  }

  get runFiles(): readonly LeafFile[] {
    return this.runs;
  }

  get isEmpty(): boolean {
    return this.sources().length === 0;
  }

  /** The layers as they are now, oldest first. None of them changes afterwards but the last one. */
  sources(): LeafSource[] {
    const memory = this.memory.size === 0 ? [] : [new MemoryLeaves(this.memory)];
    return [...this.runs, ...this.frozen, ...memory];
  }

  /** What no run has. */
  memorySources(): MemoryLeaves[] {
    return [...this.frozen, new MemoryLeaves(this.memory)];
  }

  /** Lays entries over; `segment` is the journal segment that holds them. */
  apply(entries: readonly IndexedEntry[], segment: number): void {
    this.oldestSegment = Math.min(this.oldestSegment, segment);
    for (const { leaf, entries: part } of splitByLeaf(entries)) {
      const older = this.memory.get(leaf);
      const kept = layEntriesOver(older, part, chunksInLeaf(leaf, this.name.sizeBytes));
      this.memory.set(leaf, kept);
      this.bytes += kept.length - (older?.length ?? -LEAF_OVERHEAD_BYTES);
    }
  }

  moveCursor(syncedChunks: number, segment: number): void {
    this.syncedChunks = syncedChunks;
    this.oldestSegment = Math.min(this.oldestSegment, segment);
  }

  /**
   * Freezes memory; the caller writes the frozen layer to a run, then calls `replaceFrozen` or `melt`.
   * One at a time: layers must not change places.
   */
  freeze(): MemoryLeaves {
    assert(this.frozen.length === 0, 'one frozen layer at a time');
    const layer = new MemoryLeaves(this.memory);
    this.frozen.push(layer);
    this.memory = new Map();
    this.bytes = 0;
    return layer;
  }

  /** The frozen layer is durable as `run`. */
  replaceFrozen(layer: MemoryLeaves, run: LeafFile): void {
    this.frozen = this.frozen.filter((other) => other !== layer);
    this.runs = [...this.runs, run];
  }

  /** The run could not be written: the frozen leaves go back under memory. */
  melt(layer: MemoryLeaves): void {
    this.frozen = this.frozen.filter((other) => other !== layer);
    for (const [leaf, older] of layer.leaves) {
      const newer = this.memory.get(leaf);
      const composed = newer === undefined ? older : composeLeaves(older, newer);
      this.memory.set(leaf, composed);
      this.bytes += composed.length - (newer?.length ?? -LEAF_OVERHEAD_BYTES);
    }
  }

  /** The newest runs have been merged into one. */
  replaceRuns(merged: readonly LeafFile[], run: LeafFile): void {
    this.runs = [...this.runs.filter((other) => !merged.includes(other)), run];
  }
}

/** What the head of a run of this epoch says. */
export function runInfo({ epoch, ...rest }: OpenEpochName): LeafFileInfo {
  const roots = { previousRoot: NO_DIGEST, root: NO_DIGEST, contentDigest: '' };
  return { ...rest, ...roots, from: epoch - 1, to: epoch, sequence: 0, timeMs: 0 };
}
