/**
 * Turns ended journal segments into packs, deltas and points, one after the other, in the background:
 * staged points become sealed. Every step is durable before the next, and every step may be done again,
 * from the first on, in this life or after a restart. FORMAT.md, "Order of durable steps":
 *
 *   1 footer  2 link into packs/  3 epochs that end later said again or in runs  4 deltas of the commits
 *   in the segment  5 points  6 watermark moves past the segment  7 the segment's name in the journal goes
 *
 * That something has its name is no reason to go on: the folder is synced in any case, for whoever gave
 * the name may have failed before. What is published is not written again.
 *
 * A full disk stops it until there is room, and an object store that is away until it is back (passing.ts);
 * any other error fails the store.
 */
import { dirname } from 'node:path';
import type { Timer } from '../../base/clock.ts';
import type { UnderstudyError } from '../../base/errors.ts';
import { headsOf, type VolumeHead } from '../catalog/catalog.ts';
import { type Core, type StagedMap, type StagedPoint, temporaryPath } from '../core.ts';
import type { MapPlace } from '../format/layout.ts';
import { discard, makeFolder, publish, together } from '../format/object-file.ts';
import { isDamage } from '../format/object-header.ts';
import { listMaps } from '../maps/chain.ts';
import { writeDeltaFile } from '../maps/map-builder.ts';
import { TABLE_ENTRY_BYTES } from '../packs/digest-table.ts';
import { readPack } from '../packs/pack-entries.ts';
import { encodeFooter, sumOf } from '../packs/pack-format.ts';
import type { Segment } from '../packs/segment.ts';
import { isPassing, needsHelp } from '../passing.ts';
import { readHead } from '../repository/repository.ts';
import { writePoint } from '../repository/write-point.ts';
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
  private running: Promise<void> = Promise.resolve();
  private isClosed = false;
  private timer: Timer | null = null;
  /** Ends the wait for space on the disk. */
  private wake: () => void = () => undefined;
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

  /** Ends the active segment and resolves once everything up to it is sealed. Errors that may pass. */
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
      this.wake(); // a try may have failed already, before there was anybody to tell
    });
  }

  /** What is not sealed by now stays in the journal. Nothing is written any more once it resolves. */
  async close(): Promise<void> {
    this.isClosed = true;
    this.timer?.cancel();
    this.wake();
    await this.running;
    for (const { file } of this.queue.splice(0)) await file.close();
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
    if (isPassing(error)) this.arm();
  }

  private kick(): void {
    if (this.isRunning || this.isClosed) return;
    this.isRunning = true;
    this.running = this.run().catch((error: unknown) => {
      this.core.journal.fail(error);
    });
  }

  private async run(): Promise<void> {
    try {
      while (this.queue.length > 0 && !this.isClosed) await this.sealNext(this.queue[0]!);
    } finally {
      this.isRunning = false;
    }
  }

  private async sealNext(segment: Segment): Promise<void> {
    try {
      await sealSegment(this.core, segment);
    } catch (error) {
      if (!isPassing(error)) throw error;
      const level = needsHelp(error) ? 'error' : 'warn';
      this.core.log[level]('sealing waits', { code: error.code, error: error.message });
      const { code, message } = error;
      const sinceMs = this.core.sealingWaits?.sinceMs ?? this.core.clock.wallMs();
      this.core.sealingWaits = { code, message, sinceMs };
      for (const { reject } of this.waiters.splice(0)) reject(error);
      if (!this.isClosed) await this.pause();
      return;
    }
    if (this.core.sealingWaits !== null) this.core.log.info('sealing goes on');
    this.core.sealingWaits = null;
    this.core.onSealed();
    this.queue.shift();
    this.sealedUpTo = segment.sequence;
    const done = this.waiters.filter(({ sequence }) => sequence <= segment.sequence);
    this.waiters = this.waiters.filter((waiter) => !done.includes(waiter));
    for (const { resolve } of done) resolve();
  }

  private pause(): Promise<void> {
    return new Promise((resolve) => {
      const timer = this.core.clock.after(this.core.settings.retryMs, resolve);
      this.wake = () => {
        timer.cancel();
        resolve();
      };
    });
  }
}

/** All steps for one segment. Safe to be done again, from the beginning, after any of them. */
async function sealSegment(core: Core, segment: Segment): Promise<void> {
  await publishPack(core, segment);
  await carryOver(core, segment.sequence);
  await core.journal.durable();
  const points = [...core.staged.values()].filter((point) => point.segment <= segment.sequence);
  const moved: (() => void)[] = [];
  await together(core.disk, async () => {
    for (const map of mapsOf(core, points)) moved.push(await writeMap(core, map));
    for (const { record } of points) await writePoint(core, record);
  });
  for (const settle of moved) settle();
  await core.catalog.setSealed(points.map(({ record }) => record.id));
  await core.journal.advance(segment.sequence + 1);
  if (await core.disk.exists(segment.path)) await core.disk.remove(segment.path);
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
  const path = paths.pack(segment.id);
  const buffers = encodeFooter(segment.table.sorted(), segment.size, segment.seal);
  const fileBytes = buffers.reduce((sum, buffer) => sum + buffer.length, segment.size);
  if (!(await isPublished(core, segment, path, fileBytes))) {
    await writeFooter(core, segment, buffers, fileBytes);
    await makeFolder(disk, dirname(path));
    await disk.link(segment.path, path);
  }
  await disk.syncDirectory(dirname(path));
  const sums = sumOf(segment.table.entries());
  core.packs.update(segment.pack, { path, isPublished: true, fileBytes, ...sums });
}

