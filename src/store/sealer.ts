/**
 * Turns ended journal segments into packs, deltas and points, one after the other, in the background:
 * staged points become sealed. Every step is durable before the next, and every step may be done again
 * after a restart. FORMAT.md, "Order of durable steps":
 *
 *   1 footer  2 link into packs/  3 open epochs said again or in runs  4 deltas of epochs that need the
 *   segment  5 points
 *   6 watermark moves past the segment  7 the segment's name in the journal goes
 *
 * A full disk stops it until there is room; any other error fails the store.
 */
import { sleep, type Timer } from '../base/clock.ts';
import { UnderstudyError } from '../base/errors.ts';
import { headsOf, type VolumeHead } from './catalog.ts';
import { listMaps } from './chain.ts';
import { type Core, type StagedMap, type StagedPoint, temporaryPath } from './core.ts';
import type { MapPlace } from './layout.ts';
import { writeDeltaFile } from './map-builder.ts';
import { makeFolder, publish, writeObject } from './object-file.ts';
import { encodeFooter, sumOf } from './pack-format.ts';
import { encodePointObject } from './point-format.ts';
import type { Segment } from './segment.ts';
import { carryOver } from './spill.ts';

interface Waiter {
  readonly sequence: number;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export class Sealer {
  private readonly core: Core;
  private readonly queue: Segment[] = [];
  private waiters: Waiter[] = [];
  private isRunning = false;
  private isClosed = false;
  private timer: Timer | null = null;
  private sealedUpTo = 0;

  constructor(core: Core) {
    this.core = core;
    core.onStaged = () => this.arm();
  }

  /** A segment was ended; it will be sealed in its turn. */
  add(segment: Segment): void {
    this.queue.push(segment);
    this.kick();
  }

  /** Ends the active segment and resolves once everything up to it is sealed. ERR_DISK_FULL. */
  async sealAll(): Promise<void> {
    const { journal } = this.core;
    await journal.end();
    await this.sealed(journal.activeSequence - 1);
  }

  /** Resolves once segments up to `sequence` are sealed; rejects where a try fails. */
  private sealed(sequence: number): Promise<void> {
    const last = this.queue.at(-1)?.sequence ?? this.sealedUpTo;
    if (this.queue.length === 0 || sequence <= this.sealedUpTo || last <= this.sealedUpTo) {
      return Promise.resolve();
    }
    return new Promise((resolve, reject) => {
      this.waiters.push({ sequence: Math.min(sequence, last), resolve, reject });
    });
  }

  /** What is not sealed by now stays in the journal. */
  async close(): Promise<void> {
    this.isClosed = true;
    this.timer?.cancel();
    if (!this.isRunning) for (const { file } of this.queue.splice(0)) await file.close();
  }

  /** The journal failed: nobody needs to wait any longer. */
  fail(error: UnderstudyError): void {
    this.timer?.cancel();
    for (const { reject } of this.waiters.splice(0)) reject(error);
  }

  /** A point was staged: it is sealed at the latest when the time is over. */
  private arm(): void {
    if (this.timer !== null || this.isClosed) return;
    this.timer = this.core.clock.after(this.core.settings.sealAfterMs, () => {
      this.timer = null;
      this.core.journal.end().catch((error: unknown) => this.onEndFailed(error));
    });
  }

  private onEndFailed(error: unknown): void {
    this.core.log.warn('the journal could not be sealed yet', { error: String(error) });
    if (error instanceof UnderstudyError && error.code === 'ERR_DISK_FULL') this.arm();
  }

  private kick(): void {
    if (this.isRunning) return;
    this.isRunning = true;
    this.run()
      .catch((error: unknown) => this.core.journal.fail(error))
      .finally(() => {
        this.isRunning = false;
      });
  }

  private async run(): Promise<void> {
    while (this.queue.length > 0) {
      const segment = this.queue[0]!;
      try {
        await sealSegment(this.core, segment);
      } catch (error) {
        if (!(error instanceof UnderstudyError) || error.code !== 'ERR_DISK_FULL') throw error;
        this.core.log.warn('sealing waits for space on the disk', { error: error.message });
        for (const { reject } of this.waiters.splice(0)) reject(error);
        if (this.isClosed) return;
        await sleep(this.core.clock, this.core.settings.retryMs);
        continue;
      }
      this.core.onSealed();
      this.queue.shift();
      this.sealedUpTo = segment.sequence;
      const done = this.waiters.filter(({ sequence }) => sequence <= segment.sequence);
      this.waiters = this.waiters.filter((waiter) => !done.includes(waiter));
      for (const { resolve } of done) resolve();
    }
  }
}

/** All steps for one segment. Safe to be done again, from the beginning, after any of them. */
export async function sealSegment(core: Core, segment: Segment): Promise<void> {
  await publishPack(core, segment);
  await carryOver(core, segment.sequence);
  await core.journal.durable();
  const points = [...core.staged.values()].filter((point) => point.segment <= segment.sequence);
  for (const map of mapsIn(core, segment.sequence, points)) await writeMap(core, map);
  for (const { record } of points) {
    const path = core.paths.point(record.server, record.id);
    await writeObject(core.disk, temporaryPath(core), path, [encodePointObject(record)]);
  }
  await core.catalog.setSealed(points.map(({ record }) => record.id));
  await core.journal.advance(segment.sequence + 1);
  await core.disk.remove(segment.path);
  await core.disk.syncDirectory(core.paths.journal);
  await segment.file.close();
  core.index.publishSegment(segment.pack);
  for (const { record } of points) {
    core.staged.delete(record.id);
    for (const head of headsOf(record)) await sealed(core, head);
  }
}

async function publishPack(core: Core, segment: Segment): Promise<void> {
  const { disk, paths } = core;
  if (segment.table.count === 0) {
    core.packs.remove(segment.pack);
    return;
  }
  const footer = segment.table.sorted();
  const buffers = encodeFooter(footer, segment.size);
  const bytes = buffers.reduce((sum, buffer) => sum + buffer.length, segment.size);
  try {
    await segment.file.write(buffers, segment.size);
  } catch (error) {
    await segment.file.truncate(segment.size);
    throw error;
  }
  await segment.file.sync();
  const path = paths.pack(segment.id);
  await makeFolder(disk, paths.packFolder(segment.id));
  if (!(await disk.exists(path))) await disk.link(segment.path, path);
  await disk.syncDirectory(paths.packFolder(segment.id));
  const sums = sumOf(segment.table.entries());
  core.packs.update(segment.pack, { path, isPublished: true, fileBytes: bytes, ...sums });
}

/**
 * Staged maps that need the segment: of its points, and of epochs that began in it and were committed
 * later, whose entries would be lost with it. Oldest first for each volume.
 */
function mapsIn(core: Core, sequence: number, points: readonly StagedPoint[]): StagedMap[] {
  const volumes = [...core.servers.values()].flatMap((server) => [...server.volumes.values()]);
  const commits = new Set(points.map(({ record }) => record.sequence));
  return volumes
    .flatMap(({ staged }) => staged)
    .filter(({ info, oldestSegment }) => oldestSegment <= sequence || commits.has(info.sequence));
}

async function writeMap(core: Core, map: StagedMap): Promise<void> {
  const { from, to } = map.info;
  if (await isCovered(core, map.info, to)) return;
  const path = core.paths.delta(map.info, from, to);
  if (map.file !== null) {
    await publish(core.disk, map.file.path, path);
    map.file.relocate(path);
    return;
  }
  const temporary = temporaryPath(core);
  await writeDeltaFile(core, map, temporary);
  await publish(core.disk, temporary, path);
}

/** True where the repository's maps lead to the epoch, in whatever shape. */
export async function isCovered(core: Core, place: MapPlace, epoch: number): Promise<boolean> {
  const { bases, deltas } = await listMaps(core, place);
  return bases.some((base) => base >= epoch) || deltas.some((d) => d.from < epoch && d.to >= epoch);
}

/** The repository has the maps up to `head`: what memory and runs held of them may go. */
async function sealed(core: Core, head: VolumeHead): Promise<void> {
  const state = core.servers.get(head.server)?.volumes.get(head.volume);
  if (state === undefined) return;
  state.sealed = head;
  const isDone = ({ info }: StagedMap) => info.sequence <= head.sequence;
  const done = state.staged.filter(isDone);
  state.staged = state.staged.filter((map) => !isDone(map));
  for (const run of done.flatMap(({ runs }) => runs)) await core.disk.remove(run.path);
}
