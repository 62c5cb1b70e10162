/**
 * The boundary to the addon: what C++ does for us and how it reports. C++ holds no policy, no retry
 * and no logging; all of that is TypeScript's. All errors arrive as UnderstudyErrors with {syscall,
 * errno, path, offset}. Buffers are caller-owned Uint8Arrays over SharedArrayBuffers, aligned by
 * `alignedBuffer`.
 */
import type { Extent } from '../model/geometry.ts';

export interface DeviceGeometry {
  sizeBytes: number;
  /** Logical sector size: 512 or 4096 (1 for a regular file's purposes: 512). */
  sectorBytes: number;
  kind: 'disk' | 'partition' | 'file';
  /** Whole disk's device number and where the volume lies on it (0 and full size for a disk). */
  diskMajor: number;
  diskMinor: number;
  startBytes: number;
  /** Kernel's sequence number of the disk: tells a reused device number. 0 for files. */
  diskSequence: number;
}

export interface Device {
  readonly path: string;
  /** As it was when it was opened last. */
  readonly geometry: DeviceGeometry;
  /**
   * O_DIRECT read off the main thread; offset, length and address aligned to 4096 (the tail of a
   * volume excepted).
   */
  read(buffer: Uint8Array, offset: number): Promise<number>;
  /** Data extents by SEEK_DATA/SEEK_HOLE from `offset`, for files; a block device is one extent. */
  nextData(offset: number): Promise<Extent | null>;
  /** Size now, by ioctl or fstat. Throws when the device has vanished. */
  currentSizeBytes(): number;
  /** What has the path now: what is open, something else, or nothing. Throws ERR_DEVICE_OPEN. */
  named(): 'same' | 'other' | 'nothing';
  /** Opens what has the path now in the place of what is open. Throws ERR_DEVICE_*. */
  reopen(): void;
  close(): void;
}

export type TrackerBackend = 'bpf' | 'scan';

export interface TrackedVolumeOptions {
  /** Path as given to the agent. */
  path: string;
  geometry: DeviceGeometry;
}

/** What the tracker found of a volume. A `fresh` one has lost (or never had) its history: P6. */
export interface TrackedVolume {
  path: string;
  generation: string;
  fresh: boolean;
  /**
   * Why it is fresh: 'first', 'reboot', 'device-replaced', 'resized', 'moved', 'tainted',
   * 'program-gone', 'damaged', 'scan', or what `renew` was given.
   */
  freshReason: string;
  granularityBytes: number;
  /** Kept in the pinned header for the agent's next life. */
  committedEpoch: number;
  /** False until the agent has said that the generation's first epoch is committed. */
  synced: boolean;
}

export interface VolumeCounters {
  queuedSectors: number;
  completedSectors: number;
  /** Sectors that completed by the block layer's count, unseen by the programs, at the last rest. */
  missedCompletions: number;
  recursionMisses: number;
  /**
   * Not empty: the history can no longer be trusted (passthrough write, unstable flip, untracked
   * writes, beyond the end, resized, replaced, program gone).
   */
  taint: string;
  suspectBlocks: number;
  /**
   * Blocks harvested and not yet read, blocks in the outstanding plane; and a lower bound of bytes
   * written since the last flip.
   */
  pendingBlocks: number;
  outstandingBlocks: number;
  writtenBytesSinceFlip: number;
  /** False where the block layer keeps no counts (iostats off): missed completions go unfound. */
  isStatAlive: boolean;
}

/** A filled buffer: what lies where. Handed over in the order in which later overrides earlier. */
export interface FilledBuffer {
  buffer: number;
  job: number;
  /**
   * Extents of volumes (by index) and where their bytes begin in the buffer. Of the blocks of a cut
   * that was not spilled only the newest reading is among them.
   */
  pieces: { volume: number; offset: number; length: number; at: number }[];
}

export interface PassResult {
  job: number;
  /**
   * 'valid': all blocks are the state at `timeMs`, unless `counters` tells of a taint now: the
   * tripwires were looked at after the last read. 'deadline': still contested. 'drained': a pass
   * without validation, or a read. 'aborted': what was read is lost, and pending again.
   */
  outcome: 'valid' | 'deadline' | 'drained' | 'aborted';
  timeMs: number;
  durationMs: number;
  passes: number;
  /** Blocks read in the first and the last pass, contested blocks of the last. */
  firstBlocks: number;
  lastBlocks: number;
  contestedBlocks: number;
  /** Blocks left for the next pass because a write on them may still be in flight. */
  carriedBlocks: number;
}

export interface ReadFault {
  volume: number;
  offset: number;
  length: number;
  errno: string;
}

export interface EngineEvents {
  onFilled(filled: FilledBuffer): void;
  onDone(result: PassResult, faults: ReadFault[]): void;
}

/**
 * Reads devices and cuts, on a thread of its own at high priority. One job at a time; a job's
 * buffers are handed over in order, and a job waits (for `drain` and `read`; a cut spills) while no
 * buffer is free.
 */
export interface Engine {
  /** Reads extents (initial sync, rescan, chunks asked for again). */
  read(job: number, volume: number, extents: readonly Extent[]): void;
  /** One pass: flip, harvest, read what is pending of `volumes`. */
  drain(job: number, volumes: readonly number[]): void;
  /** Passes until no block of `volumes` is contested, or `deadlineMs` has gone by. */
  cut(job: number, volumes: readonly number[], deadlineMs: number): void;
  /** Gives a buffer back. */
  release(buffer: number): void;
  /** Puts extents back to be read by the next pass (missing, failed to be sent). */
  pend(volume: number, extents: readonly Extent[]): void;
  /** All that is outstanding becomes pending again: the connection was lost before the commit. */
  pendOutstanding(volume: number): void;
  /** The epoch is committed: header updated, then outstanding bits that are not pending cleared. */
  committed(volume: number, epoch: number): void;
  /**
   * Begins a new generation of the volume (resized, tainted, staging behind): its history is
   * forgotten, its planes are cleared, its geometry is read anew. Called only while no job is
   * running.
   */
  renew(volume: number, reason: string): { tracked: TrackedVolume; geometry: DeviceGeometry };
  counters(volume: number): VolumeCounters;
  close(): Promise<void>;
}
