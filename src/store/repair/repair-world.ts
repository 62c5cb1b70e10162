/**
 * What the parts of a repair share: the repository that is repaired, the one from which contents and
 * objects may be taken, and the list of steps. A step is planned, and then done unless it is a dry run;
 * what is planned so is what would be done.
 */
import { compressSync } from 'lz4-napi';
import { type Core, temporaryPath } from '../core.ts';
import { STORE_OWNER } from '../format/layout.ts';
import { together, writeObject } from '../format/object-file.ts';
import { isDamage, isNotFound } from '../format/object-header.ts';
import { removeUnlessKept } from '../objects/removal.ts';
import type { TableEntry } from '../packs/digest-table.ts';

export interface RepairStep {
  /** Path of the object that is damaged or missing. */
  readonly object: string;
  /** What is, or would be, done; or why nothing can be. */
  readonly action: string;
  readonly isPossible: boolean;
}

export interface RepairWorld {
  readonly core: Core;
  /** Ids of the sealed points that a catalog knows; null where there is none. */
  readonly known: ReadonlySet<string> | null;
  /** A true copy, open for reading; null: nothing can be taken from elsewhere. */
  readonly donor: Core | null;
  readonly isDryRun: boolean;
  readonly steps: RepairStep[];
}

/**
 * Writes an object in the place of one that is damaged. In a bucket objects do not change: there the damaged
 * one goes in the same step, of a bundle in the same instant; cut short, what is missing is found missing.
 * False where the object store keeps the damaged one for a time (Object Lock).
 */
export async function replaceObject(
  core: Core,
  path: string,
  bytes: Uint8Array,
  verify?: (read: Uint8Array) => Promise<void>,
): Promise<boolean> {
  const { disk } = core;
  const write = () => writeObject(disk, temporaryPath(core), path, [bytes], verify);
  let isFree = true;
  await together(disk, async () => {
    if (disk.together !== undefined) isFree = await removeUnlessKept(disk, path);
    if (isFree) await write();
  });
  return isFree;
}

/** Removes what is damaged, for good. False, and told, where the object store keeps it for a time. */
export async function removeDamaged(
  { core, steps }: RepairWorld,
  path: string,
  folder: string,
): Promise<boolean> {
  await core.files.drop(path);
  if (await removeUnlessKept(core.disk, path)) {
    await core.disk.syncDirectory(folder);
    return true;
  }
  steps.push({ object: path, action: LOCKED, isPossible: false });
  return false;
}

export const LOCKED = 'the object store keeps it for a time (Object Lock): again when that is over';

/** A content, and how it is to be stored. */
export interface FoundPiece {
  readonly entry: Pick<TableEntry, 'digest' | 'owner' | 'codec' | 'rawLength' | 'isGrant'>;
  readonly stored: Uint8Array;
}

/** The content from the other repository, checked against its digest; null where that has none. */
export async function pieceFromDonor(
  { donor }: Pick<RepairWorld, 'donor'>,
  digest: Uint8Array,
  owner: Uint8Array = STORE_OWNER,
): Promise<FoundPiece | null> {
  if (donor === null) return null;
  const [place] = await donor.reader.locate([digest]);
  if (place == null) return null;
  try {
    let content = new Uint8Array(0);
    await donor.reader.read([place], (_, bytes) => {
      content = bytes.slice();
    });
    const packed = compressSync(Buffer.from(content.buffer, content.byteOffset, content.length));
    const codec = packed.length < content.length ? 1 : 0;
    const entry = { digest, owner, codec, rawLength: content.length, isGrant: false } as const;
    return { entry, stored: codec === 1 ? new Uint8Array(packed) : content };
  } catch (error) {
    if (!isDamage(error) && !isNotFound(error)) throw error;
    return null;
  }
}

/** True where the content can be read here, at whatever place. */
export async function isHeldRight({ core }: Pick<RepairWorld, 'core'>, digest: Uint8Array) {
  const [place] = await core.reader.locate([digest]);
  if (place == null) return false;
  try {
    await core.reader.read([place], () => undefined);
    return true;
  } catch (error) {
    if (!isDamage(error) && !isNotFound(error)) throw error;
    return false;
  }
}
