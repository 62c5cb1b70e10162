/**
 * The rolling chain of a volume's snapshots: each upload puts only what differs from the last snapshot, so
 * that a failover waits for little. EBS keeps the content of a deleted parent for its children; so of a chain
 * only the newest snapshot has to be kept, and those that images refer to. Pure.
 */

export interface ChainEncryption {
  /** Null: the account's default key. */
  readonly kmsKeyArn: string | null;
}

/** The newest completed snapshot of a volume, as it was written down. */
export interface ChainHead {
  readonly snapshotId: string;
  /** The point that it holds. */
  readonly point: string;
  readonly sizeGiB: number;
  /** What its chain was begun with; null: as the account had it. */
  readonly encryption: ChainEncryption | null;
}

export interface ChainWish {
  readonly point: string;
  readonly sizeGiB: number;
  readonly encryption: ChainEncryption | null;
  /** False where EC2 does not know the head's snapshot as completed any more. */
  readonly isHeadThere: boolean;
  /** True where something is laid over the point's image: then the head itself is not what is wanted. */
  readonly isPrepared?: boolean;
  /** False where the differences between the head's point and this one are not known any more. */
  readonly isDeltaKnown: boolean;
}

export type ChainReason =
  | 'first'
  | 'snapshot-gone'
  | 'other-key'
  | 'other-size'
  | 'differences-unknown';

export type ChainStep =
  /** The head holds the very point. */
  | { readonly kind: 'keep'; readonly snapshotId: string }
  | { readonly kind: 'delta'; readonly parentSnapshotId: string; readonly fromPoint: string }
  /** A new chain. */
  | { readonly kind: 'full'; readonly reason: ChainReason };

export function planStep(head: ChainHead | null, wish: ChainWish): ChainStep {
  const reason = newChainReason(head, wish);
  if (head === null || reason !== null) return { kind: 'full', reason: reason ?? 'first' };
  if (head.point === wish.point && wish.isPrepared !== true)
    return { kind: 'keep', snapshotId: head.snapshotId };
  return { kind: 'delta', parentSnapshotId: head.snapshotId, fromPoint: head.point };
}

function newChainReason(head: ChainHead | null, wish: ChainWish): ChainReason | null {
  if (head === null) return 'first';
  if (!wish.isHeadThere) return 'snapshot-gone';
  if (keyOf(head.encryption) !== keyOf(wish.encryption)) return 'other-key';
  if (head.sizeGiB !== wish.sizeGiB) return 'other-size';
  if (head.point !== wish.point && !wish.isDeltaKnown) return 'differences-unknown';
  return null;
}

/** What tells one key from another. */
export const keyOf = (encryption: ChainEncryption | null): string =>
  encryption === null ? 'none' : `key ${encryption.kmsKeyArn ?? 'default'}`;

/**
 * Snapshots of one volume that nobody needs once `head` is completed and written down. `held`: all that are
 * written down for the volume. `used`: those that images refer to.
 */
export function toDelete(
  held: readonly string[],
  head: string,
  used: ReadonlySet<string>,
): readonly string[] {
  return held.filter((id) => id !== head && !used.has(id));
}
