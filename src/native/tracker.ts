/**
 * Opening a change tracker: which backend, and what it found of each volume's history. `scan` has no help
 * from the kernel: every volume is fresh for ever, and the agent compares digests.
 */
import { randomBytes } from 'node:crypto';
import type { TrackedVolume, TrackedVolumeOptions, TrackerBackend } from './types.ts';

export interface TrackerOptions {
  /** 'auto' takes bpf where it works for all volumes, and says why where it does not. */
  backend: TrackerBackend | 'auto';
  volumes: readonly TrackedVolumeOptions[];
}

export interface Tracker {
  readonly backend: TrackerBackend;
  /** Why this backend: for the log. */
  readonly backendReason: string;
  /** In the order of the options. */
  readonly volumes: readonly TrackedVolume[];
  /** Lets go of the tracker; what is pinned goes on tracking. */
  close(): void;
}

const SCAN_GRANULARITY_BYTES = 4096;

function scanVolume(options: TrackedVolumeOptions): TrackedVolume {
  return {
    path: options.path,
    generation: randomBytes(16).toString('hex'),
    fresh: true,
    freshReason: 'scan',
    granularityBytes: SCAN_GRANULARITY_BYTES,
    committedEpoch: 0,
    synced: false,
  };
}

function openScan(options: TrackerOptions, backendReason: string): Tracker {
  const volumes = options.volumes.map(scanVolume);
  return { backend: 'scan', backendReason, volumes, close: () => undefined };
}

/** Opens or takes over the tracker of a set of volumes. Throws ERR_TRACKER_*. */
export async function openTracker(options: TrackerOptions): Promise<Tracker> {
  return openScan(options, 'asked for');
}
