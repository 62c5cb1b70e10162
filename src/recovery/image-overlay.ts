/**
 * A point's image with changes laid over it: what boot preparation has made of a disk, without a copy of the
 * whole. Pure but for what is read.
 */
import type { Extent } from '../model/geometry.ts';

/** The bytes of a volume at a point; they never change. */
export interface BlockImage {
  readonly sizeBytes: number;
  /** Exactly `length` bytes; the range lies inside the image. */
  read(offset: number, length: number): Promise<Uint8Array>;
  /** The next stretch, at or after `offset`, that may hold anything but zeros; null: none. */
  nextData(offset: number): Promise<Extent | null>;
}

/** Another preparation of the same image has another `id`, the same one always the same bytes. */
export interface ImageOverlay {
  readonly id: string;
  /** Where the disk differs from the point's image: ascending, inside it, not touching each other. */
  readonly changed: readonly Extent[];
  /** Exactly `length` bytes; the range lies inside one of `changed`. */
  read(offset: number, length: number): Promise<Uint8Array>;
}

/** The image as it is with the overlay. */
export const overlaid = (image: BlockImage, overlay: ImageOverlay): BlockImage => ({
  sizeBytes: image.sizeBytes,
  read: (offset, length) => readOverlaid(image, overlay, offset, length),
  async nextData(offset) {
    const below = await image.nextData(offset);
    const over = overlay.changed.find((extent) => endOf(extent) > offset);
    if (over === undefined) return below;
    const start = Math.max(offset, over.offset);
    if (below !== null && below.offset < start) return below;
    return { offset: start, length: endOf(over) - start };
  },
});

async function readOverlaid(
  image: BlockImage,
  overlay: ImageOverlay,
  offset: number,
  length: number,
): Promise<Uint8Array> {
  const end = offset + length;
  const over = overlay.changed.filter((extent) => extent.offset < end && endOf(extent) > offset);
  const isCovered = over.some((extent) => extent.offset <= offset && endOf(extent) >= end);
  if (isCovered) return overlay.read(offset, length);
  const bytes = await image.read(offset, length);
  if (over.length === 0) return bytes;
  // What an image gives may be shared with others.
  const mixed = Uint8Array.from(bytes);
  for (const extent of over) {
    const from = Math.max(extent.offset, offset);
    const until = Math.min(endOf(extent), end);
    mixed.set(await overlay.read(from, until - from), from - offset);
  }
  return mixed;
}

/** Both, by their offsets: they may overlap. */
export async function* merged(
  a: AsyncIterable<Extent> | Iterable<Extent>,
  b: readonly Extent[],
): AsyncGenerator<Extent> {
  let at = 0;
  for await (const extent of a) {
    for (; at < b.length && b[at]!.offset < extent.offset; at += 1) yield b[at]!;
    yield extent;
  }
  yield* b.slice(at);
}

const endOf = ({ offset, length }: Extent): number => offset + length;
