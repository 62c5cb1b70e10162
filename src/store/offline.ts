/**
 * A repository read from its directory alone (P7): no service, no catalog, nothing is changed. Takes a
 * data directory or its `repo`; where the journal is there too, staged points are readable as well. A
 * damaged journal hides only what was not sealed yet.
 */
import { resolve } from 'node:path';
import { systemClock } from '../base/clock.ts';
import type { Disk } from '../base/disk.ts';
import { UnderstudyError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { nodeDisk } from '../base/node-disk.ts';
import type { VolumeId } from '../model/replication.ts';
import { MemoryCatalog } from './catalog-memory.ts';
import type { CheckOptions } from './check.ts';
import type { Core } from './core.ts';
import { createCore, loadHeads, loadRuns } from './create-core.ts';
import { DirectoryReader } from './directory-reader.ts';
import { Replay } from './replay.ts';
import * as repository from './repository.ts';
import { statisticsOf } from './statistics.ts';
import type {
  CheckReport,
  Finding,
  ImageReader,
  ListedPoint,
  PointFilter,
  StoreStatistics,
} from './types.ts';
import { Watermark } from './watermark.ts';

export interface OfflineRepository {
  points(filter: PointFilter): Promise<ListedPoint[]>;
  /** ERR_POINT_NOT_FOUND. */
  point(id: string): Promise<ListedPoint>;
  /** ERR_POINT_NOT_FOUND, ERR_VOLUME_NOT_FOUND. */
  openImage(pointId: string, volume: VolumeId): Promise<ImageReader>;
  check(options: CheckOptions): Promise<CheckReport>;
  statistics(): Promise<StoreStatistics>;
  close(): Promise<void>;
}

/** `directory`: a data directory or its repo. ERR_DATA_FORMAT where it is neither. */
export async function openRepository(
  directory: string,
  log: Log,
  disk: Disk = nodeDisk,
): Promise<OfflineRepository> {
  const given = resolve(directory);
  const isData = await disk.exists(`${given}/repo/format.json`);
  const root = isData ? given : resolve(given, '..');
  const core = createCore({
    ...{ disk, log, root, clock: systemClock, catalog: new MemoryCatalog() },
    randomBytes: (count) => new Uint8Array(count),
    settings: { commitMemoryBytes: Number.POSITIVE_INFINITY },
    repo: isData ? `${given}/repo` : given,
    isReadOnly: true,
  });
  if ((await repository.readFormat(disk, core.paths)) === null) {
    const message = `${given}: neither a data directory nor a repository`;
    throw new UnderstudyError('ERR_DATA_FORMAT', message, { path: given });
  }
  await repository.loadPacks(core);
  await repository.matchPoints(core);
  await loadHeads(core);
  const damage = isData ? await readJournal(core) : [];
  return new Offline(core, damage);
}

/** Staged points; what kept them from being read is returned as findings. */
async function readJournal(core: Core): Promise<Finding[]> {
  let watermark: Watermark | null = null;
  try {
    watermark = await Watermark.open(core.disk, core.paths.watermark, 'read');
    if (watermark === null) return [];
    const shelf = await loadRuns(core);
    const { segments } = await new Replay(core, watermark, shelf).run();
    for (const { file } of segments) await file.close();
    return [];
  } catch (error) {
    if (!(error instanceof UnderstudyError)) throw error;
    core.log.warn('the journal cannot be read; staged points are left out', {
      error: error.message,
    });
    const object = String(error.context.path ?? core.paths.journal);
    return [{ kind: 'damaged-object', object, detail: error.message, points: [] }];
  } finally {
    await watermark?.close();
  }
}

class Offline extends DirectoryReader implements OfflineRepository {
  private readonly damage: readonly Finding[];

  constructor(core: Core, damage: readonly Finding[]) {
    super(core);
    this.damage = damage;
  }

  override async check(options: CheckOptions): Promise<CheckReport> {
    const report = await super.check(options);
    return { ...report, findings: [...this.damage, ...report.findings] };
  }

  statistics(): Promise<StoreStatistics> {
    return statisticsOf(this.core, this.core.servers.size);
  }

  async close(): Promise<void> {
    await this.core.files.close();
  }
}
