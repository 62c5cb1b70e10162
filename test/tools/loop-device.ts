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

/** Loop devices in memory complete at once; on a disk writes are long in flight. */
export const memoryFolder = '/dev/shm';
export const diskFolder = process.env.TEST_DISK_FOLDER ?? '/var/tmp';

const alive = new Set<LoopDevice>();
process.on('exit', () => {
  for (const device of alive) device.remove();
});

/** `script`: a partition table for sfdisk. Gives the first partition; gone with `removePartitions`. */
export function addPartition(disk: string, script: string): string {
  run('sh', '-c', `echo '${script}' | sfdisk -q --no-reread ${disk}`);
  run('partx', '-a', disk);
  return `${disk}p1`;
}

/** Whoever looks at new devices (udev, blkid) may hold a partition for a moment. */
export function removePartitions(disk: string): void {
  run(
    'sh',
    '-c',
    `for i in 1 2 3 4 5 6 7 8 9; do partx -d ${disk} && exit 0; sleep 0.2; done; exit 1`,
  );
}

/** `parent`: /dev/shm for memory, a folder on a disk to see real completions. */
export function createLoopDevice(sizeBytes: number, parent = memoryFolder): LoopDevice {
  const directory = mkdtempSync(join(parent, 'understudy-loop-'));
  const file = join(directory, 'image');
  const fd = openSync(file, 'w');
  ftruncateSync(fd, sizeBytes);
  closeSync(fd);
  const direct = parent === memoryFolder ? [] : ['--direct-io=on'];
  const path = run('losetup', '-f', '--show', ...direct, file);
  const device: LoopDevice = {
    path,
    directory,
    remove() {
      if (!alive.delete(device)) return;
      run('losetup', '-d', path);
      rmSync(directory, { recursive: true, force: true });
    },
  };
  alive.add(device);
  return device;
}
