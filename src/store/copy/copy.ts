/**
 * Copies recovery points to another repository: other disk, other region, other provider. Each point goes
 * over with the contents that the destination lacks, then its maps, then the point itself, each durable
 * before the next: at any instant every point at the destination is whole, and what a copy that was cut
 * short has left counts for the next one. Names and roots are the same at both places.
 *
 * Runs beside replication and upkeep of the source, in no lane of theirs. A point is held against
 * retention while it is copied; one that goes before its turn is left out. So is one that the source
 * cannot give wholly: it is told, and the others are copied.
 */

import { sleep } from '../../base/clock.ts';
import { UnderstudyError } from '../../base/errors.ts';
import { TokenBucket } from '../../base/token-bucket.ts';
import { type Core, temporaryPath } from '../core.ts';
import { loadHeads } from '../create-core.ts';
import { toHex } from '../format/checksum.ts';
import { makeFolder } from '../format/object-file.ts';
import { isNotFound } from '../format/object-header.ts';
import { hold } from '../images/directory-reader.ts';
import { isS3Place } from '../objects/s3-settings.ts';
import type { CopyNote } from '../points/copy-notes.ts';
import { decodePointObject, type PointRecord } from '../points/point-format.ts';
import { readCondemned } from '../repository/condemned.ts';
import * as repository from '../repository/repository.ts';
import { copyPolicies } from '../retention/policies.ts';
import { dropPoints, planByRules } from '../retention/retention.ts';
import type { CopyOptions, CopyPlace, CopyReport, SkippedPoint } from '../types.ts';
import { collectGarbage, mergeSmallPacks } from '../upkeep/collect.ts';
import { ContentCopier, fromSource, HurtSource } from './copy-contents.ts';
import { copyHolds } from './copy-holds.ts';
import { MapCopier } from './copy-maps.ts';
import { selectPoints } from './copy-select.ts';
import { type CopyTarget, openCopyTarget } from './copy-target.ts';
import { verifyAll, verifyNew } from './copy-verify.ts';

/** What was copied gets its names when so much has come together, or after this time. */
const FLUSH_BYTES = 64 * 1024 * 1024;
const FLUSH_MAP_BYTES = 8 * 1024 * 1024;
const FLUSH_OBJECTS = 512;
const FLUSH_MS = 10_000;

/**
 * `source`: the store's own core, or one that was opened for reading. ERR_COPY_PLACE, ERR_COPY_FOREIGN,
 * what the destination's disk says (ERR_DISK_FULL, ...), and whatever `options.signal` was aborted with:
 * what was copied by then stays, and counts at the next run.
 */
export async function copyPoints(
  source: Core,
  place: CopyPlace,
  options: CopyOptions,
): Promise<CopyReport> {
  const id = await repository.readFormat(source.disk, source.paths);
  if (id === null) throw new UnderstudyError('ERR_DATA_FORMAT', 'the source is no repository');
  await assertNotLost(source, place, options);
  const target = await openCopyTarget(source, id, place);
  let isInOrder = false;
  try {
    const report = await new CopyRun(source, place, target, options).run();
    isInOrder = true;
    return report;
  } finally {
    await target.close(isInOrder);
  }
}

/** A place that held a copy and is empty now is more often a disk that is not mounted than a wish. */
async function assertNotLost(source: Core, place: CopyPlace, options: CopyOptions): Promise<void> {
  const note = source.copyNotes.at(place.name);
  if (note === null || options.anew === true) return;
  if (await place.disk.exists(`${place.repo}/format.json`)) return;
  const message = `${place.name}: the copy that was here (${note.repository}) is gone`;
  throw new UnderstudyError('ERR_COPY_LOST', message, { path: place.name });
}

class CopyRun {
  private readonly source: Core;
  private readonly place: CopyPlace;
  private readonly target: CopyTarget;
  private readonly options: CopyOptions;
  private readonly contents: ContentCopier;
  private readonly maps: MapCopier;
  private readonly bucket: TokenBucket;
  private readonly startMs: number;
  private bytesRead = 0;
  private bytesWritten = 0;
  private copied = 0;
  private total = 0;
  /** Staged, and not published yet. */
  private waiting: PointRecord[] = [];
  private readonly skipped: SkippedPoint[] = [];
  private flushed = { bytes: 0, atMs: 0 };

