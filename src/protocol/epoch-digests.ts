/**
 * The content digest of each volume's open epoch: SHA-256 over the encoded entries of this session in the
 * order in which they went over the wire. Both sides keep it with this one helper; a commit names it, so
 * that staging never commits something else than the agent meant, and a lost acknowledgement is known
 * again by it.
 */
import { createHash, type Hash } from 'node:crypto';

export class EpochDigests {
  private readonly hashes = new Map<number, Hash>();

  /** `entries` as encoded in an offer or a patch. */
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
