/**
 * The simulated source device: sectors, writes that are in flight for a while and land sector by sector
 * in any order, and a record of everything, from which the oracle tells what a power cut at T may have
 * left (P2). A tracker listens to it as the kernel's tracepoints would be heard: queue, completion; some
 * completions are lost on the way, as was measured on real machines.
 *
 * Writer events happen at fractional milliseconds, cuts at whole ones, so that "before T" is never a tie.
 */
import { SECTOR_BYTES } from '../../src/model/geometry.ts';

/** No write is in flight for longer. */
export const LONGEST_WRITE_MS = 50;

export interface SimulatedWrite {
  readonly id: number;
  readonly firstSector: number;
  readonly sectors: number;
  readonly queuedMs: number;
  completedMs: number;
  /** A discard or write-zeroes: lands as zero bytes. */
  readonly zero: boolean;
}

export interface WriteListener {
  queued(write: SimulatedWrite): void;
  completed(write: SimulatedWrite): void;
}

export class SimulatedDevice {
  readonly path: string;
  readonly sizeBytes: number;
  readonly writes: SimulatedWrite[] = [];
  readonly listeners = new Set<WriteListener>();
  /** Errors for reads that touch these sectors. */
  readonly badSectors = new Set<number>();
  private readonly bytes: Uint8Array;
  /** For each sector the ids of writes in the order in which they landed. */
  private readonly landed = new Map<number, number[]>();

  constructor(path: string, sizeBytes: number) {
    this.path = path;
    this.sizeBytes = sizeBytes;
    this.bytes = new Uint8Array(sizeBytes);
  }

  get sectors(): number {
    return this.sizeBytes / SECTOR_BYTES;
  }

  queue(firstSector: number, sectors: number, zero: boolean, nowMs: number): SimulatedWrite {
    const id = this.writes.length + 1;
    const write = {
      id,
      firstSector,
      sectors,
      zero,
      queuedMs: nowMs,
      completedMs: Number.POSITIVE_INFINITY,
    };
    this.writes.push(write);
    for (const listener of this.listeners) listener.queued(write);
    return write;
  }

  land(write: SimulatedWrite, sector: number): void {
    const at = sector * SECTOR_BYTES;
    this.bytes.set(sectorContent(this.path, write, sector), at);
    const history = this.landed.get(sector);
    if (history === undefined) this.landed.set(sector, [write.id]);
    else history.push(write.id);
  }

  complete(write: SimulatedWrite, nowMs: number, seen: boolean): void {
    write.completedMs = nowMs;
    if (!seen) return;
    for (const listener of this.listeners) listener.completed(write);
  }

  /** Writes in flight end with the sectors that have landed. */
  powerCut(nowMs: number): void {
    for (const write of this.writes) {
      if (write.completedMs === Number.POSITIVE_INFINITY) write.completedMs = nowMs;
    }
  }

  read(offset: number, length: number): Uint8Array {
    return this.bytes.slice(offset, offset + length);
  }

  isBad(offset: number, length: number): boolean {
    for (let sector = offset / SECTOR_BYTES; sector * SECTOR_BYTES < offset + length; sector += 1) {
      if (this.badSectors.has(sector)) return true;
    }
    return false;
  }

  /**
   * Returns what is wrong with `image` as the state at `timeMs`, or null. A sector may hold the newest
   * landed write among those completed before T, or any write in flight at T; nothing else.
   */
  violation(image: Uint8Array, timeMs: number): string | null {
    if (image.length !== this.sizeBytes) return `${this.path}: ${image.length} bytes`;
    const inFlight = this.inFlightAt(timeMs);
    for (let sector = 0; sector < this.sectors; sector += 1) {
      const found = image.subarray(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES);
      const newest = this.landed
        .get(sector)
        ?.findLast((id) => this.writes[id - 1]!.completedMs < timeMs);
      const settled = newest === undefined ? null : this.writes[newest - 1]!;
      if (this.holds(found, settled, sector)) continue;
      const others = inFlight.filter(
        (w) => w.firstSector <= sector && sector < w.firstSector + w.sectors,
      );
      if (others.some((write) => this.holds(found, write, sector))) continue;
      const names = [settled, ...others].map((w) => w?.id ?? 'zeros').join(',');
      const place = `${this.path} sector ${sector} at T=${timeMs}`;
      return `${place}: holds ${describe(found)}, may hold ${names}`;
    }
    return null;
  }

  /** No write takes longer than this. */
  private inFlightAt(timeMs: number): SimulatedWrite[] {
    const found: SimulatedWrite[] = [];
    for (let index = this.writes.length - 1; index >= 0; index -= 1) {
      const write = this.writes[index]!;
      if (write.queuedMs < timeMs - LONGEST_WRITE_MS) break;
      if (write.queuedMs < timeMs && write.completedMs > timeMs) found.push(write);
    }
    return found;
  }

  private holds(found: Uint8Array, write: SimulatedWrite | null, sector: number): boolean {
    if (write === null || write.zero) return isZero(found);
    return isEqual(found, sectorContent(this.path, write, sector));
  }
}

/** A sector that describes itself: the write's id, the sector, then a pattern of both. */
function sectorContent(path: string, write: SimulatedWrite, sector: number): Uint8Array {
  const content = new Uint8Array(SECTOR_BYTES);
  if (write.zero) return content;
  const view = new DataView(content.buffer);
  view.setUint32(0, write.id);
  view.setUint32(4, sector);
  view.setUint32(8, path.length);
  content.fill((write.id * 31 + sector * 7) & 255, 12);
  return content;
}

const zeros = new Uint8Array(SECTOR_BYTES);
const isZero = (bytes: Uint8Array): boolean => Buffer.compare(bytes, zeros) === 0;
const isEqual = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;
function describe(found: Uint8Array): string {
  const view = new DataView(found.buffer, found.byteOffset, found.byteLength);
  return isZero(found) ? 'zeros' : `write ${view.getUint32(0)} for sector ${view.getUint32(4)}`;
}
