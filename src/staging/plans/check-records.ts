/**
 * What is kept of the scheduled boot checks of each server: DATA/checks/SERVER.json, a record
 * (jobs/record-file.ts, magic "understudy-check 1") with its own policy, the last check and how many failed
 * in a row.
 */
import type { Disk } from '../../base/disk.ts';
import { UnderstudyError } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import type { LaunchOptions } from '../../recovery/runner.ts';
import { readRecord, writeRecord } from '../jobs/record-file.ts';
import type { CheckHistory } from './check-schedule.ts';

export interface CheckPolicy {
  /** 0: never; null: as the service does by default. */
  readonly everyMs: number | null;
  /** Of the target qemu; those of the service are beneath them. */
  readonly options: LaunchOptions;
}

export interface CheckRecord extends CheckHistory {
  readonly server: string;
  /** Null: the service's. */
  readonly policy: CheckPolicy | null;
}

const MAGIC = 'understudy-check 1';
const SUFFIX = '.json';

export class CheckRecords {
  private readonly disk: Disk;
  private readonly folder: string;
  private lane: Promise<void> = Promise.resolve();
  private readonly records = new Map<string, CheckRecord>();

  private constructor(disk: Disk, dataDir: string) {
    this.disk = disk;
    this.folder = `${dataDir}/checks`;
  }

  /** What is damaged is told, and the server is checked as by default: a boot too many does no harm. */
  static async open(disk: Disk, dataDir: string, log: Log): Promise<CheckRecords> {
    const records = new CheckRecords(disk, dataDir);
    for (const { name, isDirectory } of await disk.list(records.folder)) {
      if (isDirectory || !name.endsWith(SUFFIX)) continue;
      const path = `${records.folder}/${name}`;
      try {
        const record = await readRecord<CheckRecord>(disk, path, MAGIC);
        records.records.set(record.server, record);
      } catch (error) {
        if (!(error instanceof UnderstudyError) || error.code !== 'ERR_JOB_DAMAGED') throw error;
        log.error('what is known of the boot checks of a server is damaged', { path });
      }
    }
    return records;
  }

  get(server: string): CheckRecord {
    return this.records.get(server) ?? { server, policy: null, last: null, failures: 0 };
  }

  /** Changes what is kept of a server, one change after the other. Durable when it resolves. */
  update(server: string, change: (record: CheckRecord) => Partial<CheckRecord>): Promise<void> {
    const done = this.lane.then(() => {
      const record = this.get(server);
      return this.save({ ...record, ...change(record), server });
    });
    this.lane = done.catch(() => undefined); // told to whoever asked
    return done;
  }

  private async save(record: CheckRecord): Promise<void> {
    await this.disk.makeDirectory(this.folder);
    const path = `${this.folder}/${encodeURIComponent(record.server)}${SUFFIX}`;
    await writeRecord(this.disk, path, MAGIC, record);
    this.records.set(record.server, record);
  }
}
