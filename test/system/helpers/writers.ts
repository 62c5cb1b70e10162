/** Load on a mounted file system, by programs of their own whose work can be checked afterwards. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { boundsAt, checkRecords, readBatches } from '../../../scripts/lib/records.ts';
import type { Scratch } from './scratch.ts';
import { waitFor } from './wait.ts';

const recordTool = resolve(import.meta.dirname, '../../../scripts/lib/record-tool.ts');
const sqliteTool = resolve(import.meta.dirname, '../../tools/sqlite-writer.ts');

/** A program that says 'begun' when its first write is durable, and ends at SIGTERM. */
class Writer {
  private readonly child: ChildProcess;
  private readonly ended: Promise<unknown>;
  private said = '';

  constructor(scratch: Scratch, words: readonly string[]) {
    this.child = spawn(process.execPath, words, { stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream?.on('data', (data: Buffer) => {
        this.said += data.toString();
      });
    }
    this.ended = new Promise((done) => this.child.on('close', done));
    scratch.defer(async () => {
      this.child.kill('SIGKILL');
      await this.ended;
    });
  }

  async begun(): Promise<void> {
    const hasEnded = () => this.child.exitCode !== null || this.child.signalCode !== null;
    await waitFor('the writer', () => this.said.includes('begun') || hasEnded(), {
      timeoutMs: 120_000,
    });
    if (hasEnded()) throw new Error(`the writer ended: ${this.said}`);
  }

  async stop(): Promise<void> {
    this.child.kill('SIGTERM');
    await this.ended;
    if (this.child.exitCode !== 0) throw new Error(`the writer failed: ${this.said}`);
  }
}

/** Self-checking records in two files; see scripts/lib/records.ts. */
export class RecordLoad {
  private readonly writer: Writer;
  private readonly logPath: string;
  private readonly seed: string;

  private constructor(writer: Writer, logPath: string, seed: string) {
    this.writer = writer;
    this.logPath = logPath;
    this.seed = seed;
  }

  static async start(
    scratch: Scratch,
    folder: string,
    seed: string,
    perSecond: number,
  ): Promise<RecordLoad> {
    const logPath = scratch.path(`${seed}.acknowledged`);
    const writer = new Writer(scratch, [
      recordTool,
      'write',
      folder,
      logPath,
      seed,
      String(perSecond),
    ]);
    await writer.begun();
    return new RecordLoad(writer, logPath, seed);
  }

  stop(): Promise<void> {
    return this.writer.stop();
  }

  /** What is wrong with the records under `folder`, an image mounted as of `time`. */
  faults(folder: string, time: string): string[] {
    const bounds = boundsAt(readBatches(this.logPath), Date.parse(time));
    // Files that had not been made by then need not be there.
    if (bounds.durable < 0 && !existsSync(`${folder}/slots.dat`)) return [];
    const { faults, required } = checkRecords(folder, this.seed, bounds);
    if (required !== bounds.durable + 1) faults.push('the checker lost count');
    return faults;
  }
}

/** Transactions in a SQLite database (WAL, synchronous=FULL), each noted once it is committed. */
export class SqliteLoad {
  private readonly writer: Writer;
  private readonly logPath: string;

  private constructor(writer: Writer, logPath: string) {
    this.writer = writer;
    this.logPath = logPath;
  }

  static async start(scratch: Scratch, folder: string): Promise<SqliteLoad> {
    const logPath = scratch.path('sqlite.acknowledged');
    const writer = new Writer(scratch, [sqliteTool, 'write', `${folder}/base.sqlite`, logPath]);
    await writer.begun();
    return new SqliteLoad(writer, logPath);
  }

  stop(): Promise<void> {
    return this.writer.stop();
  }

  /** Number of the last transaction that was committed before `time`; -1 where there is none. */
  committedBefore(time: string): number {
    const timeMs = Date.parse(time);
    let last = -1;
    for (const line of readFileSync(this.logPath, 'utf8').split('\n').slice(0, -1)) {
      const [number, atMs] = line.split(' ').map(Number);
      if (atMs! < timeMs) last = number!;
    }
    return last;
  }
}
