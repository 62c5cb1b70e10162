/**
 * The addon as it is, untyped by itself: the one place that loads the .node file, and where its errors
 * become UnderstudyErrors. Everything above sees the classes of this folder's other files.
 */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { type ErrorCode, errorCatalogue, UnderstudyError } from '../base/errors.ts';
import type { DeviceGeometry } from './types.ts';

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
  release(buffer: number): void;
  close(): Promise<void>;
}

export interface Addon {
  Device: new (path: string) => RawDevice;
  Engine: new (
    options: { paths: string[]; buffers: Uint8Array[]; depth: number },
    /** (job, buffer, pieces as [volume, offset, length, at, ...]) or (result, faults). */
    onEvent: (...event: unknown[]) => void,
  ) => RawEngine;
  bytesToAlignment(buffer: Uint8Array): number;
}

/** Both src/native and dist/native lie two folders below the package. */
export const releaseDirectory = join(import.meta.dirname, '..', '..', 'build', 'Release');

let loaded: Addon | undefined;

/** Loads the addon at first use. Throws ERR_NATIVE_MISSING. */
export function addon(): Addon {
  if (loaded) return loaded;
  const path = join(releaseDirectory, 'understudy.node');
  try {
    loaded = createRequire(import.meta.url)(path) as Addon;
    return loaded;
  } catch (cause) {
    throw new UnderstudyError('ERR_NATIVE_MISSING', `cannot load ${path}`, { path }, cause);
  }
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
