/** The catalog in memory: for the simulator, for tests, and for reading a repository without a service. */

import type { PointState } from '../../model/replication.ts';
import type { PointRecord } from '../points/point-format.ts';
import type { PointFilter } from '../types.ts';
import {
  type Catalog,
  type CatalogCounts,
  type CatalogPoint,
  headsOf,
  type VolumeHead,
} from './catalog.ts';

const compareText = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

/** Order of points: ids begin with the time. */
const comparePoints = (a: PointRecord, b: PointRecord): number => compareText(a.id, b.id);

export class MemoryCatalog implements Catalog {
  private readonly byId = new Map<string, CatalogPoint>();
  private readonly headByVolume = new Map<string, VolumeHead>();

  async open(): Promise<string | null> {
    return null;
  }

  async adopt(): Promise<void> {
    this.byId.clear();
    this.headByVolume.clear();
  }

  async pointNames(): Promise<{ server: string; id: string; state: PointState }[]> {
    return [...this.byId.values()].map(({ record: { server, id }, state }) => ({
      server,
      id,
      state,
    }));
  }

  async putPoint(record: PointRecord, state: PointState): Promise<void> {
    this.byId.set(record.id, { record, state });
    for (const head of headsOf(record)) await this.putHead(head);
  }

  async setSealed(ids: readonly string[]): Promise<void> {
    for (const id of ids) {
      const found = this.byId.get(id);
      if (found !== undefined) this.byId.set(id, { ...found, state: 'sealed' });
    }
  }

  async removePoints(ids: readonly string[]): Promise<void> {
    for (const id of ids) this.byId.delete(id);
  }

  async point(id: string): Promise<CatalogPoint | null> {
    return this.byId.get(id) ?? null;
  }

  async points(filter: PointFilter): Promise<CatalogPoint[]> {
    const direction = filter.order === 'oldest' ? 1 : -1;
    const { after } = filter;
    const found = [...this.byId.values()]
      .filter(({ record }) => filter.server === undefined || record.server === filter.server)
      .filter(({ record }) => record.timeMs >= (filter.fromMs ?? Number.NEGATIVE_INFINITY))
      .filter(({ record }) => record.timeMs <= (filter.toMs ?? Number.POSITIVE_INFINITY))
      .filter(({ record }) => after === undefined || compareText(record.id, after) * direction > 0)
      .sort((a, b) => comparePoints(a.record, b.record) * direction);
    return found.slice(0, filter.limit);
  }

  async heads(): Promise<VolumeHead[]> {
    return [...this.headByVolume.values()].sort(
      (a, b) => compareText(a.server, b.server) || compareText(a.volume, b.volume),
    );
  }

  async putHead(head: VolumeHead): Promise<void> {
    const key = JSON.stringify([head.server, head.volume]);
    const known = this.headByVolume.get(key);
    if (known === undefined || known.sequence < head.sequence) this.headByVolume.set(key, head);
  }

  async counts(): Promise<CatalogCounts> {
    const all = [...this.byId.values()];
    return {
      points: all.length,
      staged: all.filter(({ state }) => state === 'staged').length,
      logicalBytes: all.reduce(
        (sum, { record }) => sum + record.volumes.reduce((bytes, v) => bytes + v.sizeBytes, 0),
        0,
      ),
    };
  }

  async close(): Promise<void> {
    await this.adopt();
  }
}
