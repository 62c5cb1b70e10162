/**
 * What is written down of one upload, so that it goes on after a crash at any instant: the token and the
 * parameters before the snapshot is asked for, its id before a block is put, and below which index all
 * blocks are put. Blocks above may be there, too: they are put again, with the same bytes. Pure.
 */
import type { StartSnapshotRequest } from '@aws-sdk/client-ebs';
import { emptySha256, type Sha256State, sha256Update } from './running-sha256.ts';
import { clientToken, type Tag } from './tags.ts';

/**
 * `planned`: nothing is known to exist but perhaps a snapshot by this token. `putting`: blocks are on their
 * way. `completing`: all are there, and the snapshot was perhaps sealed. `completed`: EC2 says so.
 */
export type UploadPhase = 'planned' | 'putting' | 'completing' | 'completed';

export interface UploadRequest {
  /** Names the upload among all of its account: the job and the volume. */
  readonly key: string;
  readonly sizeGiB: number;
  readonly description: string;
  readonly tags: readonly Tag[];
  /** Only blocks that differ from this snapshot are put. */
  readonly parentSnapshotId: string | null;
  /** Of the first snapshot of a chain; its children have what it has. Null: as the account has it. */
  readonly encryption: { readonly kmsKeyArn: string | null } | null;
  /** AWS gives a snapshot up that got no block for so long: 10 to 4320 minutes. */
  readonly timeoutMinutes: number;
}

export interface UploadRecord {
  readonly version: 1;
  readonly request: UploadRequest;
  /** How often the upload was begun anew: part of the token. */
  readonly attempt: number;
  readonly phase: UploadPhase;
  readonly snapshotId: string | null;
  /** All blocks below this index are put, or need not be. */
  readonly nextBlock: number;
  readonly putBlocks: number;
  /** Over the checksums of the blocks that were put, in the order of their indexes. */
  readonly checksum: Sha256State;
}

export function newRecord(request: UploadRequest, attempt = 1): UploadRecord {
  const nothing = { nextBlock: 0, putBlocks: 0, checksum: emptySha256 };
  return { version: 1, request, attempt, phase: 'planned', snapshotId: null, ...nothing };
}

/** After the snapshot has gone: the same request under another token, from the first block on. */
export const startedOver = (record: UploadRecord): UploadRecord =>
  newRecord(record.request, record.attempt + 1);

export const withPhase = (record: UploadRecord, phase: UploadPhase): UploadRecord => ({
  ...record,
  phase,
});

/** `next`: below it everything is put; `digests`: of the blocks put since, in order. */
export function advanced(
  record: UploadRecord,
  next: number,
  digests: readonly Buffer[],
): UploadRecord {
  const checksum = sha256Update(record.checksum, Buffer.concat(digests));
  return { ...record, nextBlock: next, putBlocks: record.putBlocks + digests.length, checksum };
}

/** The request for a snapshot: the same for the same record, as its token demands. */
export function startRequest({ request, attempt }: UploadRecord): StartSnapshotRequest {
  const { parentSnapshotId, encryption } = request;
  return {
    VolumeSize: request.sizeGiB,
    ClientToken: clientToken('snapshot', request.key, attempt),
    Description: request.description.slice(0, 255),
    Tags: [...request.tags],
    Timeout: request.timeoutMinutes,
    // A child has what its parent has: with both, AWS refuses.
    ...(parentSnapshotId !== null && { ParentSnapshotId: parentSnapshotId }),
    ...(parentSnapshotId === null &&
      encryption !== null && {
        Encrypted: true,
        ...(encryption.kmsKeyArn !== null && { KmsKeyArn: encryption.kmsKeyArn }),
      }),
  };
}
