// Loop devices for tests: allocated, never fixed, and gone when the test ends.
import { execFileSync } from 'node:child_process';
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { join } from 'node:path';

export interface LoopDevice {
  readonly path: string;
  readonly directory: string;
  remove(): void;
}

export const run = (command: string, ...args: string[]): string =>
  execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim();

/** `parent`: /dev/shm for memory, a folder on a disk to see real completions. */
export function createLoopDevice(sizeBytes: number, parent = '/dev/shm'): LoopDevice {
  const directory = mkdtempSync(join(parent, 'understudy-loop-'));
  const file = join(directory, 'image');
  const fd = openSync(file, 'w');
  ftruncateSync(fd, sizeBytes);
  closeSync(fd);
  const direct = parent === '/dev/shm' ? [] : ['--direct-io=on'];
  const path = run('losetup', '-f', '--show', ...direct, file);
  return {
    path,
    directory,
    remove() {
      run('losetup', '-d', path);
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
