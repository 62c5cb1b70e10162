/**
 * What a pack holds: by its footer, or, where that is damaged, by its records, as far as they are whole
 * and each content is what its digest says. One flipped bit in a footer so costs no content.
 */

import { isDamage } from '../format/object-header.ts';
import { DigestTable, type TableEntry } from './digest-table.ts';
import type { FileCache } from './file-cache.ts';
import { footerEntries, type PackSums, readFooter, readTrailer, sumOf } from './pack-format.ts';
import { RECORD_GRANT } from './record.ts';
import { scanRecords } from './scan.ts';

interface PackContents extends PackSums {
  /** Ascending by digest. */
  readonly footer: Uint8Array;
  readonly fileBytes: number;
}

/** What the footer says. ERR_OBJECT_DAMAGED. */
export function readPack(files: FileCache, path: string): Promise<PackContents> {
  return files.with(path, async (file) => {
    const fileBytes = await file.size();
    const seal = await files.vault.sealOf(file);
    const trailer = await readTrailer(file, fileBytes, seal);
    const footer = await readFooter(file, trailer, seal);
    const { pieces, rawBytes, storedBytes } = trailer;
    return { footer, fileBytes, pieces, rawBytes, storedBytes };
  });
}

/** The same from the records, up to the first one that is damaged. */
function salvagePack(files: FileCache, path: string): Promise<PackContents> {
  return files.with(path, async (file) => {
    const table = new DigestTable(0);
    const { vault } = files;
    const records = scanRecords(file, { seal: await vault.sealOf(file), names: vault.names });
    for (;;) {
      const { done, value } = await records.next();
      if (done === true) break;
      if (value.kind !== 'piece') continue;
      const { piece, offset } = value;
      table.add({ ...piece, offset, isGrant: piece.type === RECORD_GRANT, pack: 0 });
    }
    const sums = sumOf(table.entries());
    return { footer: table.sorted(), fileBytes: await file.size(), ...sums };
  });
}

interface FoundPack {
  readonly contents: PackContents;
  /** False where the footer is damaged: there may be more in the pack than was found. */
  readonly isWhole: boolean;
}

/** By the footer, else by the records; `onDamage` is told why. Errors that are no damage are thrown. */
export async function findInPack(
  files: FileCache,
  path: string,
  onDamage: (message: string) => void,
): Promise<FoundPack> {
  try {
    return { contents: await readPack(files, path), isWhole: true };
  } catch (error) {
    if (!isDamage(error)) throw error;
    onDamage(error.message);
    return { contents: await salvagePack(files, path), isWhole: false };
  }
}

export const entriesOf = ({ footer }: PackContents): Generator<TableEntry> => footerEntries(footer);
