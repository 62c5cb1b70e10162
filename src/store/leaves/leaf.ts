/**
 * Leaves: what a map knows of 1024 neighbouring chunks, as an encoded list of entries whose indexes count
 * from the leaf's first chunk (so that equal leaves are equal bytes, wherever they lie). Everything that
 * composes maps - open epochs, folds, images - does it leaf by leaf, with `composeLeaves`. Pure.
 */
import {
  type ChunkEntry,
  compose,
  type IndexedEntry,
  type Piece,
  ZERO_ENTRY,
} from '../../model/entry.ts';
import { appendEntries, decodeEntries, encodeEntries } from '../../model/entry-codec.ts';
import {
  blockLength,
  blocksInChunk,
  CHUNKS_PER_LEAF,
  chunkCount,
  chunkLength,
} from '../../model/geometry.ts';

/** Encoded entries of one leaf. */
export type Leaf = Uint8Array;
/** The same, one place a chunk. */
export type OpenLeaf = (ChunkEntry | undefined)[];

/** How many chunks leaf `leaf` of a volume has. */
export const chunksInLeaf = (leaf: number, sizeBytes: number): number =>
  Math.min(CHUNKS_PER_LEAF, chunkCount(sizeBytes) - leaf * CHUNKS_PER_LEAF);

export function openLeaf(leaf: Leaf): OpenLeaf {
  const entries: OpenLeaf = new Array(CHUNKS_PER_LEAF).fill(undefined);
  layOver(entries, decodeEntries(leaf));
  return entries;
}

/** Lays entries (with indexes inside the leaf) over an open leaf. */
function layOver(leaf: OpenLeaf, newer: readonly IndexedEntry[]): void {
  for (const { index, count, entry } of newer) {
    for (let i = index; i < index + count; i += 1) leaf[i] = compose(leaf[i], entry);
  }
}

function closeLeaf(entries: OpenLeaf): Leaf {
  const items: IndexedEntry[] = [];
  for (const [index, entry] of entries.entries()) {
    if (entry !== undefined) items.push({ index, count: 1, entry });
  }
  return encodeEntries(items);
}

/** What a reader sees after both. */
export function composeLeaves(older: Leaf | undefined, newer: Leaf): Leaf {
  if (older === undefined) return newer;
  const entries = openLeaf(older);
  layOver(entries, decodeEntries(newer));
  return closeLeaf(entries);
}

/** The same of entries of a leaf of `chunks` chunks. Most come in order, behind what is there. */
export function layEntriesOver(
  older: Leaf | undefined,
  newer: readonly IndexedEntry[],
  chunks: number,
): Leaf {
  const isZero = newer[0]?.entry.whole === 'zero' && newer[0].entry.mask === 0;
  if (isZero && newer[0]!.count === chunks) return zeroLeaf(chunks);
  const longer = older && appendEntries(older, newer);
  const composed = longer ?? composeLeaves(older, encodeEntries(newer));
  return isZeroLeaf(composed, chunks) ? zeroLeaf(chunks) : composed;
}

export function composeAll(layers: readonly (Leaf | undefined)[]): Leaf | undefined {
  const found = layers.filter((layer) => layer !== undefined);
  if (found.length < 2) return found[0];
  const entries = openLeaf(found[0]!);
  for (const layer of found.slice(1)) layOver(entries, decodeEntries(layer));
  return closeLeaf(entries);
}

const zeroLeaves = new Map<number, Leaf>();
/** The leaf of `chunks` zero chunks; always the same array. */
export function zeroLeaf(chunks: number): Leaf {
  const known = zeroLeaves.get(chunks);
  if (known !== undefined) return known;
  const leaf = encodeEntries([{ index: 0, count: chunks, entry: ZERO_ENTRY }]);
  zeroLeaves.set(chunks, leaf);
  return leaf;
}

export const isZeroLeaf = (leaf: Leaf, chunks: number): boolean =>
  Buffer.compare(leaf, zeroLeaf(chunks)) === 0;

/** Cuts a list at the borders of leaves; indexes become those inside the leaf. */
export function* splitByLeaf(
  entries: readonly IndexedEntry[],
): Generator<{ leaf: number; entries: IndexedEntry[] }> {
  let leaf = -1;
  let group: IndexedEntry[] = [];
  for (const { index, count, entry } of entries) {
    let at = index;
    while (at < index + count) {
      const here = Math.floor(at / CHUNKS_PER_LEAF);
      if (here !== leaf && group.length > 0) {
        yield { leaf, entries: group };
        group = [];
      }
      leaf = here;
      const first = leaf * CHUNKS_PER_LEAF;
      const end = Math.min(index + count, first + CHUNKS_PER_LEAF);
      group.push({ index: at - first, count: end - at, entry });
      at = end;
    }
  }
  if (group.length > 0) yield { leaf, entries: group };
}

/** Chunks of the leaf (numbered in the volume) of which not every byte is known. */
export function missingChunks(leaf: number, bytes: Leaf | undefined, sizeBytes: number): number[] {
  const first = leaf * CHUNKS_PER_LEAF;
  const chunks = chunksInLeaf(leaf, sizeBytes);
  if (bytes !== undefined && isZeroLeaf(bytes, chunks)) return [];
  const entries = bytes === undefined ? [] : openLeaf(bytes);
  const missing: number[] = [];
  for (let i = 0; i < chunks; i += 1) {
    const entry = entries[i];
    const all = 2 ** blocksInChunk(first + i, sizeBytes) - 1;
    const isKnown = entry !== undefined && (entry.whole !== null || entry.mask === all);
    if (!isKnown) missing.push(first + i);
  }
  return missing;
}

/** What an entry of chunk `chunk` names, and how long each content must be. */
export function piecesOf(
  entry: ChunkEntry,
  chunk: number,
  sizeBytes: number,
): { piece: Piece; length: number }[] {
  const pieces: { piece: Piece; length: number }[] = [];
  if (entry.whole !== null) {
    pieces.push({ piece: entry.whole, length: chunkLength(chunk, sizeBytes) });
  }
  let next = 0;
  for (let block = 0; next < entry.blocks.length; block += 1) {
    if ((entry.mask & (1 << block)) === 0) continue;
    pieces.push({ piece: entry.blocks[next]!, length: blockLength(chunk, block, sizeBytes) });
    next += 1;
  }
  return pieces;
}

/** Every digest that a leaf names, in order; a digest may come twice. */
export function* leafDigests(leaf: Leaf): Generator<Uint8Array> {
  for (const { entry } of decodeEntries(leaf)) {
    if (entry.whole !== null && entry.whole !== 'zero') yield entry.whole;
    for (const block of entry.blocks) if (block !== 'zero') yield block;
  }
}
