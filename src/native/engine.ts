/**
 * The engine: reads and cuts on a native thread of its own. This file turns its flat events into
 * the types of the contract; what a job means is in `types.ts`, how it is done in native/engine.
 */
import { assert } from '../base/errors.ts';
import type { Extent } from '../model/geometry.ts';
import { type Addon, addon, guarded, guardedAsync, type RawEngine } from './addon.ts';
import { openDevice } from './device.ts';
import type { Tracker } from './tracker.ts';
import type {
  DeviceGeometry,
  Engine,
  EngineEvents,
  FilledBuffer,
  PassResult,
  ReadFault,
  TrackedVolume,
  VolumeCounters,
} from './types.ts';

export interface EngineOptions {
  /** What `openTracker` gave; its volumes give the order of volume indexes. */
  tracker: Tracker;
  /** At least two, of at least 1 MiB each, from `alignedBuffer`. */
  buffers: readonly Uint8Array[];
  /** Reads in flight. */
  depth?: number;
  events: EngineEvents;
}

/**
 * Under all the writes that a disk takes, 64 reads at once against 32 halve the time of a cut (p50 of 220 ms
 * to 100) and end more of them; 128 are no better in memory and take the disk from others.
 */
const DEFAULT_DEPTH = 64;

/** enum taint_bit of native/tracker/layout.h, in words. */
const taintWords: [bit: number, word: string][] = [
  [1, 'passthrough write'],
  [2, 'unstable flip'],
  [4, 'write beyond the end'],
  [8, 'untracked writes'],
  [16, 'resized'],
  [32, 'device replaced'],
  [64, 'program skipped'],
  [128, 'program gone'],
];

export const taintText = (bits: number): string =>
  taintWords
    .filter(([bit]) => (bits & bit) !== 0)
    .map(([, word]) => word)
    .join(', ');

function toPieces(flat: Float64Array): FilledBuffer['pieces'] {
  const pieces: FilledBuffer['pieces'] = [];
  for (let i = 0; i < flat.length; i += 4) {
    pieces.push({ volume: flat[i]!, offset: flat[i + 1]!, length: flat[i + 2]!, at: flat[i + 3]! });
  }
  return pieces;
}

function toFlat(extents: readonly Extent[]): Float64Array {
  const flat = new Float64Array(extents.length * 2);
  extents.forEach((extent, index) => {
    flat[index * 2] = extent.offset;
    flat[index * 2 + 1] = extent.length;
  });
  return flat;
}

/**
 * An error thrown by a handler must not get lost in the addon, where Node only warns of it: it is
 * thrown again where it counts as uncaught.
 */
function dispatchSafely(events: EngineEvents, event: unknown[]): void {
  try {
    dispatch(events, event);
  } catch (error) {
    process.nextTick(() => {
      throw error;
    });
  }
}

function dispatch(events: EngineEvents, event: unknown[]): void {
  if (event.length === 3) {
    const [job, buffer, flat] = event as [number, number, Float64Array];
    events.onFilled({ job, buffer, pieces: toPieces(flat) });
  } else {
    const [result, faults] = event as [PassResult, ReadFault[]];
    events.onDone(result, faults);
  }
}

class NativeEngine implements Engine {
  readonly #raw: RawEngine;
  readonly #tracker: Tracker;

  constructor(options: EngineOptions, native: Addon, extra: object) {
    this.#tracker = options.tracker;
    const { pins, volumes } = options.tracker;
    const settings = {
      paths: volumes.map((volume) => volume.path),
      buffers: [...options.buffers],
      depth: options.depth ?? DEFAULT_DEPTH,
      control: pins?.control ?? '',
      pins: pins?.volumes ?? [],
      ...extra,
    };
    this.#raw = guarded(
      () => new native.Engine(settings, (...event) => dispatchSafely(options.events, event)),
    );
  }

  read(job: number, volume: number, extents: readonly Extent[]): void {
    guarded(() => this.#raw.read(job, volume, toFlat(extents)));
  }

  drain(job: number, volumes: readonly number[]): void {
    guarded(() => this.#raw.drain(job, [...volumes]));
  }

  cut(job: number, volumes: readonly number[], deadlineMs: number): void {
    guarded(() => this.#raw.cut(job, [...volumes], deadlineMs));
  }

  release(buffer: number): void {
    guarded(() => this.#raw.release(buffer));
  }

  pend(volume: number, extents: readonly Extent[]): void {
    guarded(() => this.#raw.pend(volume, toFlat(extents)));
  }

  pendOutstanding(volume: number): void {
    guarded(() => this.#raw.pendOutstanding(volume));
  }

  committed(volume: number, epoch: number): void {
    guarded(() => this.#raw.committed(volume, epoch));
  }

  renew(volume: number, reason: string): { tracked: TrackedVolume; geometry: DeviceGeometry } {
    const device = openDevice(this.#tracker.volumes[volume]!.path);
    const { geometry } = device;
    device.close();
    const tracked = this.#tracker.renew(volume, geometry, reason);
    return { tracked, geometry: guarded(() => this.#raw.reopen(volume)) };
  }

  counters(volume: number): VolumeCounters {
    const raw = guarded(() => this.#raw.counters(volume));
    return { ...raw, taint: taintText(raw.taint) };
  }

  close(): Promise<void> {
    return guardedAsync(() => this.#raw.close());
  }
}

/**
 * Opens the volumes and starts the engine's thread. With the `scan` tracker only `read`, `release`,
 * `renew` and `close` work; the rest throws ERR_TRACKER_UNTRACKED. Throws ERR_DEVICE_*,
 * ERR_ENGINE_*, ERR_TRACKER_*.
 */
export function createEngine(options: EngineOptions): Engine {
  return createEngineOf(addon(), options, {});
}

/** For tests: an engine of another build of the addon, with rules taken out. */
export function createEngineOf(native: Addon, options: EngineOptions, extra: object): Engine {
  assert(options.buffers.length >= 2, 'the engine needs two buffers');
  return new NativeEngine(options, native, extra);
}
