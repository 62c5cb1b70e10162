/** The calls of the EBS direct API, one function each; the only place that makes them. */
import {
  CompleteSnapshotCommand,
  GetSnapshotBlockCommand,
  ListSnapshotBlocksCommand,
  PutSnapshotBlockCommand,
  StartSnapshotCommand,
  type StartSnapshotRequest,
} from '@aws-sdk/client-ebs';
import { UnderstudyError } from '../../base/errors.ts';
import type { AwsConnection, Told } from './aws-connection.ts';
import { EBS_BLOCK_BYTES, sha256 } from './block-image.ts';

export interface ListedBlock {
  readonly index: number;
  readonly token: string;
}

export class EbsCalls {
  private readonly aws: AwsConnection;
  private readonly stop: AbortSignal;

  constructor(aws: AwsConnection, stop: AbortSignal) {
    this.aws = aws;
    this.stop = stop;
  }

  /** The id of the snapshot; null where the parent is gone. The same token gives the same snapshot. */
  async start(request: StartSnapshotRequest): Promise<string | null> {
    const subject = request.ParentSnapshotId ?? request.Description ?? '';
    const { answer } = await this.aws.askFor(
      { call: 'StartSnapshot', subject, stop: this.stop },
      (abortSignal) => this.aws.ebs.send(new StartSnapshotCommand(request), { abortSignal }),
      request.ParentSnapshotId === undefined ? [] : ['not-found'],
    );
    return answer === null ? null : answer.SnapshotId!;
  }

  /**
   * One block. 'not-found' where there is no such snapshot. `isNew`: a snapshot just started is not known
   * everywhere yet, and asking again helps.
   */
  put(
    block: { snapshotId: string; index: number; bytes: Uint8Array; digest: Buffer },
    options: { isNew: boolean; stop: AbortSignal; take: (stop: AbortSignal) => Promise<void> },
  ): Promise<Told<unknown, 'not-found'>> {
    const { snapshotId, index, bytes, digest } = block;
    const { isNew, stop, take } = options;
    const request = {
      SnapshotId: snapshotId,
      BlockIndex: index,
      BlockData: bytes,
      DataLength: bytes.length,
      Checksum: digest.toString('base64'),
      ChecksumAlgorithm: 'SHA256' as const,
    };
    return this.aws.askFor(
      {
        ...{ call: 'PutSnapshotBlock', subject: `${snapshotId} block ${index}`, stop },
        ...(isNew && { alsoPassing: /^ResourceNotFound/ }),
        // Tries after the first count against the quota as well.
        turn: () => take(stop),
      },
      (abortSignal) => this.aws.ebs.send(new PutSnapshotBlockCommand(request), { abortSignal }),
      ['not-found'],
    );
  }

  /** Seals the snapshot. 'refused' and 'not-found' are for the caller: it may have been sealed before. */
  complete(
    snapshotId: string,
    blocks: number,
    checksum: Buffer,
  ): Promise<Told<unknown, 'refused' | 'not-found'>> {
    const request = {
      SnapshotId: snapshotId,
      ChangedBlocksCount: blocks,
      // Of no blocks there is no checksum.
      ...(blocks > 0 && {
        Checksum: checksum.toString('base64'),
        ChecksumAlgorithm: 'SHA256' as const,
        ChecksumAggregationMethod: 'LINEAR' as const,
      }),
    };
    return this.aws.askFor(
      { call: 'CompleteSnapshot', subject: snapshotId, stop: this.stop },
      (abortSignal) => this.aws.ebs.send(new CompleteSnapshotCommand(request), { abortSignal }),
      ['refused', 'not-found'],
    );
  }

  /** The blocks that the snapshot holds; in which order is not promised. */
  async *blocks(snapshotId: string): AsyncGenerator<ListedBlock> {
    let NextToken: string | undefined;
    do {
      const request = { SnapshotId: snapshotId, ...(NextToken !== undefined && { NextToken }) };
      const page = await this.aws.ask(
        { call: 'ListSnapshotBlocks', subject: snapshotId, stop: this.stop },
        (abortSignal) => this.aws.ebs.send(new ListSnapshotBlocksCommand(request), { abortSignal }),
      );
      for (const { BlockIndex, BlockToken } of page.Blocks ?? []) {
        yield { index: BlockIndex!, token: BlockToken! };
      }
      NextToken = page.NextToken || undefined;
    } while (NextToken !== undefined);
  }

  /** The bytes of one block, held to the checksum that comes along. */
  get(snapshotId: string, block: ListedBlock): Promise<Uint8Array> {
    const subject = `${snapshotId} block ${block.index}`;
    const request = { SnapshotId: snapshotId, BlockIndex: block.index, BlockToken: block.token };
    return this.aws.ask(
      { call: 'GetSnapshotBlock', subject, stop: this.stop },
      async (abortSignal) => {
        const command = new GetSnapshotBlockCommand(request);
        const { BlockData, Checksum } = await this.aws.ebs.send(command, { abortSignal });
        const bytes = await BlockData!.transformToByteArray();
        const isWhole = bytes.length === EBS_BLOCK_BYTES;
        if (isWhole && (await sha256(bytes)).toString('base64') === Checksum) return bytes;
        const message = `${subject}: ${bytes.length} bytes came that are not those of its checksum`;
        throw new UnderstudyError('ERR_EC2_MISMATCH', message);
      },
    );
  }
}
