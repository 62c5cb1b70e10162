/**
 * The slice of a sync or of a scan pass that is in hand: planned, read by the engine, fed batch by batch,
 * ended. Keeps the tables of scanned volumes for the length of a session.
 */
import { UnderstudyError } from '../base/errors.ts';
import { CHUNK_BYTES } from '../model/geometry.ts';
import type { Device, Engine, FilledBuffer, ReadFault } from '../native/types.ts';
import type { Feeder, OpenSlice } from './feeder.ts';
import { groupChunksFor, ScanTable } from './scan-table.ts';
import type { Effect } from './state-types.ts';
import { SyncCursor } from './sync-cursor.ts';
import { extentsOf, planSlice, type Slice } from './sync-plan.ts';

export interface SlicedVolume {
  readonly device: Pick<Device, 'nextData' | 'geometry'>;
  readonly isScanned: boolean;
}

export interface SliceOutcome {
  readonly nextChunk: number;
  readonly hasChanged: boolean;
  readonly faults: readonly ReadFault[];
}

type SyncEffect = Extract<Effect, { type: 'sync' }>;

const MAX_SEGMENTS = 512;

export class Slices {
  private readonly volumes: readonly SlicedVolume[];
  private readonly engine: Engine;
  private readonly feeder: Feeder;
  private readonly dataChunks: number;
  private readonly groupChunks: number;
  private readonly tables = new Map<number, ScanTable>();
  private open: { job: number; slice: OpenSlice; nextChunk: number } | null = null;

  /** A slice reads what `buffers` buffers of `bufferBytes` hold. */
  constructor(
    volumes: readonly SlicedVolume[],
    engine: Engine,
    feeder: Feeder,
    room: { readonly buffers: number; readonly bufferBytes: number },
  ) {
    this.volumes = volumes;
    this.engine = engine;
    this.feeder = feeder;
    this.groupChunks = groupChunksFor(room.bufferBytes);
    const groups = Math.floor(room.bufferBytes / (this.groupChunks * CHUNK_BYTES));
    this.dataChunks = room.buffers * Math.max(1, groups) * this.groupChunks;
  }

  /** The session has ended: what was offered in it is not known to have arrived. */
  reset(): void {
    this.open = null;
    this.tables.clear();
  }

  /** Null: the engine reads now. Else the slice is over already: no data, or no plan. */
  async begin(
    effect: SyncEffect,
    sizeBytes: number,
    isWanted: () => boolean,
  ): Promise<SliceOutcome | null> {
    const { volume, fromChunk, job } = effect;
    const plan = await this.plan(effect, sizeBytes);
    if (!('segments' in plan)) return plan;
    if (!isWanted()) return { nextChunk: fromChunk, hasChanged: true, faults: [] };
    const slice: OpenSlice = {
      volume,
      cursor: new SyncCursor(plan, fromChunk, sizeBytes),
      isResumable: effect.isResumable,
      table: this.tableOf(volume),
      hasChanged: false,
      toldChunk: -1,
    };
    this.open = { job, slice, nextChunk: plan.nextChunk };
    const extents = extentsOf(plan, sizeBytes);
    if (extents.length === 0) return this.end(job, []);
    this.engine.read(job, volume, extents);
    return null;
  }

  filled(filled: FilledBuffer): void {
    if (this.open?.job === filled.job) this.feeder.feedSlice(filled, this.open.slice);
    else this.feeder.discard(filled);
  }

  /** The engine has read the slice. */
  async end(job: number, faults: readonly ReadFault[]): Promise<SliceOutcome> {
    const open = this.open;
    if (open?.job !== job) return { nextChunk: 0, hasChanged: true, faults };
    this.open = null;
    await this.feeder.endSlice(open.slice);
    return { nextChunk: open.nextChunk, hasChanged: open.slice.hasChanged, faults };
  }

  private async plan(effect: SyncEffect, sizeBytes: number): Promise<Slice | SliceOutcome> {
    const { device, isScanned } = this.volumes[effect.volume]!;
    // A block device has no holes. One that seems to end early has shrunk, or is away for a moment: what
    // cannot be read is a fault, not zeros.
    const nextData = async (offset: number) =>
      device.geometry.kind === 'file'
        ? device.nextData(offset)
        : { offset, length: sizeBytes - offset };
    try {
      return await planSlice(nextData, sizeBytes, effect.fromChunk, {
        dataChunks: this.dataChunks,
        segments: MAX_SEGMENTS,
        alignChunks: isScanned ? this.groupChunks : 1,
      });
    } catch (error) {
      const errno = error instanceof UnderstudyError ? error.context.errno : undefined;
      if (errno === undefined) throw error;
      const offset = effect.fromChunk * CHUNK_BYTES;
      const fault = { volume: effect.volume, offset, length: CHUNK_BYTES, errno };
      return { nextChunk: effect.fromChunk, hasChanged: true, faults: [fault] };
    }
  }

  private tableOf(volume: number): ScanTable | null {
    if (!this.volumes[volume]!.isScanned) return null;
    let table = this.tables.get(volume);
    if (table === undefined) {
      table = new ScanTable(this.groupChunks);
      this.tables.set(volume, table);
    }
    return table;
  }
}
