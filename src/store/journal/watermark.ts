/**
 * The synced watermark (P4): up to where the journal has been acknowledged. It is durable before any
 * acknowledgement leaves, so at a restart damage above it is a torn tail, and below it is corruption.
 *
 * Two slots of one sector each, written in turn, each with a checksum and a counter: a write that is
 * cut short leaves the other slot. Also names the first segment that is still needed, so that a segment
 * that vanished is missed, and one that was finished but not yet removed is removed.
 */
import type { Disk, DiskFile } from '../../base/disk.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { encodeHeader, openHeader } from '../format/object-header.ts';
import { Mutex } from '../mutex.ts';

const SLOT_BYTES = 4096;
const MAGIC = 'US-WATER';

export interface Mark {
  /** Lowest segment that is still needed, and the highest that holds acknowledged records. */
  readonly first: number;
  readonly last: number;
  /** Acknowledged bytes of segment `last`; all earlier segments are whole. */
  readonly offset: number;
}

interface Slot extends Mark {
  readonly counter: number;
}

export class Watermark {
  private readonly file: DiskFile;
  private slot: Slot;
  private readonly mutex = new Mutex();

  private constructor(file: DiskFile, slot: Slot) {
    this.file = file;
    this.slot = slot;
  }

  /** Makes the file, durably (its folder's name too): nothing has been acknowledged yet. */
  static async create(disk: Disk, path: string, folder: string): Promise<Watermark> {
    const file = await disk.open(path, 'write');
    await file.truncate(0);
    await file.write([new Uint8Array(2 * SLOT_BYTES)], 0);
    const mark = new Watermark(file, { counter: 0, first: 1, last: 0, offset: 0 });
    await mark.update({});
    await disk.syncDirectory(folder);
    return mark;
  }

  /** Null where the file is missing or was never finished. ERR_JOURNAL_DAMAGED where both slots are bad. */
  static async open(
    disk: Disk,
    path: string,
    mode: 'read' | 'write' = 'write',
  ): Promise<Watermark | null> {
    if (!(await disk.exists(path))) return null;
    const file = await disk.open(path, mode);
    const bytes = new Uint8Array(2 * SLOT_BYTES);
    const size = await file.read(bytes, 0);
    const slots = [0, 1].flatMap((i) => readSlot(bytes.subarray(i * SLOT_BYTES), path));
    const newest = slots.sort((a, b) => b.counter - a.counter)[0];
    if (newest !== undefined) return new Watermark(file, newest);
    await file.close();
    if (size < bytes.length || bytes.every((byte) => byte === 0)) return null;
    throw new UnderstudyError('ERR_JOURNAL_DAMAGED', `${path}: both slots are damaged`, { path });
  }

  get mark(): Mark {
    return this.slot;
  }

  /** Durable once it resolves. Updates are made one after the other. */
  update(change: Partial<Mark>): Promise<void> {
    return this.mutex.run(async () => {
      await this.write(change);
      // Segments before `first` will go: should the other slot have to do, it must not ask for them.
      if (change.first !== undefined) await this.write({});
    });
  }

  /**
   * Makes durable what was read, without changing it: a killed process may have written it and not come to
   * the sync. Written once more, because after a sync that failed another one writes nothing.
   */
  settle(): Promise<void> {
    return this.mutex.run(() => this.put(this.slot));
  }

  private async write(change: Partial<Mark>): Promise<void> {
    const slot = { ...this.slot, ...change, counter: this.slot.counter + 1 };
    await this.put(slot);
    this.slot = slot;
  }

  private async put(slot: Slot): Promise<void> {
    const bytes = encodeHeader(MAGIC, (writer) =>
      writer.u64(slot.counter).u64(slot.first).u64(slot.last).u64(slot.offset),
    );
    await this.file.write([bytes], (slot.counter % 2) * SLOT_BYTES);
    await this.file.sync();
  }

  close(): Promise<void> {
    return this.file.close();
  }
}

function readSlot(bytes: Uint8Array, path: string): Slot[] {
  try {
    const { fields } = openHeader(bytes, MAGIC, path);
    const counter = fields.u64();
    const first = fields.u64();
    const last = fields.u64();
    return [{ counter, first, last, offset: fields.u64() }];
  } catch (error) {
    // A slot that was cut short while it was written: the other one counts.
    if (error instanceof UnderstudyError && error.code === 'ERR_OBJECT_DAMAGED') return [];
    throw error;
  }
}
