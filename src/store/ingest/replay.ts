/**
 * Brings the journal back after a restart (P4): every acknowledged record is there, or the store refuses
 * to start. Above the watermark damage is a torn tail, which is cut off together with everything after
 * it; below it, it is corruption: ERR_JOURNAL_DAMAGED, and nothing is changed.
 *
 * Redoing is harmless: entries laid over twice change nothing, and a committed epoch that the repository
 * covers already is only noted. Read-only (offline.ts) it changes no file at all.
 */
import { UnderstudyError } from '../../base/errors.ts';
import { decodeEntries } from '../../model/entry-codec.ts';
import { headsOf } from '../catalog/catalog.ts';
import { type Core, type StagedMap, serverState, type VolumeState, volumeState } from '../core.ts';
import { OpenEpoch } from '../journal/open-epoch.ts';
import type { Mark, Watermark } from '../journal/watermark.ts';
import type { LeafFile } from '../leaves/leaf-file.ts';
import { composedLeaves } from '../leaves/leaf-source.ts';
import { MapBuilder } from '../maps/map-builder.ts';
import {
  decodeCursorRecord,
  decodeVolumeRecord,
  RECORD_COMMIT,
  RECORD_CURSOR,
  RECORD_ENTRIES,
  RECORD_GRANT,
  RECORD_VOLUME,
  recordHandle,
} from '../packs/record.ts';
import { type ScanEnd, type Scanned, scanRecords } from '../packs/scan.ts';
import { type OpenEpochName, Segment } from '../packs/segment.ts';
import { type CommittedVolume, decodePointBody, type PointRecord } from '../points/point-format.ts';
import { settleNames } from '../repository/settle-names.ts';
import { isCovered } from './sealer.ts';
import { spillWhereLarge } from './spill.ts';

/** Runs that were found in journal/open, by the open epoch that they are of. */
export class RunShelf {
  private readonly runs = new Map<string, LeafFile[]>();

  add(run: LeafFile): void {
    const key = keyOf({ ...run.info, epoch: run.info.to });
    this.runs.set(key, [...(this.runs.get(key) ?? []), run]);
  }

  take(name: OpenEpochName): LeafFile[] {
    const key = keyOf(name);
    const found = this.runs.get(key) ?? [];
    this.runs.delete(key);
    return found;
  }

  /** What belongs to no epoch that is open. */
  rest(): LeafFile[] {
    return [...this.runs.values()].flat();
  }
}

const keyOf = (name: OpenEpochName): string =>
  JSON.stringify([
    name.server,
    name.volume,
    name.generation,
    name.epoch,
    name.sizeBytes,
    name.sectorBytes,
  ]);

const REWRITE_BYTES = 1024 * 1024;

const journalDamaged = (path: string, detail: string, offset = 0): UnderstudyError =>
  new UnderstudyError('ERR_JOURNAL_DAMAGED', `${path}: ${detail} (at ${offset})`, { path, offset });

/** A record with a right checksum that still says nothing sensible. */
const malformed: readonly string[] = ['ERR_OBJECT_DAMAGED', 'ERR_ENTRIES_INVALID'];

interface Replayed {
  /** All of them ended and durable, ascending; to be sealed. */
  readonly segments: Segment[];
  readonly nextSequence: number;
}

const sequenceOf = (name: string): number | null => {
  const match = /^(\d{16})\.segment$/.exec(name);
  return match === null ? null : Number(match[1]);
};

export class Replay {
  private readonly core: Core;
  private readonly watermark: Watermark;
  private readonly shelf: RunShelf;
  private readonly segments: Segment[] = [];

  constructor(core: Core, watermark: Watermark, shelf: RunShelf) {
    this.core = core;
    this.watermark = watermark;
    this.shelf = shelf;
  }

  async run(): Promise<Replayed> {
    try {
      return await this.replayAll();
    } catch (error) {
      for (const { file } of this.segments) await file.close();
      throw error;
    }
  }

  private async replayAll(): Promise<Replayed> {
    if (!this.core.isReadOnly) {
      await settleNames(this.core);
      await this.watermark.settle();
    }
    const { mark } = this.watermark;
    const sequences = await this.sequences(mark);
    let isCut = false;
    for (const sequence of sequences) {
      if (isCut) await this.discard(sequence);
      else isCut = await this.replaySegment(sequence, mark);
    }
    const last = this.segments.at(-1);
    if (!this.core.isReadOnly) {
      // What comes after a torn tail goes for good before the tail looks whole: it lies over a hole.
      await this.core.disk.syncDirectory(this.core.paths.journal);
      if (last !== undefined) await this.finish(last);
    }
    const highest = Math.max(mark.last, last?.sequence ?? 0);
    return { segments: this.segments, nextSequence: highest + 1 };
  }

