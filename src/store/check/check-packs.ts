/**
 * The part of a check that looks at packs and the index: headers and footers, whether everything that a
 * footer lists is found, and with `readData` every content. A damaged content hurts the points whose maps
 * need it (check-volume.ts), unless another copy of it is right; damage that hurts nothing is told too.
 */

import { inOrder } from '../../base/in-order.ts';
import { chooseSubset, type Subset } from '../../model/check-subset.ts';
import { DIGEST_BYTES } from '../../model/geometry.ts';
import { CHECKSUM_BYTES, equalBytes, fromHex, hasChecksum, toHex } from '../format/checksum.ts';
import { isNotFound } from '../format/object-header.ts';
import type { TableEntry } from '../packs/digest-table.ts';
import { footerEntries, readFooter, readTrailer } from '../packs/pack-format.ts';
import { openPiece, unsealPiece } from '../packs/piece.ts';
import { PIECE_HEADER_BYTES, readPieceHeader } from '../packs/record.ts';
import { condemnedPacks, condemnedSince } from '../repository/condemned.ts';
import { listPacks } from '../repository/repository.ts';
import type { Finding, PackDamage } from '../types.ts';
import { type CheckCore, findingOf, type Progress } from './check-finding.ts';

const READ_BYTES = 4 * 1024 * 1024;

/** A content that is damaged somewhere. */
interface DamagedPiece {
  /** The packs in which it is. */
  readonly paths: readonly string[];
  /** True where no other copy is right. */
  readonly isLost: boolean;
}

/** By the hex digest. */
type DamagedPieces = ReadonlyMap<string, DamagedPiece>;

export interface PackFindings {
  readonly findings: Finding[];
  readonly objects: number;
  readonly pieces: number;
  readonly bytesRead: number;
  readonly damaged: DamagedPieces;
  /** Paths of packs that do not say what they have: what the index finds there must be read. */
  readonly silent: ReadonlySet<string>;
}

interface Totals {
  pieces: number;
  bytesRead: number;
  /** Waited for before so many bytes are read. */
  readonly pace?: (bytes: number) => Promise<void>;
}

/** Paths of the packs in which a content is damaged, by its hex digest. */
type Places = Map<string, string[]>;

export async function checkPacks(
  core: CheckCore,
  options: { readonly readData: boolean; readonly subset?: Subset },
  progress: Progress,
): Promise<PackFindings> {
  const findings: Finding[] = [];
  const places: Places = new Map();
  const totals: Totals = { pieces: 0, bytesRead: 0 };
  const silent = new Set<string>();
  const ids = await listPacks(core);
  const isRead = toRead(core, ids, options);
  progress.expect(ids.length);
  const looks = inOrder(ids, packsAtATime(core, options), (id) => lookAt(core, id, isRead(id)));
  for await (const look of looks) {
    findings.push(...look.findings);
    for (const [name, paths] of look.places) {
      places.set(name, [...(places.get(name) ?? []), ...paths]);
    }
    totals.pieces += look.totals.pieces;
    totals.bytesRead += look.totals.bytesRead;
    if (look.isSilent) silent.add(look.path);
    progress.advance(1);
  }
  const objects = ids.length + core.index.objects.all.length;
  findings.push(...(await checkIndex(core)), ...(await checkMarks(core)));
  return { findings, objects, damaged: await judge(core, places), silent, ...totals };
}

/** What one pack gives a check. */
interface PackLook {
  readonly path: string;
  readonly findings: readonly Finding[];
  readonly places: Places;
  readonly totals: Totals;
  readonly isSilent: boolean;
}

async function lookAt(core: CheckCore, id: string, isRead: boolean): Promise<PackLook> {
  const path = core.paths.pack(id);
  const findings: Finding[] = [];
  const places: Places = new Map();
  const totals: Totals = { pieces: 0, bytesRead: 0 };
  const look = { path, findings, places, totals };
  try {
    const entries = await openPack(core, path);
    totals.pieces += entries.filter(({ isGrant }) => !isGrant).length;
    findings.push(...(await lost(core, id, path, entries)));
    if (isRead) {
      findings.push(...oddRecords(path, await readPieces(core, path, entries, places, totals)));
    }
    return { ...look, isSilent: false };
  } catch (error) {
    // Collected since it was listed: no object any more.
    if (!isNotFound(error)) findings.push(findingOf(error, path, []));
    return { ...look, isSilent: true };
  }
}

