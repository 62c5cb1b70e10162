/**
 * Bounds what is read at a time from a disk that is far away, by all who read from it together: in requests,
 * and in bytes that were asked for and not used yet. Who comes first goes first.
 */
import type { FarReads } from '../../base/disk.ts';

const nothing = (): void => undefined;

interface Waiting {
  readonly bytes: number;
  readonly go: () => void;
}

export class ReadGate {
  /** Null: nothing is bounded. */
  private readonly far: FarReads | null;
  private readonly waiting: Waiting[] = [];
  private requests = 0;
  private bytes = 0;

  constructor(far: FarReads | null) {
    this.far = far;
  }

  /** Resolves when so much may be read. The function is to be called once its bytes are used. */
  async take(bytes: number): Promise<() => void> {
    if (this.far === null) return nothing;
    if (this.waiting.length > 0 || !this.hasRoom(bytes)) {
      await new Promise<void>((go) => this.waiting.push({ bytes, go }));
    } else {
      this.enter(bytes);
    }
    return () => this.leave(bytes);
  }

  private hasRoom(bytes: number): boolean {
    if (this.requests === 0) return true; // what is larger than all goes by itself
    return this.requests < this.far!.requests && this.bytes + bytes <= this.far!.bytes;
  }

  private enter(bytes: number): void {
    this.requests += 1;
    this.bytes += bytes;
  }

  private leave(bytes: number): void {
    this.requests -= 1;
    this.bytes -= bytes;
    for (let next = this.waiting[0]; next !== undefined; next = this.waiting[0]) {
      if (!this.hasRoom(next.bytes)) return;
      this.waiting.shift();
      this.enter(next.bytes);
      next.go();
    }
  }
}
