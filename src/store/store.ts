/**
 * The store: opens a data directory, brings the journal back, and offers what types.ts promises. This
 * file only puts the parts together; each promise is kept in the part that it belongs to. The world
 * (disk, clock, chance, catalog) is injected: node-store.ts gives the real one, the simulator its own.
 */
import type { Clock } from '../base/clock.ts';
import type { Disk } from '../base/disk.ts';
import { UnderstudyError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { ServerId, VolumeId } from '../model/replication.ts';
import type { Catalog, CatalogPoint } from './catalog.ts';
import { openChain } from './chain.ts';
import { toHex } from './checksum.ts';
import {
  type Core,
  defaultSettings,
  type StoreSettings,
  serverState,
  volumeState,
} from './core.ts';
import { FileCache } from './file-cache.ts';
import { ChainImage } from './image.ts';
import { beginSession } from './ingest.ts';
import { Journal } from './journal.ts';
import { ownerTag, type Paths, paths as pathsOf } from './layout.ts';
import { LeafFile } from './leaf-file.ts';
import { PackTable } from './pack-table.ts';
import { PieceIndex } from './piece-index.ts';
import { PieceReader } from './piece-reader.ts';
import { shownPoint } from './point-format.ts';
import { Replay, RunShelf } from './replay.ts';
import * as repository from './repository.ts';
import { Sealer } from './sealer.ts';
import { Segment } from './segment.ts';
import type {
  ImageReader,
  Ingest,
  ListedPoint,
  PointFilter,
  Store,
  VolumeDescription,
} from './types.ts';
import { Watermark } from './watermark.ts';

export interface StoreOptions {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly randomBytes: (count: number) => Uint8Array;
  /** The data directory. */
  readonly root: string;
  readonly catalog: Catalog;
  readonly log: Log;
  readonly settings?: Partial<StoreSettings>;
}

/** A name that is safe as a folder's. */
const SERVER_NAME = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;

const listed = ({ record, state }: CatalogPoint): ListedPoint => ({ ...shownPoint(record), state });

/** Opens or makes the data directory. ERR_DATA_IN_USE, ERR_DATA_FORMAT, ERR_JOURNAL_DAMAGED. */
export async function openStore(options: StoreOptions): Promise<Store> {
  const { catalog } = options;
  const known = await catalog.open();
  try {
    return await openLocked(options, known);
  } catch (error) {
    await catalog.close();
    throw error;
  }
}

async function openLocked(options: StoreOptions, known: string | null): Promise<Store> {
  const { disk, log } = options;
  const paths = pathsOf(options.root);
  const core = createCore(options, paths);
  const format = await repository.readFormat(disk, paths);
  const watermark = await openWatermark(disk, paths, format !== null);
  try {
    await repository.makeFolders(disk, paths);
    await repository.clearTemporaries(disk, paths);
    const id = format ?? (await repository.createFormat(core));
    for (const pack of await repository.listPacks(core)) await repository.loadPack(core, pack);
    if (known !== id) {
      if (format !== null) log.warn('the catalog is rebuilt from the repository');
      await core.catalog.adopt(id);
    }
    await repository.matchPoints(core);
    if (known !== id) await repository.findHeads(core);
    await loadHeads(core);
    return await replay(core, watermark);
  } catch (error) {
    await watermark.close();
    throw error;
  }
}

function createCore(options: StoreOptions, paths: Paths): Core {
  const { disk, clock, log, randomBytes, catalog } = options;
  const files = new FileCache(disk);
  const packs = new PackTable();
  const salt = new DataView(randomBytes(4).slice().buffer).getInt32(0);
  return {
    ...{ disk, clock, log, randomBytes, paths, catalog, files, packs },
    settings: { ...defaultSettings, ...options.settings },
    index: new PieceIndex(packs, salt),
    reader: new PieceReader(files, packs),
    servers: new Map(),
    staged: new Map(),
    journal: undefined as unknown as Journal,
    nextSequence: 1,
    onStaged: () => undefined,
    nextFile: 0,
    dedupeHits: 0,
  };
}

/** A repository without its journal's watermark has lost what was acknowledged: refuse. */
async function openWatermark(disk: Disk, paths: Paths, hasRepository: boolean): Promise<Watermark> {
  const watermark = await Watermark.open(disk, paths.watermark);
  if (watermark !== null) return watermark;
  if (hasRepository) {
    const context = { path: paths.watermark };
    throw new UnderstudyError('ERR_JOURNAL_DAMAGED', `${paths.watermark}: it is missing`, context);
  }
  await repository.makeFolders(disk, paths);
  return Watermark.create(disk, paths.watermark, paths.journal);
}

async function loadHeads(core: Core): Promise<void> {
  for (const head of await core.catalog.heads()) {
    const server = serverState(core, head.server, ownerTag(head.server));
    volumeState(server, head.volume).head = head;
    core.nextSequence = Math.max(core.nextSequence, head.sequence + 1);
  }
}

async function loadRuns(core: Core): Promise<RunShelf> {
  const shelf = new RunShelf();
  for (const { name } of await core.disk.list(core.paths.open)) {
    const run = await LeafFile.open(core.files, `${core.paths.open}/${name}`, 'US-RUN  ');
    shelf.add(run);
    core.nextFile = Math.max(core.nextFile, Number.parseInt(name, 10));
  }
  return shelf;
}

async function replay(core: Core, watermark: Watermark): Promise<Store> {
  const { disk, clock, randomBytes, paths, packs, index, settings } = core;
  const shelf = await loadRuns(core);
  const { segments, nextSequence } = await new Replay(core, watermark, shelf).run();
  await checkStaged(core);
  for (const run of shelf.rest()) await disk.remove(run.path);
  const sealer = new Sealer(core);
  core.journal = new Journal({
    ...{ disk, paths, watermark, nextSequence, segmentBytes: settings.segmentBytes },
    createSegment: async (sequence) => {
      const id = toHex(randomBytes(16));
      const path = paths.segment(sequence);
      const sums = { fileBytes: 0, pieces: 0, rawBytes: 0, storedBytes: 0 };
      const { number: pack } = packs.add({ id, path, isPublished: false, ...sums });
      const given = { sequence, id, path, createdMs: clock.wallMs() };
      return Segment.create(disk, paths.journal, given, index.addSegment(pack), pack);
    },
    onEnded: (segment) => sealer.add(segment),
    onFailed: (error) => {
      core.log.error('the store has failed', { error: error.message });
      sealer.fail(error);
    },
  });
  for (const segment of segments) sealer.add(segment);
  return new DirectoryStore(core, sealer);
}

/** The catalog never knows a staged point before the journal does: one without the other was lost. */
async function checkStaged(core: Core): Promise<void> {
  for (const { id, state } of await core.catalog.pointNames()) {
    if (state === 'sealed' || core.staged.has(id)) continue;
    const message = `point ${id} was acknowledged, and the journal does not have it`;
    throw new UnderstudyError('ERR_JOURNAL_DAMAGED', message, { path: core.paths.journal });
  }
}

class DirectoryStore implements Store {
  private readonly core: Core;
  private readonly sealer: Sealer;
  private isClosed = false;

  constructor(core: Core, sealer: Sealer) {
    this.core = core;
    this.sealer = sealer;
  }

  async beginIngest(server: ServerId, volumes: readonly VolumeDescription[]): Promise<Ingest> {
    this.assertOpen();
    if (!SERVER_NAME.test(server)) {
      throw new UnderstudyError('ERR_INGEST_DESCRIPTION', `"${server}" cannot name a server`);
    }
    const state = serverState(this.core, server, ownerTag(server));
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

  async points(filter: PointFilter): Promise<ListedPoint[]> {
    this.assertOpen();
    return (await this.core.catalog.points(filter)).map(listed);
  }

  async point(id: string): Promise<ListedPoint> {
    return listed(await this.find(id));
  }

  async seal(id: string): Promise<void> {
    await this.find(id);
    if (this.core.staged.has(id)) await this.sealer.sealAll();
  }

  async openImage(pointId: string, volume: VolumeId): Promise<ImageReader> {
    const { record } = await this.find(pointId);
    const found = record.volumes.find((candidate) => candidate.volume === volume);
    if (found === undefined) {
      const message = `point ${pointId} has no volume ${volume}`;
      throw new UnderstudyError('ERR_VOLUME_NOT_FOUND', message, { volume });
    }
    const { server } = record;
    const staged = this.core.servers.get(server)?.volumes.get(volume)?.staged ?? [];
    const place = { server, volume, generation: found.generation };
    const chain = await openChain(this.core, place, found.epoch, staged);
    if (chain.root !== found.chainRoot) {
      const message = `point ${pointId}: its maps lead to another root`;
      throw new UnderstudyError('ERR_OBJECT_DAMAGED', message, { volume, epoch: found.epoch });
    }
    return new ChainImage(this.core, chain, { point: pointId, volume });
  }

  async planRetention(): Promise<{ keep: string[]; drop: string[] }> {
    throw new UnderstudyError('ERR_BUG', 'not there yet');
  }

  async applyRetention(): Promise<void> {
    throw new UnderstudyError('ERR_BUG', 'not there yet');
  }

  async collect(): Promise<{ removedObjects: number; freedBytes: number }> {
    throw new UnderstudyError('ERR_BUG', 'not there yet');
  }

  async check(): ReturnType<Store['check']> {
    throw new UnderstudyError('ERR_BUG', 'not there yet');
  }

  async statistics(): ReturnType<Store['statistics']> {
    throw new UnderstudyError('ERR_BUG', 'not there yet');
  }

  async close(): Promise<void> {
    if (this.isClosed) return;
    this.isClosed = true;
    try {
      await this.sealer.sealAll();
    } finally {
      this.sealer.close();
      await this.core.journal.close();
      await this.core.files.close();
      await this.core.catalog.close();
    }
  }

  private async find(id: string): Promise<CatalogPoint> {
    this.assertOpen();
    const found = await this.core.catalog.point(id);
    if (found !== null) return found;
    throw new UnderstudyError('ERR_POINT_NOT_FOUND', `no point ${id}`, {});
  }

  private assertOpen(): void {
    if (this.isClosed) throw new UnderstudyError('ERR_STORE_CLOSED', 'the store is closed');
  }
}
