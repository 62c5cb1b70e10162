/**
 * The store that is open: what types.ts promises, each call handed to the part that keeps the promise.
 * Opening is open-store.ts's.
 */
import { UnderstudyError } from '../base/errors.ts';
import { isServerId, type ServerId } from '../model/replication.ts';
import type { CatalogPoint, VolumeHead } from './catalog/catalog.ts';
import type { CheckOptions } from './check/check.ts';
import { DamageWatch } from './check/damage-watch.ts';
import { scrubNext } from './check/scrub.ts';
import { copyPoints } from './copy/copy.ts';
import { type Core, serverState } from './core.ts';
import { DirectoryReader, listed } from './images/directory-reader.ts';
import { beginSession } from './ingest/ingest.ts';
import type { Sealer } from './ingest/sealer.ts';
import { estimateFreed } from './retention/freed.ts';
import { holdPoint, releasePoint } from './retention/holds.ts';
import { setPolicy, shownPolicies } from './retention/policies.ts';
import { dropPoints, planByRules } from './retention/retention.ts';
import type {
  CheckReport,
  CopyOptions,
  CopyPlace,
  CopyReport,
  DroppedPoint,
  FreedEstimate,
  HeldCopy,
  Ingest,
  KeepPolicy,
  KeepRule,
  KnownCopy,
  ListedPoint,
  PointHold,
  PolicyWish,
  ScrubbedPack,
  ScrubOptions,
  Store,
  StoreStatistics,
  Usage,
  VersionedPlan,
  VolumeDescription,
} from './types.ts';
import { type Collected, collectGarbage } from './upkeep/collect.ts';
import { confirmLive } from './upkeep/mark.ts';
import { notedContents, retireDamaged } from './upkeep/retire-damaged.ts';
import { statisticsOf } from './upkeep/statistics.ts';
import { Upkeep } from './upkeep/upkeep.ts';
import { usageOf } from './upkeep/usage.ts';

/** A name that is safe as a folder's. */

export class DirectoryStore extends DirectoryReader implements Store {
  private readonly sealer: Sealer;
  private readonly upkeep: Upkeep;
  private readonly damage: DamageWatch;
  private isClosed = false;

  constructor(core: Core, sealer: Sealer) {
    super(core);
    this.sealer = sealer;
    this.upkeep = new Upkeep(core);
    core.onSealed = () => this.upkeep.kick();
    this.damage = new DamageWatch(core, this.upkeep);
  }

  async beginIngest(server: ServerId, volumes: readonly VolumeDescription[]): Promise<Ingest> {
    this.assertOpen();
    if (!isServerId(server)) {
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
      const heads = [...volumes.values()].map(({ head }) => head).filter((head) => head !== null);
      if (heads.length === 0) continue;
      const newest = await this.lastPoint(server, heads);
      heads.sort((a, b) => (a.volume < b.volume ? -1 : 1));
      result.push({
        server,
        volumes: heads.map(({ volume, sizeBytes, sectorBytes, generation, epoch }) => ({
          ...{ volume, sizeBytes, sectorBytes, generation, epoch },
        })),
        newestPoint: newest === null ? null : listed(newest, this.core),
      });
    }
    return result;
  }

  /** The one that was committed last, as the volumes' positions have it; else the newest by time. */
  private async lastPoint(
    server: string,
    heads: readonly VolumeHead[],
  ): Promise<CatalogPoint | null> {
    const { catalog } = this.core;
    const [{ pointId }] = [...heads].sort((a, b) => b.sequence - a.sequence) as [VolumeHead];
    const last = pointId === '' ? null : await catalog.point(pointId);
    return last ?? (await catalog.points({ server, limit: 1 }))[0] ?? null;
  }

  async seal(id: string): Promise<void> {
    await this.find(id);
    if (this.core.staged.has(id)) await this.sealer.sealAll();
  }

  async planRetention(
    rules: readonly KeepRule[],
    nowMs: number,
    asIf?: PolicyWish,
  ): Promise<VersionedPlan> {
    this.assertOpen();
    return planByRules(this.core, rules, nowMs, asIf);
  }

