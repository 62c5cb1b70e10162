/**
 * A disk on which a repository changes only while its lease is ours: every call that changes something
 * below the repository asks the lease first. Removals ask more closely, for they cannot be undone.
 */
import type { Disk } from '../../base/disk.ts';
import { together } from '../format/object-file.ts';
import type { Lease } from './lease.ts';

/** No older renewal will do for a removal. */
const REMOVAL_AGE_MS = 5_000;

export function leasedDisk(disk: Disk, repo: string, lease: Pick<Lease, 'confirm'>): Disk {
  const isInside = (path: string) => path === repo || path.startsWith(`${repo}/`);
  let changes = 0;
  const asked = async (path: string, maxAgeMs?: number) => {
    if (!isInside(path)) return;
    changes += 1;
    await lease.confirm(maxAgeMs);
  };
  /** What a step has changed and removed becomes durable at its end, which may be long after it asked. */
  const askedAgain = async <T>(step: () => Promise<T>): Promise<T> => {
    const before = changes;
    const result = await step();
    if (changes > before) await lease.confirm(REMOVAL_AGE_MS);
    return result;
  };
  return {
    async open(path, mode) {
      if (mode !== 'read') await asked(path);
      return disk.open(path, mode);
    },
    readFile: (path) => disk.readFile(path),
    list: (path) => disk.list(path),
    exists: (path) => disk.exists(path),
    async makeDirectory(path) {
      await asked(path);
      await disk.makeDirectory(path);
    },
    async rename(from, to) {
      await asked(to);
      await disk.rename(from, to);
    },
    async link(from, to) {
      await asked(to);
      await disk.link(from, to);
    },
    async remove(path) {
      await asked(path, REMOVAL_AGE_MS);
      await disk.remove(path);
    },
    syncDirectory: (path) => disk.syncDirectory(path),
    ...(disk.hidden !== undefined && { hidden: () => disk.hidden!() }),
    ...(disk.far !== undefined && { far: disk.far }),
    ...(disk.together !== undefined && {
      together: (step) => together(disk, () => askedAgain(step)),
    }),
  };
}
