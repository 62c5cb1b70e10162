/**
 * A finished snapshot read back and held against the image: every block that the snapshot holds, or a part of
 * them chosen by chance, and that what it does not hold is zero. A read costs as much as half a put.
 */
import { UnderstudyError } from '../../base/errors.ts';
import { isZeroFilled } from '../../store/image-digests.ts';
import type { AwsConnection } from './aws-connection.ts';
import {
  type BlockImage,
  blocksOf,
  EBS_BLOCK_BYTES,
  extentsOf,
  readBlock,
  sha256,
} from './block-image.ts';
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

const READS_AT_ONCE = 16;

/** ERR_EC2_MISMATCH at the first block that differs. */
export async function checkSnapshot(
  aws: AwsConnection,
  options: CheckOptions,
): Promise<CheckReport> {
  const { image, snapshotId, share, onProgress } = options;
  const ebs = new EbsCalls(aws, options.stop);
  const data = blocksOf(extentsOf(image), image.sizeBytes, 0);
  let expected = await data.next();
  let readBlocks = 0;
  let heldBlocks = 0;
  const reads = new Set<Promise<void>>();
  const failed = new AbortController();
  const compare = async (block: ListedBlock): Promise<void> => {
    const stored = await ebs.get(snapshotId, block);
    const digest = await sha256(await wholeBlock(image, block.index));
    if (!digest.equals(await sha256(stored))) throw differs(snapshotId, block.index);
  };
  /** Blocks of data below `end` that the snapshot does not hold must be zero after all. */
  const skipTo = async (end: number): Promise<void> => {
    for (; expected.done !== true && expected.value < end; expected = await data.next()) {
      const bytes = await readBlock(image, expected.value);
      if (!isZeroFilled(bytes)) throw differs(snapshotId, expected.value);
    }
  };
  for await (const block of ebs.blocks(snapshotId)) {
    await skipTo(block.index);
    if (expected.done !== true && expected.value === block.index) expected = await data.next();
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
  await skipTo(Number.POSITIVE_INFINITY);
  return { heldBlocks, readBlocks };
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
