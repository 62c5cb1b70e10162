/**
 * Reads on for those who read an image in sequence from a disk that is far away: what comes next is under way,
 * or there already, when it is asked for. Nobody is told of a failure here: a read that finds its bytes not
 * there makes them itself, and tells.
 *
 * Who reads in sequence is seen from the reads alone, for they may come as requests of their own, a little
 * out of order: a read that goes on about where another one ended. The first one of its kind begins nothing, and
 * later ones the more the longer it goes on. What is zero is passed over. All images of a store share the memory.
 */
import type { Clock } from '../../base/clock.ts';
import { MIB } from '../../base/units.ts';

export const UNIT_BYTES = 2 * MIB;
/** So many units are kept or under way, of all images together. */
const MAX_UNITS = 8;
/** Reads that go on need not be exact: requests overtake each other. */
const SLACK_BYTES = MIB;
/** Who has read less in sequence may soon be elsewhere. */
const LEAST_BYTES = 256 * 1024;
/** What was not asked for within this time makes room for others. */
const STALE_MS = 5_000;
/** Zeros are looked through no farther than this. */
const LOOK_BYTES = 1024 * MIB;
/** So many readers of one image are told apart. */
const MAX_STREAMS = 8;

/** What of an image reading ahead needs; numbers of units count from its start. */
interface AheadImage {
  readonly sizeBytes: number;
  /** Where the next data begins, at or after `offset`; null: there is none before `end`. */
  dataAt(offset: number, end: number): Promise<number | null>;
  /** The bytes of a unit. */
  loadUnit(unit: number): Promise<Uint8Array>;
}

interface Kept {
  readonly bytes: Promise<Uint8Array>;
  isUnderWay: boolean;
  /** It was read to its end. */
  isSpent: boolean;
  usedMs: number;
}

/** The units of all images. */
export class AheadUnits {
  private readonly clock: Clock;
  private readonly kept = new Map<string, Kept>();
  private marks = 0;

  constructor(clock: Clock) {
    this.clock = clock;
  }

  /** For one image: no other one gets it. */
  mark(): string {
    this.marks += 1;
    return `${this.marks}:`;
  }

  /** Null where it is not there, nor under way. */
  get(key: string): Promise<Uint8Array> | null {
    const kept = this.kept.get(key);
    if (kept === undefined) return null;
    kept.usedMs = this.clock.monotonicMs();
    return kept.bytes;
  }

  has(key: string): boolean {
    return this.kept.has(key);
  }

  /** Others may have its room. */
  spend(key: string): void {
    const kept = this.kept.get(key);
    if (kept !== undefined) kept.isSpent = true;
  }

  /** False where there is no room. What fails is forgotten. */
  begin(key: string, load: () => Promise<Uint8Array>): boolean {
    if (!this.makeRoom()) return false;
    const bytes = load();
    const kept: Kept = {
      ...{ bytes, isUnderWay: true, isSpent: false },
      usedMs: this.clock.monotonicMs(),
    };
    this.kept.set(key, kept);
    bytes.then(
      () => {
        kept.isUnderWay = false;
      },
      () => this.kept.delete(key),
    );
    return true;
  }

  private makeRoom(): boolean {
    if (this.kept.size < MAX_UNITS) return true;
    const nowMs = this.clock.monotonicMs();
    for (const [key, { isUnderWay, isSpent, usedMs }] of this.kept) {
      if (isUnderWay || !(isSpent || nowMs - usedMs > STALE_MS)) continue;
      this.kept.delete(key);
      return true;
    }
    return false;
  }
}

/** One reader in sequence, as far as it can be told apart. */
interface Stream {
  /** The end of what it has read. */
  at: number;
  bytes: number;
  /** What was looked for ends here. */
  looked: number;
  /** Units that were begun for it and that it has not come past. */
  units: number[];
  isBusy: boolean;
}

/** One image. */
export class ReadAhead {
  private readonly units: AheadUnits;
  private readonly mark: string;
  /** Least recently used first. */
  private streams: Stream[] = [];

  constructor(units: AheadUnits) {
    this.units = units;
    this.mark = units.mark();
  }

  /** The bytes of a unit that is there or under way: null where they do not come. Null: there are none. */
  get(unit: number): Promise<Uint8Array | null> | null {
    return this.units.get(this.keyOf(unit))?.catch(() => null) ?? null;
  }

  /** [offset, end) is about to be read: begins what comes after it, where the reader goes on. */
  note(image: AheadImage, offset: number, end: number): void {
    const stream = this.streamAt(offset);
    if (stream === null) {
      const made = { at: end, bytes: end - offset, looked: 0, units: [], isBusy: false };
      this.streams = [...this.streams.slice(1 - MAX_STREAMS), made];
      return;
    }
    stream.at = Math.max(stream.at, end);
    stream.bytes += end - offset;
    this.streams = [...this.streams.filter((other) => other !== stream), stream];
    this.spendBefore(offset);
    if (stream.bytes >= LEAST_BYTES) void this.advance(image, stream);
  }

  /** Whoever was at `from` was told that there are only zeros up to `to`. */
  skip(from: number, to: number): void {
    const stream = this.streamAt(from);
    if (stream !== null && to > stream.at) stream.at = to;
  }

  private keyOf(unit: number): string {
    return this.mark + unit;
  }

  /** Who has read up to about there, and last. */
  private streamAt(offset: number): Stream | null {
    return this.streams.findLast(({ at }) => Math.abs(offset - at) <= SLACK_BYTES) ?? null;
  }

  /** Nobody in sequence comes back to what ends well before `offset`. */
  private spendBefore(offset: number): void {
    const last = Math.floor((offset - SLACK_BYTES) / UNIT_BYTES) - 1;
    for (let unit = last; unit >= 0 && unit > last - MAX_UNITS; unit -= 1) {
      this.units.spend(this.keyOf(unit));
    }
  }

  /** As far as the reader is trusted to go on, and there is room. Resolves always. */
  private async advance(image: AheadImage, stream: Stream): Promise<void> {
    if (stream.isBusy) return;
    stream.isBusy = true;
    try {
      const most = Math.min(Math.ceil((2 * stream.bytes) / UNIT_BYTES), MAX_UNITS);
      for (;;) {
        stream.units = stream.units.filter((unit) => (unit + 1) * UNIT_BYTES > stream.at);
        const from = Math.max(stream.looked, stream.at);
        const end = Math.min(stream.at + LOOK_BYTES, image.sizeBytes);
        if (stream.units.length >= most || from >= end) break;
        const data = await image.dataAt(from, end);
        if (data === null) stream.looked = end;
        if (data === null) break;
        const unit = Math.floor(data / UNIT_BYTES);
        const key = this.keyOf(unit);
        if (!this.units.has(key) && !this.units.begin(key, () => image.loadUnit(unit))) break;
        stream.looked = (unit + 1) * UNIT_BYTES;
        stream.units.push(unit);
      }
    } catch {
      // A map could not be read: whoever reads on is told of it.
      stream.bytes = 0;
    } finally {
      stream.isBusy = false;
    }
  }
}
