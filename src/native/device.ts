/**
 * Volumes as files: opening, geometry, reads off the main thread, data extents; and memory that
 * O_DIRECT can read into. Errors: ERR_DEVICE_* with {path, syscall, errno, offset}.
 */
import { addon, guarded, guardedAsync, type RawDevice } from './addon.ts';
import type { Device } from './types.ts';

const ALIGNMENT_BYTES = 4096;

class NativeDevice implements Device {
  readonly path: string;
  readonly geometry: Device['geometry'];
  readonly #raw: RawDevice;

  constructor(path: string) {
    const Raw = addon().Device;
    this.path = path;
    this.#raw = guarded(() => new Raw(path));
    this.geometry = this.#raw.geometry();
  }

  read(buffer: Uint8Array, offset: number): Promise<number> {
    return guardedAsync(() => this.#raw.read(buffer, offset));
  }

  nextData(offset: number) {
    return guardedAsync(() => this.#raw.nextData(offset));
  }

  currentSizeBytes(): number {
    return guarded(() => this.#raw.currentSize());
  }

  close(): void {
    this.#raw.close();
  }
}

/** Opens a block device, partition or regular file for reading. Throws ERR_DEVICE_*. */
export function openDevice(path: string): Device {
  return new NativeDevice(path);
}

/** Shared memory whose address is a multiple of 4096; `bytes` is rounded up to whole blocks. */
export function alignedBuffer(bytes: number): Uint8Array {
  const whole = Math.ceil(bytes / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
  const room = new Uint8Array(new SharedArrayBuffer(whole + ALIGNMENT_BYTES));
  const skip = addon().bytesToAlignment(room);
  return room.subarray(skip, skip + whole);
}
