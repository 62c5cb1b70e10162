/** The checker of the self-checking records must be able to fail: what a power cut cannot leave is found. */
import {
  closeSync,
  cpSync,
  mkdtempSync,
  openSync,
  rmSync,
  statSync,
  truncateSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  boundsAt,
  checkRecords,
  JOURNAL_RECORDS,
  RECORD_BYTES,
  RecordWriter,
  readBatches,
  SLOT_COUNT,
  slotOf,
} from '../../scripts/lib/records.ts';

let origin: string;
let folder: string;
const last = JOURNAL_RECORDS + 127;
const bounds = { durable: last, begun: last };
const path = (name: string) => join(folder, name);

function overwrite(name: string, offset: number, bytes: string): void {
  const fd = openSync(path(name), 'r+');
  writeSync(fd, bytes, offset);
  closeSync(fd);
}

const faults = (of = bounds) => checkRecords(folder, 'seed', of).faults;

describe('checkRecords', () => {
  beforeAll(() => {
    origin = mkdtempSync(join(tmpdir(), 'understudy-records-'));
    const writer = new RecordWriter(origin, join(origin, 'log'), 'seed');
    for (let count = 0; count <= last; count += 64) writer.writeBatch(64);
    writer.close();
  });
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'understudy-records-'));
    cpSync(origin, folder, { recursive: true });
  });
  afterEach(() => rmSync(folder, { recursive: true }));
  afterAll(() => rmSync(origin, { recursive: true }));

  it('finds nothing wrong with what was written', () => {
    expect(faults()).toEqual([]);
    expect(boundsAt(readBatches(path('log')), Date.now() + 1000)).toEqual(bounds);
  });

  it('finds a byte that is wrong, in a journal and in a slot', () => {
    overwrite('journal-0.dat', 70_000, 'x');
    overwrite('slots.dat', RECORD_BYTES * 5 + 1000, 'x');
    expect(faults()).toHaveLength(2);
  });

  it('finds the loss of a durable record, and of a durable overwrite', () => {
    truncateSync(path('journal-1.dat'), statSync(path('journal-1.dat')).size - RECORD_BYTES);
    expect(faults()).toHaveLength(1);
    expect(faults({ durable: last - 1, begun: last })).toEqual([]);
    const later = { durable: last + SLOT_COUNT, begun: last + SLOT_COUNT };
    expect(faults(later).length).toBeGreaterThan(SLOT_COUNT);
  });

  it('finds a record from after the cut', () => {
    const early = { durable: last - 128, begun: last - 64 };
    const found = faults(early);
    expect(found.some((fault) => fault.includes('journal-1'))).toBe(true);
    expect(found.some((fault) => fault.includes(`slot ${slotOf(last)} `))).toBe(true);
  });

  it('accepts any part of what was in flight, and a journal that was being emptied', () => {
    const inFlight = { durable: last - 64, begun: last };
    expect(faults(inFlight)).toEqual([]);
    overwrite('slots.dat', slotOf(last) * RECORD_BYTES, '');
    const beforeTurn = { durable: JOURNAL_RECORDS - 1, begun: last };
    expect(faults(beforeTurn)).toEqual([]);
  });
});