/** Each takes memory where its contents are read. */
function packsAtATime({ disk: { far } }: CheckCore, { readData }: { readonly readData: boolean }) {
  if (far === undefined) return 1;
  const most = readData ? Math.floor(far.bytes / READ_BYTES) : far.requests;
  return Math.min(most, far.requests);
}

/** Reads a pack wholly; null where it is gone. `pace` is waited for before each read. */
export async function readWholePack(
  core: CheckCore,
  path: string,
  pace: (bytes: number) => Promise<void>,
): Promise<PackDamage | null> {
  const places: Places = new Map();
  const totals: Totals = { pieces: 0, bytesRead: 0, pace };
  const findings: Finding[] = [];
  try {
    const entries = await openPack(core, path);
    findings.push(...oddRecords(path, await readPieces(core, path, entries, places, totals)));
  } catch (error) {
    if (isNotFound(error)) return null;
    findings.push(findingOf(error, path, []));
  }
  const judged = await judge(core, places);
  const lost = [...judged.values()].filter(({ isLost }) => isLost).length;
  return { bytesRead: totals.bytesRead, findings, damaged: judged.size, lost };
}

/** Which packs' contents are to be read. */
function toRead(
  core: CheckCore,
  ids: readonly string[],
  { readData, subset }: { readonly readData: boolean; readonly subset?: Subset },
): (id: string) => boolean {
  if (!readData || subset === undefined) return () => readData;
  const packs = ids.map((id) => ({ id, fileBytes: core.packs.byId(id)?.fileBytes ?? 0 }));
  const random = () => Number.parseInt(toHex(core.randomBytes(6)), 16) / 2 ** 48;
  const chosen = chooseSubset(packs, subset, random);
  return (id) => chosen.has(id);
}

/** What is damaged in one pack may be right in another one. */
async function judge(core: CheckCore, places: Places): Promise<DamagedPieces> {
  if (places.size === 0) return new Map();
  const copies = await core.copies.search([...places.keys()].map(fromHex));
  const { packs, damage } = core;
  const judged = new Map<string, DamagedPiece>();
  for (const [name, paths] of places) {
    const all = (copies.get(name) ?? []).map(({ pack }) => core.packs.byNumber(pack)?.path);
    const isLost = all.every((path) => path === undefined || paths.includes(path));
    judged.set(name, { paths, isLost });
    for (const pack of isLost ? packs.all() : []) {
      if (paths.includes(pack.path)) damage.note(pack.number, fromHex(name));
    }
  }
  return judged;
}

/** Damage that was not told of a map: one finding a pack, hurting nothing. What is condemned goes anyway. */
export function harmless(
  { packs }: Pick<CheckCore, 'packs'>,
  damaged: DamagedPieces,
  told: ReadonlySet<string>,
): Finding[] {
  const going = new Set([...packs.all()].flatMap((one) => (one.isCondemned ? one.path : [])));
  const byPack = new Map<string, string[]>();
  for (const [name, { paths }] of damaged) {
    if (told.has(name)) continue;
    for (const path of paths)
      if (!going.has(path)) byPack.set(path, [...(byPack.get(path) ?? []), name]);
  }
  return [...byPack].map(([object, names]) => {
    const detail =
      `${names.length} of its contents are damaged (${names[0]}, ..): ` +
      'nothing needs them, or another copy is right';
    return { kind: 'damaged-piece', object, detail, points: [] };
  });
}

