/**
 * The engine: reads and cuts on a native thread of its own. This file turns its flat events into the types
 * of the contract; what a job means is in `types.ts`, how it is done in native/engine.
 */
import { assert, UnderstudyError } from '../base/errors.ts';
import type { Extent } from '../model/geometry.ts';
import { addon, guarded, guardedAsync, type RawEngine } from './addon.ts';
import type { Tracker } from './tracker.ts';
import type { Engine, EngineEvents, FilledBuffer, PassResult, ReadFault } from './types.ts';

export interface EngineOptions {
  /** What `openTracker` gave; its volumes give the order of volume indexes. */
  tracker: Tracker;
  /** At least two, of at least 1 MiB each, from `alignedBuffer`. */
  buffers: readonly Uint8Array[];
  /** Reads in flight. */
  depth?: number;
  events: EngineEvents;
}

const DEFAULT_DEPTH = 32;

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

function dispatch(events: EngineEvents, event: unknown[]): void {
  if (event.length === 3) {
    const [job, buffer, flat] = event as [number, number, Float64Array];
    events.onFilled({ job, buffer, pieces: toPieces(flat) });
  } else {
    const [result, faults] = event as [PassResult, ReadFault[]];
    events.onDone(result, faults);
  }
}

/** An engine over volumes without kernel tracking: it reads, and refuses to cut. */
class ScanEngine implements Engine {
  readonly #raw: RawEngine;

  constructor(options: EngineOptions) {
    const Raw = addon().Engine;
    const settings = {
      paths: options.tracker.volumes.map((volume) => volume.path),
      buffers: [...options.buffers],
      depth: options.depth ?? DEFAULT_DEPTH,
    };
    this.#raw = guarded(() => new Raw(settings, (...event) => dispatch(options.events, event)));
  }

  read(job: number, volume: number, extents: readonly Extent[]): void {
    guarded(() => this.#raw.read(job, volume, toFlat(extents)));
  }

  release(buffer: number): void {
    guarded(() => this.#raw.release(buffer));
  }

  close(): Promise<void> {
    return guardedAsync(() => this.#raw.close());
  }

  drain(): void {
    throw untracked('drain');
  }

  cut(): void {
    throw untracked('cut');
  }

  pend(): void {
    throw untracked('pend');
  }

  pendOutstanding(): void {
    throw untracked('pendOutstanding');
  }

  committed(): void {
    throw untracked('committed');
  }

  renew(): never {
    throw untracked('renew');
  }

  counters(): never {
    throw untracked('counters');
  }
}

function untracked(call: string): UnderstudyError {
  return new UnderstudyError('ERR_TRACKER_UNTRACKED', `${call}: volumes are not tracked`);
}

/** Opens the volumes and starts the engine's thread. Throws ERR_DEVICE_*, ERR_ENGINE_*. */
export function createEngine(options: EngineOptions): Engine {
  assert(options.buffers.length >= 2, 'the engine needs two buffers');
  return new ScanEngine(options);
}
