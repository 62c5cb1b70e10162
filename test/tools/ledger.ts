/**
 * A ledger that a guest keeps in SQLite, one committed row after another, each with the hash of the one
 * before it; and its reader. A row is reported to this machine after its commit has returned, with the
 * guest's time of that moment: so it is known what a recovery point of a later instant must hold.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { rmSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

export const LEDGER_PATH = '/var/lib/ledger/ledger.db';
const FIRST = 'the first row';

/** What the guest runs, as a service: it needs bash, stdbuf and the shell of SQLite. */
export const ledgerProgram = (port: number): string =>
  `#!/bin/bash
life=$(cat /sys/class/dmi/id/product_uuid)
mkdir -p /var/lib/ledger
cd /var/lib/ledger
sqlite3 ledger.db >/dev/null <<SQL
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS ledger (
  n INTEGER PRIMARY KEY, life TEXT, load TEXT, previous TEXT, hash TEXT);
INSERT OR IGNORE INTO ledger VALUES (0, '', '', '', '${FIRST}');
SQL
verdict=$(sqlite3 ledger.db 'PRAGMA integrity_check')
rows=$(sqlite3 ledger.db 'SELECT max(n) FROM ledger')
echo "ledger: integrity $verdict, rows $rows, life $life" >/dev/ttyS0
exec 3<>/dev/tcp/10.0.2.2/${port} || exit 1
echo "life|$life|$verdict|$rows" >&3
# Never ready to be read: a pause without a process.
exec 4<> <(:)
{
  echo 'PRAGMA synchronous = FULL;'
  while :; do
    cat_sql
    read -rt 0.1 <&4
  done
} | stdbuf -oL sqlite3 ledger.db >&3
`.replace(
    '    cat_sql\n',
    `    echo "INSERT INTO ledger
      SELECT n + 1, '$life', load, hash,
        lower(hex(sha3(hash || '|' || (n + 1) || '|$life|' || load, 256)))
      FROM (SELECT n, hash, hex(randomblob(300)) AS load FROM ledger ORDER BY n DESC LIMIT 1);
      SELECT 'row', n, hash, strftime('%Y-%m-%dT%H:%M:%fZ', 'now') FROM ledger
      ORDER BY n DESC LIMIT 1;"
`,
  );

export interface Row {
  readonly n: number;
  readonly life: string;
  readonly hash: string;
}
export interface Report extends Row {
  /** By the guest's clock, after the commit had returned. */
  readonly guestMs: number;
  /** By this machine's clock, when the report came. */
  readonly hostMs: number;
}
export interface Life {
  readonly life: string;
  /** Of PRAGMA integrity_check, when the ledger was opened. */
  readonly verdict: string;
  /** The number of the last row then. */
  readonly rows: number;
}

/** Listens for what guests report. */
export class LedgerReports {
  readonly reports: Report[] = [];
  readonly lives: Life[] = [];
  private readonly server: Server;

  constructor(port: number) {
    this.server = createServer((socket) => {
      let life = '';
      let rest = '';
      socket.on('error', () => socket.destroy());
      socket.on('data', (data: Buffer) => {
        const hostMs = Date.now();
        const lines = (rest + data.toString()).split('\n');
        rest = lines.pop()!;
        for (const line of lines) life = this.take(line, life, hostMs);
      });
    });
    this.server.listen(port, '127.0.0.1');
  }

  close(): void {
    this.server.close();
  }

  of(life: string): Report[] {
    return this.reports.filter((report) => report.life === life);
  }

  /** How far the guest's clock is ahead of this machine's, at most; reports take a moment to come. */
  clockAheadMs(life: string): number {
    return Math.max(...this.of(life).map(({ guestMs, hostMs }) => guestMs - hostMs));
  }

  private take(line: string, life: string, hostMs: number): string {
    const [kind, first, second, third] = line.split('|');
    if (kind === 'life') {
      this.lives.push({ life: first!, verdict: second!, rows: Number(third) });
      return first!;
    }
    if (kind === 'row' && third !== undefined) {
      const row = { n: Number(first), life, hash: second! };
      this.reports.push({ ...row, guestMs: Date.parse(third), hostMs });
    }
    return life;
  }
}

/** The rows of a ledger, whole: the database is sound, no number is missing, and the chain holds. */
export function readLedger(path: string): Row[] {
  const database = new DatabaseSync(path);
  try {
    const verdict = database.prepare('PRAGMA integrity_check').get()!.integrity_check;
    if (verdict !== 'ok') throw new Error(`integrity_check: ${verdict}`);
    const rows = database.prepare('SELECT * FROM ledger ORDER BY n').all();
    let previous = FIRST;
    rows.forEach(({ n, life, load, hash }, at) => {
      if (n !== at) throw new Error(`row ${at} is missing`);
      const wanted = at === 0 ? FIRST : hashOf([previous, n, life, load].join('|'));
      if (hash !== wanted) throw new Error(`row ${at} is not what was written`);
      previous = hash;
    });
    return rows.map(({ n, life, hash }) => ({
      ...{ n: Number(n), life: String(life), hash: String(hash) },
    }));
  } finally {
    database.close();
  }
}

const hashOf = (text: string): string => createHash('sha3-256').update(text).digest('hex');

/**
 * The ledger on a disk's image whose file system begins at `offset`, as after a boot: journal replayed, then
 * checked by e2fsck, which must find nothing. The image stays as it is; nothing is mounted.
 */
export function ledgerOnImage(image: string, offset: number, workFolder: string): Row[] {
  const root = join(workFolder, 'root-of-image');
  const copy = join(workFolder, 'ledger-of-image');
  try {
    // e2fsck opens a file again after a replay, and forgets an offset then.
    const place = [`if=${image}`, `of=${root}`, 'bs=1M', `skip=${offset}`];
    run('dd', ...place, 'iflag=skip_bytes', 'conv=sparse', 'status=none');
    run('e2fsck', '-y', '-E', 'journal_only', root);
    run('e2fsck', '-fn', root);
    for (const suffix of ['', '-wal']) {
      run('debugfs', '-R', `dump ${LEDGER_PATH}${suffix} ${copy}${suffix}`, root);
    }
    return readLedger(copy);
  } finally {
    for (const suffix of ['', '-wal', '-shm']) rmSync(copy + suffix, { force: true });
    rmSync(root, { force: true });
  }
}

function run(command: string, ...words: string[]): void {
  try {
    execFileSync(command, words, { stdio: ['ignore', 'pipe', 'pipe'] });
  } catch (cause) {
    const { stdout, stderr } = cause as { stdout: Buffer; stderr: Buffer };
    throw new Error(`${command} ${words.join(' ')}: ${stdout}${stderr}`, { cause });
  }
}