/**
 * True where sealing was cut short after the link. One that has been damaged since loses its name and is
 * published anew: the segment was read through when the journal was brought back.
 */
async function isPublished(
  core: Core,
  segment: Segment,
  path: string,
  fileBytes: number,
): Promise<boolean> {
  if (!(await core.disk.exists(path))) return false;
  try {
    const found = await readPack(core.files, path);
    const entries = found.footer.length / TABLE_ENTRY_BYTES;
    if (found.fileBytes === fileBytes && entries === segment.table.count) return true;
  } catch (error) {
    if (!isDamage(error)) throw error;
  }
  core.log.warn('a pack is damaged and made again from the journal', { path });
  await core.disk.remove(path);
  return false;
}

/** Behind the end record; whatever lies there since a failed or interrupted try is overwritten or goes. */
async function writeFooter(
  core: Core,
  { file, size }: Segment,
  buffers: readonly Uint8Array[],
  fileBytes: number,
): Promise<void> {
  await file.write(buffers, size);
  if ((await file.size()) > fileBytes) await file.truncate(fileBytes);
  try {
    await file.sync();
  } catch (error) {
    throw core.journal.fail(error); // a segment whose sync has failed is not trusted again
  }
}

/** Staged maps of the points; oldest first for each volume. */
function mapsOf(core: Core, points: readonly StagedPoint[]): StagedMap[] {
  const volumes = [...core.servers.values()].flatMap((server) => [...server.volumes.values()]);
  const commits = new Set(points.map(({ record }) => record.sequence));
  return volumes.flatMap(({ staged }) => staged).filter(({ info }) => commits.has(info.sequence));
}

/** Returns what is to be done once the name is durable. */
async function writeMap(core: Core, map: StagedMap): Promise<() => void> {
  const { disk } = core;
  const { from, to } = map.info;
  const path = core.paths.delta(map.info, from, to);
  if (await isCovered(core, map.info, to)) {
    for (const folder of [core.paths.deltaFolder(map.info), core.paths.baseFolder(map.info)]) {
      if (await disk.exists(folder)) await disk.syncDirectory(folder);
    }
    return nothing;
  }
  if (await disk.exists(path)) {
    core.log.warn('a stale map is replaced', { path });
    await disk.remove(path);
    await core.files.drop(path);
  }
  if (map.file === null) {
    const temporary = temporaryPath(core);
    await writeDeltaFile(core, map, temporary);
    await publish(disk, temporary, path);
    return nothing;
  }
  const { file } = map;
  // It is the only copy of the map: it stays where it is until it has its name.
  await makeFolder(disk, dirname(path));
  await disk.rename(file.path, path);
  await disk.syncDirectory(dirname(path));
  const relocate = () => file.relocate(path);
  if (disk.together !== undefined) return relocate;
  relocate();
  return nothing;
}

const nothing = (): void => undefined;

/** True where the repository's maps lead to the epoch, in whatever shape. */
export async function isCovered(core: Core, place: MapPlace, epoch: number): Promise<boolean> {
  const { bases, deltas } = await listMaps(core, place);
  const covering = [
    ...bases.filter((base) => base >= epoch).map((base) => core.paths.base(place, base)),
    ...deltas
      .filter(({ from, to }) => from < epoch && to >= epoch)
      .map(({ from, to }) => core.paths.delta(place, from, to)),
  ];
  if (core.terms.isEmpty) return covering.length > 0;
  for (const path of covering) if (!(await isStaleMap(core, path))) return true;
  return false;
}

/** True for a map that a service has written which had lost the repository. */
async function isStaleMap(core: Core, path: string): Promise<boolean> {
  try {
    return core.terms.isStale((await readHead(core, path)).sequence);
  } catch (error) {
    if (!isDamage(error)) throw error;
    return false; // its name counts, as everywhere; check tells of the damage
  }
}

/** The repository has the maps up to `head`: what memory and runs held of them may go. */
async function sealed(core: Core, head: VolumeHead): Promise<void> {
  const state = core.servers.get(head.server)?.volumes.get(head.volume);
  if (state === undefined) return;
  state.sealed = head;
  const isDone = ({ info }: StagedMap) => info.sequence <= head.sequence;
  const done = state.staged.filter(isDone);
  state.staged = state.staged.filter((map) => !isDone(map));
  for (const run of done.flatMap(({ runs }) => runs)) await discard(core.disk, run.path);
}
