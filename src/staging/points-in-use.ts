/**
 * Points that somebody outside is working through, question by question: a failback compares a disk for
 * hours, and its point must not be dropped meanwhile. Held in memory until nobody has asked for a while; a
 * service that is started again has forgotten it, and whoever asks is told that the point is gone.
 */
import type { Clock, Timer } from '../base/clock.ts';
import type { ImageReader, Store } from '../store/types.ts';

const IDLE_MS = 15 * 60_000;

interface InUse {
  readonly reader: Promise<ImageReader>;
  timer: Timer | null;
}

export class PointsInUse {
  private readonly clock: Clock;
  private readonly store: Pick<Store, 'openImage'>;
  private readonly held = new Map<string, InUse>();

  constructor(clock: Clock, store: Pick<Store, 'openImage'>) {
    this.clock = clock;
    this.store = store;
  }

  get count(): number {
    return this.held.size;
  }

  /** Held once it resolves. ERR_POINT_NOT_FOUND, ERR_VOLUME_NOT_FOUND. */
  async touch(point: string, volume: string): Promise<void> {
    const key = JSON.stringify([point, volume]);
    const known = this.held.get(key) ?? this.open(key, point, volume);
    await known.reader;
    if (this.held.get(key) !== known) return;
    known.timer?.cancel();
    known.timer = this.clock.after(IDLE_MS, () => this.release(key));
  }

  /** Lets go of all. */
  async stop(): Promise<void> {
    for (const key of [...this.held.keys()]) this.release(key);
  }

  private open(key: string, point: string, volume: string): InUse {
    const opened: InUse = { reader: this.store.openImage(point, volume), timer: null };
    this.held.set(key, opened);
    // Whoever waits for it is told.
    opened.reader.catch(() => this.held.delete(key));
    return opened;
  }

  private release(key: string): void {
    const known = this.held.get(key);
    this.held.delete(key);
    known?.timer?.cancel();
    known?.reader.then(
      (reader) => reader.close(),
      () => undefined,
    );
  }
}
