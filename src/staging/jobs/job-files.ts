/**
 * Jobs on disk, below DATA/jobs: a folder a job with its record, its log and its evidence; and
 * DATA/boot-checks: the newest verdict by point, which outlives the job.
 *
 *   DATA/jobs/ID/job.json        record-file.ts, magic "understudy-job 1"
 *   DATA/jobs/ID/log             lines "TIME TEXT", only appended
 *   DATA/jobs/ID/scripts/...     runs of a plan's scripts (plans/script-folder.ts)
 *   DATA/jobs/ID/...             the launcher's evidence (console.log, probe.log, screenshot.png, ...)
 *   DATA/boot-checks/POINT.json  record-file.ts, magic "understudy-boot-check 1"
 */
import { rm } from 'node:fs/promises';
import type { Disk } from '../../base/disk.ts';
import { UnderstudyError } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { diskError } from '../../base/node-disk.ts';
import type { CheckResult } from '../../recovery/launcher.ts';
import { formerJob, type Job } from './job-state.ts';
import { readRecord, writeRecord } from './record-file.ts';

const JOB = 'understudy-job 1';
const CHECK = 'understudy-boot-check 1';

/** The verdict on a point. */
export interface BootCheck extends CheckResult {
  readonly point: string;
  readonly server: string;
  readonly job: string;
  /** When, ISO 8601. */
  readonly time: string;
}

/** Longest part of a piece of evidence that is told. */
const MAX_EVIDENCE_BYTES = 32 * 2 ** 20;
const EVIDENCE =
  /^(?:prepare(?:-console|-qemu)?|console|qemu|probe|disk\d+|screenshot)\.[jlp][a-z]+$/;

const encoder = new TextEncoder();

export class JobFiles {
  private readonly disk: Disk;
  private readonly data: string;

  constructor(disk: Disk, data: string) {
    this.disk = disk;
    this.data = data;
  }

  folder(id: string): string {
    return `${this.data}/jobs/${id}`;
  }

  /** All that can be read, oldest first; what is damaged is told to the log and left where it is. */
  async load(log: Log): Promise<Job[]> {
    const jobs: Job[] = [];
    for (const { name, isDirectory } of await this.disk.list(`${this.data}/jobs`)) {
      const path = `${this.folder(name)}/job.json`;
      // A folder without a record: the crash came before the job was anything.
      if (!isDirectory || !(await this.disk.exists(path))) continue;
      try {
        // Records only grow: what a former version did not write has its value here.
        jobs.push({ ...formerJob, ...(await readRecord<Job>(this.disk, path, JOB)) });
      } catch (error) {
        if (!(error instanceof UnderstudyError)) throw error;
        log.error(error.message, { code: error.code, ...error.context });
      }
    }
    return jobs;
  }

  async save(job: Job): Promise<void> {
    await this.disk.makeDirectory(this.folder(job.id));
    await writeRecord(this.disk, `${this.folder(job.id)}/job.json`, JOB, job);
  }

  /** The record goes first: what is left of a folder without one is nothing. */
  async remove(id: string): Promise<void> {
    const folder = this.folder(id);
    await this.disk.remove(`${folder}/job.json`);
    await this.disk.syncDirectory(folder);
    await rm(folder, { recursive: true, force: true }).catch((cause: unknown) => {
      throw diskError(cause, folder);
    });
  }

  /** Appends to the job's log; durable with the next record at the earliest. */
  async append(id: string, line: string): Promise<void> {
    const file = await this.disk.open(`${this.folder(id)}/log`, 'write');
    try {
      await file.write([encoder.encode(`${line}\n`)], await file.size());
    } finally {
      await file.close();
    }
  }

  async readLog(id: string): Promise<string> {
    const path = `${this.folder(id)}/log`;
    if (!(await this.disk.exists(path))) return '';
    return Buffer.from(await this.disk.readFile(path)).toString('utf8');
  }

  /** The end of it; null where there is none. */
  async readEvidence(
    id: string,
    name: string,
    mostBytes = MAX_EVIDENCE_BYTES,
  ): Promise<Uint8Array | null> {
    const path = `${this.folder(id)}/${name}`;
    if (!EVIDENCE.test(name) || !(await this.disk.exists(path))) return null;
    const file = await this.disk.open(path, 'read');
    try {
      const sizeBytes = await file.size();
      const bytes = new Uint8Array(Math.min(sizeBytes, mostBytes));
      return bytes.subarray(0, await file.read(bytes, sizeBytes - bytes.length));
    } finally {
      await file.close();
    }
  }

  async saveCheck(check: BootCheck): Promise<void> {
    await this.disk.makeDirectory(`${this.data}/boot-checks`);
    await writeRecord(this.disk, this.checkPath(check.point), CHECK, check);
  }

  async check(point: string): Promise<BootCheck | null> {
    const path = this.checkPath(point);
    if (!(await this.disk.exists(path))) return null;
    return readRecord<BootCheck>(this.disk, path, CHECK);
  }

  /** Not synced: one that comes back is removed the next time. */
  removeCheck(point: string): Promise<void> {
    return this.disk.remove(this.checkPath(point));
  }

  /** Ids of the points that have a verdict. */
  async checkedPoints(): Promise<ReadonlySet<string>> {
    const names = (await this.disk.list(`${this.data}/boot-checks`)).map(({ name }) => name);
    const ended = names.filter((name) => name.endsWith('.json'));
    return new Set(ended.map((name) => decodeURIComponent(name.slice(0, -'.json'.length))));
  }

  private checkPath(point: string): string {
    return `${this.data}/boot-checks/${encodeURIComponent(point)}.json`;
  }
}
