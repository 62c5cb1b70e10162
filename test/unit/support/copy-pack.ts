/** A second pack with the same contents, as another repository's operator would have to make it: sealed. */
import { DigestTable } from '../../../src/store/packs/digest-table.ts';
import { entriesOf, readPack } from '../../../src/store/packs/pack-entries.ts';
import { encodeFooter } from '../../../src/store/packs/pack-format.ts';
import {
  encodeRecord,
  PIECE_HEADER_BYTES,
  piecePlace,
  RECORD_END,
  RECORD_GRANT,
  RECORD_PIECE,
  sealRecord,
  writePieceHeader,
} from '../../../src/store/packs/record.ts';
import { readStored } from '../../../src/store/packs/stored.ts';
import type { FaultyDisk } from './faulty-disk.ts';
import { readingFiles } from './key-mode.ts';

/** `to`: a path whose name is the new pack's id. Keeps the order of the records, and the name of none. */
export async function copyPack(disk: FaultyDisk, from: string, to: string): Promise<void> {
  const files = await readingFiles(disk.mount());
  const id = to.slice(-37, -5);
  const { header, seal } = files.vault.newPack({ id, sequence: 0, createdMs: 1 });
  const parts = [header];
  const table = new DigestTable(0);
  let size = header.length;
  const push = (...added: readonly Uint8Array[]) => {
    for (const part of added) size += part.length;
    parts.push(...added);
  };
  const entries = [...entriesOf(await readPack(files, from))];
  for (const entry of entries.sort((a, b) => a.offset - b.offset)) {
    const stored = (await readStored(files, from, entry))!;
    const head = new Uint8Array(PIECE_HEADER_BYTES);
    const storedLength = stored.length + (entry.isGrant ? 0 : seal.overhead);
    const codec = entry.codec === 1 ? 1 : 0;
    const type = entry.isGrant ? RECORD_GRANT : RECORD_PIECE;
    writePieceHeader(head, 0, { ...entry, codec, storedLength }, entry.owner, type);
    table.add({ ...entry, storedLength, offset: size + head.length });
    const place = piecePlace(head, size);
    push(head, ...(entry.isGrant ? [stored] : seal.sealPiece(place, stored)));
  }
  push(sealRecord(encodeRecord(RECORD_END, new Uint8Array(0)), seal, size, 0));
  push(...encodeFooter(table.sorted(), size, seal));
  await disk.makeDirectory(to.slice(0, to.lastIndexOf('/')));
  await (await disk.open(to, 'create')).close();
  disk.poke(to, Buffer.concat(parts));
}
