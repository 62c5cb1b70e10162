/**
 * Which servers have a rolling chain: those that staging was started with, and what an operator has switched
 * since, which stays over restarts. DATA/ec2/switches.json.
 */
import type { Disk } from '../../base/disk.ts';
import { type RecordFile, recordFile } from '../../recovery/ec2/record-file.ts';

interface SwitchRecord {
  readonly version: 1;
  readonly servers: Readonly<Record<string, boolean>>;
}

export class Switches {
  private readonly file: RecordFile<SwitchRecord>;
  private readonly standard: readonly string[];
  private record: SwitchRecord;

  private constructor(
    file: RecordFile<SwitchRecord>,
    standard: readonly string[],
    record: SwitchRecord,
  ) {
    this.file = file;
    this.standard = standard;
    this.record = record;
  }

  /** `standard`: on unless switched off; empty: all are. ERR_EC2_RECORD, ERR_DISK_*. */
  static async open(disk: Disk, folder: string, standard: readonly string[]): Promise<Switches> {
    const file = recordFile<SwitchRecord>(disk, `${folder}/switches.json`, 'ec2-switches');
    return new Switches(file, standard, (await file.load()) ?? { version: 1, servers: {} });
  }

  isOn(server: string): boolean {
    const { servers } = this.record;
    if (Object.hasOwn(servers, server)) return servers[server]!;
    return this.standard.length === 0 || this.standard.includes(server);
  }

  /** Durable once it resolves. */
  async set(server: string, isOn: boolean): Promise<void> {
    const record = { ...this.record, servers: { ...this.record.servers, [server]: isOn } };
    await this.file.save(record);
    this.record = record;
  }
}
