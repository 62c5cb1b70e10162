/**
 * Which servers have a rolling chain: those that staging was started with, and what an operator has switched
 * since, which stays over restarts. DATA/ec2/switches.json.
 */
import type { Disk } from '../../base/disk.ts';
import { UnderstudyError } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { type RecordFile, recordFile } from '../../recovery/ec2/record-file.ts';

interface SwitchRecord {
  readonly version: 1;
  readonly servers: Readonly<Record<string, boolean>>;
}

const none: SwitchRecord = { version: 1, servers: {} };

export class Switches {
  private readonly file: RecordFile<SwitchRecord>;
  private readonly standard: readonly string[];
  private record: SwitchRecord;
  /** What was switched off is not known any more: nothing is on that costs money. */
  private readonly isLost: boolean;

  private constructor(
    file: RecordFile<SwitchRecord>,
    standard: readonly string[],
    record: SwitchRecord | null,
  ) {
    this.file = file;
    this.standard = standard;
    this.record = record ?? none;
    this.isLost = record === null;
  }

  /** `standard`: on unless switched off; empty: all are. ERR_DISK_*. */
  static async open(
    { disk, log }: { readonly disk: Disk; readonly log: Log },
    folder: string,
    standard: readonly string[],
  ): Promise<Switches> {
    const file = recordFile<SwitchRecord>(disk, `${folder}/switches.json`, 'ec2-switches');
    try {
      return new Switches(file, standard, (await file.load()) ?? none);
    } catch (error) {
      if (!(error instanceof UnderstudyError) || error.code !== 'ERR_EC2_RECORD') throw error;
      const message = `${error.message}: no snapshots are kept ready until they are switched on again`;
      log.error(message, { code: error.code });
      return new Switches(file, standard, null);
    }
  }

  isOn(server: string): boolean {
    const { servers } = this.record;
    if (Object.hasOwn(servers, server)) return servers[server]!;
    if (this.isLost) return false;
    return this.standard.length === 0 || this.standard.includes(server);
  }

  /** Durable once it resolves. */
  async set(server: string, isOn: boolean): Promise<void> {
    const record = { ...this.record, servers: { ...this.record.servers, [server]: isOn } };
    await this.file.save(record);
    this.record = record;
  }
}
