/**
 * What a session has asked for and not yet received. The sync cursor may pass an offer only when all the
 * contents that were asked for it have arrived: "chunks below the cursor are durable" must be true at
 * every instant. Pure bookkeeping.
 */
import { toHex } from '../format/checksum.ts';

/** Beyond this, contents are asked for again rather than remembered, and the cursor stands still. */
const MAX_ASKED = 65_536;

interface PendingOffer {
  readonly synced: number;
  waiting: number;
}

export class Arrivals {
  private readonly asked = new Map<string, PendingOffer[]>();
  /** By volume, in order of the calls. */
  private readonly offers: PendingOffer[][];
  private isOverrun = false;

  constructor(volumes: number) {
    this.offers = Array.from({ length: volumes }, () => []);
  }

  /** A new offer of a volume; `synced` is 0 where it moves no cursor. */
  begin(volume: number, synced: number): PendingOffer {
    const offer = { synced, waiting: 0 };
    this.offers[volume]!.push(offer);
    return offer;
  }

  isAsked(digest: Uint8Array): boolean {
    return this.asked.has(toHex(digest));
  }

  /** `offer` needs `digest`; true where it is to be asked for now. */
  expect(digest: Uint8Array, offer: PendingOffer): boolean {
    const key = toHex(digest);
    const waiters = this.asked.get(key);
    if (waiters !== undefined) {
      waiters.push(offer);
      offer.waiting += 1;
      return false;
    }
    if (this.asked.size >= MAX_ASKED) {
      this.isOverrun = true;
    } else {
      this.asked.set(key, [offer]);
      offer.waiting += 1;
    }
    return true;
  }

  arrived(digest: Uint8Array): void {
    const key = toHex(digest);
    for (const offer of this.asked.get(key) ?? []) offer.waiting -= 1;
    this.asked.delete(key);
  }

  /** The furthest cursor whose offers are complete; 0 where it has not moved since the last call. */
  takeCursor(volume: number): number {
    const offers = this.offers[volume]!;
    let synced = 0;
    while (offers[0]?.waiting === 0) synced = Math.max(synced, offers.shift()!.synced);
    return this.isOverrun ? 0 : synced;
  }
}
