/**
 * The kinds of damage that fixtures are made of: what is done to the files of a small repository. Each
 * takes the folder (a data directory) and changes files in it; none of them is subtle.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { CHECKSUM_BYTES, sealChecksum } from '../../src/store/format/checksum.ts';
import { PLAIN_HEADER_BYTES } from '../../src/store/keys/pack-seal.ts';
import { PIECE_HEADER_BYTES } from '../../src/store/packs/record.ts';
import { fillCatalog } from './damage-catalog.ts';

export interface Damage {
  /** In words, for whoever looks at the fixture. */
  readonly what: string;
}

type Kind = (folder: string) => Damage;

function filesOf(folder: string, pattern: RegExp): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((path) => pattern.test(path))
    .sort();
}

/** The first file whose path fits; the largest with `isLargest`. */
function find(folder: string, pattern: RegExp, isLargest = false): string {
  const found = filesOf(folder, pattern);
  if (isLargest) found.sort((a, b) => statSync(b).size - statSync(a).size || (a < b ? -1 : 1));
  if (found[0] === undefined) throw new Error(`no file like ${pattern}`);
  return found[0];
}

/** Flips the lowest bit of a byte; a negative place counts from the end. */
const flip =
  (what: string, pattern: RegExp, place: (bytes: Buffer) => number, isLargest = false): Kind =>
  (folder) => {
    const path = find(folder, pattern, isLargest);
    const bytes = readFileSync(path);
    const at = place(bytes);
    const byte = at < 0 ? bytes.length + at : at;
    bytes[byte] = bytes[byte]! ^ 1;
    writeFileSync(path, bytes);
    return { what };
  };

const lose =
  (what: string, pattern: RegExp, isLargest = false): Kind =>
  (folder) => {
    rmSync(find(folder, pattern, isLargest));
    return { what };
  };

const cut =
  (what: string, pattern: RegExp, isLargest = false): Kind =>
  (folder) => {
    const path = find(folder, pattern, isLargest);
    const bytes = readFileSync(path);
    writeFileSync(path, bytes.subarray(0, Math.floor(bytes.length / 2)));
    return { what };
  };

const swap =
  (what: string, first: RegExp, second: RegExp): Kind =>
  (folder) => {
    const [a, b] = [find(folder, first), find(folder, second)];
    const bytes = readFileSync(a);
    writeFileSync(a, readFileSync(b));
    writeFileSync(b, bytes);
    return { what };
  };

/** Another pack with the same pieces: header with another id, all else the same. */
function duplicate(folder: string): string {
  const path = find(folder, /\.pack$/, true);
  const id = 'd0'.repeat(16);
  const bytes = readFileSync(path);
  Buffer.from(id, 'hex').copy(bytes, 16);
  // A header is not needed to read a pack; its checksum is made right all the same.
  sealHeader(bytes, PLAIN_HEADER_BYTES);
  const copy = join(dirname(dirname(path)), 'd0', `${id}.pack`);
  mkdirSync(dirname(copy), { recursive: true });
  writeFileSync(copy, bytes);
  return path;
}

function withCatalog(what: string, change: Parameters<typeof fillCatalog>[1]): Kind {
  return (folder) => {
    fillCatalog(folder, change);
    return { what };
  };
}

function sealHeader(bytes: Buffer, length: number): void {
  sealChecksum(bytes, 0, length - CHECKSUM_BYTES);
}

const u32 = (bytes: Buffer, at: number): number => bytes.readUInt32LE(at);
const u64 = (bytes: Buffer, at: number): number => Number(bytes.readBigUInt64LE(at));
const headerEnd = (bytes: Buffer): number => u32(bytes, 12);
const footerOf = (bytes: Buffer): number => u64(bytes, bytes.length - 56);
/** The end of an index object's filter. */
const filterEnd = (bytes: Buffer): number => {
  const pages = Math.ceil(u64(bytes, 20) / 256);
  return 64 + 44 * u32(bytes, 36) + 8 * u32(bytes, 40) + 32 * pages + u32(bytes, 44);
};

