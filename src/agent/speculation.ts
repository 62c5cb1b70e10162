/**
 * Whether a sync may send contents without asking first. Where staging needed all of what it was offered
 * lately (a first sync, most often), asking costs a round trip and a second look at the bytes and saves
 * nothing. Every so often a batch is offered all the same: it shows when the answer begins to differ, and
 * it carries the sync cursor. Pure bookkeeping of one session.
 */
const ENOUGH_CHUNKS = 256;
const NEEDED_SHARE = 0.97;
const ASK_EVERY = 16;

export class Speculation {
  private asked = 0;
  private needed = 0;
  private batches = 0;

  answered(asked: number, needed: number): void {
    this.asked += asked;
    this.needed += needed;
    if (this.asked <= 2 * ENOUGH_CHUNKS) return;
    this.asked /= 2;
    this.needed /= 2;
  }

  /** Called once a batch. */
  mayTell(): boolean {
    if (this.asked < ENOUGH_CHUNKS || this.needed < NEEDED_SHARE * this.asked) return false;
    this.batches += 1;
    return this.batches % ASK_EVERY !== 0;
  }
}
