/** A disk that counts what is asked of another one: calls by name, and bytes. For measuring, not for use. */
import type { Disk, DiskFile } from '../../src/base/disk.ts';

export interface DiskCounts {
  calls: number;
  syncs: number;
  lists: number;
  readBytes: number;
  writtenBytes: number;
}

export const noCounts = (): DiskCounts => ({
  ...{ calls: 0, syncs: 0, lists: 0, readBytes: 0, writtenBytes: 0 },
});

/** `counts` grows with every call. */
export function countingDisk(disk: Disk, counts: DiskCounts): Disk {
  const told = <A extends unknown[], R>(run: (...given: A) => Promise<R>) => {
    return (...given: A): Promise<R> => {
      counts.calls += 1;
      return run(...given);
    };
  };
  const countedFile = (file: DiskFile): DiskFile => ({
    path: file.path,
    size: told(() => file.size()),
    truncate: told((size: number) => file.truncate(size)),
    close: () => file.close(),
    async read(buffer, offset) {
      counts.calls += 1;
      const count = await file.read(buffer, offset);
      counts.readBytes += count;
      return count;
    },
    write(buffers, offset) {
      counts.calls += 1;
      for (const { length } of buffers) counts.writtenBytes += length;
      return file.write(buffers, offset);
    },
    sync() {
      counts.calls += 1;
      counts.syncs += 1;
      return file.sync();
    },
  });
  return {
    ...disk,
    open: told(async (path, mode) => countedFile(await disk.open(path, mode))),
    readFile: async (path) => {
      counts.calls += 1;
      const bytes = await disk.readFile(path);
      counts.readBytes += bytes.length;
      return bytes;
    },
    list: (path) => {
      counts.calls += 1;
      counts.lists += 1;
      return disk.list(path);
    },
    exists: told((path) => disk.exists(path)),
    makeDirectory: told((path) => disk.makeDirectory(path)),
    rename: told((from, to) => disk.rename(from, to)),
    link: told((from, to) => disk.link(from, to)),
    remove: told((path) => disk.remove(path)),
    syncDirectory: (path) => {
      counts.calls += 1;
      counts.syncs += 1;
      return disk.syncDirectory(path);
    },
  };
}
