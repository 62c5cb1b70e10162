/**
 * Self-checking content for the demonstration and the tests. A writer keeps three files on a filesystem: two
 * journals, of which in turns one is emptied and appended to, and a file of slots that are overwritten.
 * Every record is 4 KiB that follow from (seed, sequence) alone; records go out in batches, each made
 * durable by fdatasync and then noted, with times, in a log that lies elsewhere. From that log and the time
 * T of a recovery point a checker knows, for every byte, what a power cut at T may have left there.
 */
import { createHash } from 'node:crypto';
import {
  appendFileSync,
  closeSync,
  existsSync,
  fdatasyncSync,
  openSync,
  readFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';

export const RECORD_BYTES = 4096;
const SECTOR_BYTES = 512;
export const SLOT_COUNT = 2048;
/** Records of a journal before the other one's turn comes; a multiple of any batch. */
export const JOURNAL_RECORDS = 8192;

/** One durable batch: records first..last, begun and made durable at these wall-clock times. */
export interface Batch {
  readonly first: number;
  readonly last: number;
  readonly beginMs: number;
  readonly endMs: number;
}

/**
 * The record of that sequence number: a readable head, then bytes of SHAKE256 and zeros by turns, since half
 * of what is stored is often compressible.
 */
export function recordContent(seed: string, sequence: number): Buffer {
  const record = Buffer.alloc(RECORD_BYTES);
  const head = `record ${sequence} of ${seed}\n`;
  const filling = createHash('shake256', { outputLength: RECORD_BYTES / 2 })
    .update(head)
    .digest();
  for (let at = 0; at < filling.length; at += 64) filling.copy(record, at * 2 + 64, at, at + 64);
  record.write(head);
  return record;
}

/** Slots are visited in a scattered but fixed order. */
export const slotOf = (sequence: number): number => (sequence * 1031) % SLOT_COUNT;

const turnOf = (sequence: number): number => Math.floor(sequence / JOURNAL_RECORDS);
const journalName = (turn: number): string => `journal-${turn % 2}.dat`;

export class RecordWriter {
  private readonly folder: string;
  private journal: number;
  private readonly slots: number;
  private readonly seed: string;
  private readonly logPath: string;
  private next: number;

  constructor(folder: string, logPath: string, seed: string) {
    this.folder = folder;
    this.slots = openSync(join(folder, 'slots.dat'), 'a+');
    closeSync(this.slots);
    this.slots = openSync(join(folder, 'slots.dat'), 'r+');
    this.seed = seed;
    this.logPath = logPath;
    appendFileSync(logPath, '');
    this.next = (readBatches(logPath).at(-1)?.last ?? -1) + 1;
    this.journal = openSync(join(folder, journalName(turnOf(this.next))), 'a');
  }

  /** Writes `count` records, makes them durable, notes it. */
  writeBatch(count: number): void {
    if (JOURNAL_RECORDS % count !== 0) throw new Error('a batch must lie in one journal');
    const first = this.next;
    const beginMs = Date.now();
    // Before anything is written: a batch that never ends has begun all the same.
    appendFileSync(this.logPath, `begin ${first} ${first + count - 1} ${beginMs}\n`);
    if (first > 0 && first % JOURNAL_RECORDS === 0) {
      closeSync(this.journal);
      this.journal = openSync(join(this.folder, journalName(turnOf(first))), 'w');
    }
    for (let sequence = first; sequence < first + count; sequence += 1) {
      const record = recordContent(this.seed, sequence);
      writeSync(this.journal, record);
      writeSync(this.slots, record, 0, RECORD_BYTES, slotOf(sequence) * RECORD_BYTES);
    }
    fdatasyncSync(this.journal);
    fdatasyncSync(this.slots);
    this.next += count;
    appendFileSync(this.logPath, `end ${first} ${Date.now()}\n`);
  }

  close(): void {
    closeSync(this.journal);
    closeSync(this.slots);
  }
}

/** Batches of a log, in order; one that never ended has endMs Infinity. A torn last line is no batch. */
export function readBatches(logPath: string): Batch[] {
  const batches: Batch[] = [];
  const ended = new Map<number, number>();
  const lines = readFileSync(logPath, 'utf8').split('\n').slice(0, -1);
  for (const line of lines) {
    const [what, first, second, third] = line.split(' ');
    if (what === 'end') ended.set(Number(first), Number(second));
    else {
      batches.push({
        first: Number(first),
        last: Number(second),
        beginMs: Number(third),
        endMs: Number.POSITIVE_INFINITY,
      });
    }
  }
  return batches.map((batch) => ({ ...batch, endMs: ended.get(batch.first) ?? batch.endMs }));
}

/** What the log says of an instant: everything up to `durable` is there, nothing after `begun` is. */
export interface Bounds {
  readonly durable: number;
  readonly begun: number;
}

/**
 * `slackMs`: the point's time is read just before the instant itself, so a batch begun within that while
 * after it may be in the image.
 */
export function boundsAt(batches: readonly Batch[], timeMs: number, slackMs = 1000): Bounds {
  let durable = -1;
  let begun = -1;
  for (const batch of batches) {
    if (batch.endMs < timeMs) durable = batch.last;
    if (batch.beginMs <= timeMs + slackMs) begun = batch.last;
  }
  return { durable, begun };
}

export interface CheckResult {
  /** Records compared, journal and slots together, and how many of them had to be there. */
  readonly checked: number;
  readonly required: number;
  readonly faults: string[];
}

/** Compares the files under `folder` with what must and may be there. */
export function checkRecords(folder: string, seed: string, bounds: Bounds): CheckResult {
  const faults: string[] = [];
  const slots = readFileSync(join(folder, 'slots.dat'));
  let checked = checkSlots(slots, seed, bounds, faults);
  for (const parity of [0, 1]) {
    checked += checkJournal(join(folder, journalName(parity)), parity, { seed, bounds, faults });
  }
  return { checked, required: bounds.durable + 1, faults };
}

interface Expected {
  readonly seed: string;
  readonly bounds: Bounds;
  readonly faults: string[];
}

/** One of the two journals: the newest of its turns that has durable records, and one that may begin. */
function checkJournal(path: string, parity: number, { seed, bounds, faults }: Expected): number {
  const { durable, begun } = bounds;
  const newest = turnOf(durable);
  const turn = durable < 0 ? parity - 2 : newest % 2 === parity ? newest : newest - 1;
  const first = turn * JOURNAL_RECORDS;
  const next = first + 2 * JOURNAL_RECORDS;
  const isTurningOver = begun >= next;
  const anew = isTurningOver ? Math.min(JOURNAL_RECORDS, begun + 1 - next) : 0;
  const durably = turn < 0 ? 0 : Math.min(JOURNAL_RECORDS, durable + 1 - first);
  const required = isTurningOver ? 0 : durably;
  const allowed = turn < 0 ? anew : Math.min(JOURNAL_RECORDS, begun + 1 - first);
  const held = existsSync(path) ? readFileSync(path) : Buffer.alloc(0);
  const count = Math.ceil(held.length / RECORD_BYTES);
  if (count < required || count > allowed) {
    faults.push(`${path} has ${count} records: ${required} were durable, ${allowed} had begun`);
  }
  for (let at = 0; at < count; at += 1) {
    const candidates: Buffer[] = [];
    if (turn >= 0) candidates.push(recordContent(seed, first + at));
    if (at >= required) candidates.push(Buffer.alloc(RECORD_BYTES));
    if (at < anew) candidates.push(recordContent(seed, next + at));
    const here = held.subarray(at * RECORD_BYTES, (at + 1) * RECORD_BYTES);
    if (!isMixOf(here, candidates)) faults.push(`record ${at} of ${path} is wrong`);
  }
  return count;
}

function checkSlots(slots: Buffer, seed: string, bounds: Bounds, faults: string[]): number {
  const durable = new Map<number, number>();
  for (let at = Math.max(0, bounds.durable - SLOT_COUNT + 1); at <= bounds.durable; at += 1) {
    durable.set(slotOf(at), at);
  }
  const inFlight = new Map<number, number[]>();
  for (let at = bounds.durable + 1; at <= bounds.begun; at += 1) {
    inFlight.set(slotOf(at), [...(inFlight.get(slotOf(at)) ?? []), at]);
  }
  const count = Math.ceil(slots.length / RECORD_BYTES);
  for (let slot = 0; slot < Math.max(count, SLOT_COUNT); slot += 1) {
    const held = slots.subarray(slot * RECORD_BYTES, (slot + 1) * RECORD_BYTES);
    const base = durable.get(slot);
    if (base !== undefined && held.length < RECORD_BYTES) faults.push(`slot ${slot} is missing`);
    const old = base === undefined ? Buffer.alloc(RECORD_BYTES) : recordContent(seed, base);
    const newer = (inFlight.get(slot) ?? []).map((sequence) => recordContent(seed, sequence));
    if (!isMixOf(held, [old, ...newer])) faults.push(`slot ${slot} holds foreign bytes`);
  }
  return count;
}

/** True where each sector of `held` is that sector of one of the candidates. */
function isMixOf(held: Buffer, candidates: readonly Buffer[]): boolean {
  for (let at = 0; at < held.length; at += SECTOR_BYTES) {
    const sector = held.subarray(at, at + SECTOR_BYTES);
    const isKnown = candidates.some((candidate) =>
      candidate.subarray(at, at + sector.length).equals(sector),
    );
    if (!isKnown) return false;
  }
  return true;
}
