/**
 * Which chunks of an image are not what somebody else has there, told by the SHA-256s of what he has: the
 * maps know the names of most chunks, so that nothing is read for these. Names of an encrypted repository
 * are keyed: the digests are translated here, at the store's door. A chunk that the maps know by single
 * blocks has no name and is read.
 */
import { UnderstudyError } from '../../base/errors.ts';
import type { ChunkEntry } from '../../model/entry.ts';
import {
  CHUNK_BYTES,
  CHUNKS_PER_LEAF,
  chunkCount,
  chunkLength,
  DIGEST_BYTES,
} from '../../model/geometry.ts';
import { equalBytes, sha256 } from '../format/checksum.ts';
import type { Names } from '../format/names.ts';
import type { ChainImage } from '../maps/image.ts';
import type { ChunkComparison } from '../types.ts';
import { isZeroFilled } from './image-digests.ts';

/** Most chunks that one call looks at: 64 MiB. */
const MAX_COMPARED = 1024;

type Compared = Pick<ChainImage, 'sizeBytes' | 'entries' | 'read'>;

const zeroDigests = new Map<number, Uint8Array>();

function zeroDigest(length: number): Uint8Array {
  const known = zeroDigests.get(length) ?? sha256(new Uint8Array(length));
  zeroDigests.set(length, known);
  return known;
}

/** `digests`: of the chunks from `first` on, one after the other. ERR_IMAGE_RANGE. */
export async function compareImage(
  image: Compared,
  names: Names,
  first: number,
  digests: Uint8Array,
): Promise<ChunkComparison> {
  const chunks = digests.length / DIGEST_BYTES;
  const isInside = Number.isInteger(first) && first >= 0 && Number.isInteger(chunks);
  if (!isInside || chunks > MAX_COMPARED || first + chunks > chunkCount(image.sizeBytes)) {
    throw new UnderstudyError('ERR_IMAGE_RANGE', `${chunks} digests from chunk ${first} on`);
  }
  const different = new Uint8Array(Math.ceil(chunks / 8));
  const zero = new Uint8Array(different.length);
  let count = 0;
  for (let i = 0; i < chunks; i += 1) {
    const digest = digests.subarray(i * DIGEST_BYTES, (i + 1) * DIGEST_BYTES);
    const found = await compareChunk(image, names, first + i, digest);
    if (found === 'same') continue;
    count += 1;
    different[i >> 3]! |= 1 << (i & 7);
    if (found === 'zero') zero[i >> 3]! |= 1 << (i & 7);
  }
  return { different, zero, count };
}

async function compareChunk(
  image: Compared,
  names: Names,
  chunk: number,
  digest: Uint8Array,
): Promise<'same' | 'different' | 'zero'> {
  const length = chunkLength(chunk, image.sizeBytes);
  const leaf = await image.entries(Math.floor(chunk / CHUNKS_PER_LEAF));
  const entry = leaf === null ? ZERO : leaf[chunk % CHUNKS_PER_LEAF];
  if (entry?.mask === 0 && entry.whole === 'zero') {
    return equalBytes(digest, zeroDigest(length)) ? 'same' : 'zero';
  }
  if (entry?.mask === 0 && entry.whole !== null) {
    return equalBytes(entry.whole as Uint8Array, names.ofDigest(digest)) ? 'same' : 'different';
  }
  // Also where the map lacks the chunk: the read says so.
  const bytes = await image.read(chunk * CHUNK_BYTES, length);
  if (equalBytes(sha256(bytes), digest)) return 'same';
  return isZeroFilled(bytes) ? 'zero' : 'different';
}

const ZERO: ChunkEntry = { whole: 'zero', mask: 0, blocks: [] };
