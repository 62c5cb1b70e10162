// Looks into the pinned map of a volume, by bpftool: which marks a block has, plane by plane.
import { join } from 'node:path';
import { run } from './loop-device.ts';

// native/tracker/layout.h
const PLANES_BEGIN = 512 + 65536 + 4096;
const PAGE_WORDS = 512;
const BLOCKS_PER_LINE = 512;
const HEADER_STAT_KNOWN = 20;
const wholePages = (words: number) => Math.ceil(words / PAGE_WORDS) * PAGE_WORDS;

function readWord(folder: string, index: number): bigint {
  const key = Buffer.alloc(4);
  key.writeUInt32LE(index);
  const bytes = [...key].map((byte) => byte.toString());
  const args = ['-j', 'map', 'lookup', 'pinned', join(folder, 'map'), 'key', ...bytes];
  const found = JSON.parse(run('/usr/sbin/bpftool', ...args)) as { value: string[] };
  return Buffer.from(found.value.map(Number)).readBigUInt64LE();
}

/** From then on the counts of the block layer and of the programs are compared. */
export const areCountsKnown = (folder: string): boolean =>
  readWord(folder, HEADER_STAT_KNOWN) === 1n;

export interface Marks {
  leaf: boolean;
  summary: boolean;
}

export interface BlockMarks {
  /** In either of the two planes that take turns. */
  queued: Marks;
  completed: Marks;
}

export function readMarks(folder: string, block: number, blocks: number): BlockMarks {
  const planeWords = wholePages(Math.ceil(blocks / 64));
  const summaryWords = wholePages(Math.ceil(planeWords / 8 / 64));
  const bitOf = (index: number, bit: number) =>
    ((readWord(folder, index) >> BigInt(bit % 64)) & 1n) === 1n;
  const marksIn = (plane: number): Marks => {
    const begin = PLANES_BEGIN + plane * (planeWords + summaryWords);
    const line = Math.floor(block / BLOCKS_PER_LINE);
    return {
      leaf: bitOf(begin + summaryWords + Math.floor(block / 64), block),
      summary: bitOf(begin + Math.floor(line / 64), line),
    };
  };
  const either = (a: Marks, b: Marks) => ({
    leaf: a.leaf || b.leaf,
    summary: a.summary || b.summary,
  });
  return { queued: either(marksIn(0), marksIn(1)), completed: either(marksIn(2), marksIn(3)) };
}
