/**
 * Reads what packs hold as it is stored (LZ4 or plain, no longer sealed), for those who move pieces from
 * pack to pack or look at one place only. Many at once, and with all the care for other copies, are
 * piece-reader.ts's.
 */
import type { DiskFile } from '../../base/disk.ts';
import type { Vault } from '../keys/vault.ts';
import type { TableEntry } from './digest-table.ts';
import type { FileCache } from './file-cache.ts';
import { isGrantOf } from './grant.ts';
import { openPiece, unsealPiece } from './piece.ts';

/** Stored bytes of an entry in an open pack; null where they are cut short or not what was sealed. */
export async function readStoredIn(
  file: DiskFile,
  vault: Vault,
  entry: TableEntry,
): Promise<Uint8Array | null> {
  const seal = await vault.sealOf(file);
  const lead = entry.isGrant ? 0 : seal.lead;
  const read = new Uint8Array(lead + entry.storedLength);
  const count = await file.read(read, entry.offset - lead);
  if (count < read.length) return null;
  return entry.isGrant ? read : unsealPiece(read, seal, entry);
}

export const readStored = (
  files: FileCache,
  path: string,
  entry: TableEntry,
): Promise<Uint8Array | null> => files.with(path, (file) => readStoredIn(file, files.vault, entry));

/** True where stored bytes are what their entry says. */
export function isRight({ names }: Vault, entry: TableEntry, stored: Uint8Array | null): boolean {
  if (stored === null) return false;
  if (entry.isGrant) return isGrantOf(names, entry.digest, entry.owner, stored);
  return openPiece(stored, entry, names) !== null;
}
