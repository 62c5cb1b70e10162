/** Loop devices, file systems and mounts for tests, each undone with the scratch that it belongs to. */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, mkdirSync, openSync, readSync, truncateSync, writeFileSync } from 'node:fs';
import type { Scratch } from './scratch.ts';

export const sh = (command: string, ...words: string[]): string =>
  execFileSync(command, words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim();

export interface LoopDisk {
  readonly device: string;
  readonly backing: string;
  /** Lets go of the device early. */
  detach(): void;
}

/** Attaches a file as a block device; makes it first where `sizeBytes` is given. */
export function attachLoop(scratch: Scratch, backing: string, sizeBytes?: number): LoopDisk {
  if (sizeBytes !== undefined) {
    writeFileSync(backing, '');
    truncateSync(backing, sizeBytes);
  }
  const device = sh('losetup', '-f', '--show', backing);
  let isAttached = true;
  const detach = () => {
    if (isAttached) sh('losetup', '-d', device);
    isAttached = false;
  };
  scratch.defer(detach);
  return { device, backing, detach };
}

export type FileSystem = 'ext4' | 'xfs' | 'btrfs';

export function makeFileSystem(device: string, kind: FileSystem): void {
  sh(`mkfs.${kind}`, '-q', device);
}

/** `isCopy`: the original with the same UUID may be mounted too. Returns the way to unmount early. */
export function mount(
  scratch: Scratch,
  device: string,
  place: string,
  options: { kind: FileSystem; isCopy?: boolean },
): () => void {
  mkdirSync(place, { recursive: true });
  const flags = options.isCopy === true && options.kind === 'xfs' ? ['-o', 'nouuid'] : [];
  sh('mount', '-t', options.kind, ...flags, device, place);
  let isMounted = true;
  const unmount = () => {
    if (isMounted) sh('umount', place);
    isMounted = false;
  };
  scratch.defer(unmount);
  return unmount;
}

/** Read-only check after the log has been replayed by a mount; throws with fsck's output. */
export function checkFileSystem(device: string, kind: FileSystem): void {
  const checks: Record<FileSystem, string[]> = {
    ext4: ['e2fsck', '-fn', device],
    xfs: ['xfs_repair', '-n', device],
    btrfs: ['btrfs', 'check', '--readonly', device],
  };
  const [command, ...words] = checks[kind];
  try {
    sh(command!, ...words);
  } catch (error) {
    const { stdout, stderr } = error as { stdout: string; stderr: string };
    throw new Error(`${kind} is damaged: ${stdout}${stderr}`);
  }
}

/** SHA-256 of a file or of a device, read through a buffer of its own. */
export function digestOfFile(path: string): string {
  const hash = createHash('sha256');
  const buffer = Buffer.alloc(4 << 20);
  const fd = openSync(path, 'r');
  try {
    for (let count = readSync(fd, buffer); count > 0; count = readSync(fd, buffer)) {
      hash.update(buffer.subarray(0, count));
    }
  } finally {
    closeSync(fd);
  }
  return hash.digest('hex');
}
