/**
 * The part of a check that looks at packs and the index: headers and footers, whether everything that a
 * footer lists is found, and with `readData` every content. A damaged content is reported where a map
 * needs it (check-volume.ts); what no map needs is reported here, hurting nothing.
 */
import { DIGEST_BYTES } from '../model/geometry.ts';
import { type CheckCore, findingOf, type Progress } from './check.ts';
import { toHex } from './checksum.ts';
import type { TableEntry } from './digest-table.ts';
import {
  decodePackHeader,
  footerEntries,
  PACK_HEADER_BYTES,
  readFooter,
  readTrailer,
} from './pack-format.ts';
import { openPiece } from './piece-reader.ts';
import { listPacks } from './repository.ts';
import type { Finding } from './types.ts';

const READ_BYTES = 4 * 1024 * 1024;

export interface PackFindings {
  readonly findings: Finding[];
  readonly objects: number;
  readonly pieces: number;
  readonly bytesRead: number;
  /** Damaged contents by their hex digests, and the pack that holds each. */
  readonly damaged: ReadonlyMap<string, string>;
}

interface Totals {
  pieces: number;
  bytesRead: number;
}

export async function checkPacks(
  core: CheckCore,
  readData: boolean,
  progress: Progress,
): Promise<PackFindings> {
  const findings: Finding[] = [];
  const damaged = new Map<string, string>();
  const totals: Totals = { pieces: 0, bytesRead: 0 };
  const ids = await listPacks(core);
  progress.expect(ids.length);
  for (const id of ids) {
    const path = core.paths.pack(id);
    try {
      const entries = await openPack(core, path);
      totals.pieces += entries.filter(({ isGrant }) => !isGrant).length;
      findings.push(...(await lost(core, id, path, entries)));
      if (readData) await readPieces(core, path, entries, damaged, totals);
    } catch (error) {
      findings.push(findingOf(error, path, []));
    }
    progress.advance(1);
  }
  const objects = ids.length + core.index.objects.all.length;
  findings.push(...(await checkIndex(core)));
  return { findings, objects, damaged, ...totals };
}

async function openPack(core: CheckCore, path: string): Promise<TableEntry[]> {
  return core.files.with(path, async (file) => {
    const header = new Uint8Array(PACK_HEADER_BYTES);
    await file.read(header, 0);
    decodePackHeader(header, path);
    const footer = await readFooter(file, await readTrailer(file, await file.size()));
    return [...footerEntries(footer)];
  });
}

/** Pieces of a standing pack that the index does not find anywhere. */
async function lost(
  core: CheckCore,
  id: string,
  path: string,
  entries: readonly TableEntry[],
): Promise<Finding[]> {
  const pack = core.packs.byId(id);
  if (pack?.isCondemned === true) return [];
  let count = 0;
  for (const { digest, isGrant } of entries) {
    if (!isGrant && (await core.index.find(digest)) === null) count += 1;
  }
  if (count === 0) return [];
  const detail = `${count} of its pieces are not found by the index`;
  return [{ kind: 'stale-index', object: path, detail, points: [] }];
}

async function readPieces(
  core: CheckCore,
  path: string,
  entries: readonly TableEntry[],
  damaged: Map<string, string>,
  totals: Totals,
): Promise<void> {
  const pieces = entries.filter(({ isGrant }) => !isGrant).sort((a, b) => a.offset - b.offset);
  let window = new Uint8Array(0);
  let start = 0;
  for (const entry of pieces) {
    const end = entry.offset + entry.storedLength;
    if (entry.offset < start || end > start + window.length) {
      const buffer = new Uint8Array(Math.max(READ_BYTES, entry.storedLength));
      const count = await core.files.with(path, (file) => file.read(buffer, entry.offset));
      window = buffer.subarray(0, count);
      start = entry.offset;
    }
    const stored = window.subarray(entry.offset - start, end - start);
    totals.bytesRead += stored.length;
    if (stored.length === entry.storedLength && openPiece(stored, entry) !== null) continue;
    damaged.set(toHex(entry.digest), path);
  }
}

async function checkIndex(core: CheckCore): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const object of core.index.objects.all) {
    try {
      let last = new Uint8Array(DIGEST_BYTES);
      for await (const { digest } of object.entries()) {
        if (Buffer.compare(last, digest) > 0) throw object.disordered();
        last = digest.slice();
      }
    } catch (error) {
      findings.push({ ...findingOf(error, object.path, []), kind: 'stale-index' });
    }
  }
  return findings;
}
