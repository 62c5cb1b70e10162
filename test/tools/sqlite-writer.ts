/**
 * sqlite-writer.ts write DATABASE LOG   commits transactions until SIGTERM, noting each in LOG with the time
 *                                       at which its commit had returned
 * sqlite-writer.ts check DATABASE       integrity_check; prints the number of the last transaction
 */
import { createHash } from 'node:crypto';
import { appendFileSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';

const digest = (number: number): string =>
  createHash('sha256').update(`transaction ${number}`).digest('hex');

async function write(path: string, log: string): Promise<void> {
  const database = new DatabaseSync(path);
  database.exec('PRAGMA journal_mode = WAL');
  database.exec('PRAGMA synchronous = FULL');
  database.exec('PRAGMA wal_autocheckpoint = 200');
  database.exec(
    'CREATE TABLE entry (number INTEGER, part INTEGER, text TEXT, PRIMARY KEY (number, part))',
  );
  const insert = database.prepare('INSERT INTO entry VALUES (?, ?, ?)');
  let isStopped = false;
  process.on('SIGTERM', () => {
    isStopped = true;
  });
  for (let number = 0; !isStopped; number += 1) {
    database.exec('BEGIN');
    for (let part = 0; part < 5; part += 1) insert.run(number, part, digest(number).repeat(4));
    database.exec('COMMIT');
    appendFileSync(log, `${number} ${Date.now()}\n`);
    if (number === 0) process.stdout.write('begun\n');
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  database.close();
}

/** Every transaction up to the last is there, whole, with its text. */
function check(path: string): void {
  const database = new DatabaseSync(path);
  const verdict = database.prepare('PRAGMA integrity_check').get() as { integrity_check: string };
  if (verdict.integrity_check !== 'ok')
    throw new Error(`integrity_check: ${verdict.integrity_check}`);
  const rows = database.prepare('SELECT number, part, text FROM entry ORDER BY number, part').all();
  if (rows.length % 5 !== 0) throw new Error('a transaction is torn');
  rows.forEach((row, at) => {
    const number = Math.floor(at / 5);
    if (row.number !== number || row.part !== at % 5 || row.text !== digest(number).repeat(4)) {
      throw new Error(`transaction ${number} is wrong or missing`);
    }
  });
  database.close();
  process.stdout.write(`${rows.length / 5 - 1}\n`);
}

const [command, path, log] = process.argv.slice(2);
if (command === 'write' && path && log) await write(path, log);
else if (command === 'check' && path) check(path);
else process.exitCode = 2;
