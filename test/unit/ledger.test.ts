/** The reader by which the proof judges must be able to say no. */
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { describe, expect, it } from 'vitest';
import { readLedger } from '../tools/ledger.ts';

/** A ledger of five rows as a guest writes it, spoilt by `sql`. */
function ledgerWith(sql: string): () => number {
  return () => {
    const folder = mkdtempSync(join(tmpdir(), 'understudy-ledger-'));
    try {
      const path = join(folder, 'ledger.db');
      const database = new DatabaseSync(path);
      database.exec('CREATE TABLE ledger (n INTEGER PRIMARY KEY, life, load, previous, hash)');
      let previous = 'the first row';
      const insert = database.prepare('INSERT INTO ledger VALUES (?, ?, ?, ?, ?)');
      insert.run(0, '', '', '', previous);
      for (let n = 1; n <= 5; n += 1) {
        const text = `${previous}|${n}|life|load ${n}`;
        const hash = createHash('sha3-256').update(text).digest('hex');
        insert.run(n, 'life', `load ${n}`, previous, hash);
        previous = hash;
      }
      database.exec(sql);
      database.close();
      return readLedger(path).length;
    } finally {
      rmSync(folder, { recursive: true });
    }
  };
}

describe('a ledger', () => {
  it('that is whole is read', () => {
    expect(ledgerWith('')()).toBe(6);
    expect(ledgerWith('DELETE FROM ledger WHERE n > 3')()).toBe(4);
  });

  it.each([
    ['lacks a row', 'DELETE FROM ledger WHERE n = 3', /row 3 is missing/],
    ['has another load', "UPDATE ledger SET load = 'other' WHERE n = 2", /row 2 is not what/],
    ['has another hash', "UPDATE ledger SET hash = 'aa' WHERE n = 5", /row 5 is not what/],
    ['was written by another life', "UPDATE ledger SET life = 'b' WHERE n = 4", /row 4 is not/],
    ['has another beginning', "UPDATE ledger SET hash = 'x' WHERE n = 0", /row 0 is not what/],
  ])('that %s is refused', (_what, sql, message) => {
    expect(ledgerWith(sql)).toThrow(message);
  });
});