  /** Segments to be replayed; finished ones are removed, missing ones are damage. */
  private async sequences(mark: Mark): Promise<number[]> {
    const { disk, paths } = this.core;
    const names = await disk.list(paths.journal);
    const found = names.map(({ name }) => sequenceOf(name)).filter((n) => n !== null);
    for (let wanted = mark.first; wanted <= mark.last; wanted += 1) {
      if (!found.includes(wanted)) throw journalDamaged(paths.segment(wanted), 'it is missing');
    }
    for (const sequence of found.filter((n) => n < mark.first)) await this.discard(sequence);
    return found.filter((n) => n >= mark.first).sort((a, b) => a - b);
  }

  private async discard(sequence: number): Promise<void> {
    if (!this.core.isReadOnly) await this.core.disk.remove(this.core.paths.segment(sequence));
  }

  /** True where the segment was cut: nothing after it counts. */
  private async replaySegment(sequence: number, mark: Mark): Promise<boolean> {
    const path = this.core.paths.segment(sequence);
    const file = await this.core.disk.open(path, this.core.isReadOnly ? 'read' : 'write');
    const acknowledged =
      sequence < mark.last ? Number.POSITIVE_INFINITY : sequence === mark.last ? mark.offset : 0;
    const segment = await this.openSegment(file, sequence, path);
    if (segment === null) {
      await file.close();
      if (acknowledged > 0) throw journalDamaged(path, 'its header is damaged');
      await this.discard(sequence);
      return true;
    }
    const end = await this.apply(segment);
    const isWhole = end.isEnded || end.end >= acknowledged;
    if (!isWhole) {
      await file.close();
      throw journalDamaged(path, end.damage || 'it was cut short', end.end);
    }
    segment.size = end.end;
    segment.isEnded = end.isEnded;
    this.segments.push(segment);
    if (end.damage !== '') {
      this.core.log.warn('journal: a torn tail was cut off', { path, offset: end.end });
      if (!this.core.isReadOnly) await file.truncate(end.end);
    }
    return !end.isEnded;
  }

  private async openSegment(
    file: Segment['file'],
    sequence: number,
    path: string,
  ): Promise<Segment | null> {
    try {
      const { header, seal } = await this.core.vault.openPack(file);
      const { id, sequence: own } = header;
      if (own !== sequence) return null;
      const { packs, index } = this.core;
      const unsealed = { id, path, fileBytes: 0, isPublished: false };
      const sums = { pieces: 0, rawBytes: 0, storedBytes: 0 };
      const { number: pack } = packs.byId(id) ?? packs.add({ ...unsealed, ...sums });
      const table = index.addSegment(pack);
      return new Segment({ sequence, id, path, file, seal, table, pack, size: seal.headerBytes });
    } catch (error) {
      if (error instanceof UnderstudyError && error.code === 'ERR_OBJECT_DAMAGED') return null;
      throw error;
    }
  }

  private async apply(segment: Segment): Promise<ScanEnd> {
    const handles = new Map<number, OpenEpochName>();
    const { seal, file } = segment;
    const records = scanRecords(file, { seal, names: this.core.names });
    for (;;) {
      const next = await records.next();
      if (next.done === true) return next.value;
      try {
        await this.applyOne(segment, handles, next.value);
      } catch (error) {
        if (!(error instanceof UnderstudyError) || !malformed.includes(error.code)) throw error;
        throw journalDamaged(segment.path, error.message, next.value.offset);
      }
    }
  }

  private async applyOne(
    segment: Segment,
    handles: Map<number, OpenEpochName>,
    found: Scanned,
  ): Promise<void> {
    if (found.kind === 'piece') {
      const { piece, offset } = found;
      const isGrant = piece.type === RECORD_GRANT;
      segment.table.add({ ...piece, offset, isGrant, pack: segment.pack });
      return;
    }
    const { type, body } = found;
    if (type === RECORD_VOLUME) {
      const { handle, ...name } = decodeVolumeRecord(body, segment.path);
      handles.set(handle, name);
      this.open(name);
    } else if (type === RECORD_ENTRIES) {
      const state = this.byHandle(handles, recordHandle(body, segment.path), segment.path);
      state.open!.apply(decodeEntries(body.subarray(4)), segment.sequence);
      if (!this.core.isReadOnly) await spillWhereLarge(this.core, state);
    } else if (type === RECORD_CURSOR) {
      const [handle, synced] = decodeCursorRecord(body, segment.path);
      const { open } = this.byHandle(handles, handle, segment.path);
      open!.moveCursor(synced, segment.sequence);
    } else if (type === RECORD_COMMIT) {
      await this.commit(decodePointBody(body, segment.path), segment.sequence);
    }
  }

