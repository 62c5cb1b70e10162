/**
 * A volume as EBS sees it: blocks of 512 KiB. Which blocks of an image have to be put, and the bytes of one.
 * Pure but for the image that is read.
 */
import { UnderstudyError } from '../../base/errors.ts';
import { GIB, KIB } from '../../base/units.ts';
import type { Extent } from '../../model/geometry.ts';
import type { BlockImage } from '../image-overlay.ts';

export const EBS_BLOCK_BYTES = 512 * KIB;
/** The largest EBS volume: 64 TiB. */
const MAX_GIB = 65_536;

/** The size of an EBS volume that holds the image: whole GiB. ERR_EC2_DISK where there is none so large. */
export function sizeGiB(sizeBytes: number): number {
  const size = Math.max(1, Math.ceil(sizeBytes / GIB));
  if (size <= MAX_GIB) return size;
  throw new UnderstudyError('ERR_EC2_DISK', `a volume of ${size} GiB: EBS ends at ${MAX_GIB} GiB`);
}

/** Where blocks come from: the data of an image, or what changed since the parent snapshot. */
export async function* extentsOf(image: BlockImage): AsyncGenerator<Extent> {
  let found = await image.nextData(0);
  while (found !== null) {
    yield found;
    // The rest of the last block goes along with it.
    const end = Math.ceil((found.offset + found.length) / EBS_BLOCK_BYTES) * EBS_BLOCK_BYTES;
    found = end < image.sizeBytes ? await image.nextData(end) : null;
  }
}

/** Indexes of the blocks that the extents touch, ascending, each once, from `first` on. */
export async function* blocksOf(
  extents: AsyncIterable<Extent> | Iterable<Extent>,
  sizeBytes: number,
  first: number,
): AsyncGenerator<number> {
  let next = first;
  for await (const { offset, length } of extents) {
    const end = Math.ceil(Math.min(offset + length, sizeBytes) / EBS_BLOCK_BYTES);
    for (let at = Math.max(next, Math.floor(offset / EBS_BLOCK_BYTES)); at < end; at += 1) {
      next = at + 1;
      yield at;
    }
  }
}

/** Block `index`, the last one of the image filled up with zeros. */
export async function readBlock(image: BlockImage, index: number): Promise<Uint8Array> {
  const offset = index * EBS_BLOCK_BYTES;
  const length = Math.min(EBS_BLOCK_BYTES, image.sizeBytes - offset);
  const bytes = await image.read(offset, length);
  if (bytes.length !== length) {
    const message = `the image gave ${bytes.length} of ${length} bytes at ${offset}`;
    throw new UnderstudyError('ERR_BUG', message, { offset });
  }
  if (length === EBS_BLOCK_BYTES) return bytes;
  const whole = new Uint8Array(EBS_BLOCK_BYTES);
  whole.set(bytes);
  return whole;
}

export async function sha256(bytes: Uint8Array): Promise<Buffer> {
  // By the thread pool: half a megabyte would hold the event loop up.
  const digest = await crypto.subtle.digest('SHA-256', bytes as Uint8Array<ArrayBuffer>);
  return Buffer.from(digest);
}