async function openPack(core: CheckCore, path: string): Promise<TableEntry[]> {
  return core.files.with(path, async (file) => {
    const { seal } = await core.files.vault.openPack(file);
    const trailer = await readTrailer(file, await file.size(), seal);
    const footer = await readFooter(file, trailer, seal);
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
    if (isGrant || (pack !== null && core.damage.has(pack.number, digest))) continue;
    if ((await core.index.find(digest)) === null) count += 1;
  }
  if (count === 0) return [];
  const detail = `${count} of its pieces are not found by the index`;
  return [{ kind: 'stale-index', object: path, detail, points: [] }];
}

/** Reads all contents of a pack; notes where one is damaged. Returns how many records are odd. */
export async function readPieces(
  core: Pick<CheckCore, 'files'> & Partial<Pick<CheckCore, 'packs' | 'damage'>>,
  path: string,
  entries: readonly TableEntry[],
  places: Places,
  totals: Totals,
): Promise<number> {
  let odd = 0;
  const pieces = entries.filter(({ isGrant }) => !isGrant).sort((a, b) => a.offset - b.offset);
  const { vault } = core.files;
  const number = core.packs?.byId(/([0-9a-f]{32})\.pack$/.exec(path)?.[1] ?? '')?.number;
  const seal = await core.files.with(path, (file) => vault.sealOf(file));
  const last = pieces.at(-1)!;
  let window = new Uint8Array(0);
  let start = 0;
  for (const entry of pieces) {
    const from = entry.offset - PIECE_HEADER_BYTES;
    const end = entry.offset + entry.storedLength;
    if (from < start || end > start + window.length) {
      const rest = last.offset + last.storedLength - from;
      const buffer = new Uint8Array(Math.max(Math.min(READ_BYTES, rest), end - from));
      await totals.pace?.(buffer.length);
      const count = await core.files.with(path, (file) => file.read(buffer, from));
      window = buffer.subarray(0, count);
      start = from;
    }
    const record = window.subarray(from - start, end - start);
    totals.bytesRead += Math.max(0, record.length - PIECE_HEADER_BYTES);
    const header = record.subarray(0, PIECE_HEADER_BYTES);
    if (!isHeaderOf(header, entry, seal.overhead)) odd += 1;
    const read = record.subarray(PIECE_HEADER_BYTES - seal.lead);
    if (openPiece(unsealPiece(read, seal, entry), entry, vault.names) !== null) {
      if (number !== undefined) core.damage?.clear(number, entry.digest);
      continue;
    }
    const name = toHex(entry.digest);
    places.set(name, [...(places.get(name) ?? []), path]);
  }
  return odd;
}

/** The record says of the content what the footer says. */
function isHeaderOf(bytes: Uint8Array, { digest }: TableEntry, overhead: number): boolean {
  if (!hasChecksum(bytes, 0, PIECE_HEADER_BYTES - CHECKSUM_BYTES)) return false;
  const record = readPieceHeader(bytes, overhead);
  return record !== null && equalBytes(record.digest, digest);
}

/** Nothing needs a record's header while the footer is right. */
function oddRecords(path: string, count: number): Finding[] {
  if (count === 0) return [];
  const detail = `the headers of ${count} of its records are damaged; the footer says the same`;
  return [{ kind: 'damaged-object', object: path, detail, points: [] }];
}

async function checkIndex(core: CheckCore): Promise<Finding[]> {
  const findings = core.index.objects.leftOut.map((error): Finding => {
    const object = String(error.context.path);
    return { kind: 'stale-index', object, detail: error.message, points: [] };
  });
  for (const object of core.index.objects.all) {
    try {
      let last = new Uint8Array(DIGEST_BYTES);
      for await (const { digest } of object.entries()) {
        if (Buffer.compare(last, digest) > 0) throw object.disordered();
        last = digest.slice();
      }
    } catch (error) {
      if (isNotFound(error)) continue; // merged meanwhile
      findings.push({ ...findingOf(error, object.path, []), kind: 'stale-index' });
    }
  }
  return findings;
}

async function checkMarks(core: CheckCore): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const id of await condemnedPacks(core)) {
    try {
      await condemnedSince(core, id);
    } catch (error) {
      if (!isNotFound(error)) findings.push(findingOf(error, core.paths.condemnedMark(id), []));
    }
  }
  return findings;
}
