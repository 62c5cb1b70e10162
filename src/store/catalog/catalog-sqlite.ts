/**
 * The catalog in SQLite (node:sqlite), synchronous: it runs in catalog-worker.ts, off the event loop. Its
 * EXCLUSIVE lock, taken at opening and held, is also the lock of the data directory. Everything in it can
 * be rebuilt, so a damaged file is replaced by an empty one, and writes are not synced one by one.
 */
import { rmSync } from 'node:fs';
import { DatabaseSync, type SQLInputValue } from 'node:sqlite';
import { UnderstudyError } from '../../base/errors.ts';
import type { PointState } from '../../model/replication.ts';
import type { PointRecord } from '../points/point-format.ts';
import type { PointFilter } from '../types.ts';
import { type CatalogCounts, type CatalogPoint, headsOf, type VolumeHead } from './catalog.ts';

/** A catalog of another version is rebuilt. */
const SCHEMA_VERSION = 1;

const SCHEMA = `
  CREATE TABLE repository (id TEXT NOT NULL);
  CREATE TABLE points (
    id TEXT PRIMARY KEY, server TEXT NOT NULL, time_ms INTEGER NOT NULL, state TEXT NOT NULL,
    logical_bytes INTEGER NOT NULL, record TEXT NOT NULL
  ) WITHOUT ROWID;
  CREATE INDEX points_by_server ON points (server, id);
  CREATE TABLE heads (
    server TEXT NOT NULL, volume TEXT NOT NULL, sequence INTEGER NOT NULL, head TEXT NOT NULL,
    PRIMARY KEY (server, volume)
  ) WITHOUT ROWID;
  PRAGMA user_version = ${SCHEMA_VERSION};
`;

const SQLITE_BUSY = 5;
const SQLITE_CORRUPT = 11;
const SQLITE_NOTADB = 26;

const errorNumber = (error: unknown): number =>
  ((error as { errcode?: number }).errcode ?? 0) & 0xff;

interface PointRow {
  record: string;
  state: PointState;
}

/** The calls of `Catalog`, without the promises. */
export class SqliteCatalog {
  private readonly db: DatabaseSync;

  private constructor(db: DatabaseSync) {
    this.db = db;
  }

  /** ERR_DATA_IN_USE where another process (or another store of this one) holds it. */
  static open(path: string): SqliteCatalog {
    try {
      return new SqliteCatalog(openDatabase(path));
    } catch (error) {
      const number = errorNumber(error);
      if (number === SQLITE_BUSY) {
        throw new UnderstudyError('ERR_DATA_IN_USE', `${path} is in use`, { path }, error);
      }
      if (number !== SQLITE_CORRUPT && number !== SQLITE_NOTADB) {
        const detail = error instanceof Error ? error.message : String(error);
        throw new UnderstudyError('ERR_CATALOG', `${path}: ${detail}`, { path }, error);
      }
      for (const suffix of ['', '-wal', '-shm', '-journal']) rmSync(path + suffix, { force: true });
      return new SqliteCatalog(openDatabase(path));
    }
  }

  repository(): string | null {
    const row = this.db.prepare('SELECT id FROM repository').get() as { id: string } | undefined;
    return row?.id ?? null;
  }

  adopt(repository: string): void {
    this.transaction(() => {
      this.db.exec('DELETE FROM points; DELETE FROM heads; DELETE FROM repository;');
      this.run('INSERT INTO repository (id) VALUES (?)', repository);
    });
  }

  pointNames(): { server: string; id: string; state: PointState }[] {
    const rows = this.db.prepare('SELECT server, id, state FROM points ORDER BY id').all();
    return rows as unknown as { server: string; id: string; state: PointState }[];
  }

  putPoint(record: PointRecord, state: PointState): void {
    const bytes = record.volumes.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    const { id, server, timeMs } = record;
    this.transaction(() => {
      this.run(
        'INSERT OR REPLACE INTO points VALUES (?, ?, ?, ?, ?, ?)',
        ...[id, server, timeMs, state, bytes, JSON.stringify(record)],
      );
      for (const head of headsOf(record)) this.insertHead(head);
    });
  }

