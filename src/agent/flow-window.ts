/**
 * How much content may be on its way to staging: what was sent and is not yet `stored`, and what offers
 * may still be asked for. An offer reserves room for all that its answer can ask, so that the contents of
 * an earlier batch never wait behind those of a later one (which staging could not acknowledge: a
 * deadlock). Pure bookkeeping by batch number.
 */
interface Batch {
  readonly seq: number;
  bytes: number;
}

export class FlowWindow {
  private readonly limitBytes: number;
  private readonly batches: Batch[] = [];
  private usedBytes = 0;

  constructor(limitBytes: number) {
    this.limitBytes = limitBytes;
  }

  get inFlightBytes(): number {
    return this.usedBytes;
  }

  /** Anything may go when nothing is on its way, so that no batch is too large for ever. */
  hasRoom(bytes: number): boolean {
    return bytes === 0 || this.usedBytes === 0 || this.usedBytes + bytes <= this.limitBytes;
  }

  /** Batches are added in the order of their numbers. */
  add(seq: number, bytes: number): void {
    this.batches.push({ seq, bytes });
    this.usedBytes += bytes;
  }

  /** What an answered offer really sends, instead of what it might have. */
  settle(seq: number, bytes: number): void {
    const batch = this.batches.find((each) => each.seq === seq);
    if (batch === undefined) return;
    this.usedBytes += bytes - batch.bytes;
    batch.bytes = bytes;
  }

  /** Everything up to `seq` is durable. */
  stored(seq: number): void {
    while (this.batches.length > 0 && this.batches[0]!.seq <= seq) {
      this.usedBytes -= this.batches.shift()!.bytes;
    }
  }
}