  constructor(source: Core, place: CopyPlace, target: CopyTarget, options: CopyOptions) {
    this.source = source;
    this.place = place;
    this.target = target;
    this.options = options;
    const { clock } = source;
    this.startMs = clock.monotonicMs();
    this.bucket = new TokenBucket(options.bytesPerSecond ?? 0, this.startMs);
    const spend = (bytes: { read: number; written: number }) => this.spend(bytes);
    this.contents = new ContentCopier(source, target.core, spend);
    this.maps = new MapCopier(source, target.core, this.contents, spend);
    this.flushed = { bytes: 0, atMs: this.startMs };
  }

  async run(): Promise<CopyReport> {
    const { source, target, options } = this;
    const nowMs = source.clock.wallMs();
    const before = new Set([...target.core.packs.all()].map(({ number }) => number));
    const { points, unsealed } = await selectPoints(
      ...([source, target.core, options, options.keep, nowMs] as const),
    );
    this.total = points.length;
    try {
      for (const point of points) await this.copyPoint(point);
      await this.flush();
    } catch (error) {
      await this.giveUp();
      throw error;
    }
    const isNew = ({ number }: { number: number }) => !before.has(number);
    const packs = [...target.core.packs.all()].filter(isNew).map(({ path }) => path);
    const verified = await this.verify(packs);
    const kept = await this.keepHouse(nowMs);
    const isNoted = await this.note(verified, nowMs);
    const { copied, maps, contents, bytesRead, bytesWritten, skipped } = this;
    return {
      ...{ place: this.place.name, repository: target.id, points: copied, unsealed, skipped },
      held: (await target.core.catalog.pointNames()).length,
      ...{ maps: maps.maps, pieces: contents.pieces, bytesRead, bytesWritten, ...kept },
      ...{ verified, isNoted },
      tookMs: Math.round(source.clock.monotonicMs() - this.startMs),
    };
  }

  private async copyPoint({ id, server }: { id: string; server: string }): Promise<void> {
    this.options.signal?.throwIfAborted();
    const release = hold(this.source, id);
    try {
      const path = this.source.paths.point(server, id);
      const bytes = await fromSource(() => this.source.disk.readFile(path));
      const record = await fromSource(async () => decodePointObject(bytes, path));
      for (const volume of record.volumes) await this.maps.reach(server, volume);
      await this.maps.stageObject(bytes, this.target.core.paths.point(server, id));
      this.waiting.push(record);
    } catch (error) {
      await this.skip(id, server, error);
    } finally {
      release();
    }
    this.tell();
    if (this.isFlushDue()) await this.flush();
  }

  /** Throws what is not about this one point of the source. */
  private async skip(point: string, server: string, error: unknown): Promise<void> {
    if (!(error instanceof HurtSource) && !isNotFound(error)) throw error;
    await this.contents.forget();
    const isThere = await this.source.disk.exists(this.source.paths.point(server, point));
    if (isThere && !(error instanceof HurtSource)) throw error;
    const detail = isThere ? error.message : 'it was dropped before its turn';
    this.skipped.push({ point, server, reason: isThere ? 'damaged' : 'dropped', detail });
    if (isThere) this.source.log.error('a point cannot be copied', { point, reason: detail });
  }

  private isFlushDue(): boolean {
    const { bytes, atMs } = this.flushed;
    const { waiting } = this.maps;
    return (
      this.bytesWritten - bytes > FLUSH_BYTES ||
      waiting.objects > FLUSH_OBJECTS ||
      waiting.bytes > FLUSH_MAP_BYTES ||
      this.source.clock.monotonicMs() - atMs > FLUSH_MS
    );
  }

  /** Contents, then maps and points: all that was staged is there, durably. */
  private async flush(): Promise<void> {
    await this.contents.publish();
    await this.maps.publish();
    const { catalog, index, settings } = this.target.core;
    for (const record of this.waiting) await catalog.putPoint(record, 'sealed');
    this.copied += this.waiting.length;
    this.waiting = [];
    const temporary = () => temporaryPath(this.target.core);
    if (index.publishedCount > settings.indexMemoryEntries) await index.flush(temporary());
    while (await index.merge(temporary()));
    this.flushed = { bytes: this.bytesWritten, atMs: this.source.clock.monotonicMs() };
    this.tell();
  }

  /** What has no name goes; what has one is noted, so that it is known where it is held. */
  private async giveUp(): Promise<void> {
    await this.contents.abandon().catch(() => undefined);
    await this.maps.abandon();
    if (this.copied === 0) return;
    // Whoever called is told of the first failure; the next run writes the note.
    await this.note(null, this.source.clock.wallMs()).catch(() => undefined);
  }

