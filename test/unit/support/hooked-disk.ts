/** The faulty disk with a hook before every call that changes something, by name and path. */
import type { Disk, DiskFile } from '../../../src/base/disk.ts';
import { UnderstudyError } from '../../../src/base/errors.ts';
import { FaultyDisk } from './faulty-disk.ts';

/** What a full disk answers. */
export const full = (path: string): UnderstudyError =>
  new UnderstudyError('ERR_DISK_FULL', `${path}: ENOSPC`, { path, errno: 'ENOSPC' });

/** A call that the hook throws at fails. */
export class HookedDisk extends FaultyDisk {
  hook: (what: string, path: string, to: string) => void = () => undefined;

  override mount(): Disk {
    const disk = super.mount();
    const told =
      <A extends unknown[], R>(what: string, run: (...given: A) => Promise<R>) =>
      async (...given: A): Promise<R> => {
        this.hook(what, String(given[0]), String(given[1] ?? ''));
        return run(...given);
      };
    return {
      ...disk,
      rename: told('rename', disk.rename),
      link: told('link', disk.link),
      remove: told('remove', disk.remove),
      syncDirectory: told('syncDirectory', disk.syncDirectory),
      open: async (path, mode) => this.hooked(await disk.open(path, mode)),
    };
  }

  private hooked(file: DiskFile): DiskFile {
    const { path } = file;
    return {
      path,
      read: (buffer, offset) => file.read(buffer, offset),
      size: () => file.size(),
      write: async (buffers, offset) => {
        this.hook('write', path, String(offset));
        return file.write(buffers, offset);
      },
      truncate: async (size) => {
        this.hook('truncate', path, String(size));
        return file.truncate(size);
      },
      sync: async () => {
        this.hook('sync', path, '');
        return file.sync();
      },
      close: async () => {
        this.hook('close', path, '');
        return file.close();
      },
    };
  }
}
