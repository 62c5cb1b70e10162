/**
 * The store that is open: what types.ts promises, each call handed to the part that keeps the promise.
 * Opening is open-store.ts's.
 */
import { UnderstudyError } from '../base/errors.ts';
import type { ServerId } from '../model/replication.ts';
import type { CheckOptions } from './check.ts';
import { collectGarbage } from './collect.ts';
import { type Core, serverState } from './core.ts';
import { DirectoryReader, listed } from './directory-reader.ts';
import { beginSession } from './ingest.ts';
import { dropPoints, planByRules } from './retention.ts';
import type { Sealer } from './sealer.ts';
import { statisticsOf } from './statistics.ts';
import type {
  CheckReport,
  Ingest,
  KeepRule,
  Store,
  StoreStatistics,
  VolumeDescription,
} from './types.ts';
import { Upkeep } from './upkeep.ts';

/** A name that is safe as a folder's. */
const SERVER_NAME = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;

export class DirectoryStore extends DirectoryReader implements Store {
  private readonly sealer: Sealer;
  private readonly upkeep: Upkeep;
  private isClosed = false;

  constructor(core: Core, sealer: Sealer) {
    super(core);
    this.sealer = sealer;
    this.upkeep = new Upkeep(core);
    core.onSealed = () => this.upkeep.kick();
  }

  async beginIngest(server: ServerId, volumes: readonly VolumeDescription[]): Promise<Ingest> {
    this.assertOpen();
    if (!SERVER_NAME.test(server)) {
      throw new UnderstudyError('ERR_INGEST_DESCRIPTION', `"${server}" cannot name a server`);
    }
    const state = serverState(this.core, server);
    return beginSession(this.core, state, volumes);
  }

  async servers() {
    this.assertOpen();
    const servers = [...this.core.servers.values()];
    servers.sort((a, b) => (a.server < b.server ? -1 : 1));
    const result = [];
    for (const { server, volumes } of servers) {
      const [newest] = await this.core.catalog.points({ server, limit: 1 });
      const heads = [...volumes.values()].map(({ head }) => head).filter((head) => head !== null);
      if (heads.length === 0) continue;
      heads.sort((a, b) => (a.volume < b.volume ? -1 : 1));
      result.push({
        server,
        volumes: heads.map(({ volume, sizeBytes, sectorBytes, generation, epoch }) => ({
          ...{ volume, sizeBytes, sectorBytes, generation, epoch },
        })),
        newestPoint: newest === undefined ? null : listed(newest),
      });
    }
    return result;
  }

  async seal(id: string): Promise<void> {
    await this.find(id);
    if (this.core.staged.has(id)) await this.sealer.sealAll();
  }

  async planRetention(
    rules: readonly KeepRule[],
    nowMs: number,
  ): Promise<{ keep: string[]; drop: string[] }> {
    this.assertOpen();
    return planByRules(this.core, rules, nowMs);
  }

  async applyRetention({ drop }: { drop: readonly string[] }): Promise<void> {
    this.assertOpen();
    if (drop.some((id) => this.core.staged.has(id))) await this.sealer.sealAll();
    await this.upkeep.run(() => dropPoints(this.core, drop));
  }

  async collect(): Promise<{ removedObjects: number; freedBytes: number }> {
    this.assertOpen();
    return this.upkeep.run(() => collectGarbage(this.core));
  }

  override async check(options: CheckOptions): Promise<CheckReport> {
    this.assertOpen();
    return this.upkeep.run(() => super.check(options));
  }

  async statistics(): Promise<StoreStatistics> {
    this.assertOpen();
    return statisticsOf(this.core, (await this.servers()).length);
  }

  async close(): Promise<void> {
    if (this.isClosed) return;
    this.isClosed = true;
    try {
      await this.sealer.sealAll();
    } finally {
      await this.sealer.close();
      await this.upkeep.close();
      await this.core.journal.close();
      await this.core.lease?.release();
      await this.core.files.close();
      await this.core.catalog.close();
    }
  }

  protected override assertOpen(): void {
    if (this.isClosed) throw new UnderstudyError('ERR_STORE_CLOSED', 'the store is closed');
  }
}