  private async verify(packs: readonly string[]): Promise<CopyReport['verified']> {
    const { core } = this.target;
    const { verify = 'none' } = this.options;
    if (verify === 'none') return null;
    if (verify === 'all') return verifyAll(core);
    return verifyNew(core, packs, this.maps.published, (read) => this.spend({ read, written: 0 }));
  }

  /** The destination's own retention and collection; nothing where nothing is due. */
  private async keepHouse(nowMs: number): Promise<{ dropped: number; freedBytes: number }> {
    const { core } = this.target;
    await loadHeads(core);
    await copyHolds(this.source, core);
    await copyPolicies(this.source, core);
    const { keep, isDropping = true } = this.options;
    const plan =
      keep === undefined || !isDropping ? { drop: [] } : await planByRules(core, keep, nowMs);
    const gone = plan.drop.length === 0 ? [] : await dropPoints(core, plan);
    await mergeSmallPacks(core);
    if (gone.length === 0 && !(await isCollectionDue(core, nowMs))) {
      return { dropped: 0, freedBytes: 0 };
    }
    const { freedBytes } = await collectGarbage(core);
    return { dropped: gone.length, freedBytes };
  }

  /**
   * Says at the source what is held there. A source that cannot be written to has no note of it: that is
   * told, and does not undo the copy.
   */
  private async note(verified: CopyReport['verified'], timeMs: number): Promise<boolean> {
    const { source, target } = this;
    const former = source.copyNotes.of(target.id);
    const points = (await target.core.catalog.pointNames()).map(({ id }) => id);
    const note: CopyNote = {
      ...{ place: this.place.name, repository: target.id, timeMs },
      ...verifiedTimes(points, former, verified, {
        isAll: this.options.verify === 'all',
        wasWhole: former === null ? target.isNew : former.verifiedMs !== null,
        timeMs,
      }),
    };
    try {
      await source.copyNotes.write(source, await temporaryName(source), note);
      return true;
    } catch (error) {
      if (!(error instanceof UnderstudyError)) throw error;
      const fields = { place: this.place.name, error: error.message };
      source.log.warn('the source cannot be told of its copy', fields);
      return false;
    }
  }

  private async spend({ read, written }: { read: number; written: number }): Promise<void> {
    const { clock } = this.source;
    this.bytesRead += read;
    this.bytesWritten += written;
    this.bucket.take(Math.max(read, written), clock.monotonicMs());
    for (;;) {
      this.options.signal?.throwIfAborted();
      const waitMs = this.bucket.waitMs(clock.monotonicMs());
      if (waitMs === 0) break;
      await sleep(clock, Math.min(waitMs, 1000));
    }
    this.tell();
  }

  private tell(): void {
    const { bytesRead, bytesWritten, copied, waiting, total } = this;
    const points = copied + waiting.length + this.skipped.length;
    this.options.onProgress?.({ points, ofPoints: total, bytesRead, bytesWritten });
  }
}

/** True where a condemned pack has waited for its time. */
async function isCollectionDue(core: Core, nowMs: number): Promise<boolean> {
  const since = [...(await readCondemned(core)).values()];
  return since.some((ms) => ms === null || nowMs - ms >= core.settings.graceMs);
}

/**
 * All that is there counts as read back where all of it was; after a run that read back only its own,
 * where all was read back before too.
 */
function verifiedTimes(
  points: readonly string[],
  former: CopyNote | null,
  verified: CopyReport['verified'],
  { isAll, wasWhole, timeMs }: { isAll: boolean; wasWhole: boolean; timeMs: number },
): Pick<CopyNote, 'verifiedMs' | 'points'> {
  const isClean = verified !== null && verified.findings.length === 0;
  const isWhole = isClean && (isAll || wasWhole);
  const timeOf = (id: string): number | null => {
    if (isClean && isAll) return timeMs;
    const before = former?.points.get(id);
    if (before !== undefined) return before;
    return isWhole ? timeMs : null;
  };
  return {
    verifiedMs: isWhole ? timeMs : null,
    points: new Map(points.map((id) => [id, timeOf(id)])),
  };
}

/**
 * Of a note. The temporary folder is the service's own: whoever writes beside one has a name that is
 * ignored. Of a repository in a bucket it is a local folder of this process.
 */
async function temporaryName(core: Core): Promise<string> {
  if (!core.isReadOnly) return temporaryPath(core);
  if (isS3Place(core.paths.repo)) {
    await makeFolder(core.disk, core.paths.temporary);
    return temporaryPath(core);
  }
  await makeFolder(core.disk, core.paths.copies);
  return `${core.paths.copies}/${toHex(core.randomBytes(8))}.temporary`;
}