  private byHandle(handles: Map<number, OpenEpochName>, handle: number, path: string): VolumeState {
    const name = handles.get(handle);
    if (name === undefined) throw journalDamaged(path, `handle ${handle} was never declared`);
    return this.open(name);
  }

  /** The volume's state with the open epoch `name`; another one that was open is dropped. */
  private open(name: OpenEpochName): VolumeState {
    const server = serverState(this.core, name.server);
    const state = volumeState(server, name.volume);
    if (state.open === null || keyOf(state.open.name) !== keyOf(name)) {
      for (const run of state.open?.runFiles ?? []) this.shelf.add(run);
      state.open = new OpenEpoch(name, this.shelf.take(name));
    }
    return state;
  }

  private async commit(record: PointRecord, segment: number): Promise<void> {
    if (this.core.terms.isStale(record.sequence)) return this.leaveOut(record);
    for (const [i, head] of headsOf(record).entries()) {
      const volume = record.volumes[i]!;
      const { generation, epoch, sizeBytes, sectorBytes } = volume;
      const { server } = record;
      const name = { server, volume: volume.volume, generation, epoch, sizeBytes, sectorBytes };
      const state = this.open(name);
      const open = state.open!;
      if (!(await this.isSealed(name))) {
        state.staged.push(await this.rebuild(open, record, volume));
      } else {
        for (const run of open.runFiles) this.shelf.add(run);
      }
      state.open = null;
      if (state.head === null || state.head.sequence <= head.sequence) state.head = head;
    }
    this.core.staged.set(record.id, { record, segment });
    this.core.nextSequence = Math.max(this.core.nextSequence, record.sequence + 1);
    await this.core.catalog.putPoint(record, 'staged');
  }

  /** Another service has had the repository since: what was committed here does not count. */
  private leaveOut({ id, server, volumes }: PointRecord): void {
    this.core.log.error('a point was committed after another service had taken the repository', {
      ...{ point: id, server },
    });
    for (const { volume } of volumes) {
      const state = this.core.servers.get(server)?.volumes.get(volume);
      for (const run of state?.open?.runFiles ?? []) this.shelf.add(run);
      if (state !== undefined) state.open = null;
    }
  }

  private isSealed(name: OpenEpochName): Promise<boolean> {
    return isCovered(this.core, name, name.epoch);
  }

  /** The epoch's map from its entries; its root must be the one that was acknowledged. */
  private async rebuild(
    open: OpenEpoch,
    { sequence, timeMs }: PointRecord,
    { previousRoot, contentDigest, chainRoot, epoch, volume }: CommittedVolume,
  ): Promise<StagedMap> {
    const { epoch: to, ...place } = open.name;
    const span = { from: to - 1, to, sequence, timeMs };
    const builder = new MapBuilder(this.core, { ...place, ...span, previousRoot, contentDigest });
    for await (const { leaf, bytes } of composedLeaves(open.sources())) {
      await builder.add(leaf, bytes);
    }
    const map = await builder.finish(open);
    if (map.info.root === chainRoot) return map;
    const context = { volume, epoch };
    const message = 'what was committed cannot be made again from the journal';
    throw new UnderstudyError('ERR_JOURNAL_DAMAGED', message, context);
  }

  /** Ends the last segment and moves the watermark over all that was found. */
  private async finish(segment: Segment): Promise<void> {
    const { mark } = this.watermark;
    await writeAgain(segment, mark.last === segment.sequence ? mark.offset : 0);
    if (!segment.isEnded) await segment.end();
    await segment.file.sync();
    if (mark.last === segment.sequence && mark.offset >= segment.size) return;
    await this.watermark.update({ last: segment.sequence, offset: segment.size });
  }
}

/**
 * Writes the records from `offset` on once more, as they are. Where their sync has failed in a former life
 * the system reads them well and has forgotten that they are not on the disk: another sync would succeed
 * and write nothing.
 */
async function writeAgain({ file, size }: Segment, offset: number): Promise<void> {
  const buffer = new Uint8Array(REWRITE_BYTES);
  for (let at = offset; at < size; at += buffer.length) {
    const part = buffer.subarray(0, Math.min(buffer.length, size - at));
    await file.read(part, at);
    await file.write([part], at);
  }
}