  async estimateFreed(drop: readonly string[]): Promise<FreedEstimate> {
    this.assertOpen();
    return this.upkeep.run(() => estimateFreed(this.core, drop));
  }

  async applyRetention(plan: {
    drop: readonly string[];
    version?: number;
  }): Promise<DroppedPoint[]> {
    this.assertOpen();
    if (plan.drop.some((id) => this.core.staged.has(id))) await this.sealer.sealAll();
    return this.upkeep.run(() => dropPoints(this.core, plan));
  }

  async holdPoint(id: string, reason: string): Promise<ListedPoint> {
    this.assertOpen();
    // An object that names another is written after it.
    if (this.core.staged.has(id)) await this.sealer.sealAll();
    await this.upkeep.run(() => holdPoint(this.core, id, reason));
    return this.point(id);
  }

  async releasePoint(id: string): Promise<ListedPoint | null> {
    this.assertOpen();
    await this.upkeep.run(() => releasePoint(this.core, id));
    const found = await this.core.catalog.point(id);
    return found === null ? null : listed(found, this.core);
  }

  holdOf(id: string): PointHold | null {
    return this.core.legalHolds.get(id) ?? null;
  }

  async refreshKeys(): Promise<string | null> {
    this.assertOpen();
    return (await this.core.vault.keys?.refresh()) ?? null;
  }

  policies(): KeepPolicy[] {
    return shownPolicies(this.core);
  }

  async setPolicy(server: ServerId, keep: string | null): Promise<void> {
    this.assertOpen();
    await this.upkeep.run(() => setPolicy(this.core, server, keep));
  }

  async newestReceivedMs(): Promise<number | null> {
    this.assertOpen();
    const points = await this.core.catalog.points({});
    const times = points.map(({ record }) => record.receivedMs ?? 0);
    const newest = times.reduce((max, time) => Math.max(max, time), 0);
    return newest === 0 ? null : newest;
  }

  async collect(): Promise<Collected> {
    this.assertOpen();
    return this.upkeep.run(async () => {
      const collected = await collectGarbage(this.core);
      await retireDamaged(this.core, await confirmLive(this.core, notedContents(this.core)));
      return collected;
    });
  }

  override async check(options: CheckOptions): Promise<CheckReport> {
    this.assertOpen();
    const report = await this.upkeep.run(() => super.check(options));
    this.core.damage.setHurt(report.findings.flatMap(({ points }) => points));
    // Also where maps are broken, of which nothing is noted; and what was read right after all.
    if (report.findings.some(({ points }) => points.length > 0)) this.damage.kick();
    else await this.core.damage.save();
    return report;
  }

  scrub(options: ScrubOptions): Promise<ScrubbedPack | null> {
    this.assertOpen();
    return scrubNext(this.core, options);
  }

  watchRescans(listener: (server: ServerId) => void): void {
    this.damage.listen(listener);
  }

  watchFailure(listener: (error: UnderstudyError) => void): void {
    this.core.journal.watchFailure((error) => {
      const { cause } = error;
      const isLeaseLost = cause instanceof UnderstudyError && cause.code === 'ERR_LEASE_LOST';
      listener(isLeaseLost ? cause : error);
    });
  }

  copies(): KnownCopy[] {
    return this.core.copyNotes.all();
  }

  copiesOf(point: string): readonly HeldCopy[] {
    return this.core.copyNotes.holding(point);
  }

  async copy(place: CopyPlace, options: CopyOptions): Promise<CopyReport> {
    this.assertOpen();
    return copyPoints(this.core, place, options);
  }

  async statistics(): Promise<StoreStatistics> {
    this.assertOpen();
    return statisticsOf(this.core, (await this.servers()).length);
  }

  async usage(by: 'server' | 'point'): Promise<Usage> {
    this.assertOpen();
    return this.upkeep.run(() => usageOf(this.core, by));
  }

  async close(): Promise<void> {
    if (this.isClosed) return;
    this.isClosed = true;
    this.core.pace.end();
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