  setSealed(ids: readonly string[]): void {
    this.transaction(() => {
      for (const id of ids) this.run(`UPDATE points SET state = 'sealed' WHERE id = ?`, id);
    });
  }

  removePoints(ids: readonly string[]): void {
    this.transaction(() => {
      for (const id of ids) this.run('DELETE FROM points WHERE id = ?', id);
    });
  }

  point(id: string): CatalogPoint | null {
    const row = this.db.prepare('SELECT record, state FROM points WHERE id = ?').get(id);
    return row === undefined ? null : parsePoint(row as unknown as PointRow);
  }

  points(filter: PointFilter): CatalogPoint[] {
    const isOldestFirst = filter.order === 'oldest';
    const where: string[] = ['1'];
    const values: SQLInputValue[] = [];
    const add = (condition: string, value: SQLInputValue | undefined) => {
      if (value === undefined) return;
      where.push(condition);
      values.push(value);
    };
    add('server = ?', filter.server);
    add('time_ms >= ?', filter.fromMs);
    add('time_ms <= ?', filter.toMs);
    add(isOldestFirst ? 'id > ?' : 'id < ?', filter.after);
    const sql = `SELECT record, state FROM points WHERE ${where.join(' AND ')}
      ORDER BY id ${isOldestFirst ? 'ASC' : 'DESC'} LIMIT ?`;
    const rows = this.db.prepare(sql).all(...values, filter.limit ?? -1);
    return (rows as unknown as PointRow[]).map(parsePoint);
  }

  heads(): VolumeHead[] {
    const rows = this.db.prepare('SELECT head FROM heads ORDER BY server, volume').all();
    return (rows as unknown as { head: string }[]).map(({ head }) => JSON.parse(head));
  }

  putHead(head: VolumeHead): void {
    this.insertHead(head);
  }

  counts(): CatalogCounts {
    const sql = `SELECT count(*) AS points, coalesce(sum(logical_bytes), 0) AS logicalBytes,
      coalesce(sum(state = 'staged'), 0) AS staged FROM points`;
    return this.db.prepare(sql).get() as unknown as CatalogCounts;
  }

  close(): void {
    this.db.close();
  }

  private insertHead(head: VolumeHead): void {
    this.run(
      `INSERT INTO heads VALUES (?, ?, ?, ?) ON CONFLICT (server, volume) DO UPDATE
       SET sequence = excluded.sequence, head = excluded.head
       WHERE excluded.sequence > sequence`,
      ...[head.server, head.volume, head.sequence, JSON.stringify(head)],
    );
  }

  private run(sql: string, ...values: SQLInputValue[]): void {
    this.db.prepare(sql).run(...values);
  }

  private transaction(run: () => void): void {
    this.db.exec('BEGIN');
    try {
      run();
      this.db.exec('COMMIT');
    } catch (error) {
      // On a full disk SQLite has rolled back by itself: asked again it would hide what was wrong.
      if (this.db.isTransaction) this.db.exec('ROLLBACK');
      throw error;
    }
  }
}

const parsePoint = ({ record, state }: PointRow): CatalogPoint => ({
  record: JSON.parse(record) as PointRecord,
  state,
});

function openDatabase(path: string): DatabaseSync {
  const db = new DatabaseSync(path, { timeout: 0 });
  try {
    db.exec(
      'PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL',
    );
    db.exec('BEGIN EXCLUSIVE; COMMIT');
    const { user_version: version } = db.prepare('PRAGMA user_version').get() as {
      user_version: number;
    };
    if (version !== SCHEMA_VERSION) {
      dropTables(db);
      db.exec(SCHEMA);
    }
    const [check] = db.prepare('PRAGMA quick_check(1)').all() as { quick_check: string }[];
    if (check?.quick_check !== 'ok') {
      throw Object.assign(new Error('the catalog is damaged'), { errcode: SQLITE_CORRUPT });
    }
    return db;
  } catch (error) {
    db.close();
    throw error;
  }
}

function dropTables(db: DatabaseSync): void {
  const sql = `SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'`;
  const tables = db.prepare(sql).all() as { name: string }[];
  for (const { name } of tables) db.exec(`DROP TABLE "${name}"`);
}
