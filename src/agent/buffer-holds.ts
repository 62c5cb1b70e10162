/**
 * Who still needs a buffer that the engine handed over: it goes back when the last hold is let go. Keeps
 * the memory of the whole way from device to network within the engine's buffers and their frames (P5).
 * A hold under which a task runs outlives the end of its session until the task is through.
 */
export class Hold {
  readonly buffer: number;
  /** Where in the buffer's frame memory the frame of this hold may be built. */
  frameAt = 0;
  private readonly onGone: (hold: Hold) => void;
  private isBusy = false;
  private isDropped = false;
  private isGone = false;

  constructor(buffer: number, onGone: (hold: Hold) => void) {
    this.buffer = buffer;
    this.onGone = onGone;
  }

  /** Runs while `task` does: the bytes are being looked at. */
  async during<T>(task: Promise<T>): Promise<T> {
    this.isBusy = true;
    try {
      return await task;
    } finally {
      this.isBusy = false;
      if (this.isDropped) this.letGo();
    }
  }

  letGo(): void {
    if (this.isGone) return;
    this.isGone = true;
    this.onGone(this);
  }

  /** Lets go now, or when the task that runs is through. */
  drop(): void {
    if (this.isBusy) this.isDropped = true;
    else this.letGo();
  }
}

export class BufferHolds {
  private readonly total: number;
  private readonly release: (buffer: number) => void;
  private readonly counts = new Map<number, number>();
  private readonly holds = new Set<Hold>();

  constructor(total: number, release: (buffer: number) => void) {
    this.total = total;
    this.release = release;
  }

  /** Buffers that nobody holds (the engine may be filling some of them). */
  get free(): number {
    return this.total - this.counts.size;
  }

  /** `count` > 0 holds on a buffer that was just handed over. */
  take(buffer: number, count: number): Hold[] {
    this.counts.set(buffer, count);
    return Array.from({ length: count }, () => {
      const hold = new Hold(buffer, (gone) => this.gone(gone));
      this.holds.add(hold);
      return hold;
    });
  }

  dropAll(): void {
    for (const hold of [...this.holds]) hold.drop();
  }

  private gone(hold: Hold): void {
    this.holds.delete(hold);
    const left = this.counts.get(hold.buffer)! - 1;
    if (left > 0) {
      this.counts.set(hold.buffer, left);
    } else {
      this.counts.delete(hold.buffer);
      this.release(hold.buffer);
    }
  }
}
