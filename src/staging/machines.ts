/**
 * What each source server is, and what was found of it, as its agent told last: kept over restarts, as it
 * is needed when the server itself cannot be asked any more. One small file a server, DATA/machines/NAME.json,
 * rewritten whole (write, sync, rename, sync of the folder):
 *
 *   line 1  "understudy-machine 1 <length of the rest> <SHA-256 of the rest, hex>"
 *   rest    JSON: the report
 *
 * A report that is lost comes again with the agent's next connection: so what cannot be read or written is
 * logged, and nothing else stops for it.
 */
import { hash } from 'node:crypto';
import type { Disk } from '../base/disk.ts';
import type { Log } from '../base/log.ts';
import { replaceFile } from '../base/replace-file.ts';
import { countBySeverity, type MachineReport } from '../model/machine.ts';
import type { ServerId } from '../model/replication.ts';
import type { ApiMachine } from './api-types.ts';

const FOLDER = 'machines';
/** Behind every name, so that none is that of another's unfinished file. */
const SUFFIX = '.json';
const MAGIC = 'understudy-machine 1';

function encode(report: MachineReport): Uint8Array {
  const body = Buffer.from(JSON.stringify(report));
  return Buffer.concat([Buffer.from(`${MAGIC} ${body.length} ${hash('sha256', body)}\n`), body]);
}

/** null for what `encode` did not make. */
function decode(bytes: Uint8Array): MachineReport | null {
  const all = Buffer.from(bytes);
  const end = all.indexOf(0x0a);
  const body = all.subarray(end + 1);
  const head = all.toString('latin1', 0, Math.max(0, end));
  const isWhole = head === `${MAGIC} ${body.length} ${hash('sha256', body)}`;
  return isWhole ? (JSON.parse(body.toString('utf8')) as MachineReport) : null;
}

/** The report without its findings, for lists. */
export function summaryOf(report: MachineReport | null): ApiMachine | null {
  if (report === null) return null;
  const { timeMs, findings, ...machine } = report;
  return { ...machine, time: new Date(timeMs).toISOString(), counts: countBySeverity(findings) };
}

export class Machines {
  private readonly disk: Disk;
  private readonly folder: string;
  private readonly log: Log;
  private readonly reports = new Map<ServerId, MachineReport>();
  /** Not yet written; a newer report takes the place of an older. */
  private readonly unwritten = new Map<ServerId, MachineReport>();
  private writing: Promise<void> | null = null;

  private constructor(disk: Disk, folder: string, log: Log) {
    this.disk = disk;
    this.folder = folder;
    this.log = log;
  }

  /** Of a data directory. ERR_DISK_*. */
  static async open(disk: Disk, dataDir: string, log: Log): Promise<Machines> {
    const machines = new Machines(disk, `${dataDir}/${FOLDER}`, log);
    for (const { name, isDirectory } of await disk.list(machines.folder)) {
      if (isDirectory || !name.endsWith(SUFFIX)) continue;
      const path = `${machines.folder}/${name}`;
      const report = decode(await disk.readFile(path));
      const server = name.slice(0, -SUFFIX.length);
      if (report !== null) machines.reports.set(server, report);
      else log.warn('what is known of a machine is damaged; its agent will tell again', { path });
    }
    return machines;
  }

  get(server: ServerId): MachineReport | null {
    return this.reports.get(server) ?? null;
  }

  /** Known at once; durable a little later. */
  set(server: ServerId, report: MachineReport): void {
    this.reports.set(server, report);
    this.unwritten.set(server, report);
    this.writing ??= this.writeAll().finally(() => {
      this.writing = null;
    });
  }

  /** Resolves once everything told so far is written, or could not be. */
  async settled(): Promise<void> {
    while (this.writing !== null) await this.writing;
  }

  private async writeAll(): Promise<void> {
    for (let next = this.take(); next !== null; next = this.take()) {
      const [server, report] = next;
      try {
        await this.write(server, report);
      } catch (error) {
        this.log.error('what was told of a machine could not be kept', {
          server,
          error: (error as Error).message,
        });
      }
    }
  }

  private take(): [ServerId, MachineReport] | null {
    const [next] = this.unwritten;
    if (next === undefined) return null;
    this.unwritten.delete(next[0]);
    return next;
  }

  private async write(server: ServerId, report: MachineReport): Promise<void> {
    const { disk, folder } = this;
    await disk.makeDirectory(folder);
    const path = `${folder}/${server}${SUFFIX}`;
    await replaceFile(disk, path, [encode(report)]);
  }
}
