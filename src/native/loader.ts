/**
 * Calls the loader, which attaches the tracker's programs and pins them (native/tracker/loader.c),
 * and the sysfs of this machine. The loader is a program of its own; this file is its only caller.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, realpathSync } from 'node:fs';
import { join } from 'node:path';
import { UnderstudyError } from '../base/errors.ts';
import { releaseDirectory } from './addon.ts';
import type { Sysfs } from './admission.ts';
import type { DeviceGeometry } from './types.ts';

const SECTOR_BYTES = 512;

export interface Attachment {
  pinDirectory: string;
  name: string;
  geometry: DeviceGeometry;
  granularityBytes: number;
  generation: string;
  bootId: string;
}

/** How the loader is called; tests put one of their own here. */
export interface Loader {
  prepare(pinDirectory: string): void;
  attach(attachment: Attachment): void;
  detach(pinDirectory: string, name: string): void;
  /** The folder itself and what all its volumes share. */
  remove(pinDirectory: string): void;
}

function loaderError(path: string, command: string, cause: unknown): UnderstudyError {
  const text = String((cause as { stderr?: Buffer }).stderr ?? '');
  try {
    const told = JSON.parse(text) as Record<string, string>;
    const message = `${command}: ${told.syscall} failed with ${told.errno}`;
    const code = told.errno === 'EPERM' ? 'ERR_TRACKER_PERMISSION' : 'ERR_TRACKER_LOAD';
    return new UnderstudyError(code, message, told, cause);
  } catch {
    const detail = text.trim() || String(cause);
    return new UnderstudyError('ERR_TRACKER_LOAD', `${command}: ${detail}`, { path }, cause);
  }
}

/** The loader beside the addon; `extra` arguments go to every attach. */
export function programLoader(program = 'understudy-loader', extra: string[] = []): Loader {
  const path = join(releaseDirectory, program);
  const run = (command: string, ...args: string[]) => {
    try {
      execFileSync(path, [command, ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
    } catch (cause) {
      throw loaderError(path, command, cause);
    }
  };
  return {
    prepare: (pins) => run('prepare', '--pins', pins),
    detach: (pins, name) => run('detach', '--pins', pins, '--name', name),
    remove: (pins) => run('remove', '--pins', pins),
    attach: (attachment) => run('attach', ...attachArguments(attachment), ...extra),
  };
}

function attachArguments(attachment: Attachment): string[] {
  const { geometry } = attachment;
  const options = {
    pins: attachment.pinDirectory,
    name: attachment.name,
    disk: `${geometry.diskMajor}:${geometry.diskMinor}`,
    start: geometry.startBytes / SECTOR_BYTES,
    sectors: geometry.sizeBytes / SECTOR_BYTES,
    shift: Math.log2(attachment.granularityBytes / SECTOR_BYTES),
    whole: geometry.kind === 'disk' ? 1 : 0,
    sequence: geometry.diskSequence,
    generation: attachment.generation,
    boot: attachment.bootId,
  };
  return Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)]);
}

function orEmpty<T>(read: () => T, empty: T): T {
  try {
    return read();
  } catch {
    return empty;
  }
}

/** What a missing or unreadable file says is '', which no rule of admission takes for a yes. */
export const machineSysfs: Sysfs = {
  read: (path) => orEmpty(() => readFileSync(path, 'utf8').split('\n')[0]!.trim(), ''),
  exists: (path) => existsSync(path),
  list: (path) => orEmpty(() => readdirSync(path), []),
  resolve: (path) => orEmpty(() => realpathSync(path), ''),
};

/** This boot, as 32 hex digits. */
export function readBootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim().replaceAll('-', '');
}
