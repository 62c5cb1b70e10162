/**
 * Open files for reading, by path, at most `limit` that nobody is using: objects never change once they
 * have their name, so a handle stays good even after the name is gone.
 */
import type { Disk, DiskFile } from '../../base/disk.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { plainVault, type Vault } from '../keys/vault.ts';

interface Held {
  readonly file: Promise<DiskFile>;
  users: number;
}

export class FileCache {
  /** How packs among the files are opened. */
  readonly vault: Vault;
  private readonly disk: Disk;
  private readonly limit: number;
  /** Least recently used first. */
  private readonly held = new Map<string, Held>();
  private isClosed = false;

  constructor(disk: Disk, limit = 128, vault: Vault = plainVault) {
    this.vault = vault;
    this.disk = disk;
    this.limit = limit;
  }

  /** Runs `use` with the file open. Errors of opening and of `use` pass through. */
  async with<T>(path: string, use: (file: DiskFile) => Promise<T>): Promise<T> {
    if (this.isClosed) throw new UnderstudyError('ERR_STORE_CLOSED', 'the store is closed');
    const held = this.held.get(path) ?? { file: this.disk.open(path, 'read'), users: 0 };
    this.held.delete(path);
    this.held.set(path, held);
    held.users += 1;
    try {
      return await use(await held.file);
    } catch (error) {
      this.forget(path, held);
      throw error;
    } finally {
      held.users -= 1;
      await this.trim(path, held);
    }
  }

  /** Its name will be another file's: whoever asks from now on gets that one. */
  async drop(path: string): Promise<void> {
    const held = this.held.get(path);
    if (held === undefined) return;
    this.forget(path, held);
    if (held.users === 0) await closeQuietly(held);
  }

  /** What somebody is reading is closed by its last user. */
  async close(): Promise<void> {
    this.isClosed = true;
    const idle = [...this.held.values()].filter(({ users }) => users === 0);
    this.held.clear();
    for (const held of idle) await closeQuietly(held);
  }

  /** After a use: whoever comes last closes what is not kept any more, and what is too much. */
  private async trim(path: string, held: Held): Promise<void> {
    if (this.held.get(path) !== held && held.users === 0) await closeQuietly(held);
    if (this.held.size <= this.limit) return;
    for (const [other, candidate] of [...this.held]) {
      if (this.held.size <= this.limit) break;
      if (candidate.users > 0 || this.held.get(other) !== candidate) continue;
      this.forget(other, candidate);
      await closeQuietly(candidate);
    }
  }

  private forget(path: string, held: Held): void {
    if (this.held.get(path) === held) this.held.delete(path);
  }
}

/** A file that never opened has reported its error to whoever asked for it. */
async function closeQuietly(held: Held): Promise<void> {
  const file = await held.file.catch(() => null);
  await file?.close();
}
