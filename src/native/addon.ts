/**
 * The addon as it is, untyped by itself: the one place that loads the .node file, and where its
 * errors become UnderstudyErrors. Everything above sees the classes of this folder's other files.
 */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { type ErrorCode, errorCatalogue, UnderstudyError } from '../base/errors.ts';
import type { DeviceGeometry, VolumeCounters } from './types.ts';

export interface RawDevice {
  geometry(): DeviceGeometry;
  read(buffer: Uint8Array, offset: number): Promise<number>;
  nextData(offset: number): Promise<{ offset: number; length: number } | null>;
  currentSize(): number;
  close(): void;
}

export interface RawEngine {
  /** Extents as [offset, length, offset, length, ...]. */
  read(job: number, volume: number, extents: Float64Array): void;
  drain(job: number, volumes: number[]): void;
  cut(job: number, volumes: number[], deadlineMs: number): void;
  release(buffer: number): void;
  pend(volume: number, extents: Float64Array): void;
  pendOutstanding(volume: number): void;
  committed(volume: number, epoch: number): void;
  reopen(volume: number): DeviceGeometry;
  counters(volume: number): RawCounters;
  close(): Promise<void>;
}

/** As `VolumeCounters`, with the taint as bits (native/tracker/layout.h). */
export type RawCounters = Omit<VolumeCounters, 'taint'> & { taint: number };

export interface RawHeader {
  generation: string;
  bootId: string;
  granularityBytes: number;
  startBytes: number;
  sizeBytes: number;
  diskMajor: number;
  diskMinor: number;
  diskSequence: number;
  committedEpoch: number;
  synced: boolean;
  taint: number;
}

export interface RawEngineOptions {
  paths: string[];
  buffers: Uint8Array[];
  depth: number;
  /** Folder of the control map, '' where volumes are only read; and of each volume's pins. */
  control: string;
  pins: string[];
}

export interface Addon {
  Device: new (path: string) => RawDevice;
  Engine: new (
    options: RawEngineOptions,
    /** (job, buffer, pieces as [volume, offset, length, at, ...]) or (result, faults). */
    onEvent: (...event: unknown[]) => void,
  ) => RawEngine;
  bytesToAlignment(buffer: Uint8Array): number;
  compressInto(
    source: Uint8Array,
    at: number,
    length: number,
    target: Uint8Array,
    targetAt: number,
    limit: number,
  ): number;
  /** One agent for a folder of pins at a time; the lock ends with the process. */
  lockFolder(path: string): number;
  unlockFolder(lock: number): void;
  readHeader(controlFolder: string, volumeFolder: string): RawHeader;
}

/** Both src/native and dist/native lie two folders below the package. */
export const releaseDirectory = join(import.meta.dirname, '..', '..', 'build', 'Release');

/** Loads an addon of the build. Throws ERR_NATIVE_MISSING. */
export function loadAddon(name: string): Addon {
  const path = join(releaseDirectory, name);
  try {
    return createRequire(import.meta.url)(path) as Addon;
  } catch (cause) {
    throw new UnderstudyError('ERR_NATIVE_MISSING', `cannot load ${path}`, { path }, cause);
  }
}

let loaded: Addon | undefined;

/** The addon, loaded at first use. */
export function addon(): Addon {
  loaded ??= loadAddon('understudy.node');
  return loaded;
}

interface RawError extends Error {
  code?: string;
  syscall?: string;
  errno?: string;
  path?: string;
  offset?: number;
}

/** An error thrown by the addon, as an UnderstudyError; anything else unchanged. */
export function wrapError(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  const { code = '', syscall, errno, path, offset } = error as RawError;
  if (!Object.hasOwn(errorCatalogue, code)) return error;
  const context = Object.fromEntries(
    Object.entries({ syscall, errno, path, offset }).filter(([, value]) => value !== undefined),
  );
  return new UnderstudyError(code as ErrorCode, error.message, context, error);
}

/** Calls into the addon with its errors wrapped. */
export function guarded<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw wrapError(error);
  }
}

/** Awaits a promise of the addon with its errors wrapped. */
export async function guardedAsync<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw wrapError(error);
  }
}
