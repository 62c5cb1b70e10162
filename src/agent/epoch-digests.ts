/**
 * The content digest of each volume's open epoch: SHA-256 over the encoded entries of this session in the
 * order in which they were sent. Staging keeps it with the commit, and a lost acknowledgement is
 * recognised by it.
 */
import { createHash, type Hash } from 'node:crypto';

export class EpochDigests {
  private readonly hashes = new Map<number, Hash>();

  add(volume: number, entries: Uint8Array): void {
    let hash = this.hashes.get(volume);
    if (hash === undefined) {
      hash = createHash('sha256');
      this.hashes.set(volume, hash);
    }
    hash.update(entries);
  }

  /** Hex digest of what was sent so far. */
  current(volume: number): string {
    return (this.hashes.get(volume)?.copy() ?? createHash('sha256')).digest('hex');
  }

  /** The volume's next epoch begins. */
  restart(volume: number): void {
    this.hashes.delete(volume);
  }

  clear(): void {
    this.hashes.clear();
  }
}
