/**
 * An image as its source tells it: pages of digests, the neighbouring pieces in them, the gaps between.
 * What is made of the bytes is the exporters' business.
 */
import type { PieceDigest, PieceDigests } from '../store/images/image-digests.ts';

export interface ImageSource {
  readonly sizeBytes: number;
  /** Digests of the pieces that are not zero, from `offset` on. */
  digests(offset: number): Promise<PieceDigests>;
  read(offset: number, length: number): Promise<Uint8Array>;
  /**
   * Where given, what is read has been checked right there: nothing on the way must be proved by digests that are
   * told. The next range that is not known to be zero; null: there is none.
   */
  nextData?(offset: number): Promise<Span | null>;
}

export interface Span {
  readonly offset: number;
  readonly length: number;
}
export type Page = PieceDigests & Span;

/** The whole image, a page of digests at a time, without holes between pages. */
export async function* imagePages(
  source: ImageSource,
  stop: AbortSignal,
  onPage: (done: number, total: number) => void,
): AsyncGenerator<Page> {
  const { sizeBytes } = source;
  let offset: number | null = 0;
  while (offset !== null && offset < sizeBytes) {
    stop.throwIfAborted();
    const told: PieceDigests = await source.digests(offset);
    const end = told.next ?? sizeBytes;
    yield { ...told, offset, length: end - offset };
    offset = told.next;
    onPage(end, sizeBytes);
  }
}

/** Neighbouring pieces together, up to `maxBytes`, so that one request carries several. */
export function runsOf(pieces: readonly PieceDigest[], maxBytes: number): PieceDigest[][] {
  const runs: PieceDigest[][] = [];
  let end = -1;
  for (const piece of pieces) {
    const run = runs.at(-1);
    const fits = run !== undefined && piece.offset + piece.length - run[0]!.offset <= maxBytes;
    if (piece.offset === end && fits) run.push(piece);
    else runs.push([piece]);
    end = piece.offset + piece.length;
  }
  return runs;
}

/** What a page leaves between its pieces: zero, as the source tells. */
export function gapsOf(page: Page): Span[] {
  const gaps: Span[] = [];
  let at = page.offset;
  for (const piece of [...page.pieces, { offset: page.offset + page.length, length: 0 }]) {
    if (piece.offset > at) gaps.push({ offset: at, length: piece.offset - at });
    at = piece.offset + piece.length;
  }
  return gaps;
}
