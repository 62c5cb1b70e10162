/**
 * A finished snapshot read back and held against the image: every block that the snapshot holds, or a part of
 * them chosen by chance, and that what it does not hold is zero. A read costs as much as half a put.
 */
import { UnderstudyError } from '../../base/errors.ts';
import { isZeroFilled } from '../../store/images/image-digests.ts';
import type { BlockImage } from '../image-overlay.ts';
import type { AwsConnection } from './aws-connection.ts';
import { blocksOf, EBS_BLOCK_BYTES, extentsOf, readBlock, sha256 } from './block-image.ts';
import { EbsCalls, type ListedBlock } from './ebs-calls.ts';

export interface CheckOptions {
  readonly image: BlockImage;
  readonly snapshotId: string;
  /** Part of the snapshot's blocks that is read: 1 for all. */
  readonly share: number;
  readonly stop: AbortSignal;
  readonly onProgress?: (doneBytes: number) => void;
}

export interface CheckReport {
  readonly heldBlocks: number;
  readonly readBlocks: number;
}

/** What an operator's word means: the part of a snapshot that is read back. */
export const checkShares: Readonly<Record<string, number>> = { none: 0, sample: 0.02, all: 1 };

const READS_AT_ONCE = 16;

/** ERR_EC2_MISMATCH at the first block that differs. */
export async function checkSnapshot(
  aws: AwsConnection,
  options: CheckOptions,
): Promise<CheckReport> {
  const { image, snapshotId, share, onProgress } = options;
  const ebs = new EbsCalls(aws, options.stop);
  const held = new BlockSet(image.sizeBytes);
  let readBlocks = 0;
  let heldBlocks = 0;
  const reads = new Set<Promise<void>>();
  const failed = new AbortController();
  const compare = async (block: ListedBlock): Promise<void> => {
    const stored = await ebs.get(snapshotId, block);
    const digest = await sha256(await wholeBlock(image, block.index));
    if (!digest.equals(await sha256(stored))) throw differs(snapshotId, block.index);
  };
  for await (const block of ebs.blocks(snapshotId)) {
    held.add(block.index);
    heldBlocks += 1;
    if (share < 1 && aws.world.random() >= share) continue;
    readBlocks += 1;
    if (reads.size >= READS_AT_ONCE) await Promise.race(reads);
    failed.signal.throwIfAborted();
    const read: Promise<void> = compare(block)
      .catch((error) => failed.abort(error))
      .finally(() => reads.delete(read));
    reads.add(read);
    onProgress?.(Math.min((block.index + 1) * EBS_BLOCK_BYTES, image.sizeBytes));
  }
  await Promise.all(reads);
  failed.signal.throwIfAborted();
  await expectRestZero(image, held, snapshotId);
  return { heldBlocks, readBlocks };
}

/** Data that the snapshot does not hold must be zeros after all. */
async function expectRestZero(
  image: BlockImage,
  held: BlockSet,
  snapshotId: string,
): Promise<void> {
  for await (const index of blocksOf(extentsOf(image), image.sizeBytes, 0)) {
    if (!held.has(index) && !isZeroFilled(await readBlock(image, index))) {
      throw differs(snapshotId, index);
    }
  }
}

/** Which blocks a snapshot holds, in whatever order they are listed: a bit each, 2 MiB for 8 TiB. */
class BlockSet {
  private readonly bits: Uint8Array;

  constructor(sizeBytes: number) {
    this.bits = new Uint8Array(Math.ceil(sizeBytes / EBS_BLOCK_BYTES / 8));
  }

  /** Behind the end of the image nothing is kept: nobody asks for it. */
  add(index: number): void {
    const at = index >>> 3;
    if (at < this.bits.length) this.bits[at] = this.bits[at]! | (1 << (index & 7));
  }

  has(index: number): boolean {
    return ((this.bits[index >>> 3] ?? 0) & (1 << (index & 7))) !== 0;
  }
}

/** Behind the end of the image there is nothing but zeros. */
async function wholeBlock(image: BlockImage, index: number): Promise<Uint8Array> {
  const isBehind = index * EBS_BLOCK_BYTES >= image.sizeBytes;
  return isBehind ? new Uint8Array(EBS_BLOCK_BYTES) : readBlock(image, index);
}

function differs(snapshotId: string, index: number): UnderstudyError {
  const offset = index * EBS_BLOCK_BYTES;
  const message = `block ${index} of ${snapshotId} (at ${offset}) differs from the image`;
  return new UnderstudyError('ERR_EC2_MISMATCH', message, { offset });
}
