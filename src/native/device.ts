/**
 * Volumes as files: opening, geometry, reads off the main thread, data extents; and memory that
 * O_DIRECT can read into. Errors: ERR_DEVICE_* with {path, syscall, errno, offset}.
 */
import { statSync } from 'node:fs';
import { UnderstudyError } from '../base/errors.ts';
import { addon, guarded, guardedAsync, type RawDevice } from './addon.ts';
import type { Device } from './types.ts';

const ALIGNMENT_BYTES = 4096;

/** What has the path: a device by its number, a file by its inode; '' where nothing has it. */
function identityOf(path: string): string {
  try {
    const stats = statSync(path, { bigint: true, throwIfNoEntry: false });
    if (stats === undefined) return '';
    return stats.isBlockDevice() ? `device ${stats.rdev}` : `file ${stats.dev}:${stats.ino}`;
  } catch (cause) {
    const { code: errno = 'EIO' } = cause as NodeJS.ErrnoException;
    const context = { path, syscall: 'stat', errno };
    throw new UnderstudyError('ERR_DEVICE_OPEN', `stat of ${path}: ${errno}`, context, cause);
  }
}

interface Opened {
  readonly raw: RawDevice;
  readonly geometry: Device['geometry'];
  readonly identity: string;
}

/** Again where the path was given to something else meanwhile. */
function open(path: string): Opened {
  const Raw = addon().Device;
  for (;;) {
    const identity = identityOf(path);
    const raw = guarded(() => new Raw(path));
    if (identityOf(path) === identity) return { raw, geometry: raw.geometry(), identity };
    raw.close();
  }
}

class NativeDevice implements Device {
  readonly path: string;
  #opened: Opened;

  constructor(path: string) {
    this.path = path;
    this.#opened = open(path);
  }

  get geometry(): Device['geometry'] {
    return this.#opened.geometry;
  }

  get #raw(): RawDevice {
    return this.#opened.raw;
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

  named(): 'same' | 'other' | 'nothing' {
    const identity = identityOf(this.path);
    if (identity === '') return 'nothing';
    return identity === this.#opened.identity ? 'same' : 'other';
  }

  reopen(): void {
    const former = this.#opened;
    this.#opened = open(this.path);
    former.raw.close();
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
