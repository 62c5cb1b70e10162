/**
 * Which machine holds which server's name, and which other machine was refused it: DATA/servers, kept
 * over restarts so that a clone cannot slip in while staging was down. Small, and rewritten whole when it
 * changes (write, sync, rename, sync of the folder).
 *
 *   line 1  "understudy-servers 1 <length of the rest> <SHA-256 of the rest, hex>"
 *   rest    JSON: [{server, hardwareId, pendingHardwareId, ...}], as
 *           `Holder` of lineage-state.ts; it only grows
 */
import { hash } from 'node:crypto';
import type { Disk } from '../base/disk.ts';
import { UnderstudyError } from '../base/errors.ts';
import { replaceFile } from '../base/replace-file.ts';
import type { ServerId } from '../model/replication.ts';
import type { Holder } from './lineage-state.ts';

const NAME = 'servers';
const MAGIC = 'understudy-servers 1';

function encode(holders: readonly Holder[]): Uint8Array {
  const body = Buffer.from(JSON.stringify(holders, null, 1));
  const head = `${MAGIC} ${body.length} ${hash('sha256', body)}\n`;
  return Buffer.concat([Buffer.from(head), body]);
}

function decode(bytes: Uint8Array, path: string): Holder[] {
  const all = Buffer.from(bytes);
  const end = all.indexOf(0x0a);
  const body = all.subarray(end + 1);
  const head = all.toString('latin1', 0, Math.max(0, end));
  if (head !== `${MAGIC} ${body.length} ${hash('sha256', body)}`) {
    const message = `${path} is damaged, or of another version`;
    throw new UnderstudyError('ERR_REGISTER_DAMAGED', message, { path });
  }
  return JSON.parse(body.toString('utf8')) as Holder[];
}

export class Register {
  private readonly disk: Disk;
  private readonly folder: string;
  private readonly holders: Map<ServerId, Holder>;
  private writing: Promise<void> = Promise.resolve();

  private constructor(disk: Disk, folder: string, holders: readonly Holder[]) {
    this.disk = disk;
    this.folder = folder;
    this.holders = new Map(holders.map((holder) => [holder.server, holder]));
  }

  /** Of a data directory. ERR_REGISTER_DAMAGED, ERR_DISK_*. */
  static async open(disk: Disk, folder: string): Promise<Register> {
    const path = `${folder}/${NAME}`;
    if (!(await disk.exists(path))) return new Register(disk, folder, []);
    return new Register(disk, folder, decode(await disk.readFile(path), path));
  }

  get(server: ServerId): Holder | undefined {
    return this.holders.get(server);
  }
  all(): Holder[] {
    return [...this.holders.values()];
  }

  /** Durable, and known, once it resolves. */
  set(holder: Holder): Promise<void> {
    return this.queued(() => this.put(holder));
  }

  /**
   * One step of what is known of a server: `step` sees what all steps before it have left, and may throw.
   * Durable, and known, once it resolves; nothing is written where nothing changes. ERR_SERVER_NOT_FOUND.
   */
  update(server: ServerId, step: (known: Holder) => Holder): Promise<Holder> {
    return this.change(server, (known) => {
      if (known !== undefined) return step(known);
      const message = `no machine has the name "${server}" yet`;
      throw new UnderstudyError('ERR_SERVER_NOT_FOUND', message);
    });
  }

  /** Likewise, also where nothing is known yet. */
  async change(server: ServerId, step: (known: Holder | undefined) => Holder): Promise<Holder> {
    let next: Holder | undefined;
    await this.queued(async () => {
      const known = this.holders.get(server);
      next = step(known);
      if (next !== known) await this.put(next);
    });
    return next!;
  }

  private queued(write: () => Promise<void>): Promise<void> {
    const written = this.writing.then(write);
    this.writing = written.catch(() => undefined);
    return written;
  }

  private async put(holder: Holder): Promise<void> {
    const next = new Map(this.holders).set(holder.server, holder);
    await this.write([...next.values()]);
    this.holders.set(holder.server, holder);
  }

  private async write(holders: readonly Holder[]): Promise<void> {
    const { disk, folder } = this;
    const path = `${folder}/${NAME}`;
    const bytes = encode(holders);
    await replaceFile(disk, path, [bytes]);
  }
}