const DELTA = /a{32}\/0000000001-0000000002\.delta$/;
const LAST_DELTA = /a{32}\/0000000005-0000000006\.delta$/;
const BASE = /a{32}\/0000000001\.base$/;
const POINT = /T000100\.000Z-[0-9a-f]+\.point$/;

export const kinds: Readonly<Record<string, Kind>> = {
  sound: () => ({ what: 'nothing is damaged' }),
  'pack-header': flip('a bit of the header of a pack', /\.pack$/, () => 20, true),
  'pack-record-header': flip(
    'a bit of the header of a record: the footer says the same',
    /\.pack$/,
    () => PLAIN_HEADER_BYTES + 30,
    true,
  ),
  'pack-record-body': flip(
    'a bit of a content',
    /\.pack$/,
    () => PLAIN_HEADER_BYTES + PIECE_HEADER_BYTES + 9,
    true,
  ),
  'pack-footer': flip('a bit of the footer of a pack', /\.pack$/, (b) => footerOf(b) + 4, true),
  'pack-trailer': flip('a bit of the trailer of a pack', /\.pack$/, () => -40, true),
  'pack-truncated': cut('half of a pack', /\.pack$/, true),
  'pack-missing': lose('a pack is gone', /\.pack$/, true),
  'pack-duplicate': (folder) => {
    duplicate(folder);
    return { what: 'all of a pack lies in another one as well' };
  },
  'pack-duplicate-damaged': (folder) => {
    const path = duplicate(folder);
    const bytes = readFileSync(path);
    const at = PLAIN_HEADER_BYTES + PIECE_HEADER_BYTES + 9;
    bytes[at] = bytes[at]! ^ 1;
    writeFileSync(path, bytes);
    return { what: 'a content is damaged, and right in another pack' };
  },
  'delta-header': flip('a bit of the header of a delta', DELTA, () => 30),
  'delta-leaf': flip('a bit of a leaf of a delta', DELTA, (bytes) => headerEnd(bytes) + 5),
  'delta-index': flip('a bit of the index of a delta', DELTA, () => -20),
  'delta-truncated': cut('half of a delta', DELTA),
  'delta-missing': lose('a delta is gone', DELTA),
  'delta-unneeded-missing': lose('a delta is gone; a base says the same', LAST_DELTA),
  'base-header': flip('a bit of the header of a base', BASE, () => 30),
  'base-table': flip('a bit of the table of a base', BASE, () => -3),
  'base-missing': lose('a base is gone', BASE),
  'point-header': flip('a bit of the header of a point', POINT, () => 20),
  'point-body': flip('a bit of the body of a point', POINT, () => 60),
  'point-truncated': cut('half of a point', POINT),
  'point-missing': (folder) => {
    fillCatalog(folder, 'all');
    rmSync(find(folder, POINT));
    return { what: 'a point is gone: only the catalog knows of it' };
  },
  'objects-swapped': swap("two deltas have each other's names", DELTA, LAST_DELTA),
  'points-swapped': swap("two points have each other's names", POINT, /T000300[^/]*\.point$/),
  'index-head': flip('a bit of the head of an index object', /0001\.index$/, () => 30),
  'index-packs': flip('a bit of the table of packs of an index object', /0001\.index$/, () => 70),
  'index-filter': flip('a bit of the filter', /0001\.index$/, (bytes) => filterEnd(bytes) - 1),
  'index-page': flip('a bit of a page', /0001\.index$/, (bytes) => u64(bytes, 28) + 40),
  'index-missing': lose('an index object is gone: footers say the same', /0001\.index$/),
  'condemned-mark': flip('a bit of the mark of a condemned pack', /\.condemned$/, () => 18),
  'format-json': (folder) => {
    const path = join(folder, 'repo/format.json');
    writeFileSync(path, readFileSync(path, 'utf8').replace('understudy rep', 'understudy sep'));
    return { what: 'a bit of format.json' };
  },
  'format-missing': lose('format.json is gone', /format\.json$/),
  'catalog-stale': withCatalog('the catalog does not know the newest points', 'older'),
  'catalog-foreign': withCatalog('the catalog is of another repository', 'foreign'),
};
