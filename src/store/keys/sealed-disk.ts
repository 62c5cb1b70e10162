/**
 * A disk on which the files of an encrypted repository are sealed, and on which everybody else reads and
 * writes them as if they were not. Which files are sealed is decided by their names, never by what the
 * bytes say: a plain file under a sealed name is damage. Packs and journal segments have seals of their
 * own, record by record; of bundles the members are sealed. format.json, key objects, leases, the watermark
 * and the journal's owner must be readable without.
 */
import type { Disk } from '../../base/disk.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { together } from '../format/object-file.ts';
import { BlockCipher, encodeSealedHeader, SALT_BYTES } from './sealed-format.ts';
import { openSealed, SealedReader } from './sealed-reader.ts';
import { SealedWriter } from './sealed-writer.ts';
import type { Vault } from './vault.ts';

const CLEAR = /(?:\.(?:pack|segment|json|key|lease|bundle)|\/watermark|\/repository)$/;

interface SealedFolders {
  readonly repo: string;
  readonly journal: string;
}

/** Over a disk that keeps the bytes. A plain vault gives the disk itself. */
export function sealedDisk(
  disk: Disk,
  vault: Vault,
  { repo, journal }: SealedFolders,
  randomBytes: (count: number) => Uint8Array,
): Disk {
  const { keys } = vault;
  if (keys === null) return disk;
  const isSealed = (path: string) =>
    (path.startsWith(`${repo}/`) || path.startsWith(`${journal}/`)) && !CLEAR.test(path);
  return {
    async open(path, mode) {
      if (!isSealed(path)) return disk.open(path, mode);
      if (mode === 'read') return new SealedReader(await disk.open(path, mode), vault);
      if (mode === 'write') {
        throw new UnderstudyError(
          'ERR_BUG',
          `${path}: a sealed file is written once, when it is new`,
        );
      }
      const { id, key } = keys.current;
      const salt = randomBytes(SALT_BYTES);
      const header = encodeSealedHeader(id, salt);
      const file = await disk.open(path, mode);
      return new SealedWriter(file, header, new BlockCipher(vault.aead, key, salt, header));
    },
    async readFile(path) {
      const bytes = await disk.readFile(path);
      return isSealed(path) ? openSealed(vault, bytes, path) : bytes;
    },
    list: (path) => disk.list(path),
    exists: (path) => disk.exists(path),
    makeDirectory: (path) => disk.makeDirectory(path),
    rename: (from, to) => disk.rename(from, to),
    link: (from, to) => disk.link(from, to),
    remove: (path) => disk.remove(path),
    syncDirectory: (path) => disk.syncDirectory(path),
    ...(disk.together !== undefined && { together: (step) => together(disk, step) }),
    ...(disk.hidden !== undefined && { hidden: () => disk.hidden!() }),
    ...(disk.far !== undefined && { far: disk.far }),
  };
}
