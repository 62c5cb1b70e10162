/**
 * Entries of a sync batch, and the offers that wait for their answers. Per volume the offers end in the
 * order in which they were made, so that progress is never reported past a batch that is still open.
 */
import type { IndexedEntry, Piece } from '../model/entry.ts';
import { wholeEntry, ZERO_ENTRY } from '../model/entry.ts';
import { DIGEST_BYTES } from '../model/geometry.ts';
import { encodeMessage } from '../protocol/codec.ts';
import type { ChunkPart } from './batch.ts';
import type { Hold } from './buffer-holds.ts';
import type { Digested } from './content-work.ts';
import type { OutItem } from './outbox.ts';
import type { ScanTable } from './scan-table.ts';

export interface Hole {
  readonly from: number;
  readonly to: number;
}

/** A chunk that was read, with its name. */
export interface NamedPart {
  readonly part: ChunkPart;
  readonly piece: Piece;
}

export const nameParts = (parts: readonly ChunkPart[], { digests, zeros }: Digested): NamedPart[] =>
  parts.map((part, i) => ({
    part,
    piece: zeros[i] === 1 ? 'zero' : digests.subarray(i * DIGEST_BYTES, (i + 1) * DIGEST_BYTES),
  }));

/** Entries in ascending order, neighbouring zeros as one run. */
export function entriesOf(named: readonly NamedPart[], holes: readonly Hole[]): IndexedEntry[] {
  const runs: IndexedEntry[] = [
    ...holes.map(({ from, to }) => ({ index: from, count: to - from, entry: ZERO_ENTRY })),
    ...named.map(({ part, piece }) => ({
      index: part.chunk,
      count: 1,
      entry: piece === 'zero' ? ZERO_ENTRY : wholeEntry(piece),
    })),
  ].sort((a, b) => a.index - b.index);
  const entries: IndexedEntry[] = [];
  for (const run of runs) {
    const last = entries.at(-1);
    const joins =
      last?.entry.whole === 'zero' &&
      run.entry.whole === 'zero' &&
      last.index + last.count === run.index;
    if (joins) entries.splice(-1, 1, { ...last, count: last.count + run.count });
    else entries.push(run);
  }
  return entries;
}

/** Leaves out the groups that are as the table knows them. `endChunk` is the volume's end. */
export function changedOnly(
  table: ScanTable,
  named: readonly NamedPart[],
  holes: readonly Hole[],
  endChunk: number,
): { named: NamedPart[]; holes: Hole[] } {
  const { groupChunks } = table;
  const groups = new Map<number, NamedPart[]>();
  for (const each of named) {
    const group = Math.floor(each.part.chunk / groupChunks);
    const members = groups.get(group);
    if (members === undefined) groups.set(group, [each]);
    else members.push(each);
  }
  const changed: NamedPart[] = [];
  for (const [group, members] of groups) {
    const size = Math.min(groupChunks, endChunk - group * groupChunks);
    if (members.length < size) table.forget(group);
    else if (
      !table.note(
        group,
        members.map((m) => m.piece),
      )
    )
      continue;
    changed.push(...members);
  }
  const opened = holes.filter(({ from, to }) => {
    const firstGroup = Math.floor(from / groupChunks);
    return table.noteZeros(firstGroup, Math.ceil(to / groupChunks));
  });
  return { named: changed, holes: opened };
}

/** One offer, from the moment at which its batch was taken in until its contents have been sent. */
export class OfferItem implements OutItem {
  readonly volume: number;
  /** Every chunk of the sync below this one is said by this offer or an earlier one. */
  readonly chunk: number;
  readonly isNumbered = true;
  seq: number | null = null;
  isReady = false;
  isNeeded = true;
  roomBytes = 0;
  isDone = false;
  wanted: WantedPiece[] = [];
  /** Null once the bytes are not needed any more. */
  hold: Hold | null;
  private entries: IndexedEntry[] = [];
  private readonly synced: number;
  private readonly whenSent: (offer: OfferItem, entries: readonly IndexedEntry[]) => void;

  constructor(
    place: { volume: number; chunk: number; synced: number },
    hold: Hold | null,
    whenSent: (offer: OfferItem, entries: readonly IndexedEntry[]) => void,
  ) {
    this.volume = place.volume;
    this.chunk = place.chunk;
    this.synced = place.synced;
    this.hold = hold;
    this.whenSent = whenSent;
  }

  say(named: readonly NamedPart[], holes: readonly Hole[]): void {
    this.entries = entriesOf(named, holes);
    for (const { part, piece } of named) {
      if (piece === 'zero') continue;
      this.wanted.push({ at: part.at[0]!, length: part.length, digest: piece });
      this.roomBytes += part.length;
    }
    this.isNeeded = this.entries.length > 0 || this.synced > 0;
    this.isReady = true;
    if (this.wanted.length === 0) this.letGo();
  }

  frame(seq: number): Uint8Array {
    const { volume, synced, entries } = this;
    return encodeMessage({ type: 'offer', seq, volume, synced, entries });
  }

  onSent(): void {
    this.whenSent(this, this.entries);
    this.entries = [];
  }

  letGo(): void {
    this.hold?.letGo();
    this.hold = null;
  }
}

export interface WantedPiece {
  readonly at: number;
  readonly length: number;
  readonly digest: Uint8Array;
}

export class OpenOffers {
  private readonly bySeq = new Map<number, OfferItem>();
  private readonly byVolume = new Map<number, OfferItem[]>();

  begin(offer: OfferItem): void {
    const list = this.byVolume.get(offer.volume);
    if (list === undefined) this.byVolume.set(offer.volume, [offer]);
    else list.push(offer);
  }

  sent(offer: OfferItem): void {
    this.bySeq.set(offer.seq!, offer);
  }

  /** The offer that `seq` answers, once. */
  take(seq: number): OfferItem | undefined {
    const offer = this.bySeq.get(seq);
    this.bySeq.delete(seq);
    return offer;
  }

  /** Returns the chunk up to which the volume's offers have ended, or null where nothing moved. */
  end(offer: OfferItem): number | null {
    offer.isDone = true;
    const list = this.byVolume.get(offer.volume) ?? [];
    let chunk: number | null = null;
    while (list[0]?.isDone === true) chunk = list.shift()!.chunk;
    return chunk;
  }

  get isAnyOpen(): boolean {
    return this.bySeq.size > 0;
  }

  isOpen(volume: number): boolean {
    return (this.byVolume.get(volume)?.length ?? 0) > 0;
  }

  clear(): void {
    this.bySeq.clear();
    this.byVolume.clear();
  }
}
